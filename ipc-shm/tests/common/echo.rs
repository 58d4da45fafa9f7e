//! The smallest service that shows every way a request can go.
//!
//! | entry | does |
//! | --- | --- |
//! | `echo` | answers its payload, on the poller's thread |
//! | `later` | answers its payload from a pool, in an order of the pool's own |
//! | `queue` | is taken and not started until `release` |
//! | `hold` | is started and not answered until `release`, or until it is cancelled |
//! | `keep` | is started and not answered until `release`, whatever its caller does |
//! | `release` | answers all that wait |
//! | `big` | answers as many bytes as its payload (u64) says |
//! | `drop` | forgets the request |
//! | `table` | reads its tables in place: rows, bytes copied, whether every buffer lies in the mapping |

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

use arrow_data::ArrayData;
use molt_ipc_shm::worker::{Answer, AnswerBody, Inflight, Payload, Placed, Service};
use molt_ipc_shm::{Codec, Outcome};

#[derive(Default)]
pub struct Echo {
    waiting: Mutex<Vec<(Inflight, bool)>>,
    pool: Arc<(Mutex<VecDeque<Inflight>>, Condvar)>,
}

impl Echo {
    pub fn new() -> Self {
        let echo = Self::default();
        for _ in 0..2 {
            let pool = echo.pool.clone();
            std::thread::spawn(move || {
                loop {
                    let mut queue = pool.0.lock().expect("the queue");
                    while queue.is_empty() {
                        queue = pool.1.wait(queue).expect("the queue");
                    }
                    // The newest first: answers come in another order than requests.
                    let next = queue.pop_back();
                    drop(queue);
                    next.into_iter().for_each(run);
                }
            });
        }
        echo
    }
}

impl Service for Echo {
    fn serve(&self, request: Inflight) {
        match request.entry() {
            "later" => {
                self.pool.0.lock().expect("the queue").push_back(request);
                self.pool.1.notify_one();
            }
            "queue" => self.waiting.lock().expect("the list").push((request, false)),
            "hold" | "keep" => {
                if request.begin() {
                    self.waiting.lock().expect("the list").push((request, true));
                } else {
                    request.answer(Answer::failure(Outcome::Cancelled, "taken back before it started"));
                }
            }
            "release" => {
                let waiting = std::mem::take(&mut *self.waiting.lock().expect("the list"));
                for (held, begun) in waiting {
                    if begun { echo(held) } else { run(held) }
                }
                run(request);
            }
            _ => run(request),
        }
    }

    fn cancelled(&self, _channel: u32) {
        let mut waiting = self.waiting.lock().expect("the list");
        let (taken_back, others) =
            waiting.drain(..).partition(|(request, _)| request.entry() != "keep" && request.is_cancelled());
        *waiting = others;
        drop(waiting);
        let taken_back: Vec<(Inflight, bool)> = taken_back;
        taken_back
            .into_iter()
            .for_each(|(request, _)| request.answer(Answer::failure(Outcome::Cancelled, "the caller took it back")));
    }
}

fn run(request: Inflight) {
    if !request.begin() {
        return request.answer(Answer::failure(Outcome::Cancelled, "taken back before it started"));
    }
    match request.entry() {
        "drop" => drop(request),
        "big" => big(request),
        "table" => tables(request),
        "echo" | "later" | "queue" | "hold" | "keep" | "release" => echo(request),
        other => {
            let text = format!("no entry is called {other}");
            request.answer(Answer::failure(Outcome::UnknownEntry, text));
        }
    }
}

fn echo(request: Inflight) {
    let body = match request.payload() {
        Ok(Payload::Inline(bytes)) => Ok(AnswerBody::Bytes(bytes.to_vec())),
        Ok(Payload::Arena(handle)) => match request.copy_to_block(&handle) {
            Ok(block) => Ok(AnswerBody::Placed(Placed::Block(block))),
            Err(full) => Err(Answer::failure(Outcome::Busy, full.to_string())),
        },
        Ok(Payload::Tables(_)) => Err(Answer::failure(Outcome::InvalidInput, "echo takes no tables")),
        Err(bad) => Err(Answer::failure(Outcome::InvalidInput, bad.to_string())),
    };
    request.answer(body.map_or_else(|failure| failure, |body| Answer::ok(Codec::Raw, body)));
}

fn big(request: Inflight) {
    let len = match request.payload() {
        Ok(Payload::Inline(bytes)) => u64::from_le_bytes(bytes.try_into().expect("eight bytes")) as usize,
        _ => 0,
    };
    let answer = match request.result_block(len) {
        Ok(block) => {
            block.write(0, &super::pattern(len as u64, len));
            Answer::ok(Codec::Raw, AnswerBody::Placed(Placed::Block(block)))
        }
        Err(full) => Answer::failure(Outcome::Busy, full.to_string()),
    };
    request.answer(answer);
}

fn tables(request: Inflight) {
    let handles = match request.payload() {
        Ok(Payload::Tables(tables)) => tables.into_iter().map(|table| table.handle).collect(),
        Ok(Payload::Arena(handle)) => vec![handle],
        _ => Vec::new(),
    };
    let mapped = request.host().segment.map.readable_range();
    let (mut rows, mut copied, mut inside) = (0, 0, true);
    for handle in &handles {
        match request.read_table(handle) {
            Ok(table) => {
                copied += table.copied_bytes;
                for column in table.batches.iter().flat_map(|batch| batch.columns()) {
                    rows += column.len();
                    inside &= lies_in(&column.to_data(), &mapped);
                }
            }
            Err(fault) => return request.answer(Answer::failure(Outcome::InvalidInput, fault.to_string())),
        }
    }
    let text = format!("{rows} {copied} {inside}").into_bytes();
    request.answer(Answer::ok(Codec::Raw, AnswerBody::Bytes(text)));
}

/// Whether every buffer that has a byte lies in that memory.
pub fn lies_in(data: &ArrayData, mapped: &std::ops::Range<usize>) -> bool {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    let mut buffers = data.buffers().iter().chain(nulls).filter(|buffer| !buffer.is_empty());
    buffers.all(|buffer| mapped.contains(&(buffer.as_ptr() as usize)))
        && data.child_data().iter().all(|child| lies_in(child, mapped))
}
