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
    words_about(file, test).is_some()
}

/// What stands above a test and, in Python, right below its name; `None`: there is no such test.
fn words_about(file: &str, test: &str) -> Option<String> {
    let source = read_to_string(root().join(file)).ok()?;
    let lines: Vec<&str> = source.lines().collect();
    let defines = |line: &str| {
        let line = line.trim_start();
        let name =
            line.strip_prefix("fn ").or_else(|| line.strip_prefix("def ")).or_else(|| line.strip_prefix("async def "));
        name.is_some_and(|rest| rest.split_once('(').is_some_and(|(name, _)| name == test))
    };
    let at = lines.iter().position(|line| defines(line))?;
    // The attributes just above, back to the blank line before the item.
    let above: Vec<&str> =
        lines[..at].iter().rev().map(|line| line.trim()).take_while(|line| !line.is_empty()).collect();
    if above.iter().any(|line| line.starts_with("#[ignore") || line.contains("mark.skip")) {
        return None;
    }
    let python = file.ends_with(".py");
    let is_test = if python { test.starts_with("test_") } else { above.contains(&"#[test]") };
    let below = lines.get(at + 1).filter(|line| python && line.trim().starts_with("\"\"\""));
    is_test.then(|| above.into_iter().chain(below.copied()).collect::<Vec<_>>().join("\n"))
}

/// The faults that a comment names: "Fault 31", "Faults 1-6, 12", "row 19".
fn faults_in(comment: &str) -> Vec<u32> {
    let lower = comment.to_lowercase();
    let mut found = Vec::new();
    for word in ["fault ", "faults ", "row "] {
        for (at, _) in lower.match_indices(word) {
            if lower[..at].ends_with(|before: char| before.is_alphabetic()) {
                continue; // "default"
            }
            let rest = &lower[at + word.len()..];
            let end = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, '-' | ',' | ' ')).unwrap_or(rest.len());
            for part in rest[..end].split([',', ' ']).filter(|part| !part.is_empty()) {
                let (from, to) = part.split_once('-').unwrap_or((part, part));
                if let (Ok(from), Ok(to)) = (from.parse::<u32>(), to.parse::<u32>()) {
                    found.extend(from..=to);
                }
            }
        }
    }
    found
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
        let mut says_so = reason;
        for (file, test) in named {
            let words = words_about(file, test);
            let words = words.unwrap_or_else(|| panic!("fault {number}: {file} has no test {test}"));
            says_so |= faults_in(&words).contains(&number);
        }
        assert!(says_so, "fault {number}: none of the tests that its row names says that it is about this fault");
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
    assert_eq!(faults_in("/// Faults 1-3, 12: one at a time. Row 19, with 8 MiB; fault 7."), [7, 1, 2, 3, 12, 19]);
    assert_eq!(faults_in("/// Fault or not, 4 of them.\n/// The default 5"), [] as [u32; 0]);
}
