//! A library of entries, called through the ABI as the worker calls it.

use std::borrow::Cow;
use std::time::Duration;

use molt_entry::testing::{Answer, Request, call};
use molt_entry::{Codec, Ctx, EntryError, Outcome, Payload, Raw, abi, json};
use serde::{Deserialize, Serialize, Serializer};

#[derive(Deserialize)]
struct Greeting<'a> {
    name: &'a str,
    #[serde(borrow, default)]
    note: Cow<'a, str>,
}

#[derive(Serialize)]
struct Greeted<'a> {
    greeting: String,
    name: &'a str,
    borrowed: bool,
}

fn greet<'a>(input: Greeting<'a>, ctx: &Ctx) -> Result<Greeted<'a>, EntryError> {
    let greeting = format!("hello {} from {}{}", input.name, ctx.name(), input.note);
    Ok(Greeted { greeting, name: input.name, borrowed: matches!(input.note, Cow::Borrowed(_)) })
}

#[derive(Deserialize, Serialize)]
struct Rights<'a> {
    tenant: Option<&'a str>,
}

/// Its answer borrows from the params.
fn tenant<'a>(_: serde::de::IgnoredAny, ctx: &'a Ctx) -> Result<Rights<'a>, EntryError> {
    ctx.params()
}

fn length(payload: Payload<'_>, ctx: &Ctx) -> Result<Raw<Vec<u8>>, EntryError> {
    Ok(Raw(format!("{:?} {:?} {}", payload.codec, ctx.accept(), payload.bytes.len()).into_bytes()))
}

fn refuse(status: u16, _: &Ctx) -> Result<(), EntryError> {
    Err(EntryError::invalid("no").status(status).details(json!({"why": [1, null]})))
}

fn wait(_: (), ctx: &Ctx) -> Result<Option<u64>, EntryError> {
    while ctx.remaining().is_some() {
        ctx.checkpoint()?;
    }
    ctx.checkpoint()?;
    Ok(ctx.remaining().map(|time| time.as_secs()))
}

fn zeros(count: usize, _: &Ctx) -> Result<Vec<u8>, EntryError> {
    Ok(vec![0; count])
}

/// Allocates `bytes` once.
fn allocate(bytes: usize, _: &Ctx) -> Result<(), EntryError> {
    drop(std::hint::black_box(vec![1u8; bytes]));
    Ok(())
}

/// Panics in the function, or while its answer is written.
fn explode(early: bool, _: &Ctx) -> Result<Grenade, EntryError> {
    assert!(!early, "a secret from /etc/passwd");
    Ok(Grenade)
}

/// How deep lists nest.
fn tree(root: Tree, _: &Ctx) -> Result<usize, EntryError> {
    fn levels(tree: &Tree) -> usize {
        1 + tree.0.iter().map(levels).max().unwrap_or(0)
    }
    Ok(levels(&root))
}

#[derive(Deserialize)]
struct Tree(Vec<Tree>);

struct Grenade;

impl Serialize for Grenade {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("late")
    }
}

fn unwritable(_: (), _: &Ctx) -> Result<std::collections::HashMap<(u8, u8), u8>, EntryError> {
    Ok([((1, 2), 3)].into())
}

molt_entry::export! {
    "greet" => greet,
    "tenant" => tenant,
    "length" => length,
    "refuse" => refuse,
    "wait" => wait,
    "zeros" => zeros,
    "explode" => explode,
    "unwritable" => unwritable,
    "tree" => tree,
    "allocate" => allocate,
    "twice" => |number: f64, _: &Ctx| Ok(number * 2.0),
}

fn run(name: &str, request: Request) -> Answer {
    call(molt_entries_v1, name, &request)
}

fn body(answer: Answer) -> String {
    match answer {
        Answer::Ok { body, .. } => String::from_utf8(body).unwrap(),
        failed => panic!("{failed:?}"),
    }
}

/// Outcome, status, message and details of an answer that has to be a failure.
fn failure(answer: Answer) -> (u32, u32, String, serde_json::Value) {
    match answer {
        Answer::Failed { outcome, status, message, details } => (outcome, status, message, details),
        answered => panic!("{answered:?}"),
    }
}

