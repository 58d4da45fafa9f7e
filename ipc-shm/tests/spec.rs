//! Holds the tables of `spec/` against the compiled code, both ways: what the documents leave out, add or misstate fails.
//!
//! A checked table is the first one below a heading that has one name in backticks. The lists of names that Rust cannot
//! enumerate (constants of a module, variants of an enum) are completed from the source text, so that a new one fails too.

use std::collections::BTreeMap;
use std::sync::Arc;

use molt_ipc_shm::arena::{Arena, OWNER_GONE, OWNER_NONE, OWNER_WORKER, owner_of_session};
use molt_ipc_shm::cell::{self, CellState};
use molt_ipc_shm::checkout::{self, Use};
use molt_ipc_shm::frame::{self, Codec, Handle, RequestHead, ResponseHead, kind, request_flag, response_flag};
use molt_ipc_shm::handshake::{Hello, Leave, MESSAGE_MAX, Opened, Welcome, message};
use molt_ipc_shm::layout::{
    self, Geometry, Header, SlotState, attention, catalogue, channel, entry, overdue, session, supervision, totals,
};
use molt_ipc_shm::mapping::Mapping;
use molt_ipc_shm::record::Field;
use molt_ipc_shm::{Outcome, lease};

const LAYOUT: &str = include_str!("../../spec/layout.md");
const MESSAGES: &str = include_str!("../../spec/messages.md");
const OUTCOMES: &str = include_str!("../../spec/outcomes.md");

const LAYOUT_SOURCE: &str = include_str!("../src/layout.rs");
const FRAME_SOURCE: &str = include_str!("../src/frame.rs");
const HANDSHAKE_SOURCE: &str = include_str!("../src/handshake.rs");
const CELL_SOURCE: &str = include_str!("../src/cell.rs");
const CHECKOUT_SOURCE: &str = include_str!("../src/checkout.rs");
const OUTCOME_SOURCE: &str = include_str!("../src/outcome.rs");

type Table = Vec<Vec<String>>;

/// The one name in backticks of a heading.
fn code_span(text: &str) -> Option<String> {
    match text.split('`').collect::<Vec<_>>()[..] {
        [_, name, _] => Some(name.to_owned()),
        _ => None,
    }
}

/// The first table below the heading that names `section`, its header left out and its backticks taken off.
fn table(document: &str, section: &str) -> Table {
    let mut lines =
        document.lines().skip_while(|line| !(line.starts_with('#') && code_span(line).as_deref() == Some(section)));
    assert!(lines.next().is_some(), "no heading names `{section}`");
    let rows: Table = lines
        .take_while(|line| !line.starts_with('#'))
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect())
        .skip(2)
        .collect();
    assert!(!rows.is_empty(), "`{section}` has no table");
    rows
}

fn number(text: &str) -> u64 {
    text.replace(',', "").parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// Rows of `| offset | size | field | ... |` as fields.
fn places(document: &str, section: &str) -> BTreeMap<String, (u64, u64)> {
    let rows = table(document, section);
    let count = rows.len();
    let places: BTreeMap<_, _> =
        rows.into_iter().map(|row| (row[2].clone(), (number(&row[0]), number(&row[1])))).collect();
    assert_eq!(places.len(), count, "`{section}` names a field twice");
    places
}

/// Rows of `| value | name | ... |`.
fn values(document: &str, section: &str) -> BTreeMap<String, u64> {
    let rows = table(document, section);
    let count = rows.len();
    let values: BTreeMap<_, _> = rows.into_iter().map(|row| (row[1].clone(), number(&row[0]))).collect();
    assert_eq!(values.len(), count, "`{section}` has a name twice");
    values
}

/// Rows of `| lowest bit | bits | field | ... |` as masks that take a field out of a word.
fn bits(document: &str, section: &str) -> BTreeMap<String, impl Fn(u64) -> u64 + use<>> {
    let rows = places(document, section);
    assert_eq!(rows.values().map(|(_, width)| width).sum::<u64>(), 64, "the bits of `{section}` add up to a word");
    rows.into_iter()
        .map(|(name, (low, width))| (name, move |word: u64| word >> low & (u64::MAX >> (64 - width))))
        .collect()
}

/// The body of `pub mod name { ... }` or `pub enum name { ... }`.
fn block<'a>(source: &'a str, opening: &str) -> &'a str {
    let start = source.find(&format!("{opening} {{\n")).unwrap_or_else(|| panic!("{opening} is not in the source"));
    let body = &source[start..];
    &body[..body.find("\n}").unwrap_or(body.len())]
}

