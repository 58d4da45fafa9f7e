//! A second process: this test binary again, playing a role instead of running its tests.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ROLE: &str = "MOLT_TEST_ROLE";

/// A role's name, and what it does with the words after it.
pub type Role<'a> = (&'a str, fn(&[String]));

/// A child; killed when dropped.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    said: BufReader<ChildStdout>,
}

/// The body of each binary's `child_role` test: plays the role that the environment names, if it names one.
pub fn play(roles: &[Role]) {
    let Ok(words) = std::env::var(ROLE) else { return };
    // A child never outlives the test that started it.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("a signal at the parent's death");
    let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    let role = roles.iter().find(|(name, _)| *name == words[0]).expect("a known role");
    (role.1)(&words[1..]);
    // The harness would print its own words and wait for threads that never end.
    std::process::exit(0);
}

/// In the child: tells the parent a line.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n> {line}").and_then(|()| out.flush()).expect("a parent that listens");
}

/// In the child: the parent's next line; `None` once it has closed its end.
pub fn hear() -> Option<String> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line).unwrap_or(0);
    (read > 0).then(|| line.trim_end().to_owned())
}

impl Child {
    pub fn start(words: &[&str]) -> Self {
        Self::start_under("exec \"$0\" \"$@\"", words)
    }

    /// Starts it from a shell line, which may set limits before it becomes the child.
    pub fn start_under(shell: &str, words: &[&str]) -> Self {
        let own = std::env::current_exe().expect("the test binary");
        let mut process = Command::new("sh")
            .args(["-c", shell])
            .arg(own)
            .args(["--exact", "child_role", "--nocapture", "--test-threads=1"])
            .env(ROLE, words.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let said = BufReader::new(process.stdout.take().expect("its output"));
        Self { process, said }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The next line it says.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.said.read_line(&mut line).expect("its output") > 0, "the child ended without a word");
            if let Some(said) = line.strip_prefix("> ") {
                return said.trim_end().to_owned();
            }
        }
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().expect("its input"), "{line}").expect("a child that listens");
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("a process to send a signal to");
    }

    /// Stops it, and until each of its threads stands still: kill() returns before they have.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        super::until("all of its threads stand still", || all_stopped(self.pid()));
    }

    /// kill -9, and until it is really gone.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Closes its input and waits for it to end by itself.
    pub fn finish(mut self) -> bool {
        drop(self.process.stdin.take());
        self.process.wait().is_ok_and(|status| status.success())
    }
}

/// Whether a process has threads, and all of them are stopped.
fn all_stopped(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process").flatten();
    let states: Vec<_> = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok()).collect();
    // The state follows the name, which stands in parentheses and may hold anything.
    let stopped = |stat: &String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
    !states.is_empty() && states.iter().all(stopped)
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