#[test]
fn text_is_borrowed_from_json_and_from_msgpack() {
    let expected = r#"{"greeting":"hello Ada from greet!","name":"Ada","borrowed":true}"#;
    assert_eq!(body(run("greet", Request::json(r#"{"name": "Ada", "note": "!"}"#))), expected);
    let request = Request::msgpack(json!({"name": "Ada", "note": "!"})).accept(Codec::Json);
    assert_eq!(body(run("greet", request)), expected);
    // What has escapes cannot be lent: a Cow takes it all the same.
    let expected = r#"{"greeting":"hello Ada from greet\n","name":"Ada","borrowed":false}"#;
    assert_eq!(body(run("greet", Request::json(r#"{"name": "Ada", "note": "\n"}"#))), expected);
}

#[test]
fn answers_come_in_the_codec_that_is_accepted() {
    assert_eq!(body(run("twice", Request::json("2.5"))), "5.0");
    let Answer::Ok { body, .. } = run("twice", Request::json("2.5").accept(Codec::Msgpack)) else { panic!() };
    assert_eq!(rmp_serde::from_slice::<f64>(&body).unwrap(), 5.0);
    let Answer::Ok { body, .. } = run("greet", Request::msgpack(json!({"name": "Ada"}))) else { panic!() };
    assert_eq!(rmp_serde::from_slice::<serde_json::Value>(&body).unwrap()["name"], "Ada"); // structs are maps
    let (outcome, _, message, _) = failure(run("twice", Request::json("1").accept(Codec::Arrow)));
    assert_eq!(
        (outcome, message.as_str()),
        (abi::OUTCOME_INVALID_INPUT, "the answer is JSON or MsgPack, but Arrow was asked for")
    );
}

#[test]
fn the_table_says_which_codecs_a_function_takes() {
    // SAFETY: a library's table is static.
    let (table, entries) = unsafe {
        let table = &*molt_entries_v1();
        (table, std::slice::from_raw_parts(table.entries, table.count))
    };
    assert_eq!((table.abi_version, entries.len()), (abi::ABI_VERSION, 11));
    // SAFETY: static, as above.
    let names: Vec<_> = entries.iter().map(|entry| str::from_utf8(unsafe { entry.name.bytes() }).unwrap()).collect();
    assert_eq!(
        names,
        ["greet", "tenant", "length", "refuse", "wait", "zeros", "explode", "unwritable", "tree", "allocate", "twice"]
    );
    let typed = 1 << abi::CODEC_MSGPACK | 1 << abi::CODEC_JSON;
    let every = typed | 1 << abi::CODEC_RAW | 1 << abi::CODEC_ARROW;
    assert_eq!((entries[0].codecs, entries[2].codecs), (typed, every));
}

#[test]
fn a_payload_is_handed_over_as_it_is() {
    assert_eq!(body(run("length", Request::new(Codec::Raw, vec![0xff; 7]))), "Raw Raw 7");
    let Answer::Ok { body, reserved, .. } = run("length", Request::json("{").accept(Codec::Arrow)) else { panic!() };
    assert_eq!((body.as_slice(), reserved), (&b"Json Arrow 1"[..], body.len()));
}

#[test]
fn params_are_typed_and_may_be_left_out() {
    assert_eq!(body(run("tenant", Request::json("{}"))), r#"{"tenant":null}"#);
    assert_eq!(body(run("tenant", Request::json("{}").params(json!({"tenant": "acme"})))), r#"{"tenant":"acme"}"#);
    let (outcome, _, message, _) = failure(run("tenant", Request::json("{}").params(json!({"tenant": 7}))));
    assert_eq!(outcome, abi::OUTCOME_INTERNAL);
    assert!(message.starts_with("entry `tenant`: its params are not valid MsgPack, or does not fit"), "{message}");
}

#[test]
fn malformed_json_names_line_and_column() {
    let (outcome, status, message, details) = failure(run("greet", Request::json("{\n \"name\": nul}")));
    assert_eq!((outcome, status), (abi::OUTCOME_INVALID_INPUT, 0));
    assert_eq!(message, "the body is not valid JSON: expected ident at line 2 column 13");
    assert_eq!(details, json!({"line": 2, "column": 13}));
    let (_, _, message, details) = failure(run("greet", Request::json(r#"{"name": 5}"#)));
    assert_eq!(
        message,
        "the body does not fit: invalid type: integer `5`, expected a borrowed string at line 1 column 10"
    );
    assert_eq!(details, json!({"line": 1, "column": 10}));
}

#[test]
fn what_is_no_text_is_refused_even_where_nothing_reads_it() {
    let (_, _, message, _) = failure(run("greet", Request::json(b"{\"name\": \"Ada\", \"x\": \"\xff\"}")));
    assert_eq!(message, "the body is not valid JSON: it is not UTF-8 from byte 22 on");
}

#[test]
fn bodies_end_with_their_value_and_nest_127_levels_deep() {
    let nested = |levels: usize| Request::json("[".repeat(levels) + &"]".repeat(levels));
    let nested_msgpack = |levels: usize| Request::new(Codec::Msgpack, [vec![0x91; levels - 1], vec![0x90]].concat());
    assert_eq!(body(run("tree", nested(127))), "127");
    assert_eq!(body(run("tree", nested_msgpack(127).accept(Codec::Json))), "127");
    for request in [nested(128), nested_msgpack(128), nested_msgpack(100_000)] {
        assert_eq!(failure(run("tree", request)).0, abi::OUTCOME_INVALID_INPUT);
    }
    assert!(failure(run("twice", Request::json("1 2"))).2.contains("trailing characters"));
    let (_, _, message, _) = failure(run("twice", Request::new(Codec::Msgpack, [0x01, 0xc1])));
    assert_eq!(message, "the body is not valid MsgPack: more bytes follow its value");
    assert!(failure(run("twice", Request::new(Codec::Msgpack, []))).2.starts_with("the body is not valid MsgPack"));
}

#[test]
fn errors_carry_status_and_details() {
    let (outcome, status, message, details) = failure(run("refuse", Request::json("409")));
    assert_eq!((outcome, status, message.as_str()), (abi::OUTCOME_INVALID_INPUT, 409, "no"));
    assert_eq!(details, json!({"why": [1, null]}));
    assert_eq!(failure(run("refuse", Request::json("200"))).1, 0); // an error is no success
}

#[test]
fn a_checkpoint_ends_a_call_that_is_cancelled_or_late() {
    assert_eq!(body(run("wait", Request::json("null"))), "null");
    assert_eq!(failure(run("wait", Request::json("null").cancelled())).0, abi::OUTCOME_CANCELLED);
    let late = Request::json("null").remaining(Duration::from_millis(5));
    assert_eq!(failure(run("wait", late)).0, abi::OUTCOME_TIMEOUT);
}

#[test]
fn a_panic_is_an_internal_error_without_its_text() {
    for early in ["true", "false"] {
        let (outcome, _, message, details) = failure(run("explode", Request::json(early)));
        assert_eq!((outcome, message.as_str()), (abi::OUTCOME_INTERNAL, "entry `explode` panicked"));
        assert_eq!(details, serde_json::Value::Null);
    }
    assert_eq!(body(run("twice", Request::json("1"))), "2.0");
}

#[test]
fn an_answer_that_does_not_fit_or_cannot_be_written_is_an_internal_error() {
    let all = body(run("zeros", Request::json("100000").room(200_001)));
    assert_eq!(all.len(), 200_001);
    let (outcome, _, message, _) = failure(run("zeros", Request::json("100000").room(200_000)));
    assert_eq!(outcome, abi::OUTCOME_INTERNAL);
    assert_eq!(message, "the answer of entry `zeros` does not fit: the worker took 196608 bytes and no more");
    let (outcome, _, message, _) = failure(run("unwritable", Request::json("null")));
    assert_eq!(
        (outcome, message.as_str()),
        (abi::OUTCOME_INTERNAL, "the answer cannot be written: key must be a string")
    );
}

#[test]
fn allocations_are_counted_per_call() {
    let counted = |bytes: &str| match run("allocate", Request::json(bytes)) {
        Answer::Ok { allocs, alloc_bytes, .. } => (allocs, alloc_bytes),
        failed => panic!("{failed:?}"),
    };
    let (allocs, bytes) = counted("1000"); // the decoder's and the answer's buffers included
    assert!((2..6).contains(&allocs) && (17_384..18_384).contains(&bytes), "{allocs} allocations, {bytes} bytes");
    assert_eq!(counted("9000"), (allocs, bytes + 8000));
    assert_eq!(counted("9000"), (allocs, bytes + 8000)); // per call, not in all
}

#[test]
fn an_unknown_codec_is_refused_before_the_function() {
    unsafe extern "C" fn unused(_: *mut std::ffi::c_void) -> u32 {
        unreachable!()
    }
    unsafe extern "C" fn reserve(_: *mut std::ffi::c_void, _: usize) {}
    unsafe extern "C" fn write(_: *mut std::ffi::c_void, _: *const u8, _: usize) -> u32 {
        unreachable!()
    }
    unsafe extern "C" fn fail(host: *mut std::ffi::c_void, _: *const abi::Failure) {
        // SAFETY: `told` below.
        unsafe { *host.cast::<u32>() += 1 }
    }
    let mut told = 0u32;
    let host = (&raw mut told).cast();
    let (payload, params) = (abi::Span::EMPTY, abi::Span::EMPTY);
    let size = size_of::<abi::Request>() as u32;
    let request = abi::Request {
        size,
        codec: 9,
        accept: 0,
        reserved: 0,
        payload,
        params,
        remaining_ns: 0,
        host,
        cancelled: unused,
    };
    let size = size_of::<abi::Reply>() as u32;
    let mut reply = abi::Reply { size, reserved: 0, host, reserve, write, fail, allocs: 0, alloc_bytes: 0 };
    // SAFETY: both live until the call returns, and the table is static.
    let outcome = unsafe { ((*(*molt_entries_v1()).entries).call)(&request, &mut reply) };
    assert_eq!((outcome, told), (abi::OUTCOME_INVALID_INPUT, 1));
}

#[test]
fn outcomes_have_the_numbers_of_the_abi() {
    let codes = [Outcome::InvalidInput, Outcome::Cancelled, Outcome::Busy, Outcome::Timeout, Outcome::Internal]
        .map(|o| o as u32);
    assert_eq!(codes, [1, 4, 5, 6, 9]);
}
