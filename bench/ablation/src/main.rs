//! The demo's entries behind a Unix socket, without shared memory: each connection has a thread that reads a request, runs
//! the entry by the ABI that the worker uses, and writes the answer.
//!
//! It is what is left of the worker when the rings and the arena are taken away, and less: no queue, no deadline, no limit.
//! What molt is slower at than this, it pays for those; what it is faster at, shared memory buys.
//!
//! A request: length of the name, length of the body (u32, little-endian), name, body. An answer: 1 for an answer and 0 for
//! a fault, length (u32), bytes.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use clap::Parser;
use molt_entry::testing::{Answer, Request, call};

/// Longer bodies are a broken frame.
const MOST: usize = 64 << 20;
/// Entries' names are short.
const LONGEST_NAME: usize = 256;

/// Serves the demo's entries and `echo` on a Unix socket until it is ended.
#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    socket: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let listener = UnixListener::bind(Arguments::parse().socket)?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = serve(stream) {
                eprintln!("connection: {error}");
            }
        });
    }
    Ok(())
}

/// Answers one client until it has gone.
fn serve(mut stream: UnixStream) -> Result<(), Box<dyn Error>> {
    let mut header = [0; 8];
    // The last answer's memory takes the next body: fresh pages for 16 MiB would cost more than the copy.
    let mut room = Vec::new();
    loop {
        match stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let (name, body) = (length(header[..4].try_into()?), length(header[4..].try_into()?));
        if name > LONGEST_NAME || body > MOST {
            return Err(format!("a frame with a name of {name} bytes and a body of {body}").into());
        }
        let mut name = vec![0; name];
        stream.read_exact(&mut name)?;
        let mut payload = std::mem::take(&mut room);
        payload.clear();
        payload.reserve(body);
        // By `take`, because nothing has to be zeroed first: at megabytes that would be a good part of the time.
        (&mut stream).take(body as u64).read_to_end(&mut payload)?;
        if payload.len() < body {
            return Ok(());
        }
        let (good, answer) = run(std::str::from_utf8(&name)?, payload);
        let mut told = [0; 8];
        told[..4].copy_from_slice(&u32::from(good).to_le_bytes());
        told[4..].copy_from_slice(&u32::try_from(answer.len())?.to_le_bytes());
        // A short answer in one piece wakes the other side once.
        if answer.len() <= 64 << 10 {
            stream.write_all(&[&told[..], &answer].concat())?;
        } else {
            stream.write_all(&told)?;
            stream.write_all(&answer)?;
        }
        room = answer;
    }
}

fn length(bytes: [u8; 4]) -> usize {
    u32::from_le_bytes(bytes) as usize
}

/// Whether the entry answered, and what.
fn run(name: &str, payload: Vec<u8>) -> (bool, Vec<u8>) {
    match name {
        "echo" => (true, payload),
        "order_summary" => match call(demo_entries::molt_entries_v1, name, &Request::json(payload)) {
            Answer::Ok { body, .. } => (true, body),
            Answer::Failed { message, .. } => (false, message.into_bytes()),
        },
        _ => (false, format!("there is no entry {name}").into_bytes()),
    }
}
