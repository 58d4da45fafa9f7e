//! The manifest: which entries and tables the worker has. Whatever is wrong in it stops the start with a message that
//! names file, entry and field.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::arguments::parse_size;
use crate::sql::Shape;

/// The file that is read when nobody names one.
pub const DEFAULT_FILE: &str = "molt_exports.json";
/// The version of the file's form.
const ABI_VERSION: u64 = 1;

/// A manifest.
#[derive(Debug, Default)]
pub struct Manifest {
    /// The file, for messages; none: the built-in entries alone.
    pub file: Option<PathBuf>,
    /// Its bytes in short, for clients that have the file as well: whether worker and web are of one deployment.
    pub hash: Option<u64>,
    /// Tables by name.
    pub tables: BTreeMap<String, TableSource>,
    /// Entries.
    pub exports: Vec<Export>,
}

/// Where a table comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableSource {
    /// A client puts it later.
    Put,
    /// A file, or a folder of Parquet files, that is loaded at start.
    Loaded(PathBuf),
    /// The same, left on disk: each statement that names it reads what it needs.
    OnDisk(PathBuf),
}

/// An entry as the manifest describes it.
#[derive(Debug)]
pub struct Export {
    /// What clients call it by.
    pub name: String,
    /// native or sql.
    pub kind: Kind,
    /// Native: the shared library; none for a built-in.
    pub library: Option<PathBuf>,
    /// SQL: the statement.
    pub sql: Option<String>,
    /// SQL: the tables that a request brings.
    pub input: Names,
    /// SQL: parameters and their types.
    pub params: BTreeMap<String, String>,
    /// SQL: columns of inputs that come as rows: `{"column": "type"}` for the only input, or one such object an input.
    pub schema: Option<Value>,
    /// The longest that a call may take, queueing included.
    pub timeout_ms: Option<u64>,
    /// SQL: what an answer in JSON or MsgPack is made of.
    pub output: Shape,
    /// SQL: most rows of an answer.
    pub max_rows: Option<usize>,
    /// SQL: most memory that a run may take for sorting, grouping and joining, bytes.
    pub max_memory: Option<usize>,
    /// Native: running it twice does no harm, so it is sent again when a worker dies while it runs. SQL always is.
    pub idempotent: bool,
}

/// What kind of entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Rust (or anything with the C ABI), built in or from a library.
    Native,
    /// A statement.
    Sql,
}

/// Bytes: a number, or text like "64MiB".
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
struct Size(usize);

impl TryFrom<Value> for Size {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let bytes = match &value {
            Value::String(text) => parse_size(text)?,
            other => other.as_u64().ok_or_else(|| format!("{other} is no size; like \"64MiB\", or bytes"))?,
        };
        usize::try_from(bytes).map(Size).map_err(|_| format!("{bytes} bytes are more than this machine can count"))
    }
}

/// One name or several.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
pub enum Names {
    /// None.
    #[default]
    None,
    /// `"input": "orders"`.
    One(String),
    /// `"input": ["orders", "rates"]`.
    Several(Vec<String>),
}

impl Names {
    /// The names as a list.
    pub fn list(&self) -> Vec<String> {
        match self {
            Names::None => Vec::new(),
            Names::One(name) => vec![name.clone()],
            Names::Several(names) => names.clone(),
        }
    }
}

impl Export {
    /// Takes the fields out of an object, so that what is wrong is named and what is left over is unknown.
    fn take(mut object: Map<String, Value>) -> Result<Self, String> {
        let export = Self {
            name: required(&mut object, "name")?,
            kind: required(&mut object, "kind")?,
            library: optional(&mut object, "library")?,
            sql: optional(&mut object, "sql")?,
            input: optional(&mut object, "input")?.unwrap_or_default(),
            params: optional(&mut object, "params")?.unwrap_or_default(),
            schema: optional(&mut object, "schema")?,
            timeout_ms: optional(&mut object, "timeout_ms")?,
            output: optional(&mut object, "output")?.unwrap_or_default(),
            max_rows: optional(&mut object, "max_rows")?,
            max_memory: optional::<Size>(&mut object, "max_memory")?.map(|size| size.0),
            idempotent: optional(&mut object, "idempotent")?.unwrap_or(false),
        };
        let known =
            "name, kind, library, sql, input, params, schema, output, timeout_ms, max_rows, max_memory, idempotent";
        no_more(&object, known)?;
        Ok(export)
    }

    /// The longest that a call may take.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }
}

impl Manifest {
    /// Reads the file named, or the default one if it is there.
    pub fn find(named: Option<&Path>) -> Result<Self, String> {
        match named {
            Some(file) => Self::read(file),
            None if Path::new(DEFAULT_FILE).exists() => Self::read(Path::new(DEFAULT_FILE)),
            None => Ok(Self::default()),
        }
    }

