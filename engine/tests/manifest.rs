//! A wrong manifest stops the start: exit code 1, a message that names file, entry and field, and nothing left behind.

mod common;

use common::{Folder, library, manifest, names_of, run, unique_shm};
use serde_json::{Value, json};

/// Starts a worker with this file as its manifest, which must be refused in these words.
#[track_caller]
fn refused(folder: &Folder, text: &[u8], parts: &[&str]) {
    let file = folder.write("exports.json", text).display().to_string();
    refused_file(folder, &file, parts);
}

#[track_caller]
fn refused_file(folder: &Folder, file: &str, parts: &[&str]) {
    let shm = unique_shm();
    let socket = folder.join("w.sock").display().to_string();
    let args = ["--shm", &shm, "--socket", &socket, "--arena", "1MiB", "--exports", file];
    let (code, out, message) = run(common::WORKER, folder.path(), &args);
    assert_eq!(code, Some(1), "{message}");
    assert_eq!(out, "", "a message belongs on standard error");
    let line = message.lines().last().unwrap_or_default();
    for part in [file, "molt_worker: "].iter().chain(parts) {
        assert!(line.contains(part), "{part:?} is not in {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(names_of(&shm), [""; 0]);
    assert!(!folder.join("w.sock").exists());
}

/// Refuses one entry.
#[track_caller]
fn refused_entry(entry: Value, parts: &[&str]) {
    refused(&Folder::new(), manifest(json!([entry])).as_bytes(), parts);
}

#[test]
fn no_manifest_or_none_that_can_be_read() {
    let folder = Folder::new();
    refused_file(&folder, &folder.join("absent.json").display().to_string(), &["No such file", "hint:"]);
    refused_file(&folder, &folder.path().display().to_string(), &["directory"]);
    refused(&folder, b"", &["not JSON"]);
    refused(&folder, b"{\"abi_version\": 1,", &["not JSON", "line 1"]);
    refused(&folder, b"\xff\xfe{}", &["not JSON"]);
    refused(&folder, b"[]", &["root", "object"]);
    refused(&folder, "[".repeat(100_000).as_bytes(), &["not JSON"]);
}

#[test]
fn fields_of_the_file() {
    let folder = Folder::new();
    for (text, parts) in [
        (json!({"exports": []}), ["\"abi_version\"", "missing"]),
        (json!({"abi_version": 2}), ["\"abi_version\"", "2"]),
        (json!({"abi_version": "1"}), ["\"abi_version\"", "\"1\""]),
        (json!({"abi_version": 1, "export": []}), ["unknown field \"export\"", "exports"]),
        (json!({"abi_version": 1, "exports": {}}), ["\"exports\"", "map"]),
        (json!({"abi_version": 1, "exports": ["echo"]}), ["\"exports\"", "echo"]),
        (json!({"abi_version": 1, "tables": []}), ["\"tables\"", "sequence"]),
    ] {
        refused(&folder, text.to_string().as_bytes(), &parts);
    }
}

#[test]
fn tables_that_cannot_be_loaded() {
    let folder = Folder::new();
    folder.write("t.xyz", "1");
    folder.write("bad.parquet", "no parquet");
    for (table, parts) in [
        (json!({"path": "absent.csv"}), ["absent.csv", "No such file"]),
        (json!({"path": "t.xyz"}), ["t.xyz", "xyz"]),
        (json!({"path": "bad.parquet"}), ["bad.parquet", "cannot load"]),
        (json!("t.csv"), ["\"t.csv\"", "path"]),
        (json!({"path": "t.xyz", "resident": false}), ["t.xyz", ".parquet file"]),
        (json!({"path": "absent.parquet", "resident": false}), ["absent.parquet", "No such file"]),
        (json!({"path": "bad.parquet", "resident": false}), ["bad.parquet", "cannot use"]),
        (json!({"put": true, "resident": false}), ["\"resident\"", "clients put"]),
        (json!({}), ["\"path\"", "missing"]),
        (json!({"path": "t.csv", "put": true}), ["\"put\"", "do not go together"]),
        (json!({"path": 7}), ["\"path\"", "7"]),
        (json!({"path": "t.csv", "format": "csv"}), ["unknown field", "\"format\""]),
    ] {
        let text = json!({"abi_version": 1, "tables": {"customers": table}});
        let [first, second] = parts;
        refused(&folder, text.to_string().as_bytes(), &["table \"customers\"", first, second]);
    }
}

#[test]
fn fields_of_an_entry() {
    refused_entry(json!({"kind": "native"}), &["exports[0]", "\"name\"", "missing"]);
    for (field, value, part) in [
        ("kind", json!("wasm"), "wasm"),
        ("kind", json!(null), "kind"),
        ("name", json!(7), "7"),
        ("sql", json!(["select 1"]), "sequence"),
        ("input", json!(7), "input"),
        ("params", json!({"min": 1}), "params"),
        ("idempotent", json!("yes"), "yes"),
        ("timeout_ms", json!("250"), "250"),
        ("timeout_ms", json!(0), "0"),
        ("timeout_ms", json!(-1), "-1"),
    ] {
        let mut entry = json!({"name": "totals", "kind": "sql", "sql": "select 1 as x"});
        entry[field] = value;
        let name = if field == "name" { "exports[0]" } else { "entry \"totals\"" };
        refused_entry(entry, &[name, &format!("\"{field}\""), part]);
    }
    refused_entry(json!({"name": "totals"}), &["entry \"totals\"", "\"kind\"", "missing"]);
    refused_entry(json!({"name": "totals", "kind": "sql"}), &["entry \"totals\"", "\"sql\"", "missing"]);
    let misspelt = json!({"name": "totals", "kind": "sql", "sql": "select 1 as x", "timeout": 250});
    refused_entry(misspelt, &["entry \"totals\"", "unknown field \"timeout\"", "timeout_ms"]);
    let native_sql = json!({"name": "totals", "kind": "native", "library": "x.so", "sql": "select 1"});
    refused_entry(native_sql, &["entry \"totals\"", "\"sql\"", "kind \"sql\""]);
    let sql_library = json!({"name": "totals", "kind": "sql", "sql": "select 1 as x", "library": "x.so"});
    refused_entry(sql_library, &["entry \"totals\"", "\"library\"", "kind \"native\""]);
    refused_entry(json!({"name": "molt.query", "kind": "native"}), &["entry \"molt.query\"", "\"name\"", "molt."]);
    refused_entry(json!({"name": "", "kind": "native"}), &["\"name\"", "1 to 200"]);

    let twice =
        json!([{"name": "compute", "kind": "native"}, {"name": "compute", "kind": "sql", "sql": "select 1 as x"}]);
    let parts = ["entry \"compute\"", "exports[1]", "\"name\"", "another entry"];
    refused(&Folder::new(), manifest(twice).as_bytes(), &parts);
}

#[test]
fn libraries_that_do_not_fit() {
    let folder = Folder::new();
    let text = folder.write("text.so", "no library ".repeat(100)).display().to_string();
    let (good, other, none) = (library("trial_entries"), library("trial_other_abi"), library("trial_no_entries"));
    for (name, library, parts) in [
        ("f", json!("absent.so"), ["\"library\"", "absent.so", "tried", "hint:"]),
        ("f", json!(text), ["\"library\"", "text.so", "invalid ELF", "text.so"]),
        ("f", json!(other), ["\"library\"", "ABI version 2", "this worker 1", "trial_other_abi.so"]),
        ("f", json!(none), ["\"library\"", "molt_entries_v1", "hint:", "trial_no_entries.so"]),
        ("f", json!(good), ["\"name\"", "no entry of that name", "trial_hold, ", "trial_entries.so"]),
    ] {
        let entry = json!({"name": name, "kind": "native", "library": library});
        let parts: Vec<&str> = ["entry \"f\""].into_iter().chain(parts).collect();
        refused(&folder, manifest(json!([entry])).as_bytes(), &parts);
    }
    refused_entry(json!({"name": "f", "kind": "native"}), &["entry \"f\"", "\"library\"", "missing", "compute"]);
}

#[test]
fn statements_that_do_not_fit() {
    let chain = format!("select 1{} as x", "+1".repeat(2_000));
    let nested = format!("select {}1{} as x", "(".repeat(200), ")".repeat(200));
    for (sql, parts) in [
        ("selct region", ["\"sql\"", "not SQL"]),
        ("select sum(amount from orders", ["\"sql\"", "not SQL"]),
        ("", ["\"sql\"", "no statement"]),
        ("select 1 as x; select 2 as x", ["\"sql\"", "2 statements"]),
        ("select region from order_lines", ["no table \"order_lines\"", "orders"]),
        ("select region from orders where amount > $min", ["$min", "not declared"]),
        ("drop table orders", ["\"sql\"", "DROP"]),
        ("copy orders to 'out.csv'", ["\"sql\"", "COPY"]),
        ("select * from read_csv('/etc/passwd')", ["\"sql\"", "read_csv"]),
        (&chain, ["\"sql\"", "operators"]),
        (&nested, ["\"sql\"", "nest"]),
    ] {
        let entry = json!({"name": "totals", "kind": "sql", "sql": sql, "input": "orders"});
        let parts: Vec<&str> = ["entry \"totals\""].into_iter().chain(parts).collect();
        refused_entry(entry, &parts);
    }
}

#[test]
fn parameters_and_schemas_that_do_not_fit_the_statement() {
    let sql = "select region from orders where amount > $min";
    let entry =
        |params: Value| json!({"name": "totals", "kind": "sql", "sql": sql, "input": "orders", "params": params});
    refused_entry(entry(json!({"min": "float"})), &["entry \"totals\"", "\"params.min\"", "float64"]);
    refused_entry(entry(json!({"min": "float64", "max": "int64"})), &["entry \"totals\"", "\"max\"", "not used"]);
    let with_schema = |schema: Value| {
        let mut entry = entry(json!({"min": "float64"}));
        entry["schema"] = schema;
        entry
    };
    // Where the manifest says what columns there are, the statement is planned at start.
    let schema = json!({"region": "utf8", "amunt": "float64"});
    refused_entry(with_schema(schema), &["entry \"totals\"", "\"sql\"", "no column \"amount\"", "region", "amunt"]);
    refused_entry(with_schema(json!({"region": "text"})), &["entry \"totals\"", "\"schema.region\"", "utf8"]);
    refused_entry(with_schema(json!("region")), &["entry \"totals\"", "\"schema\""]);
}
