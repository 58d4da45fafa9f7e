//! Resident tables through the worker: from files at start, put by clients, named by entries, lost and said so.

mod common;

use std::time::Instant;

use common::ask::Ask;
use common::tables::{batches, count, listed, named, numbers, orders, pairs, placed, put, put_block, table};
use common::{Folder, Worker, until_true};
use molt_ipc_shm::client::Payload;
use molt_ipc_shm::frame::response_flag;
use molt_ipc_shm::table::Encoded;
use molt_ipc_shm::{Codec, Outcome};
use serde_json::{Value, json};

const RATES: &str =
    "select o.region, o.amount * r.amount as total from orders o join rates r using (region) order by 1";

fn with_rates(folder: &Folder) -> String {
    folder.write("sizes.csv", "region,size\nnorth,7\nsouth,9\n");
    json!({
        "abi_version": 1,
        "tables": {"rates": {"put": true}, "sizes": {"path": "sizes.csv"}},
        "exports": [
            {"name": "priced", "kind": "sql", "sql": RATES, "input": "orders"},
            {"name": "sizes", "kind": "sql", "sql": "select sum(size) as total from sizes"},
        ]
    })
    .to_string()
}

#[test]
fn files_of_the_manifest_lie_in_the_arena_and_every_process_reads_them_there() {
    let folder = Folder::new();
    let manifest = with_rates(&folder);
    let worker = Worker::start(folder, Some(&manifest), &[]);
    let used = worker.report().arena.used_bytes;
    assert!(used > 0, "it lies in the arena before anybody asks");
    let client = worker.client();
    let sizes = table(&client, "sizes");
    assert_eq!(batches(&sizes)[0].num_rows(), 2);
    assert_eq!(worker.report().arena.used_bytes, used, "read where it lies");
    let total: Value = Ask::of("sizes").body(Codec::Json, b"{}").value(&client);
    assert_eq!(total, json!([{"total": 16}]));
    let list = listed(&client);
    assert_eq!(list.len(), 1);
    assert_eq!((list[0]["name"].as_str(), list[0]["rows"].as_u64()), (Some("sizes"), Some(2)));
    assert!(list[0]["source"].as_str().unwrap().ends_with("sizes.csv"), "{list:?}");
    assert_eq!(list[0]["readers"], json!([[std::process::id(), 1]]), "this process reads it");
    drop(sizes);
    until_true("nobody reads it", || listed(&client)[0]["readers"] == json!([]));
}

#[test]
fn an_entry_uses_what_a_client_puts_and_says_what_is_missing() {
    let folder = Folder::new();
    let manifest = with_rates(&folder);
    let worker = Worker::start(folder, Some(&manifest), &[]);
    let client = worker.client();
    let rows = placed(&client, &orders(&[("north", 10.0), ("south", 20.0)]));
    let ask = Ask::of("priced").payload(Codec::Arrow as u8, Payload::Block(&rows)).accept(Codec::Arrow);
    let missing = ask.call(&client).fails(Outcome::InvalidInput, &["priced", "\"rates\"", "hint: client.put"]);
    assert_eq!(missing.head.status, 409);
    put(&client, "rates", &orders(&[("north", 2.0), ("south", 0.5)])).ok();
    assert_eq!(pairs(&ask.call(&client)), [("north".into(), 20.0), ("south".into(), 10.0)]);
    // A new version, with other columns: the next call plans anew and sees it.
    put(&client, "rates", &orders(&[("south", 3.0)])).ok();
    assert_eq!(pairs(&ask.call(&client)), [("south".into(), 60.0)]);
    put(&client, "rates", &numbers(3)).ok();
    ask.call(&client).fails(Outcome::InvalidInput, &["priced"]);
    // A request's own table of that name stands before the resident one.
    let sql = json!({"sql": "select count(*) from rates"});
    let own = [("rates", placed(&client, &numbers(11)))];
    let query = Ask::of("molt.query").params(sql).accept(Codec::Arrow);
    assert_eq!(count(&query.clone().payload(Codec::Arrow as u8, Payload::Tables(&own)).call(&client)), 11);
    assert_eq!(count(&query.call(&client)), 3);
}

