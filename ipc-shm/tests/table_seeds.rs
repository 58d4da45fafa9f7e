//! The named inputs of the fuzz target `table`: every kind of column, whole (`valid-*`), and broken in each way that a reader
//! must notice (`broken-*`). They are made here and kept in `fuzz/corpus/table`, so that fuzzing begins behind the schema.
//!
//! `MOLT_FUZZ_WRITE=1 cargo test -p molt-ipc-shm --test table_seeds` writes them anew.

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{
    ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Float64Array, Int64Array,
    LargeStringArray, ListArray, NullArray, RecordBatch, RunArray, StringArray, StringViewArray, StructArray,
    TimestampMicrosecondArray, UnionArray,
};
use arrow_buffer::ScalarBuffer;
use arrow_buffer::alloc::Allocation;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema, UnionFields};
use molt_ipc_shm::mapping::Mapping;
use molt_ipc_shm::table::{self, Table, TableFault};

/// A seed's name without its kind, and its stream.
type Seed = (&'static str, Vec<u8>);

/// An end marker, behind every stream.
const END: usize = 8;

fn encoded(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    written(&batch.schema(), &[batch.clone(), batch.slice(0, batch.num_rows() / 2)])
}

/// One batch, whose body is the last thing before the end marker.
fn single(column: ArrayRef) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
    written(&batch.schema(), &[batch.clone()])
}

fn written(schema: &Schema, batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

fn texts() -> StringArray {
    StringArray::from(vec![Some("ab"), Some("ü"), Some("cdef"), Some("")])
}

fn union() -> UnionArray {
    let fields =
        [(0, Arc::new(Field::new("n", DataType::Int64, true))), (5, Arc::new(Field::new("t", DataType::Utf8, true)))];
    let children: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec!["x"]))];
    let codes = ScalarBuffer::from(vec![0_i8, 5, 0]);
    UnionArray::try_new(fields.into_iter().collect::<UnionFields>(), codes, Some(vec![0, 0, 1].into()), children)
        .unwrap()
}

fn valid() -> Vec<Seed> {
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let runs: RunArray<Int32Type> = ["a", "a", "b"].into_iter().collect();
    let dictionary: DictionaryArray<Int8Type> = ["x", "y", "x"].into_iter().collect();
    let structs = StructArray::from(vec![
        (Arc::new(Field::new("a", DataType::Utf8, true)), Arc::new(texts()) as ArrayRef),
        (Arc::new(Field::new("b", DataType::Boolean, true)), Arc::new(BooleanArray::from(vec![true; 4])) as ArrayRef),
    ]);
    let numbers = Int64Array::from(vec![Some(1), None, Some(i64::MIN)]);
    let decimals = Decimal128Array::from(vec![Some(12_345), None]).with_precision_and_scale(9, 2).unwrap();
    let moments = TimestampMicrosecondArray::from(vec![0, 1]).with_timezone("Europe/Berlin");
    let fixed = FixedSizeBinaryArray::try_from_iter([[1, 2, 3], [4, 5, 6]].into_iter()).unwrap();
    let views = StringViewArray::from(vec!["short", "a text that does not fit into a view itself"]);
    vec![
        ("no-columns", written(&Schema::empty(), &[])),
        ("no-rows", encoded(vec![("n", Arc::new(Int64Array::from(Vec::<i64>::new())))])),
        (
            "numbers",
            encoded(vec![("n", Arc::new(numbers)), ("f", Arc::new(Float64Array::from(vec![0.5, f64::NAN, -0.0])))]),
        ),
        ("texts", encoded(vec![("t", Arc::new(texts()))])),
        ("long-texts", encoded(vec![("t", Arc::new(LargeStringArray::from(vec!["a", "bc"])))])),
        ("views", encoded(vec![("v", Arc::new(views))])),
        ("booleans", encoded(vec![("b", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])))])),
        ("nulls", encoded(vec![("z", Arc::new(NullArray::new(3)))])),
        ("decimals", encoded(vec![("d", Arc::new(decimals))])),
        ("moments", encoded(vec![("m", Arc::new(moments))])),
        ("fixed", encoded(vec![("x", Arc::new(fixed))])),
        ("lists", encoded(vec![("l", Arc::new(lists))])),
        ("structs", encoded(vec![("s", Arc::new(structs))])),
        ("dictionary", encoded(vec![("k", Arc::new(dictionary))])),
        ("runs", single(Arc::new(runs))),
        ("union", single(Arc::new(union()))),
    ]
}

