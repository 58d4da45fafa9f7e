//! Native entries: shared libraries with the C ABI of `molt-entry`, loaded at start and never unloaded.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::time::Instant;

use libloading::Library;
use molt_entry::abi::{self, EntriesFn, EntryDef, Span};
use molt_ipc_shm::worker::Inflight;
use molt_ipc_shm::{Codec, Outcome};
use serde_json::Value;

use crate::alloc::Taken;
use crate::body;
use crate::failure::Failure;

use super::{Output, Ran, Run};

/// The largest answer that a library may write, bytes.
const ANSWER_MOST: usize = 256 << 20;

/// An entry of a library.
#[derive(Debug)]
pub struct NativeEntry {
    /// Its definition, in the library's memory.
    def: &'static EntryDef,
    takes: Vec<Codec>,
}

/// Loads the library and finds the entry of that name in it.
pub fn load(name: &str, library: &Path, manifest: &Path) -> Result<NativeEntry, String> {
    let path = find(library, manifest)?;
    let show = path.display();
    // SAFETY: loading runs the library's initialisers. The manifest is the operator's word that it may be run.
    let library = unsafe { Library::new(&path) }.map_err(|error| {
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        format!("field \"library\": {show}: {why}")
    })?;
    // SAFETY: the symbol's name carries the ABI's version; what has it has this type.
    let entries = unsafe { library.get::<EntriesFn>(abi::SYMBOL) }.map_err(|_| {
        format!(
            "field \"library\": {show} exports no molt_entries_v{0}: this worker speaks ABI version {0}; \
             hint: build it with the molt-entry of the same version",
            abi::ABI_VERSION
        )
    })?;
    // SAFETY: the ABI's contract: the function may be called from any thread and answers a table that is never null.
    let table = unsafe { &*entries() };
    if table.abi_version != abi::ABI_VERSION {
        let theirs = table.abi_version;
        return Err(format!("field \"library\": {show} has ABI version {theirs}, this worker {}", abi::ABI_VERSION));
    }
    // SAFETY: the table says that `count` definitions lie there for as long as the library stays loaded.
    let defs: &'static [EntryDef] = unsafe { std::slice::from_raw_parts(table.entries, table.count) };
    // A library is never unloaded: its definitions and code are used until the process ends.
    std::mem::forget(library);
    let name_of = |def: &EntryDef| {
        // SAFETY: a definition's name lives as long as the table.
        String::from_utf8_lossy(unsafe { def.name.bytes() }).into_owned()
    };
    let def = defs.iter().find(|def| name_of(def) == name).ok_or_else(|| {
        let there: Vec<String> = defs.iter().map(name_of).collect();
        format!("field \"name\": {show} has no entry of that name; it has {}", there.join(", "))
    })?;
    let all = [Codec::MsgPack, Codec::Json, Codec::Raw, Codec::Arrow];
    let takes = all.into_iter().filter(|codec| def.codecs & 1 << *codec as u32 != 0).collect();
    Ok(NativeEntry { def, takes })
}

/// Beside the manifest, then in the worker's own folder.
fn find(library: &Path, manifest: &Path) -> Result<PathBuf, String> {
    let beside = manifest.parent().unwrap_or(Path::new("")).join(library);
    let own = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(library)));
    let tried: Vec<PathBuf> = [Some(beside), own].into_iter().flatten().collect();
    // A path without a slash would be searched for in the system's folders.
    let there = tried.iter().find(|path| path.is_file()).and_then(|path| std::fs::canonicalize(path).ok());
    there.ok_or_else(|| {
        let tried: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
        format!("field \"library\": no such file; tried {}; hint: build it with `make build`", tried.join(" and "))
    })
}

/// Where a running entry's answer gathers.
struct Sink<'a> {
    request: &'a Inflight,
    answer: Vec<u8>,
    failure: Option<Failure>,
}