#[test]
fn an_entry_takes_two_tables_of_a_request_where_they_lie() {
    let entry = json!({"name": "priced", "kind": "sql", "sql": RATES, "input": ["orders", "rates"]});
    let worker = Worker::with(&common::manifest(json!([entry])), &[]);
    let client = worker.client();
    let of = |rates: &[(&str, f64)]| {
        [
            ("rates", placed(&client, &orders(rates))),
            ("orders", placed(&client, &orders(&[("north", 10.0), ("south", 20.0)]))),
        ]
    };
    let ask = Ask::of("priced").accept(Codec::Arrow);
    let call = |tables: &[(&str, _)]| ask.clone().payload(Codec::Arrow as u8, Payload::Tables(tables)).call(&client);
    let first = call(&of(&[("north", 2.0), ("south", 0.5)]));
    assert_eq!(pairs(&first), [("north".into(), 20.0), ("south".into(), 10.0)]);
    assert_eq!((first.head.plans, first.head.copied_bytes), (1, 0));
    let second = call(&of(&[("south", 3.0)]));
    assert_eq!((pairs(&second), second.head.plans), (vec![("south".into(), 60.0)], 0));
    call(&of(&[])[1..]).fails(Outcome::InvalidInput, &["priced", "rates"]);
}

#[test]
fn a_table_changes_hands_and_is_not_copied() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    let batch = numbers(300_000); // 2.4 MB: ten extents
    let encoded = Encoded::new(&batch.schema(), [Ok(batch.clone())]).unwrap();
    let block = client.session().unwrap().block_of_own_extents(encoded.len()).unwrap();
    encoded.write_to(block.block());
    let offset = block.block().handle().offset;
    let used = worker.report().arena.used_bytes;
    put_block(&client, "n", &block).ok();
    drop(block);
    assert_eq!(worker.report().arena.used_bytes, used, "the same extents, now the worker's");
    let answer = table(&client, "n");
    let molt_ipc_shm::client::Body::Leased(lease) = &answer.reply.as_ref().unwrap().body else {
        panic!("a resident table is leased")
    };
    assert_eq!(lease.offset() as u64, offset, "where it was written");
    assert_ne!(answer.head.flags & response_flag::VALID, 0, "the worker has validated it");
    let foreign = Ask::of("echo").body(Codec::Arrow, b"no table").call(&client).ok();
    assert_eq!(foreign.head.flags & response_flag::VALID, 0, "nobody has looked at these");
    // A block that shares its extent with others cannot change hands: it is copied, and the others stay.
    let (small, neighbour) = (placed(&client, &numbers(3)), placed(&client, &numbers(5)));
    put_block(&client, "small", &small).ok();
    drop(small);
    assert_eq!(neighbour.to_vec(), placed(&client, &numbers(5)).to_vec(), "untouched");
    assert_eq!(batches(&table(&client, "small"))[0].num_rows(), 3);
}