/// Names of the constants of a piece of source, each with the first line of its comment.
fn constants(source: &str) -> BTreeMap<String, String> {
    let mut comment: Option<&str> = None;
    let mut found = BTreeMap::new();
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            comment.get_or_insert(text);
        } else {
            if let Some((name, _)) = line
                .strip_prefix("pub const ")
                .and_then(|rest| rest.split_once(':'))
                .filter(|(name, _)| !name.contains(' '))
            {
                found.insert(name.to_owned(), comment.unwrap_or_default().to_owned());
            }
            comment = None;
        }
    }
    found
}

/// Names of an enum's variants, in the documents' form: `InvalidInput` is `invalid_input`.
fn variants(source: &str, name: &str) -> Vec<String> {
    let body = block(source, &format!("pub enum {name}"));
    let variants = body.lines().filter_map(|line| line.trim().split_once(" = ")).map(|(variant, _)| snake(variant));
    variants.collect()
}

fn snake(camel: &str) -> String {
    let mut out = String::new();
    for (index, letter) in camel.chars().enumerate() {
        if letter.is_uppercase() && index > 0 {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// `named!(module: A, B)`: names in lower case with their compiled values.
macro_rules! named {
    ($module:ident: $($name:ident),* $(,)?) => {
        BTreeMap::from([$((stringify!($name).to_lowercase(), $module::$name as u64)),*])
    };
}

/// A module's constants are those listed here: neither list nor source has more.
fn assert_complete<'a>(module: &str, source: &str, listed: impl IntoIterator<Item = &'a String>) {
    let mut there: Vec<String> = constants(source).into_keys().map(|name| name.to_lowercase()).collect();
    let mut listed: Vec<String> = listed.into_iter().cloned().collect();
    there.sort();
    listed.sort();
    assert_eq!(there, listed, "the constants of {module} and those that this test knows");
}

fn assert_record(document: &str, name: &str, fields: &[Field], bytes: usize) {
    let compiled: BTreeMap<String, (u64, u64)> =
        fields.iter().map(|field| (field.name.to_owned(), (field.offset as u64, field.size as u64))).collect();
    assert_eq!(places(document, name), compiled, "fields of {name}: the document, the code");
    let heading = document.lines().find(|line| line.starts_with('#') && code_span(line).as_deref() == Some(name));
    let stated =
        heading.and_then(|line| line.rsplit_once(": ")).map(|(_, rest)| number(rest.trim_end_matches(" bytes")));
    assert_eq!(stated, Some(bytes as u64), "the size of {name} in its heading: the document, the code");
}

/// Fields of a slot: places are constants, widths are what their comments say ("u64: ...").
fn assert_slot(name: &str, module: &str, compiled: BTreeMap<String, u64>, others: &[&str], widths: &[(&str, u64)]) {
    let source = block(LAYOUT_SOURCE, &format!("pub mod {module}"));
    let others: Vec<String> = others.iter().map(|other| other.to_string()).collect();
    assert_complete(module, source, compiled.keys().chain(&others));
    let comments = constants(source);
    let width = |field: &str| {
        let special = widths.iter().find(|(special, _)| *special == field).map(|(_, width)| *width);
        special.unwrap_or_else(|| match comments[&field.to_uppercase()].split_once(':') {
            Some(("u64", _)) => 8,
            Some(("u32", _)) => 4,
            other => panic!("the comment of {module}::{field} names no type: {other:?}"),
        })
    };
    let compiled: BTreeMap<_, _> =
        compiled.into_iter().map(|(field, at)| (field.clone(), (at, width(&field)))).collect();
    assert_eq!(places(LAYOUT, name), compiled, "fields of {name}: the document, the code");
}

#[test]
fn records_lie_as_documented() {
    assert_record(LAYOUT, "Header", Header::FIELDS, Header::BYTES);
    assert_record(MESSAGES, "RequestHead", RequestHead::FIELDS, RequestHead::BYTES);
    assert_record(MESSAGES, "ResponseHead", ResponseHead::FIELDS, ResponseHead::BYTES);
    assert_record(MESSAGES, "Handle", Handle::FIELDS, Handle::BYTES);
    assert_record(MESSAGES, "Hello", Hello::FIELDS, Hello::BYTES);
    assert_record(MESSAGES, "Welcome", Welcome::FIELDS, Welcome::BYTES);
    assert_record(MESSAGES, "Opened", Opened::FIELDS, Opened::BYTES);
    assert_record(MESSAGES, "Leave", Leave::FIELDS, Leave::BYTES);
}

#[test]
fn slots_lie_as_documented() {
    let fields = named!(session: WORD, PID, UID, STARTED, CHANNELS, IN_FLIGHT, LEASES, LEASED_BYTES, OLDEST_LEASE_NS, RELEASED, HELD);
    let bitmap = (session::HELD - session::RELEASED) as u64;
    assert_slot("session slot", "session", fields, &["bytes"], &[("released", bitmap)]);

    let fields = named!(channel: WORD, SESSION, REQUEST_HEAD, REQUEST_TAIL, RESPONSE_HEAD, RESPONSE_TAIL, RESPONSE_SLEEP, ROOM_SLEEP, CHECKOUT);
    assert_slot("channel slot", "channel", fields, &["bytes"], &[]);

    let fields = named!(supervision: PID, RESTARTS, IN_A_ROW, LAST_END, LAST_END_NS, NEXT_START_NS);
    assert_slot("supervision", "supervision", fields, &[], &[]);

    let fields = named!(overdue: COUNT, ENTRY, SINCE_NS);
    assert_slot("overdue", "overdue", fields, &[], &[]);

    let fields = named!(attention: WORKER_SLEEP, CHANNELS);
    assert_slot("attention", "attention", fields, &["bits"], &[("channels", layout::LINE as u64)]);

    let documented = places(LAYOUT, "catalogue");
    let copies = (catalogue::COPIES as u64, 2 * catalogue::COPY_BYTES as u64);
    let expected = [("count", (catalogue::COUNT as u64, 8)), ("copies", copies)];
    assert_eq!(documented, expected.map(|(name, place)| (name.to_owned(), place)).into());
    let text = (catalogue::TEXT as u64, (catalogue::COPY_BYTES - catalogue::TEXT) as u64);
    let expected = [("len", (catalogue::LEN as u64, 8)), ("text", text)];
    assert_eq!(places(LAYOUT, "catalogue copy"), expected.map(|(name, place)| (name.to_owned(), place)).into());
    let known = ["count", "copies", "copy_bytes", "len", "text", "bytes"].map(str::to_owned);
    assert_complete("catalogue", block(LAYOUT_SOURCE, "pub mod catalogue"), &known);

    // A name has no constant of its own: it begins the slot.
    let mut documented = places(LAYOUT, "entry slot");
    assert_eq!(documented.remove("name"), Some((0, entry::NAME_BYTES as u64)), "the name of an entry slot");
    assert_eq!(documented.remove("calls"), Some((entry::CALLS as u64, 8)), "the calls of an entry slot");
    assert_eq!(documented.remove("limit"), Some((entry::LIMIT as u64, 8)), "the limit of an entry slot");
    assert_eq!(documented.remove("flags"), Some((entry::FLAGS as u64, 8)), "the flags of an entry slot");
    let buckets = (entry::BUCKETS_AT as u64, entry::BUCKETS as u64 * 8);
    assert_eq!(documented.remove("buckets"), Some(buckets), "the buckets of an entry slot");
    assert!(documented.is_empty(), "an entry slot has no {documented:?}");
    let known = ["name_bytes", "calls", "limit", "flags", "buckets_at", "buckets", "bytes"].map(str::to_owned);
    assert_complete("entry", block(LAYOUT_SOURCE, "pub mod entry"), &known);
}

#[test]
fn counters_are_numbered_as_documented() {
    let counters = named!(totals: REQUESTS, OUTCOMES, DOORBELLS, CUT, COPIED_BYTES, STUCK);
    let others = ["count".to_owned()];
    assert_complete("totals", block(LAYOUT_SOURCE, "pub mod totals"), counters.keys().chain(&others));
    assert_eq!(values(LAYOUT, "totals"), counters);
}

#[test]
fn constants_are_as_documented() {
    let slots = [
        ("session::BYTES", session::BYTES),
        ("channel::BYTES", channel::BYTES),
        ("attention::BITS", attention::BITS),
        ("entry::BYTES", entry::BYTES),
        ("entry::BUCKETS", entry::BUCKETS),
        ("totals::COUNT", totals::COUNT),
        ("catalogue::COPY_BYTES", catalogue::COPY_BYTES),
        ("catalogue::BYTES", catalogue::BYTES),
    ];
    let top = named!(layout: LAYOUT_VERSION, MAGIC, LINE, ALIGN, PAGE, SOCKET_PATH_MAX, READY_AT, STATE_STARTING,
        STATE_SERVING, STATE_STOPPING, STATE_STOPPED, HEARTBEAT_AT, SUPERVISION_AT, OVERDUE_AT);
    let source: String = LAYOUT_SOURCE.lines().filter(|line| !line.starts_with(' ')).collect::<Vec<_>>().join("\n");
    assert_complete("layout", &source, top.keys());
    let states: BTreeMap<String, u64> =
        top.iter().filter_map(|(name, value)| Some((name.strip_prefix("state_")?.to_owned(), *value))).collect();
    assert_eq!(values(LAYOUT, "ready word"), states);
    let mut expected: BTreeMap<String, u64> = slots.map(|(name, value)| (name.to_owned(), value as u64)).into();
    expected
        .extend(top.into_iter().filter(|(name, _)| !name.starts_with("state_")).map(|(n, v)| (n.to_uppercase(), v)));
    assert_eq!(values(LAYOUT, "layout constants"), expected);

    let mut expected = BTreeMap::from([("MESSAGE_MAX".to_owned(), MESSAGE_MAX as u64)]);
    expected.insert("RESERVED_RESPONSE".into(), frame::RESERVED_RESPONSE as u64);
    expected.insert("NAME_MAX".into(), frame::NAME_MAX as u64);
    assert_eq!(values(MESSAGES, "message constants"), expected);
}

#[test]
fn the_example_segment_has_its_parts_where_documented() {
    let geometry = Geometry::for_arena(256 << 20);
    let parts = [
        ("header", 0, layout::PAGE),
        ("sessions", geometry.sessions_at(), geometry.sessions as usize * session::BYTES),
        ("channels", geometry.channels_at(), geometry.channels as usize * channel::BYTES),
        ("attention", geometry.attention_at(), geometry.cells_at() - geometry.attention_at()),
        ("cells", geometry.cells_at(), geometry.channels as usize * geometry.cells_per_channel as usize * 8),
        ("totals", geometry.totals_at(), totals::COUNT * 8),
        ("entries", geometry.entries_at(), geometry.entries as usize * entry::BYTES),
        ("catalogue", geometry.catalogue_at(), catalogue::BYTES),
        ("extents", geometry.extents_at(), geometry.extents as usize * 8),
        ("rings", geometry.rings_at(), geometry.channels as usize * 2 * geometry.ring_bytes as usize),
        ("arena", geometry.arena_at(), geometry.arena_bytes()),
    ];
    let parts: BTreeMap<_, _> = parts.map(|(name, at, len)| (name.to_owned(), (at as u64, len as u64))).into();
    assert_eq!(places(LAYOUT, "parts"), parts);
    let small = Geometry::for_arena(16 << 20);
    let of = |field: &str| match field {
        "sessions" => (geometry.sessions, small.sessions),
        "channels" => (geometry.channels, small.channels),
        "ring_bytes" => (geometry.ring_bytes, small.ring_bytes),
        "cells_per_channel" => (geometry.cells_per_channel, small.cells_per_channel),
        "leases_per_session" => (geometry.leases_per_session, small.leases_per_session),
        "entries" => (geometry.entries, small.entries),
        "extent_bytes" => (geometry.extent_bytes, small.extent_bytes),
        other => panic!("geometry has no {other}"),
    };
    let sizes = table(LAYOUT, "sizes");
    assert_eq!(sizes.len(), 7, "every size but the number of extents, which follows from the arena");
    for row in sizes {
        let stated = (number(&row[1]) as u32, number(&row[2]) as u32);
        assert_eq!(stated, of(&row[0]), "{}: the document, the code", row[0]);
    }
}

#[test]
fn numbers_on_the_wire_are_as_documented() {
    let kinds = named!(kind: PAD, REQUEST, RESPONSE);
    assert_complete("kind", block(FRAME_SOURCE, "pub mod kind"), kinds.keys());
    assert_eq!(values(MESSAGES, "frame kinds"), kinds);

    let flags = named!(request_flag: IDEMPOTENT, HANDLES, NAMED, PARAMS_HANDLE, TRACED);
    assert_complete("request_flag", block(FRAME_SOURCE, "pub mod request_flag"), flags.keys());
    assert_eq!(values(MESSAGES, "request flags"), flags);

    let flags = named!(response_flag: LEASED, VALID);
    assert_complete("response_flag", block(FRAME_SOURCE, "pub mod response_flag"), flags.keys());
    assert_eq!(values(MESSAGES, "response flags"), flags);

    let kinds = named!(message: HELLO, WELCOME, REFUSED, OPEN, CHANNEL, LOOK, SEGMENT, LEAVE, PIN, PINNED);
    assert_complete("message", block(HANDSHAKE_SOURCE, "pub mod message"), kinds.keys());
    assert_eq!(values(MESSAGES, "message kinds"), kinds);

    let codecs = [Codec::MsgPack, Codec::Json, Codec::Raw, Codec::Arrow];
    assert_eq!(variants(FRAME_SOURCE, "Codec").len(), codecs.len(), "this test knows every codec");
    assert_eq!(values(MESSAGES, "codecs"), codecs.map(|codec| (codec.name().to_owned(), codec as u64)).into());
}

#[test]
fn outcomes_and_states_are_numbered_as_documented() {
    let outcomes: BTreeMap<String, u64> =
        variants(OUTCOME_SOURCE, "Outcome").into_iter().zip(Outcome::ALL.map(|outcome| outcome as u64)).collect();
    assert_eq!(outcomes.len(), Outcome::ALL.len());
    assert_eq!(values(OUTCOMES, "outcomes"), outcomes);

    let states = [SlotState::Free, SlotState::Active, SlotState::Closing, SlotState::Quarantined];
    let named: BTreeMap<String, u64> =
        variants(LAYOUT_SOURCE, "SlotState").into_iter().zip(states.map(|state| state as u64)).collect();
    assert_eq!((named.len(), values(LAYOUT, "slot states")), (states.len(), named.clone()));

    let states = [Use::InUse, Use::Idle, Use::Wanted, Use::Returned];
    let named: BTreeMap<String, u64> =
        variants(CHECKOUT_SOURCE, "Use").into_iter().zip(states.map(|state| state as u64)).collect();
    assert_eq!((named.len(), values(LAYOUT, "uses")), (states.len(), named.clone()));

    let states = [CellState::Free, CellState::Queued, CellState::Running, CellState::Done, CellState::Cancelled];
    let named: BTreeMap<String, u64> =
        variants(CELL_SOURCE, "CellState").into_iter().zip(states.map(|state| state as u64)).collect();
    assert_eq!((named.len(), values(LAYOUT, "cell states")), (states.len(), named.clone()));
}

#[test]
fn words_are_cut_as_documented() {
    let word = bits(LAYOUT, "slot word");
    let raw = layout::slot_word(0x1234_5678_9abc, SlotState::Quarantined);
    assert_eq!((word["generation"](raw), word["state"](raw), word.len()), (0x1234_5678_9abc, 3, 2));

    let word = bits(LAYOUT, "cell word");
    let cell = molt_ipc_shm::word::Word64::new(0);
    cell::queue(&cell, 0x7777_1234_5678);
    let raw = cell.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((word["id"](raw), word["state"](raw), word.len()), (0x7777_1234_5678, CellState::Queued as u64, 2));

    let word = bits(LAYOUT, "checkout word");
    let used = molt_ipc_shm::word::Word64::new(0);
    checkout::give(&used, 0x1234_5678_9abc);
    assert!(checkout::check_in(&used, 0x1234_5678_9abc));
    let raw = used.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((word["generation"](raw), word["state"](raw), word.len()), (0x1234_5678_9abc, Use::Idle as u64, 2));

    let geometry = Geometry { sessions: 4, channels: 1, entries: 1, ..Geometry::for_arena(1 << 20) };
    let file = tempfile::tempfile().unwrap();
    file.set_len(geometry.total_bytes() as u64).unwrap();
    let map = Arc::new(Mapping::new(&file).unwrap());
    let word = bits(LAYOUT, "control word");
    assert_eq!(word.len(), 3);
    let load = |extent| map.u64(geometry.extent(extent)).load(std::sync::atomic::Ordering::Relaxed);
    let parts = |raw| (word["generation"](raw), word["owner"](raw), word["state"](raw));
    let states = values(LAYOUT, "extent states");
    let owner = owner_of_session(2);
    let arena = Arena::new(map.clone(), geometry, owner);
    let run = arena.claim(geometry.extent_bytes as u64 + 1).unwrap();
    assert_eq!(
        (run.count, parts(load(0)), parts(load(1))),
        (2, (1, owner.into(), states["head"]), (1, owner.into(), states["tail"]))
    );
    arena.free(run);
    assert_eq!((parts(load(0)), states.len()), ((1, OWNER_NONE.into(), states["free"]), 3));
    let owners = values(LAYOUT, "owners");
    let expected = [
        ("nobody", OWNER_NONE),
        ("session slot 0", owner_of_session(0)),
        ("gone", OWNER_GONE),
        ("worker", OWNER_WORKER),
    ];
    assert_eq!(owners, expected.map(|(name, owner)| (name.to_owned(), owner.into())).into());

    // Lease n is bit n % 64 of the bitmap's word n / 64.
    lease::release(&map, &geometry, 3, 70);
    let at = geometry.session(3) + places(LAYOUT, "session slot")["released"].0 as usize + 8;
    assert_eq!(map.u64(at).load(std::sync::atomic::Ordering::Relaxed), 1 << 6);
}