unsafe extern "C" fn cancelled(host: *mut c_void) -> u32 {
    // SAFETY: `host` is the sink of the call that is running.
    u32::from(unsafe { (*host.cast::<Sink<'_>>()).request.is_cancelled() })
}

unsafe extern "C" fn reserve(host: *mut c_void, total: usize) {
    // SAFETY: as for `cancelled`.
    unsafe { (*host.cast::<Sink<'_>>()).answer.reserve(total.min(ANSWER_MOST)) }
}

unsafe extern "C" fn write(host: *mut c_void, data: *const u8, len: usize) -> u32 {
    // SAFETY: as for `cancelled`; the entry promises `len` readable bytes.
    unsafe {
        let answer = &mut (*host.cast::<Sink<'_>>()).answer;
        if answer.len().saturating_add(len) > ANSWER_MOST {
            return 1;
        }
        answer.extend_from_slice(Span { ptr: data, len }.bytes());
    }
    0
}

unsafe extern "C" fn fail(host: *mut c_void, failure: *const abi::Failure) {
    // SAFETY: as for `cancelled`; the entry promises a valid failure for the time of this call.
    let (sink, failure) = unsafe { (&mut *host.cast::<Sink<'_>>(), &*failure) };
    // SAFETY: its spans are valid for the time of this call.
    let (message, details) = unsafe { (failure.message.bytes(), failure.details.bytes()) };
    let details = (!details.is_empty()).then(|| body::from_msgpack::<Value>(details).ok()).flatten();
    sink.failure = Some(Failure {
        outcome: outcome_of(failure.outcome),
        status: u16::try_from(failure.status).ok().filter(|status| (400..600).contains(status)),
        message: String::from_utf8_lossy(message).into_owned(),
        details,
    });
}

/// An outcome that an entry may choose; any other number is its own fault.
fn outcome_of(code: u32) -> Outcome {
    match code {
        abi::OUTCOME_INVALID_INPUT => Outcome::InvalidInput,
        abi::OUTCOME_CANCELLED => Outcome::Cancelled,
        abi::OUTCOME_BUSY => Outcome::Busy,
        abi::OUTCOME_TIMEOUT => Outcome::Timeout,
        _ => Outcome::Internal,
    }
}

impl NativeEntry {
    /// Runs it on a private copy of the body.
    pub fn run(&self, name: &str, run: &mut Run<'_>) -> Result<Ran, Failure> {
        let codec = body::codec(run.request)?;
        if !self.takes.contains(&codec) {
            let takes: Vec<&str> = self.takes.iter().map(|codec| codec.name()).collect();
            return Err(body::wrong_codec(name, codec, &takes.join(", ")));
        }
        let params = run.request.params().map_err(body::bad_handle)?;
        let payload = body::bytes(run.request, run.scratch)?;
        let mut sink = Sink { request: run.request, answer: Vec::new(), failure: None };
        let host: *mut c_void = (&raw mut sink).cast();
        let remaining = run.deadline.saturating_duration_since(Instant::now());
        let request = abi::Request {
            size: size_of::<abi::Request>() as u32,
            codec: codec as u32,
            accept: run.accept as u32,
            reserved: 0,
            payload: Span::of(payload),
            params: Span::of(&params),
            remaining_ns: remaining.as_nanos().clamp(1, u64::MAX as u128) as u64,
            host,
            cancelled,
        };
        let mut reply = abi::Reply {
            size: size_of::<abi::Reply>() as u32,
            reserved: 0,
            host,
            reserve,
            write,
            fail,
            allocs: 0,
            alloc_bytes: 0,
        };
        // SAFETY: request and reply live until the call returns; the payload is a private copy; the callbacks use the
        // sink through `host` alone, from this thread.
        let outcome = unsafe { (self.def.call)(&raw const request, &raw mut reply) };
        match (outcome, sink.failure) {
            (abi::OUTCOME_OK, None) => Ok(Ran {
                taken: Taken { allocs: reply.allocs, bytes: reply.alloc_bytes },
                ..Ran::from(Output::Bytes(run.accept, sink.answer))
            }),
            (_, Some(failure)) => Err(failure),
            (other, None) => {
                Err(Failure::new(outcome_of(other), format!("entry \"{name}\" ended with outcome {other}")))
            }
        }
    }
}
