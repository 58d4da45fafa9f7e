//! Tables after the death of their worker: what came from files is there again, what clients had put is said to be lost.

mod common;

use common::ask::Ask;
use common::tables::{batches, count, listed, named, numbers, orders, put, table};
use common::{Folder, Worker, address, nameless, run, stat_program, until};
use molt_ipc_shm::client::Client;
use molt_ipc_shm::{Codec, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const MANIFEST: &str = r#"{
    "abi_version": 1,
    "tables": {"sizes": {"path": "sizes.csv"}, "rates": {"put": true}},
    "exports": []
}"#;

fn supervised() -> Worker {
    let folder = Folder::new();
    folder.write("sizes.csv", "region,size\nnorth,7\nsouth,9\n");
    folder.write("prices.csv", "sku,price\na,1.5\nb,2.25\n");
    Worker::start(folder, Some(MANIFEST), &["--supervise"])
}

fn load(client: &Client, name: &str, path: &std::path::Path) -> Value {
    let params = json!({"name": name, "path": path});
    Ask::of("molt.load").params(params).accept(Codec::MsgPack).value(client)
}

/// Kills the worker that serves, and waits until another one does.
fn kill_worker(worker: &Worker) -> u32 {
    let serving = || Some(address(&worker.shm).look(common::SOON).ok()?.serving().ok()?.header.worker_pid);
    let pid = until("a worker that serves", serving);
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    until("the next worker", || serving().filter(|next| *next != pid));
    pid
}

fn by_name(client: &Client, name: &str) -> Option<Value> {
    listed(client).into_iter().find(|table| table["name"] == name)
}

fn stat(worker: &Worker, args: &[&str]) -> (Option<i32>, String) {
    let place = if nameless() { vec!["--socket", &worker.shm] } else { vec![worker.shm.as_str()] };
    let (doctor, more) = args.split_at(usize::from(args.first() == Some(&"doctor")));
    let args: Vec<&str> = [doctor, &place, more].concat();
    let (code, out, message) = run(stat_program(), worker.folder.path(), &args);
    assert!(message.is_empty(), "{message}");
    (code, out)
}

