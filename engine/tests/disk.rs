//! Tables that stay on disk, through the worker: from the manifest, loaded by clients, taken along in an upgrade.

mod common;

use std::fs::File;

use common::ask::Ask;
use common::tables::{count, listed, numbers, table};
use common::{Folder, Worker};
use datafusion::parquet::arrow::ArrowWriter;
use molt_ipc_shm::client::Client;
use molt_ipc_shm::{Codec, Outcome};
use serde_json::{Value, json};

fn parquet(folder: &Folder, name: &str, rows: i64) {
    let batch = numbers(rows);
    let mut writer = ArrowWriter::try_new(File::create(folder.join(name)).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn rows(client: &Client, name: &str) -> i64 {
    let sql = json!({"sql": format!("select count(x) from {name} where x >= 0")});
    count(&Ask::of("molt.query").params(sql).accept(Codec::Arrow).call(client).ok())
}

#[test]
fn a_successor_has_the_tables_on_disk_too() {
    let folder = Folder::new();
    std::fs::create_dir(folder.join("parts")).unwrap();
    parquet(&folder, "parts/a.parquet", 300);
    parquet(&folder, "parts/b.parquet", 44);
    parquet(&folder, "later.parquet", 5);
    let manifest = json!({
        "abi_version": 1,
        "tables": {"parts": {"path": "parts", "resident": false}, "copy": {"path": "parts"}},
        "exports": []
    });
    let mut worker = Worker::start(folder, Some(&manifest.to_string()), &[]);
    let client = worker.client();
    assert_eq!((rows(&client, "parts"), rows(&client, "copy")), (344, 344));
    let path = worker.folder.join("later.parquet");
    let load = json!({"name": "later", "path": path, "resident": false});
    let loaded: Value = Ask::of("molt.load").params(load).accept(Codec::MsgPack).value(&client);
    assert_eq!((&loaded["rows"], &loaded["resident"]), (&json!(5), &json!(false)));
    let used = worker.report().arena.used_bytes;
    table(&client, "later").fails(Outcome::InvalidInput, &["\"later\" stays on disk", "hint:"]);
    let before: Vec<Value> = listed(&client);
    assert_eq!(before.iter().map(|table| &table["resident"]).collect::<Vec<_>>(), [true, false, false]);
    drop(client);

    let (socket, exports) = (worker.socket(), worker.folder.join("exports.json"));
    let args = ["--replace", "--socket", socket.to_str().unwrap(), "--exports", exports.to_str().unwrap()];
    let next = Worker::launch(worker.shm.clone(), worker.folder.clone(), &args).serves_as_successor();
    assert!(worker.ended().success(), "{}", worker.log());
    let client = next.client();
    assert_eq!((rows(&client, "parts"), rows(&client, "later")), (344, 5));
    let after = listed(&client);
    let of = |list: &[Value], name: &str| {
        let mut found = list.iter().find(|table| table["name"] == name).cloned().unwrap();
        found.as_object_mut().unwrap().remove("age_s");
        found
    };
    assert_eq!(of(&after, "later"), of(&before, "later"), "same version, same file");
    assert_eq!(next.report().arena.used_bytes, used, "no room in the arena");
    let loads: Vec<Value> = Ask::of("molt.loads").accept(Codec::MsgPack).value(&client);
    assert!(loads.is_empty());
}
