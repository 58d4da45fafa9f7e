//! What a peer is: something that takes bytes from one process and brings the same bytes back from another.

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

/// Whatever goes wrong ends the run, with its text.
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;
/// The result of everything here.
pub type Tried<T> = Result<T, Trouble>;

/// How both sides wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Waits {
    /// They look again and again. (molt: as its own budget decides, which is what its users get.)
    Spin,
    /// They sleep until they are woken.
    Sleep,
}

/// Where and how a peer serves.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// A folder for sockets and files.
    #[arg(long)]
    pub folder: PathBuf,
    /// Begins every name outside of it.
    #[arg(long)]
    pub name: String,
    /// Bytes of a payload.
    #[arg(long)]
    pub size: usize,
    /// Clients at once.
    #[arg(long)]
    pub clients: usize,
    /// How both sides wait.
    #[arg(long)]
    pub waits: Waits,
}

impl Place {
    /// What the serving process is told.
    pub fn words(&self) -> Vec<String> {
        let waits = self.waits.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let folder = self.folder.display().to_string();
        ["--folder", &folder, "--name", &self.name, "--waits", &waits]
            .map(str::to_owned)
            .into_iter()
            .chain(["--size".to_owned(), self.size.to_string(), "--clients".to_owned(), self.clients.to_string()])
            .collect()
    }
}

/// Something to compare.
pub trait Peer: Sync {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Whether it can be measured at all.
    fn is_there(&self) -> Tried<()> {
        Ok(())
    }

    /// The longest payload it is made for.
    fn longest(&self) -> usize {
        usize::MAX
    }

    /// Whether it can sleep, and serve several clients: a bare algorithm can neither.
    fn is_whole(&self) -> bool {
        true
    }

    /// In the serving process: calls [`ready`] once it serves, and serves until the input is closed.
    fn serve(&self, place: &Place) -> Tried<()>;

    /// In the calling process.
    fn attach(&self, place: &Place) -> Tried<Box<dyn Attached>>;
}

/// A peer, attached to from this process; its threads share it.
pub trait Attached: Sync {
    /// One more client, to be used on the thread that asks for it.
    fn caller(&self) -> Tried<Box<dyn Caller>>;
}

/// One client.
pub trait Caller {
    /// Sends `payload` and hands what came back to `read`, where it lies.
    fn call(&mut self, payload: &[u8], read: &mut dyn FnMut(&[u8])) -> Tried<()>;
}

/// The one client of a peer that serves one: where it stands in the conversation is kept from turn to turn.
pub struct OneSide<C>(Arc<Mutex<Option<C>>>);

impl<C> OneSide<C> {
    /// That client.
    pub fn of(caller: C) -> Self {
        Self(Arc::new(Mutex::new(Some(caller))))
    }
}

impl<C: Caller + Send + 'static> Attached for OneSide<C> {
    fn caller(&self) -> Tried<Box<dyn Caller>> {
        let caller = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let caller = caller.ok_or("it serves one client at a time")?;
        Ok(Box::new(Lent { home: self.0.clone(), caller: Some(caller) }))
    }
}

struct Lent<C> {
    home: Arc<Mutex<Option<C>>>,
    caller: Option<C>,
}

impl<C: Caller> Caller for Lent<C> {
    #[inline]
    fn call(&mut self, payload: &[u8], read: &mut dyn FnMut(&[u8])) -> Tried<()> {
        self.caller.as_mut().ok_or("given back")?.call(payload, read)
    }
}

impl<C> Drop for Lent<C> {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = self.caller.take();
    }
}

/// A wait that looks again and again, and gives up where the other side is gone.
#[derive(Debug, Default)]
pub struct Looking {
    looks: u32,
    since: Option<Instant>,
}

impl Looking {
    /// After each look in vain. The clock is asked seldom: it would cost more than the look.
    #[inline]
    pub fn on(&mut self) -> Tried<()> {
        std::hint::spin_loop();
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(1 << 16) { self.is_long() } else { Ok(()) }
    }

    #[cold]
    fn is_long(&mut self) -> Tried<()> {
        if self.since.get_or_insert_with(Instant::now).elapsed() > ANSWERS_WITHIN {
            return Err(format!("no answer within {ANSWERS_WITHIN:?}").into());
        }
        Ok(())
    }
}

const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// Says that this process serves.
pub fn ready() {
    println!("serving");
}

/// Blocks until the input is closed: the caller is done, or gone.
pub fn until_input_closes() {
    let _ = std::io::stdin().read(&mut [0]);
}

/// Reads every byte.
pub fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    let rest = words.remainder().iter().fold(0_u64, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    words.fold(rest, |sum, word| sum.wrapping_add(u64::from_le_bytes(word.try_into().unwrap_or_default())))
}

/// Asks once and compares the answer byte by byte: before anything is timed.
pub fn echoes(caller: &mut dyn Caller, payload: &[u8]) -> Tried<()> {
    let mut equal = false;
    caller.call(payload, &mut |bytes| equal = bytes == payload)?;
    if equal { Ok(()) } else { Err(format!("its answer to {} bytes is not those bytes", payload.len()).into()) }
}

/// Bytes that are told apart from any shifted or shortened copy of themselves.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers something else, or nothing.
    struct Wrong(fn(&[u8]) -> Option<Vec<u8>>);

    impl Caller for Wrong {
        fn call(&mut self, payload: &[u8], read: &mut dyn FnMut(&[u8])) -> Tried<()> {
            self.0(payload).iter().for_each(|answer| read(answer));
            Ok(())
        }
    }

    #[test]
    fn an_answer_that_is_not_the_payload_is_refused() {
        let payload = pattern(4096);
        assert!(echoes(&mut Wrong(|payload| Some(payload.to_vec())), &payload).is_ok());
        let wrong: [fn(&[u8]) -> Option<Vec<u8>>; 4] = [
            |_| None,
            |payload| Some(payload[1..].to_vec()),
            |payload| Some([&payload[64..], &payload[..64]].concat()),
            |payload| payload.iter().map(|byte| Some(byte ^ u8::from(*byte == payload[4095]))).collect(),
        ];
        for answer in wrong {
            let told = echoes(&mut Wrong(answer), &payload).expect_err("a wrong answer").to_string();
            assert_eq!(told, "its answer to 4096 bytes is not those bytes");
        }
    }

    #[test]
    fn every_byte_is_read() {
        let bytes = pattern(1003);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(sum(&other), sum(&bytes), "byte {at}");
        }
    }
}