#[test]
fn what_came_from_files_is_there_again_and_what_was_put_is_said_to_be_lost() {
    let worker = supervised();
    let client = worker.client();
    let loaded = load(&client, "prices", &worker.folder.join("prices.csv"));
    put(&client, "rates", &orders(&[("north", 2.0)])).ok();
    put(&client, "extra", &numbers(9)).ok();
    let total = || {
        Ask::of("molt.query").params(json!({"sql": "select count(*) from prices"})).accept(Codec::Arrow).call(&client)
    };
    assert_eq!(count(&total()), 2);
    let view = table(&client, "rates");

    let dead = kill_worker(&worker);
    assert_eq!(count(&total()), 2, "the file was loaded before anybody was served");
    let again = by_name(&client, "prices").unwrap();
    assert_eq!((&again["source"], &again["lost"]), (&loaded["source"], &Value::Null));
    assert!(again["version"].as_u64() > loaded["version"].as_u64(), "{again} is a later version than {loaded}");
    assert_eq!(batches(&table(&client, "prices"))[0].num_rows(), 2);
    assert_eq!(by_name(&client, "sizes").unwrap()["rows"], 2, "the manifest's file too");
    assert_eq!(batches(&view)[0].num_rows(), 1, "a view stays valid");

    // What is lost is said to whoever lists, asks for it, reads the log, or looks from outside.
    let lost = by_name(&client, "rates").unwrap();
    let why = lost["lost"].as_str().unwrap();
    assert!(why.contains("a client had put it") && why.contains(&dead.to_string()), "{why}");
    assert_eq!((&lost["rows"], &lost["bytes"], &lost["readers"]), (&json!(1), &json!(0), &json!([])));
    let asked = table(&client, "rates").fails(Outcome::InvalidInput, &["\"rates\" is lost", why, "hint: client.put"]);
    assert_eq!(asked.head.status, 404);
    let log = worker.log();
    for line in ["table is lost: a client had put it", "table of the former worker is loaded again"] {
        assert!(log.contains(line), "{line:?} is not in {log}");
    }
    let (code, report) = stat(&worker, &["--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let states: Vec<(&str, bool)> = report["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| (table["name"].as_str().unwrap(), table["lost"].is_null()))
        .collect();
    assert_eq!((code, states), (Some(0), vec![("extra", false), ("prices", true), ("rates", false), ("sizes", true)]));
    let (_, text) = stat(&worker, &[]);
    assert!(text.contains("LOST") && text.contains("prices.csv"), "{text}");
    let (code, found) = stat(&worker, &["doctor"]);
    assert!(code == Some(1) && found.contains("\"extra\" is lost (and 1 more tables)"), "{found}");

    // Put again or dropped, it is told of no more.
    put(&client, "rates", &orders(&[("south", 3.0)])).ok();
    assert_eq!(by_name(&client, "rates").unwrap()["lost"], Value::Null);
    let dropped: bool = Ask::of("molt.drop").params(named("extra")).accept(Codec::MsgPack).value(&client);
    assert!(!dropped && by_name(&client, "extra").is_none(), "there was none, and nobody misses it");
    let (code, found) = stat(&worker, &["doctor"]);
    assert_eq!(code, Some(0), "{found}");
}

#[test]
fn a_file_that_is_gone_is_lost_until_it_is_there_again() {
    let worker = supervised();
    let client = worker.client();
    let (file, aside) = (worker.folder.join("prices.csv"), worker.folder.join("aside.csv"));
    load(&client, "prices", &file);
    std::fs::rename(&file, &aside).unwrap();
    kill_worker(&worker);
    let lost = by_name(&client, "prices").unwrap();
    let why = lost["lost"].as_str().unwrap();
    assert!(why.contains("prices.csv") && why.contains("No such file"), "{why}");
    // A worker that dies while a table is lost leaves word of it too.
    std::fs::rename(&aside, &file).unwrap();
    kill_worker(&worker);
    let found = by_name(&client, "prices").unwrap();
    assert_eq!((&found["lost"], &found["rows"]), (&Value::Null, &json!(2)));
}

#[test]
fn what_is_replaced_or_dropped_does_not_come_back() {
    let worker = supervised();
    let client = worker.client();
    let prices = worker.folder.join("prices.csv");
    load(&client, "dropped", &prices);
    load(&client, "replaced", &prices);
    Ask::of("molt.drop").params(named("dropped")).accept(Codec::MsgPack).call(&client).ok();
    put(&client, "replaced", &numbers(4)).ok();
    kill_worker(&worker);
    assert!(by_name(&client, "dropped").is_none());
    assert!(
        by_name(&client, "replaced").unwrap()["lost"].is_string(),
        "the rows that it had are not those of the file"
    );
}

#[test]
fn a_worker_that_is_started_by_hand_after_a_death_finds_them_too() {
    if nameless() {
        return; // nobody keeps such a segment of a worker that died alone
    }
    let folder = Folder::new();
    folder.write("prices.csv", "sku,price\na,1.5\n");
    let mut first = Worker::start(folder, None, &[]);
    load(&first.client(), "prices", &first.folder.join("prices.csv"));
    first.signal(Signal::SIGKILL);
    first.ended();
    let socket = first.socket().display().to_string();
    let next = Worker::launch(first.shm.clone(), first.folder.clone(), &["--socket", &socket]).serves();
    assert_eq!(by_name(&next.client(), "prices").unwrap()["rows"], 1);
    // One that was told to stop takes its tables along: whoever starts another one begins anew.
    next.signal(Signal::SIGTERM);
    let mut next = next;
    assert!(next.ended().success());
    let third = Worker::launch(first.shm.clone(), first.folder.clone(), &["--socket", &socket]).serves();
    assert_eq!(listed(&third.client()), [] as [Value; 0]);
}

#[test]
fn an_upgrade_takes_along_what_is_lost() {
    let worker = supervised();
    let client = worker.client();
    load(&client, "prices", &worker.folder.join("prices.csv"));
    put(&client, "rates", &numbers(3)).ok();
    kill_worker(&worker);
    let serving = || Some(address(&worker.shm).look(common::SOON).ok()?.serving().ok()?.header.worker_pid);
    let former = until("a worker that serves", serving);
    worker.signal(Signal::SIGHUP);
    until("its successor", || serving().filter(|pid| *pid != former));
    assert!(by_name(&client, "rates").unwrap()["lost"].is_string());
    assert_eq!(by_name(&client, "prices").unwrap()["rows"], 2);
}
