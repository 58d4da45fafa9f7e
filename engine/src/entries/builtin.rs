//! The entries that every worker has: echo, health, compute.

use std::sync::OnceLock;
use std::time::Instant;

use molt_ipc_shm::Codec;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::body::{self, Body};
use crate::failure::Failure;

use super::{Output, Run};

/// A built-in entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// Answers its payload.
    Echo,
    /// Answers the worker's state.
    Health,
    /// Counts, sums and scales numbers.
    Compute,
}

/// Every one.
pub const ALL: [Builtin; 3] = [Builtin::Echo, Builtin::Health, Builtin::Compute];

impl Builtin {
    /// What clients call it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Health => "health",
            Self::Compute => "compute",
        }
    }

    /// Runs it.
    pub fn run(self, run: &mut Run<'_>) -> Result<Output, Failure> {
        match self {
            Self::Echo => Ok(Output::Payload),
            Self::Health => health(run),
            Self::Compute => compute(run),
        }
    }
}

/// When the worker began; set at its start.
pub static STARTED: OnceLock<Instant> = OnceLock::new();
/// The hash of the manifest that it serves; set at its start.
pub static MANIFEST: OnceLock<u64> = OnceLock::new();

#[derive(Serialize)]
struct Health<'a> {
    status: &'a str,
    pid: u32,
    uptime_s: f64,
    queued: usize,
    version: &'a str,
    manifest: Option<String>,
}

fn health(run: &mut Run<'_>) -> Result<Output, Failure> {
    let host = run.request.host();
    let degraded = host.overdue.load(std::sync::atomic::Ordering::Relaxed) > 0;
    let health = Health {
        status: if degraded { "degraded" } else { "ok" },
        pid: std::process::id(),
        uptime_s: STARTED.get_or_init(Instant::now).elapsed().as_secs_f64(),
        queued: host.queued.load(std::sync::atomic::Ordering::Relaxed),
        version: env!("CARGO_PKG_VERSION"),
        manifest: MANIFEST.get().map(|hash| format!("{hash:016x}")),
    };
    // Raw and Arrow have no form of their own for a state; JSON is what a person reads.
    let codec = if run.accept == Codec::MsgPack { Codec::MsgPack } else { Codec::Json };
    encode(codec, &health, 160)
}

/// A number that a double holds exactly: an integer beyond 2^53 is refused, not rounded.
#[derive(Clone, Copy)]
struct Exact(f64);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Exact;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Exact, E> {
                Ok(Exact(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Exact, E> {
                if value.unsigned_abs() > 1 << 53 {
                    return Err(E::custom(format!("integer {value} has no exact double; at most 2^53 is taken")));
                }
                Ok(Exact(value as f64))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Exact, E> {
                if value > 1 << 53 {
                    return Err(E::custom(format!("integer {value} has no exact double; at most 2^53 is taken")));
                }
                Ok(Exact(value as f64))
            }
        }
        deserializer.deserialize_any(Number)
    }
}

#[derive(Deserialize)]
struct Numbers {
    values: Vec<Exact>,
    scale: Option<Exact>,
    offset: Option<Exact>,
}

#[derive(Deserialize)]
struct Fixed {
    scale: Option<Exact>,
    offset: Option<Exact>,
}

#[derive(Serialize)]
struct Computed {
    count: usize,
    sum: f64,
    scaled: Vec<f64>,
}

/// `{"values", "scale" = 1, "offset" = 0}` -> `{"count", "sum": of the values, "scaled": value * scale + offset each}`.
fn compute(run: &mut Run<'_>) -> Result<Output, Failure> {
    const TAKES: &str = "json, msgpack";
    let invalid = |what: String| Failure::invalid(format!("entry \"compute\": {what}"));
    let fixed = run.request.params().map_err(body::bad_handle)?;
    let fixed: Fixed = match fixed.as_slice() {
        [] => Fixed { scale: None, offset: None },
        bytes => body::from_msgpack(bytes).map_err(|what| invalid(format!("params: {what}")))?,
    };
    let accept = run.accept;
    let numbers: Numbers = match body::read(run.request, run.scratch)? {
        Body::Bytes(Codec::MsgPack, bytes) => body::from_msgpack(bytes).map_err(invalid)?,
        Body::Bytes(Codec::Json, bytes) => serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?,
        Body::Bytes(codec, _) => return Err(body::wrong_codec("compute", codec, TAKES)),
        Body::Tables(..) => return Err(body::wrong_codec("compute", Codec::Arrow, TAKES)),
    };
    let scale = fixed.scale.or(numbers.scale).map_or(1.0, |exact| exact.0);
    let offset = fixed.offset.or(numbers.offset).map_or(0.0, |exact| exact.0);
    let sum: f64 = numbers.values.iter().map(|value| value.0).sum();
    let scaled: Vec<f64> = numbers.values.iter().map(|value| value.0 * scale + offset).collect();
    if accept == Codec::Json && !(sum.is_finite() && scaled.iter().all(|value| value.is_finite())) {
        return Err(invalid("the answer is not finite, and JSON has no such number; hint: ask for msgpack".into()));
    }
    match accept {
        Codec::MsgPack | Codec::Json => {
            // A double has nine bytes in MsgPack: the answer is written without growing.
            let room = scaled.len() * 9 + 64;
            encode(accept, &Computed { count: scaled.len(), sum, scaled }, room)
        }
        other => Err(body::wrong_codec("compute", other, TAKES)),
    }
}

fn encode(codec: Codec, value: &impl Serialize, room: usize) -> Result<Output, Failure> {
    let mut bytes = Vec::with_capacity(room);
    match codec {
        Codec::Json => serde_json::to_writer(&mut bytes, value).map_err(|error| error.to_string()),
        _ => rmp_serde::encode::write_named(&mut bytes, value).map_err(|error| error.to_string()),
    }
    .map_err(Failure::internal)?;
    Ok(Output::Bytes(codec, bytes))
}