    fn read(file: &Path) -> Result<Self, String> {
        let show = file.display();
        let text = std::fs::read(file).map_err(|error| {
            format!("manifest {show}: {error}; hint: --exports names a file like molt_exports.json")
        })?;
        Self::parse(file, &text).map_err(|what| format!("manifest {show}: {what}"))
    }

    fn parse(file: &Path, text: &[u8]) -> Result<Self, String> {
        let root: Value = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
        let Value::Object(mut root) = root else { return Err("its root is no object".into()) };
        match root.remove("abi_version") {
            Some(Value::Number(version)) if version.as_u64() == Some(ABI_VERSION) => {}
            Some(other) => return Err(format!("field \"abi_version\" is {other}, this worker reads {ABI_VERSION}")),
            None => return Err(format!("field \"abi_version\" is missing; this worker reads {ABI_VERSION}")),
        }
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut tables = BTreeMap::new();
        let sources: Map<String, Value> = optional(&mut root, "tables")?.unwrap_or_default();
        for (name, source) in sources {
            let source = source_of(source, folder).map_err(|what| format!("table \"{name}\": {what}"))?;
            tables.insert(name, source);
        }
        let exports: Vec<Map<String, Value>> = optional(&mut root, "exports")?.unwrap_or_default();
        no_more(&root, "abi_version, tables, exports")?;
        let mut names = HashSet::new();
        let mut read = Vec::new();
        for (index, export) in exports.into_iter().enumerate() {
            let label = match export.get("name") {
                Some(Value::String(name)) => format!("entry \"{name}\" (exports[{index}])"),
                _ => format!("exports[{index}]"),
            };
            let export = Export::take(export).map_err(|what| format!("{label}: {what}"))?;
            check(&export).map_err(|what| format!("{label}: {what}"))?;
            if !names.insert(export.name.clone()) {
                return Err(format!("{label}: field \"name\": another entry has that name"));
            }
            read.push(export);
        }
        Ok(Self { file: Some(file.to_path_buf()), hash: Some(fnv1a(text)), tables, exports: read })
    }
}

/// FNV-1a, 64 bits: it tells versions of a file apart, and any language has it in four lines.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Where a table comes from: a file, which `"resident": false` leaves on disk, or, with `"put": true`, a client.
fn source_of(source: Value, folder: &Path) -> Result<TableSource, String> {
    let Value::Object(mut source) = source else { return Err(format!("{source} is no object like {{\"path\": ...}}")) };
    let (path, put) = (optional::<PathBuf>(&mut source, "path")?, optional(&mut source, "put")?.unwrap_or(false));
    let resident = optional::<bool>(&mut source, "resident")?;
    no_more(&source, "path, put, resident")?;
    match (path, put, resident) {
        (Some(_), true, _) => Err("fields \"path\" and \"put\" do not go together".into()),
        (None, false, _) => Err("field \"path\" is missing; hint: {\"put\": true} for a table that clients put".into()),
        (None, true, Some(false)) => Err("field \"resident\": what clients put is resident".into()),
        (None, true, _) => Ok(TableSource::Put),
        (Some(path), false, Some(false)) => Ok(TableSource::OnDisk(folder.join(path))),
        (Some(path), false, _) => Ok(TableSource::Loaded(folder.join(path))),
    }
}

/// Takes one field; the message names it.
fn optional<T: DeserializeOwned>(object: &mut Map<String, Value>, field: &str) -> Result<Option<T>, String> {
    let read = |value| T::deserialize(value).map_err(|error: serde_json::Error| format!("field \"{field}\": {error}"));
    object.remove(field).map(read).transpose()
}

fn required<T: DeserializeOwned>(object: &mut Map<String, Value>, field: &str) -> Result<T, String> {
    optional(object, field)?.ok_or_else(|| format!("field \"{field}\" is missing"))
}

/// What nobody took is unknown.
fn no_more(object: &Map<String, Value>, known: &str) -> Result<(), String> {
    object.keys().next().map_or(Ok(()), |name| Err(format!("unknown field \"{name}\"; the fields are {known}")))
}