/// The same bytes with some changed, counted from the body of the last batch.
fn changed(mut stream: Vec<u8>, from_end: usize, bytes: &[u8]) -> Vec<u8> {
    let at = stream.len() - END - from_end;
    stream[at..at + bytes.len()].copy_from_slice(bytes);
    stream
}

/// Each with a word of what is said of it.
fn broken() -> Vec<(Seed, &'static str)> {
    let texts = single(Arc::new(texts()));
    let dictionary: DictionaryArray<Int8Type> = ["x", "y", "x"].into_iter().collect();
    let runs: RunArray<Int32Type> = ["a", "a", "b"].into_iter().collect();
    let cut = |len: usize| texts[..len].to_vec();
    let (metadata, mut second) = (u32::from_le_bytes(texts[4..8].try_into().unwrap()) as usize, texts.clone());
    second.truncate(8 + metadata);
    second.extend_from_slice(&texts);
    let mut long_metadata = texts.clone();
    long_metadata[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut no_schema = texts.clone();
    no_schema.drain(..8 + metadata);
    // Bodies are of whole 64 bytes: offsets (five of four bytes) in one, texts in the next.
    vec![
        (("empty", Vec::new()), "it ends after 0 bytes"),
        (("cut-in-schema", cut(8 + metadata / 2)), "metadata of"),
        (("cut-in-body", cut(texts.len() - END - 32)), "a body of"),
        (("second-schema", second), "a second schema"),
        (("no-schema", no_schema), "before the schema"),
        (("long-metadata", long_metadata), "metadata of"),
        (("offsets-descend", changed(texts.clone(), 128 - 4, &7_i32.to_le_bytes())), "ffset"),
        (("offsets-beyond", changed(texts.clone(), 128 - 16, &i32::MAX.to_le_bytes())), "ffset"),
        (("offsets-negative", changed(texts.clone(), 128, &(-1_i32).to_le_bytes())), "ffset"),
        (("no-utf8", changed(texts.clone(), 64, &[0xff])), "UTF8"),
        (("key-beyond", changed(single(Arc::new(dictionary)), 64, &[0x70])), ""),
        (("run-ends-at-zero", changed(single(Arc::new(runs)), 192, &0_i32.to_le_bytes())), "run_ends"),
        (("union-of-no-type", changed(single(Arc::new(union())), union_body(), &[0x33])), ""),
    ]
}

/// Where the union's codes lie, before the end of the body: codes, places, numbers, offsets and texts, 64 bytes each.
fn union_body() -> usize {
    64 * 5
}

fn read(stream: &[u8]) -> Result<Table, TableFault> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(stream.len().max(1) as u64).unwrap();
    let map = Arc::new(Mapping::new(&file).unwrap());
    map.write(0, stream);
    let owner: Arc<dyn Allocation> = Arc::new(map.clone());
    table::read(&map, 0, stream.len(), &owner)
}

#[test]
fn every_valid_seed_is_read_and_every_broken_one_refused() {
    for (name, stream) in valid() {
        let table = read(&stream).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert_eq!(table.copied_bytes, 0, "{name}");
        assert!(name.starts_with("no-") || table.batches.iter().any(|batch| batch.num_rows() > 1), "{name}");
    }
    for ((name, stream), word) in broken() {
        let fault = read(&stream).err().unwrap_or_else(|| panic!("{name} was read"));
        assert!(fault.what.contains(word), "{name}: {word:?} is not in {fault}");
    }
    assert!(valid().len() >= 15 && broken().len() >= 12);
}

#[test]
fn they_are_what_the_corpus_keeps() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/table");
    let named = valid().into_iter().map(|(name, stream)| (format!("valid-{name}"), stream));
    let named = named.chain(broken().into_iter().map(|((name, stream), _)| (format!("broken-{name}"), stream)));
    for (name, stream) in named {
        // The target's first byte says where the stream lies: at its place.
        let input: Vec<u8> = std::iter::once(0).chain(stream).collect();
        if std::env::var_os("MOLT_FUZZ_WRITE").is_some() {
            std::fs::write(folder.join(&name), &input).unwrap();
        }
        let kept = std::fs::read(folder.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(kept == input, "{name} is another; hint: MOLT_FUZZ_WRITE=1 writes it anew");
    }
}
