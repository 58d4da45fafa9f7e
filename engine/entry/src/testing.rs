//! A host for tests: calls a library's entries through the ABI, as the worker does, in this process.

use std::ffi::c_void;
use std::time::Duration;

use serde::Serialize;

use crate::abi;
use crate::codec::{Codec, decode_msgpack};

/// A request for [`call`].
#[derive(Debug, Clone)]
pub struct Request {
    codec: Codec,
    accept: Option<Codec>,
    payload: Vec<u8>,
    params: Vec<u8>,
    remaining: Option<Duration>,
    cancelled: bool,
    room: usize,
}

impl Request {
    /// A request whose body is `payload`, as it is.
    pub fn new(codec: Codec, payload: impl Into<Vec<u8>>) -> Self {
        let (accept, params, remaining) = (None, Vec::new(), None);
        Self { codec, accept, payload: payload.into(), params, remaining, cancelled: false, room: usize::MAX }
    }

    /// A JSON body, as it is.
    pub fn json(body: impl Into<Vec<u8>>) -> Self {
        Self::new(Codec::Json, body)
    }

    /// A MsgPack body.
    ///
    /// # Panics
    /// When `value` cannot be serialised.
    pub fn msgpack(value: impl Serialize) -> Self {
        Self::new(Codec::Msgpack, rmp_serde::to_vec_named(&value).expect("a value that MsgPack can hold"))
    }

    /// The codec of the answer; else it is the body's.
    pub fn accept(mut self, codec: Codec) -> Self {
        self.accept = Some(codec);
        self
    }

    /// What the view passes beside the body.
    ///
    /// # Panics
    /// When `params` cannot be serialised.
    pub fn params(mut self, params: impl Serialize) -> Self {
        self.params = rmp_serde::to_vec_named(&params).expect("params that MsgPack can hold");
        self
    }

    /// The time that the entry has.
    pub fn remaining(mut self, time: Duration) -> Self {
        self.remaining = Some(time);
        self
    }

    /// The caller is gone already.
    pub fn cancelled(mut self) -> Self {
        self.cancelled = true;
        self
    }

    /// The host takes answers up to this many bytes.
    pub fn room(mut self, bytes: usize) -> Self {
        self.room = bytes;
        self
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It was answered; `allocs` and `alloc_bytes` are what the library counted, `reserved` is what it said would come.
    Ok { body: Vec<u8>, reserved: usize, allocs: u64, alloc_bytes: u64 },
    /// It failed: an `OUTCOME_…` of [`abi`], the HTTP status (0: the outcome's usual one), the message and the details
    /// (`Null` without any).
    Failed { outcome: u32, status: u32, message: String, details: serde_json::Value },
}

/// Calls the entry `name` of a library: `call(molt_entries_v1, "cart_total", &Request::json(...))`.
///
/// # Panics
/// When the library has no such entry, the entry does not take the request's codec, or it breaks the ABI's rules.
pub fn call(library: extern "C" fn() -> *const abi::EntryTable, name: &str, request: &Request) -> Answer {
    // SAFETY: a library's table is static (rule of the ABI), and so is all that it points to.
    let entries = unsafe {
        let table = &*library();
        assert_eq!(table.abi_version, abi::ABI_VERSION);
        std::slice::from_raw_parts(table.entries, table.count)
    };
    // SAFETY: static, as above.
    let entry = entries.iter().find(|entry| unsafe { entry.name.bytes() } == name.as_bytes());
    let entry = entry.unwrap_or_else(|| panic!("the library has no entry `{name}`"));
    assert_ne!(entry.codecs & request.codec.bit(), 0, "entry `{name}` does not take {:?}", request.codec);

    let mut host =
        Host { room: request.room, cancelled: request.cancelled, body: Vec::new(), reserved: 0, failure: None };
    let host_ptr = (&raw mut host).cast::<c_void>();
    let abi_request = abi::Request {
        size: size_of::<abi::Request>() as u32,
        codec: request.codec as u32,
        accept: request.accept.map_or(0, |codec| codec as u32),
        reserved: 0,
        payload: abi::Span::of(&request.payload),
        params: abi::Span::of(&request.params),
        remaining_ns: request.remaining.map_or(0, |time| (time.as_nanos() as u64).max(1)),
        host: host_ptr,
        cancelled: Host::cancelled,
    };
    let mut reply = abi::Reply {
        size: size_of::<abi::Reply>() as u32,
        reserved: 0,
        host: host_ptr,
        reserve: Host::reserve,
        write: Host::write,
        fail: Host::fail,
        allocs: 0,
        alloc_bytes: 0,
    };
    // SAFETY: both are valid until the call returns, and `host` is only used by the functions beside it.
    let outcome = unsafe { (entry.call)(&abi_request, &mut reply) };
    match host.failure {
        None => {
            assert_eq!(outcome, abi::OUTCOME_OK, "an entry that fails has to say why");
            let (allocs, alloc_bytes) = (reply.allocs, reply.alloc_bytes);
            Answer::Ok { body: host.body, reserved: host.reserved, allocs, alloc_bytes }
        }
        Some((told, status, message, details)) => {
            assert_eq!(outcome, told, "the outcome returned is the outcome told");
            Answer::Failed { outcome, status, message, details }
        }
    }
}

/// What the functions below are handed.
struct Host {
    room: usize,
    cancelled: bool,
    body: Vec<u8>,
    reserved: usize,
    failure: Option<(u32, u32, String, serde_json::Value)>,
}

impl Host {
    unsafe extern "C" fn cancelled(host: *mut c_void) -> u32 {
        // SAFETY: `call` handed this pointer out, and one function uses it at a time. The same holds below.
        unsafe { (*host.cast::<Host>()).cancelled.into() }
    }

    unsafe extern "C" fn reserve(host: *mut c_void, total: usize) {
        // SAFETY: see `cancelled`.
        unsafe { (*host.cast::<Host>()).reserved += total }
    }

    unsafe extern "C" fn write(host: *mut c_void, data: *const u8, len: usize) -> u32 {
        // SAFETY: see `cancelled`; the data are readable until this function returns (rule of the ABI).
        let (host, data) = unsafe { (&mut *host.cast::<Host>(), abi::Span { ptr: data, len }.bytes()) };
        if host.room - host.body.len() < len {
            return 1;
        }
        host.body.extend_from_slice(data);
        0
    }

    unsafe extern "C" fn fail(host: *mut c_void, failure: *const abi::Failure) {
        // SAFETY: see `cancelled`; the failure and its spans are readable until this function returns (rule of the
        // ABI).
        let (host, failure) = unsafe { (&mut *host.cast::<Host>(), &*failure) };
        // SAFETY: as above.
        let (message, details) = unsafe { (failure.message.bytes(), failure.details.bytes()) };
        let message = String::from_utf8(message.to_vec()).expect("a message in UTF-8");
        let details =
            if details.is_empty() { serde_json::Value::Null } else { decode_msgpack(details).expect("details") };
        let told = host.failure.replace((failure.outcome, failure.status, message, details));
        assert!(told.is_none(), "an entry fails once");
    }
}