#[test]
fn an_answer_says_how_old_the_oldest_table_is_that_it_was_read_from() {
    let oldest =
        json!({"name": "both", "kind": "sql", "sql": "select count(*) as n from early, late, x", "input": ["x"]});
    let put_later = json!({"early": {"put": true}, "late": {"put": true}});
    let manifest = json!({"abi_version": 1, "tables": put_later, "exports": [oldest]}).to_string();
    let worker = Worker::with(&manifest, &[]);
    let client = worker.client();
    let asked = Instant::now();
    put(&client, "early", &numbers(2)).ok();
    let first = Instant::now();
    let age = |answer: Ask| answer.accept(Codec::Arrow).call(&client).ok().head.table_age_ms();
    let query = |sql: &str| Ask::of("molt.query").params(json!({ "sql": sql }));
    until_true("it grows older", || table(&client, "early").head.table_age_ms() > Some(300));
    put(&client, "late", &numbers(3)).ok();
    let second = Instant::now();

    let x = placed(&client, &numbers(1));
    let brought = [("x", x)];
    let both = || Ask::of("both").payload(Codec::Arrow as u8, Payload::Tables(&brought));
    for ask in [both(), both(), query("select * from late, early"), query("select x from early")] {
        let least = first.elapsed().as_millis();
        let told = age(ask).expect("an age") as u128;
        assert!((least..=asked.elapsed().as_millis()).contains(&told), "{told} ms");
    }
    let late = age(query("select x from late")).expect("an age") as u128;
    assert!(late <= second.elapsed().as_millis() + 1 && late < 300, "{late} ms: the age of that one");
    // A table of that name that the request brings hides the worker's.
    let hides = [("early", placed(&client, &numbers(1)))];
    let own = query("select x from early").payload(Codec::Arrow as u8, Payload::Tables(&hides));
    assert_eq!((age(own), age(query("select 1 as one"))), (None, None));
    assert_eq!(Ask::of("echo").body(Codec::Raw, b"x").call(&client).ok().head.table_age_ms(), None);
}

#[test]
fn bad_requests_about_tables_are_refused_and_change_nothing() {
    let worker = Worker::plain(&[]);
    let client = worker.client();
    put(&client, "n", &numbers(4)).ok();
    let used = worker.report().arena.used_bytes;
    for entry in ["molt.put", "molt.table", "molt.drop", "molt.load"] {
        for params in [json!({}), json!({"name": 7}), json!({"name": ""}), json!({"name": "a.b"})] {
            let answer = Ask::of(entry).params(params).accept(Codec::MsgPack).call(&client);
            answer.fails(Outcome::InvalidInput, &["name"]);
        }
    }
    Ask::of("molt.load")
        .params(named("n"))
        .accept(Codec::MsgPack)
        .call(&client)
        .fails(Outcome::InvalidInput, &["path"]);
    let json = Ask::of("molt.put").params(named("n")).body(Codec::Json, b"[]").accept(Codec::MsgPack).call(&client);
    json.fails(Outcome::InvalidInput, &["molt.put", "arrow"]);
    let two = [("a", placed(&client, &numbers(1))), ("b", placed(&client, &numbers(1)))];
    let put_two = Ask::of("molt.put").params(named("n")).payload(Codec::Arrow as u8, Payload::Tables(&two));
    put_two.accept(Codec::MsgPack).call(&client).fails(Outcome::InvalidInput, &["one table, not 2"]);
    drop(two);
    table(&client, "m").fails(Outcome::InvalidInput, &["no table \"m\"", "there is n", "hint:"]);
    assert_eq!(listed(&client).len(), 1);
    until_true("what it was before", || worker.report().arena.used_bytes == used);
    assert_eq!(batches(&table(&client, "n"))[0].num_rows(), 4);
}

#[test]
fn a_table_that_the_arena_cannot_hold_stops_the_start_with_numbers() {
    let folder = Folder::new();
    let rows: String = (0..400_000).map(|n| format!("{n},{n}\n")).collect();
    folder.write("big.csv", format!("a,b\n{rows}"));
    let manifest = json!({"abi_version": 1, "tables": {"big": {"path": "big.csv"}}, "exports": []}).to_string();
    folder.write("exports.json", manifest);
    let shm = common::unique_shm();
    let args = ["--shm", &shm, "--exports", "exports.json", "--arena", "2MiB"];
    let (code, _, said) = common::run(common::WORKER, folder.path(), &args);
    assert_eq!(code, Some(1), "{said}");
    for word in ["table \"big\"", "bytes", "--arena"] {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
    assert_eq!(common::names_of(&shm), [] as [&str; 0], "nothing is left behind");
}
