//! The C ABI between `molt_worker` and a library of native entries: version 1, every byte of it.
//!
//! A library exports one symbol, [`SYMBOL`], of type [`EntriesFn`]. It answers a table that lives as long as the
//! library stays loaded, and a host never unloads one. Everything else is plain data and function pointers, so entries
//! may be written in any language that can export a C function; the rest of this crate is the Rust side of it.
//!
//! Rules of a call:
//! - The host calls [`EntryDef::call`] from any thread, several at once. `request` and `reply` are valid for that call
//!   only.
//! - The entry writes its answer with [`Reply::write`], as often as it likes, and returns [`OUTCOME_OK`]; or it calls
//!   [`Reply::fail`] once and returns the same outcome. Bytes written before a failure are dropped by the host.
//! - No panic and no exception crosses the boundary, in either direction.
//! - New fields are only ever added at the end of [`Request`], [`Reply`] and [`Failure`]; their `size` says which are
//!   there.

use core::ffi::c_void;

/// The version in [`EntryTable::abi_version`] and in the name of [`SYMBOL`]. A host refuses any other.
pub const ABI_VERSION: u32 = 1;

/// The one symbol that a library exports, NUL-terminated for `dlsym`.
pub const SYMBOL: &[u8] = b"molt_entries_v1\0";

/// The type behind [`SYMBOL`]. Never answers null.
pub type EntriesFn = unsafe extern "C" fn() -> *const EntryTable;

/// MsgPack: the number of this codec on the wire and in [`Request::codec`]; bit `1 << CODEC_MSGPACK` in
/// [`EntryDef::codecs`].
pub const CODEC_MSGPACK: u32 = 1;
/// JSON, UTF-8.
pub const CODEC_JSON: u32 = 2;
/// Bytes as they are.
pub const CODEC_RAW: u32 = 3;
/// The bytes of an Arrow IPC stream.
pub const CODEC_ARROW: u32 = 4;

/// The answer was written.
pub const OUTCOME_OK: u32 = 0;
/// The request is wrong; the caller may see the message and the details.
pub const OUTCOME_INVALID_INPUT: u32 = 1;
/// The caller is gone: [`Request::cancelled`] said so.
pub const OUTCOME_CANCELLED: u32 = 4;
/// The entry has no room for this request now; sending it later may work.
pub const OUTCOME_BUSY: u32 = 5;
/// The time in [`Request::remaining_ns`] is up.
pub const OUTCOME_TIMEOUT: u32 = 6;
/// The entry is wrong, or the answer did not fit.
pub const OUTCOME_INTERNAL: u32 = 9;

/// Bytes that somebody else owns. `ptr` may be dangling when `len` is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub ptr: *const u8,
    pub len: usize,
}

impl Span {
    /// No bytes.
    pub const EMPTY: Span = Span::of(&[]);

    /// Borrows `bytes`; the caller keeps them alive for as long as the other side may read them.
    pub const fn of(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }

    /// The bytes.
    ///
    /// # Safety
    /// They must be readable and unchanged for all of `'a`, unless `len` is 0.
    pub const unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the caller's promise above.
        unsafe { core::slice::from_raw_parts(self.ptr, self.len) }
    }
}

/// What a library offers.
#[repr(C)]
#[derive(Debug)]
pub struct EntryTable {
    /// [`ABI_VERSION`]; look at nothing else where it differs.
    pub abi_version: u32,
    /// Always 0.
    pub reserved: u32,
    /// `count` definitions.
    pub entries: *const EntryDef,
    pub count: usize,
}

// SAFETY: a table is written by the compiler and never changed.
unsafe impl Sync for EntryTable {}

/// One entry.
#[repr(C)]
#[derive(Debug)]
pub struct EntryDef {
    /// UTF-8, what the manifest's `name` has to match.
    pub name: Span,
    /// The codecs that its requests may come in: bit `1 << CODEC_…` each.
    pub codecs: u32,
    /// Always 0.
    pub reserved: u32,
    /// Runs it; returns an `OUTCOME_…`.
    pub call: CallFn,
}

// SAFETY: as for EntryTable; the name's bytes are static.
unsafe impl Sync for EntryDef {}

/// # Safety
/// Both pointers are valid, and unshared for `reply`, until the function returns.
pub type CallFn = unsafe extern "C" fn(request: *const Request, reply: *mut Reply) -> u32;

/// What the host hands in. It stays as it is until the call returns; in particular `payload` lies in memory that no
/// other process can write (a private copy), so that it may be borrowed as text.
#[repr(C)]
#[derive(Debug)]
pub struct Request {
    /// `size_of::<Request>()` as the host was compiled.
    pub size: u32,
    /// The payload's codec, one that [`EntryDef::codecs`] names.
    pub codec: u32,
    /// The codec that the answer has to be in; 0 stands for the payload's.
    pub accept: u32,
    /// Always 0.
    pub reserved: u32,
    /// The request's body.
    pub payload: Span,
    /// What the server vouches for beside it: a MsgPack map, or empty.
    pub params: Span,
    /// The time that the entry has, from the moment it is called; 0: no limit. (Not a point in time: so neither side
    /// has to know the other's clock.)
    pub remaining_ns: u64,
    /// Handed to `cancelled`.
    pub host: *mut c_void,
    /// Not 0 once nobody waits for the answer. Cheap (an atomic load), to be called from the entry's thread.
    pub cancelled: unsafe extern "C" fn(host: *mut c_void) -> u32,
}

/// Where the answer goes.
#[repr(C)]
#[derive(Debug)]
pub struct Reply {
    /// `size_of::<Reply>()` as the host was compiled.
    pub size: u32,
    /// Always 0.
    pub reserved: u32,
    /// Handed to the three functions below.
    pub host: *mut c_void,
    /// A hint: about this many bytes will follow in all. May be left out.
    pub reserve: unsafe extern "C" fn(host: *mut c_void, total: usize),
    /// Appends to the answer. 0: taken. Else the answer does not fit: stop, and fail with [`OUTCOME_INTERNAL`].
    pub write: unsafe extern "C" fn(host: *mut c_void, data: *const u8, len: usize) -> u32,
    /// Ends the call in a failure. The host copies what it keeps.
    pub fail: unsafe extern "C" fn(host: *mut c_void, failure: *const Failure),
    /// Set by the entry: how often it took memory from its allocator on the calling thread.
    pub allocs: u64,
    /// Set by the entry: how many bytes that were, growth included.
    pub alloc_bytes: u64,
}

/// Why a call failed. Written for the caller: no paths, no stack traces.
#[repr(C)]
#[derive(Debug)]
pub struct Failure {
    /// `size_of::<Failure>()` as the library was compiled.
    pub size: u32,
    /// One of `OUTCOME_…`, never [`OUTCOME_OK`].
    pub outcome: u32,
    /// An HTTP status of the entry's choice (404, 409, 422), or 0: the outcome's usual one.
    pub status: u32,
    /// Always 0.
    pub reserved: u32,
    /// UTF-8.
    pub message: Span,
    /// A MsgPack value for programs, or empty.
    pub details: Span,
}
