//! Write a native entry for `molt_worker`: a function, serde types, one macro.
//!
//! ```
//! use molt_entry::{Ctx, EntryError, json};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Cart<'a> {
//!     customer: &'a str, // borrowed from the request
//!     cents: Vec<u64>,
//! }
//!
//! #[derive(Serialize)]
//! struct Total<'a> {
//!     customer: &'a str,
//!     cents: u64,
//! }
//!
//! #[derive(Deserialize)]
//! struct Params {
//!     limit: Option<u64>, // what the Django view vouches for: `offload(request, ..., params={"limit": 500})`
//! }
//!
//! fn cart_total<'a>(cart: Cart<'a>, ctx: &Ctx) -> Result<Total<'a>, EntryError> {
//!     let cents = cart.cents.iter().sum();
//!     let limit = ctx.params::<Params>()?.limit.unwrap_or(u64::MAX);
//!     if cents > limit {
//!         let error = EntryError::invalid(format!("the cart holds {cents} cents, the limit is {limit}"));
//!         return Err(error.status(422).details(json!({"field": "cents", "limit": limit})));
//!     }
//!     Ok(Total { customer: cart.customer, cents })
//! }
//!
//! molt_entry::export! { "cart_total" => cart_total }
//! # fn main() {
//! // In a test the same library is called as the worker calls it:
//! use molt_entry::testing::{Answer, Request, call};
//! let request = Request::json(r#"{"customer": "Ada", "cents": [250, 300]}"#);
//! let Answer::Ok { body, .. } = call(molt_entries_v1, "cart_total", &request) else { panic!() };
//! assert_eq!(body, br#"{"customer":"Ada","cents":550}"#);
//!
//! let request = request.params(json!({"limit": 500}));
//! let Answer::Failed { status, message, .. } = call(molt_entries_v1, "cart_total", &request) else { panic!() };
//! assert_eq!((status, message.as_str()), (422, "the cart holds 550 cents, the limit is 500"));
//! # }
//! ```
//!
//! Make it a library (`crate-type = ["cdylib"]`, `panic = "unwind"`, which is the default), and name it in the
//! manifest: `{"name": "cart_total", "kind": "native", "library": "libshop_entries.so"}`.
//!
//! - Requests come as JSON or MsgPack, whichever the caller sent; the answer goes out in what the caller accepts. A
//!   function that takes a [`Payload`] gets every codec, undecoded; one that answers [`Raw`] sends its bytes as they
//!   are.
//! - What is malformed, does not fit the type or is nested too deeply (more than 127 levels) is `InvalidInput`
//!   before the function runs.
//! - A panic is that request's `Internal` error. The caller reads the entry's name and nothing else; the panic's text
//!   is in the worker's log.
//! - Entries run on many threads at once. What they share (a model, a pool) goes into a `static` `OnceLock` or `Mutex`.
//! - Long loops ask [`Ctx::checkpoint`] now and then, and so end when nobody waits for them any more.
//!
//! The engine is not linked: this crate and an entry build in seconds. What lies between them is [`abi`].

pub mod abi;
pub mod alloc;
mod codec;
mod ctx;
mod error;
#[doc(hidden)]
pub mod serve;
pub mod testing;

pub use codec::{Codec, Input, Output, Payload, Raw};
pub use ctx::Ctx;
pub use error::{EntryError, Outcome};
/// Builds details and test bodies.
pub use serde_json::json;

/// Makes functions entries of this library: `export! { "name" => function, "other" => module::function }`.
///
/// A function takes its input (any `Deserialize` type, which may borrow from the request, or a [`Payload`]) and a
/// [`&Ctx`](Ctx), and returns `Result<output, EntryError>`, where the output is any `Serialize` type or [`Raw`]. Once
/// per library: the macro defines its one exported symbol and its global allocator, which counts what every call
/// allocates.
#[macro_export]
macro_rules! export {
    ($($name:literal => $entry:expr),+ $(,)?) => {
        #[global_allocator]
        static MOLT_ENTRY_ALLOCATOR: $crate::alloc::CountingAllocator = $crate::alloc::CountingAllocator;

        /// What `molt_worker` looks up when it loads this library.
        #[unsafe(no_mangle)]
        pub extern "C" fn molt_entries_v1() -> *const $crate::abi::EntryTable {
            static ENTRIES: &[$crate::abi::EntryDef] = &[$({
                /// # Safety
                /// The contract of `molt_entry::abi::CallFn`.
                unsafe extern "C" fn call(
                    request: *const $crate::abi::Request,
                    reply: *mut $crate::abi::Reply,
                ) -> u32 {
                    // SAFETY: the host's promise, passed on; `call` is dropped before this function returns.
                    match unsafe { $crate::serve::Call::begin($name, request, reply) } {
                        Ok(call) => call.run($entry),
                        Err(outcome) => outcome,
                    }
                }
                $crate::abi::EntryDef {
                    name: $crate::abi::Span::of($name.as_bytes()),
                    codecs: $crate::serve::codecs_of(&$entry),
                    reserved: 0,
                    call,
                }
            }),+];
            static TABLE: $crate::abi::EntryTable = $crate::abi::EntryTable {
                abi_version: $crate::abi::ABI_VERSION,
                reserved: 0,
                entries: ENTRIES.as_ptr(),
                count: ENTRIES.len(),
            };
            &TABLE
        }
    };
}
