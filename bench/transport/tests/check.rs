//! The whole program in short: every peer serves, is checked, has its rows, and a peer that is not there is said.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

const ICEORYX: &str = "iceoryx2";

fn run(name: &str, words: &[&str]) -> Value {
    let name = format!("molt-bench-check-{}-{name}", std::process::id());
    let folder = std::env::temp_dir().join(&name);
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_molt-transport-bench"));
    let done = command.args(["run", "--check", "--name", &name, "--folder"]).arg(&folder).args(words).output();
    let done = done.expect("the program");
    let left: Vec<String> = std::fs::read_dir("/dev/shm")
        .expect("/dev/shm")
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|found| found.starts_with(&name) && !found.contains("iox2"))
        .collect();
    std::fs::remove_dir_all(&folder).expect("its folder");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(left, [] as [String; 0], "names left in /dev/shm");
    serde_json::from_slice(&done.stdout).expect("one JSON object")
}

#[test]
fn every_row_is_there_and_an_absent_peer_is_said() {
    let report = run("all", &[]);
    let rows = report["rows"].as_array().expect("rows");
    let found: BTreeSet<(String, String, u64, u64)> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().expect("a text").to_owned();
            let number = |key: &str| row[key].as_u64().expect("a number");
            (text("part"), text("peer"), number("size"), number("clients"))
        })
        .collect();
    let mut wanted = BTreeSet::new();
    let mut want = |part: &str, peers: &[&str], size: u64, clients: u64| {
        let there = peers.iter().filter(|peer| cfg!(feature = "iceoryx2") || **peer != ICEORYX);
        wanted.extend(there.map(|peer| (part.to_owned(), (*peer).to_owned(), size, clients)));
    };
    let whole = ["molt", ICEORYX, "Unix socket"];
    want("hot", &["molt", "ring pair", ICEORYX, "Unix socket", "bare cache line"], 64, 1);
    want("asleep", &whole, 64, 1);
    want("sizes", &["molt", "ring pair", ICEORYX, "Unix socket"], 64, 1);
    want("sizes", &whole, 256 << 10, 1);
    want("clients", &whole, 64, 1);
    want("clients", &whole, 64, 4);
    want("spinning", &["molt, spinning while it pays", "molt, never spinning"], 64, 16);
    assert_eq!(found, wanted);
    for row in rows {
        for key in ["p50_us", "p99_us", "p999_us", "calls_per_s", "cpu_us"] {
            assert!(row[key].as_f64().is_some_and(|figure| figure > 0.0), "{key} of {row}");
        }
    }
    assert!(report["placing"]["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{report}");
    let missing = report["missing"].as_array().expect("what is missing");
    assert!(missing.iter().all(|one| one["peer"] == ICEORYX), "{missing:?}");
    assert_eq!(missing.is_empty(), cfg!(feature = "iceoryx2"));
    assert!(missing.iter().all(|one| one["why"].as_str().is_some_and(|why| why.contains("built without"))));
}

#[test]
fn an_unknown_peer_is_an_error_that_names_the_known_ones() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_molt-transport-bench"));
    let folder = std::env::temp_dir();
    let done = command.args(["run", "--check", "--name", "none", "--peer", "carrier pigeon", "--folder"]).arg(folder);
    let done = done.output().expect("the program");
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && told.contains("carrier pigeon") && told.contains("Unix socket"), "{told}");
}
