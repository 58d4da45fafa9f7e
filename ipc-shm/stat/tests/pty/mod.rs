//! A program on a terminal of its own: what it draws is kept as a screen, keys can be pressed.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;

const COLUMNS: NonZero<u16> = NonZero::new(80).expect("not zero");
const LINES: NonZero<u16> = NonZero::new(24).expect("not zero");

/// The program; killed when dropped.
pub struct Terminal {
    child: Child,
    keyboard: File,
    line: OwnedFd,
    before: Termios,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Starts it on a terminal of 80 columns and 24 lines. `setsid -c` makes it the program's own: what it asks about
    /// its terminal is then not answered by the one that the tests run on.
    pub fn run(program: &str, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let size = Winsize { ws_row: LINES.get(), ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).expect("a terminal");
        let before = tcgetattr(&pair.slave).expect("its settings");
        let side = || Stdio::from(pair.slave.try_clone().expect("a descriptor"));
        let mut command = Command::new("setsid");
        command.arg("-c").arg(program).args(args).env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command.envs(environment.iter().copied()).stdin(side()).stdout(side()).stderr(side());
        let child = command.spawn().expect("the program (setsid, of util-linux, starts it)");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(LINES, COLUMNS, 0)));
        let (keyboard, drawn) = (File::from(pair.master), screen.clone());
        let mut output = keyboard.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut bytes) {
                drawn.lock().expect("the screen").process(&bytes[..len]);
            }
        });
        Self { child, keyboard, line: pair.slave, before, screen }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What stands on the screen.
    pub fn text(&self) -> String {
        self.screen.lock().expect("the screen").screen().contents()
    }

    pub fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("a keyboard");
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("a process to send a signal to");
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its state")
    }

    /// Whether the whole screen is taken.
    pub fn is_taken(&self) -> bool {
        self.screen.lock().expect("the screen").screen().alternate_screen()
            && tcgetattr(&self.line).expect("its settings") != self.before
    }

    /// Whether the terminal is as it was: settings, the screen's former contents, the cursor.
    pub fn is_restored(&self) -> bool {
        let parser = self.screen.lock().expect("the screen");
        let screen = parser.screen();
        let settings = tcgetattr(&self.line).expect("its settings");
        settings == self.before && !screen.alternate_screen() && !screen.hide_cursor()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
