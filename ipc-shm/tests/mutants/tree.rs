//! A copy of the crate, in which one file at a time is changed.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::list::Edit;

/// The copy: a workspace of this crate alone, with the real one's versions and profile.
pub struct Tree {
    root: PathBuf,
    target: PathBuf,
}

/// The models, built.
pub struct Built {
    program: PathBuf,
}

/// How a scenario ended.
pub enum Ran {
    Passed(Duration),
    /// With what it said.
    Failed(String),
    /// It did not end at all.
    Hung,
}

impl Ran {
    pub fn text(&self) -> String {
        match self {
            Self::Passed(took) => format!("it holds all the same, after {:.1} s", took.as_secs_f32()),
            Self::Failed(what) => what.clone(),
            Self::Hung => "it did not end".into(),
        }
    }
}

impl Tree {
    pub fn copy() -> io::Result<Self> {
        let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = crate_folder.parent().expect("a crate in a workspace");
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let root = temporary.join("mutants");
        let _ = fs::remove_dir_all(&root);
        copy_folder(&crate_folder.join("src"), &root.join("ipc-shm/src"))?;
        copy_folder(&crate_folder.join("tests"), &root.join("ipc-shm/tests"))?;
        fs::copy(crate_folder.join("Cargo.toml"), root.join("ipc-shm/Cargo.toml"))?;
        fs::copy(workspace.join("Cargo.lock"), root.join("Cargo.lock"))?;
        let manifest = fs::read_to_string(workspace.join("Cargo.toml"))?;
        let members =
            |line: &str| if line.starts_with("members") { "members = [\"ipc-shm\"]" } else { line }.to_owned();
        fs::write(root.join("Cargo.toml"), manifest.lines().map(members).collect::<Vec<_>>().join("\n"))?;
        // Where `make test-proofs` builds too: what the models need is compiled once.
        let target = temporary.parent().expect("the target folder").join("loom");
        Ok(Self { root, target })
    }

    /// Does something with a changed copy, and takes the change back.
    pub fn with<T>(&self, edits: &[Edit], act: impl FnOnce(&Self) -> Result<T, String>) -> Result<T, String> {
        let mut before: Vec<(PathBuf, String)> = Vec::new();
        let result = edits.iter().try_for_each(|edit| {
            let path = self.root.join("ipc-shm/src").join(edit.file);
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", edit.file))?;
            let found = text.matches(edit.old).count();
            if found != 1 {
                return Err(format!("{} has the text to be replaced {found} times, not once", edit.file));
            }
            fs::write(&path, text.replacen(edit.old, edit.new, 1))
                .map_err(|error| format!("{}: {error}", edit.file))?;
            before.push((path, text));
            Ok(())
        });
        let result = result.and_then(|()| act(self));
        for (path, text) in before.into_iter().rev() {
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        result
    }

    pub fn build(&self) -> Result<Built, String> {
        let built = Command::new(env!("CARGO"))
            .args(["test", "--release", "--offline", "--package", "molt-ipc-shm", "--test", "loom", "--no-run"])
            .arg("--target-dir")
            .arg(&self.target)
            // The time goes into building: the crate itself as it comes, and only what a mutant changes. loom stays fast.
            .args(["--config", "profile.release.package.molt-ipc-shm.opt-level=0"])
            .args(["--config", "profile.release.incremental=true"])
            .current_dir(&self.root)
            .env("RUSTFLAGS", "--cfg loom")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .output()
            .map_err(|error| format!("cargo: {error}"))?;
        let said = String::from_utf8_lossy(&built.stderr);
        if !built.status.success() {
            let first = said.lines().find(|line| line.starts_with("error")).unwrap_or("cargo failed").to_owned();
            return Err(format!("it does not compile: {first}"));
        }
        let program = said.lines().find_map(|line| line.trim().strip_prefix("Executable tests/loom/main.rs ("));
        let program = program.ok_or("cargo named no program")?.trim_end_matches(')');
        Ok(Built { program: self.root.join(program) })
    }
}

impl Built {
    pub fn scenarios(&self) -> io::Result<Vec<String>> {
        let listed = Command::new(&self.program).args(["--list", "--format", "terse"]).output()?;
        let text = String::from_utf8_lossy(&listed.stdout);
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }

    pub fn run(&self, scenario: &str, longest: Duration) -> Ran {
        let started = Instant::now();
        let mut child = Command::new(&self.program)
            .args(["--exact", "--nocapture", scenario])
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program that was just built");
        let mut stderr = child.stderr.take().expect("piped");
        let reader = std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = stderr.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        let status = loop {
            match child.try_wait().expect("a child of ours") {
                Some(status) => break status,
                None if started.elapsed() > longest => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Ran::Hung;
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let said = reader.join().unwrap_or_default();
        if status.success() { Ran::Passed(started.elapsed()) } else { Ran::Failed(first_words(&said)) }
    }
}

/// What a panic says, without where.
fn first_words(said: &str) -> String {
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at")).skip(1);
    let line = lines.find(|line| !line.trim().is_empty()).unwrap_or("it failed without a word").trim();
    line.chars().take(90).collect()
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