/// Fields that do not go together.
fn check(export: &Export) -> Result<(), String> {
    let name_most = molt_ipc_shm::frame::NAME_MAX;
    if export.name.is_empty() || export.name.len() > name_most || export.name.starts_with("molt.") {
        return Err(format!("field \"name\": 1 to {name_most} bytes, and \"molt.\" is the worker's own prefix"));
    }
    if export.timeout_ms == Some(0) {
        return Err("field \"timeout_ms\": 0 would time every call out; leave it out for no limit of its own".into());
    }
    for (field, limit) in [("max_rows", export.max_rows), ("max_memory", export.max_memory)] {
        if limit == Some(0) {
            return Err(format!(
                "field \"{field}\": 0 would refuse every answer; leave it out for no limit of its own"
            ));
        }
    }
    let stray = match export.kind {
        Kind::Native => [
            ("sql", export.sql.is_some()),
            ("input", !matches!(export.input, Names::None)),
            ("params", !export.params.is_empty()),
            ("schema", export.schema.is_some()),
            ("output", export.output != Shape::Rows),
            ("max_rows", export.max_rows.is_some()),
            ("max_memory", export.max_memory.is_some()),
        ]
        .into_iter()
        .find(|(_, there)| *there)
        .map(|(field, _)| (field, "sql")),
        Kind::Sql => export.library.is_some().then_some(("library", "native")),
    };
    if let Some((field, kind)) = stray {
        return Err(format!("field \"{field}\" belongs to entries of kind \"{kind}\""));
    }
    if export.kind == Kind::Sql && export.sql.is_none() {
        return Err("field \"sql\" is missing".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        Manifest::parse(Path::new("m.json"), text.as_bytes()).expect_err("it should not parse")
    }

    #[test]
    fn a_manifest_is_read() {
        let text = r#"{"abi_version": 1, "tables": {"r": {"path": "d/r.csv"}, "big": {"path": "big", "resident": false}}, "exports": [
            {"name": "compute", "kind": "native"},
            {"name": "t", "kind": "sql", "sql": "select 1", "input": "o", "params": {"min": "float64"}, "timeout_ms": 250}]}"#;
        let manifest = Manifest::parse(Path::new("x/m.json"), text.as_bytes()).unwrap();
        assert_eq!(manifest.tables["r"], TableSource::Loaded("x/d/r.csv".into()));
        assert_eq!(manifest.tables["big"], TableSource::OnDisk("x/big".into()));
        assert_eq!(manifest.exports[1].input.list(), ["o"]);
        assert_eq!(manifest.exports[1].timeout(), Some(Duration::from_millis(250)));
        assert_eq!(manifest.hash, Some(fnv1a(text.as_bytes())));
    }

    #[test]
    fn the_hash_is_the_published_one() {
        // The test vectors of its authors.
        let known = [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)];
        known.iter().for_each(|(text, hash)| assert_eq!(fnv1a(text.as_bytes()), *hash, "{text}"));
    }

    #[test]
    fn what_is_wrong_is_named_with_entry_and_field() {
        let export = |body: &str| format!(r#"{{"abi_version": 1, "exports": [{body}]}}"#);
        for (text, parts) in [
            (r#"{"exports": []}"#.to_owned(), &["abi_version", "missing"][..]),
            (r#"{"abi_version": 2}"#.to_owned(), &["abi_version", "2"]),
            (r#"{"abi_version": 1, "export": []}"#.to_owned(), &["export", "exports"]),
            (export(r#"{"name": "a", "kind": "wasm"}"#), &["\"a\"", "kind", "wasm"]),
            (export(r#"{"name": "a", "kind": "native", "libary": "x"}"#), &["\"a\"", "libary"]),
            (export(r#"{"name": "a", "kind": "native", "sql": "select 1"}"#), &["\"a\"", "\"sql\""]),
            (export(r#"{"name": "a", "kind": "sql"}"#), &["\"a\"", "\"sql\"", "missing"]),
            (export(r#"{"name": "a", "kind": "sql", "sql": 7}"#), &["\"a\"", "\"sql\"", "7"]),
            (export(r#"{"name": "a", "kind": "native", "timeout_ms": 0}"#), &["\"a\"", "timeout_ms"]),
            (export(r#"{"name": "a", "kind": "native", "max_rows": 1}"#), &["\"a\"", "max_rows", "sql"]),
            (export(r#"{"name": "a", "kind": "sql", "sql": "select 1", "max_rows": 0}"#), &["\"a\"", "max_rows", "0"]),
            (
                export(r#"{"name": "a", "kind": "sql", "sql": "select 1", "max_rows": -1}"#),
                &["\"a\"", "max_rows", "-1"],
            ),
            (
                export(r#"{"name": "a", "kind": "sql", "sql": "select 1", "max_memory": "1 parsec"}"#),
                &["\"a\"", "max_memory", "parsec"],
            ),
            (
                export(r#"{"name": "a", "kind": "sql", "sql": "select 1", "output": "heap"}"#),
                &["\"a\"", "output", "heap", "columns"],
            ),
            (export(r#"{"name": "molt.x", "kind": "native"}"#), &["name", "molt."]),
            (
                export(r#"{"name": "a", "kind": "native"}, {"name": "a", "kind": "native"}"#),
                &["\"a\"", "name", "another"],
            ),
            (
                r#"{"abi_version": 1, "tables": {"t": {"put": true, "resident": false}}}"#.to_owned(),
                &["\"t\"", "resident"],
            ),
            (export(r#"{"kind": "native"}"#), &["exports[0]", "name"]),
        ] {
            let what = fault(&text);
            for part in parts {
                assert!(what.contains(part), "{part:?} is not in {what:?}");
            }
        }
    }
}
