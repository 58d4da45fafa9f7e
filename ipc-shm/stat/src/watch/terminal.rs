//! The terminal: taken for as long as the view lives, given back however it ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ratatui::DefaultTerminal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The terminal while it is ours. Dropped, or at a panic (ratatui's hook), it is as it was.
#[derive(Debug)]
pub struct Screen {
    /// Where it is drawn.
    pub terminal: DefaultTerminal,
    signal: Arc<AtomicUsize>,
}

impl Screen {
    /// Takes the terminal.
    pub fn open() -> io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGTERM, SIGINT, SIGHUP] {
            signal_hook::flag::register_usize(number, signal.clone(), number as usize)?;
        }
        Ok(Self { terminal: ratatui::try_init()?, signal })
    }

    /// The signal that asked us to end, if one has.
    pub fn signal(&self) -> Option<u8> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            number => u8::try_from(number).ok(),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone cannot be restored, and nobody is left to be told.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}

#[cfg(test)]
#[path = "../../tests/pty/mod.rs"]
#[allow(dead_code, reason = "the view's test uses the rest")]
mod pty;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Screen;
    use super::pty::Terminal;

    const ROLE: &str = "MOLT_TEST_PANIC";

    /// In a process of its own: takes the terminal and panics.
    #[test]
    fn panicking_role() {
        if std::env::var(ROLE).is_ok() {
            let mut screen = Screen::open().expect("a terminal");
            screen.terminal.draw(|frame| frame.render_widget("drawn", frame.area())).expect("a screen");
            // Until the test has seen that the terminal was taken.
            std::io::stdin().read_line(&mut String::new()).expect("a line");
            panic!("as a defect would");
        }
    }

    #[test]
    fn a_panic_gives_the_terminal_back_and_is_readable() {
        let own = std::env::current_exe().expect("the test binary");
        let args = ["--exact", "watch::terminal::tests::panicking_role", "--nocapture", "--test-threads=1"];
        let mut view = Terminal::run(own.to_str().expect("a plain path"), &args, &[(ROLE, "1")]);
        let until = |what: &str, mut holds: Box<dyn FnMut() -> bool + '_>| {
            let end = Instant::now() + Duration::from_secs(20);
            while !holds() {
                assert!(Instant::now() < end, "never: {what}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        until("it draws", Box::new(|| view.text().contains("drawn")));
        assert!(view.is_taken());
        // Raw mode hands over each byte; the newline ends the reading.
        view.press(b"\n");
        until("it ends", Box::new(|| view.ended().is_some()));
        until("it is restored", Box::new(|| view.is_restored() && view.text().contains("as a defect would")));
    }
}
