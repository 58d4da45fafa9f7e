//! A Unix stream socket: what everybody would take.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use crate::peer::{Attached, Caller, Peer, Place, Tried, Waits, ready, until_input_closes};

/// A Unix socket.
pub struct UnixSocket;

fn path(place: &Place) -> PathBuf {
    place.folder.join("unix")
}

/// One end of a connection on which messages of one length travel.
struct End {
    stream: UnixStream,
    message: Vec<u8>,
}

impl End {
    fn new(stream: UnixStream, place: &Place) -> Tried<Self> {
        stream.set_nonblocking(place.waits == Waits::Spin)?;
        Ok(Self { stream, message: vec![0; place.size] })
    }

    /// Reads one message; `false`: the other side is gone.
    fn get(&mut self) -> Tried<bool> {
        let mut at = 0;
        while at < self.message.len() {
            match self.stream.read(&mut self.message[at..]) {
                Ok(0) => return Ok(false),
                Ok(read) => at += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn send(stream: &mut UnixStream, mut bytes: &[u8]) -> Tried<()> {
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Peer for UnixSocket {
    fn name(&self) -> &'static str {
        "Unix socket"
    }

    fn serve(&self, place: &Place) -> Tried<()> {
        let listener = UnixListener::bind(path(place))?;
        let own = place.clone();
        std::thread::spawn(move || -> Tried<()> {
            for stream in listener.incoming() {
                let mut end = End::new(stream?, &own)?;
                std::thread::spawn(move || -> Tried<()> {
                    while end.get()? {
                        End::send(&mut end.stream, &end.message)?;
                    }
                    Ok(())
                });
            }
            Ok(())
        });
        ready();
        until_input_closes();
        Ok(std::fs::remove_file(path(place))?)
    }

    fn attach(&self, place: &Place) -> Tried<Box<dyn Attached>> {
        Ok(Box::new(Connects(place.clone())))
    }
}

struct Connects(Place);

impl Attached for Connects {
    fn caller(&self) -> Tried<Box<dyn Caller>> {
        Ok(Box::new(End::new(UnixStream::connect(path(&self.0))?, &self.0)?))
    }
}

impl Caller for End {
    fn call(&mut self, payload: &[u8], read: &mut dyn FnMut(&[u8])) -> Tried<()> {
        Self::send(&mut self.stream, payload)?;
        if !self.get()? {
            return Err("the echo closed its end".into());
        }
        read(&self.message);
        Ok(())
    }
}
