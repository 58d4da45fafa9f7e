//! Holds spec/faults.md and spec/promises.md against the tree: every fault has its row, every test that a row names exists.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn document(name: &str) -> String {
    read_to_string(root().join("spec").join(name)).expect("a page of spec/")
}

/// What stands in backticks.
fn spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// `file::test`, for what names a test.
fn tests(text: &str) -> Vec<(&str, &str)> {
    spans(text).into_iter().filter_map(|span| span.split_once("::")).filter(|(file, _)| file.contains('/')).collect()
}

/// Whether the file has a test of that name: a test, not a helper, and not one that is switched off.
fn exists(file: &str, test: &str) -> bool {
    let Ok(source) = read_to_string(root().join(file)) else { return false };
    let lines: Vec<&str> = source.lines().collect();
    let defines = |line: &str| {
        let line = line.trim_start();
        let name =
            line.strip_prefix("fn ").or_else(|| line.strip_prefix("def ")).or_else(|| line.strip_prefix("async def "));
        name.is_some_and(|rest| rest.split_once('(').is_some_and(|(name, _)| name == test))
    };
    let Some(at) = lines.iter().position(|line| defines(line)) else { return false };
    // The attributes just above, back to the blank line before the item.
    let above: Vec<&str> =
        lines[..at].iter().rev().map(|line| line.trim()).take_while(|line| !line.is_empty()).collect();
    if above.iter().any(|line| line.starts_with("#[ignore") || line.contains("mark.skip")) {
        return false;
    }
    if file.ends_with(".py") {
        return test.starts_with("test_");
    }
    above.contains(&"#[test]")
}

#[test]
fn every_fault_has_its_row_and_every_test_named_exists() {
    let text = document("faults.md");
    let mut rows: BTreeMap<u32, &str> = BTreeMap::new();
    for line in text.lines() {
        let Some((number, _)) = line.strip_prefix("| ").and_then(|rest| rest.split_once(" |")) else { continue };
        let Ok(number) = number.parse() else { continue };
        let cells = line.trim_matches('|').split(" | ").count();
        assert_eq!(cells, 4, "row {number} has {cells} cells");
        assert!(rows.insert(number, line).is_none(), "fault {number} has two rows");
    }
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), (1..=60).collect::<Vec<_>>());
    for (number, row) in rows {
        let shown_by = row.trim_matches('|').rsplit(" | ").next().expect("a last cell");
        let targets = spans(shown_by).into_iter().filter_map(|span| span.strip_prefix("make "));
        let made = targets.map(|target| assert!(is_made(target), "fault {number}: make {target} is no target")).count();
        let named = tests(shown_by);
        let reason = shown_by.contains("not shown here: ");
        assert!(made > 0 || !named.is_empty() || reason, "fault {number}: nothing shows it, and no reason is given");
        for (file, test) in named {
            assert!(exists(file, test), "fault {number}: {file} has no test {test}");
        }
    }
}

fn is_made(target: &str) -> bool {
    let makefile = read_to_string(root().join("Makefile")).expect("the Makefile");
    makefile.lines().any(|line| line.split(':').next() == Some(target))
}

#[test]
fn every_promise_names_tests_that_exist() {
    let text = document("promises.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    let promises = rows.iter().filter(|row| !tests(row).is_empty()).count();
    assert!(promises >= 10, "{promises} promises name a test");
    for (file, test) in tests(&text) {
        assert!(exists(file, test), "promises.md: {file} has no test {test}");
    }
}

/// The check itself: what is not there, or no test, is noticed.
#[test]
fn what_does_not_exist_is_noticed() {
    assert!(exists("ipc-shm/tests/fault_table.rs", "what_does_not_exist_is_noticed"));
    assert!(!exists("ipc-shm/tests/fault_table.rs", "exists"), "a helper is no test");
    assert!(!exists("ipc-shm/tests/fault_table.rs", "what_does_not"));
    assert!(!exists("ipc-shm/tests/nowhere.rs", "child_role"));
    assert_eq!(tests("| 1 | `a` | `b/c.rs::d`, `e::f` |"), [("b/c.rs", "d")]);
}
