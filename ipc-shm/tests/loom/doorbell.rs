//! The doorbell and the attention bits: nobody sleeps who has something to do. The bell of a model has no time-out: one
//! lost wake-up is a deadlock, which ends the model.

use std::sync::Arc;

use loom::thread;
use molt_ipc_shm::failpoint::killed_at;
use molt_ipc_shm::layout::channel;
use molt_ipc_shm::mapping::SharedMapping;
use molt_ipc_shm::ring::{Consumer, Producer, RingPlace};
use molt_ipc_shm::{attention, doorbell};

use super::model::{Bell, GEOMETRY, Places, explore, explore_deaths, publish, take};

/// A worker answers twice; its client sleeps whenever it finds nothing.
#[test]
fn a_sleeping_client_gets_every_answer() {
    explore(Some(3), || {
        let place = RingPlace { data: 1024, capacity: 128, head: 0, tail: 128 };
        const SLEEP: usize = 256;
        let map = with_words(Places::default().ring(place), &[SLEEP]);
        let bell = Bell::new();
        let answering = {
            let (map, bell) = (map.clone(), bell.clone());
            thread::spawn(move || {
                let mut answers = Producer::new(map.clone(), place);
                for number in 0..2 {
                    assert!(publish(&mut answers, number));
                    doorbell::ring_if_asleep(map.u64(SLEEP), || bell.ring()).expect("the bell");
                }
            })
        };
        let mut answers = Consumer::new(map.clone(), place);
        let (mut taken, mut ticket) = (0, 0);
        while taken < 2 {
            match take(&mut answers) {
                Some(number) => {
                    assert_eq!(number, taken);
                    taken += 1;
                }
                None => {
                    ticket += 1;
                    let look = || answers.has_frame().expect("a correct peer");
                    doorbell::sleep(map.u64(SLEEP), ticket, look, || bell.wait()).expect("the bell");
                }
            }
        }
        answering.join().expect("the worker");
    });
}

/// A client that finds its ring full sleeps for room, the poller for frames, each with a bell of its own.
#[test]
fn a_client_that_sleeps_for_room_gets_it() {
    explore(Some(2), || {
        let place = RingPlace::of_requests(&GEOMETRY, 0);
        let map = Places::default().channel(0).attention().map();
        let (room, work) = (Bell::new(), Bell::new());
        let polling = {
            let (map, room, work) = (map.clone(), room.clone(), work.clone());
            thread::spawn(move || {
                let mut poller = Poller::new(map.clone(), 1);
                while poller.taken() < 3 {
                    if poller.look() {
                        let sleep = map.u64(GEOMETRY.channel(0) + channel::ROOM_SLEEP);
                        doorbell::ring_if_asleep(sleep, || room.ring()).expect("the bell");
                    } else {
                        poller.sleep(&work);
                    }
                }
            })
        };
        let mut requests = Producer::new(map.clone(), place);
        let (mut published, mut ticket) = (0, 0);
        while published < 3 {
            if publish(&mut requests, published) {
                published += 1;
                attention::call(&map, &GEOMETRY, 0, || work.ring()).expect("the bell");
            } else {
                ticket += 1;
                let sleep = map.u64(GEOMETRY.channel(0) + channel::ROOM_SLEEP);
                let fits = || requests.fits(16, 0).expect("a correct peer");
                doorbell::sleep(sleep, ticket, fits, || room.wait()).expect("the bell");
            }
        }
        polling.join().expect("the poller");
    });
}

/// Two clients, one poller: whoever comes first, both are served.
#[test]
fn one_poller_hears_two_clients() {
    explore(Some(3), || {
        let map = Places::default().channel(0).channel(1).attention().map();
        let bell = Bell::new();
        let clients = [0, 1].map(|index| {
            let (map, bell) = (map.clone(), bell.clone());
            thread::spawn(move || client(&map, index, &bell))
        });
        let mut poller = Poller::new(map, 2);
        while poller.taken() < 2 {
            if !poller.look() {
                poller.sleep(&bell);
            }
        }
        clients.into_iter().for_each(|client| client.join().expect("a client"));
    });
}

/// A client that stops for ever between any two steps takes no wake-up away from the other one.
#[test]
fn a_client_that_stops_anywhere_costs_the_other_no_wake_up() {
    explore_deaths(Some(2), |place| {
        let map = Places::default().channel(0).channel(1).attention().map();
        let bell = Bell::new();
        let stopping = {
            let (map, bell) = (map.clone(), bell.clone());
            thread::spawn(move || killed_at(place, || client(&map, 0, &bell)).is_none())
        };
        let serving = {
            let (map, bell) = (map.clone(), bell.clone());
            thread::spawn(move || client(&map, 1, &bell))
        };
        let mut poller = Poller::new(map, 2);
        while poller.taken[1] == 0 {
            if !poller.look() {
                poller.sleep(&bell);
            }
        }
        serving.join().expect("the client that goes on");
        stopping.join().expect("the client that stops")
    });
}

/// What a bit tells of is found by whoever takes the bit, even if it looks the moment it is told.
#[test]
fn who_takes_a_bit_finds_what_it_tells_of() {
    explore(None, || {
        let map = Places::default().channel(0).channel(1).attention().map();
        let clients = [0, 1].map(|index| {
            let map = map.clone();
            thread::spawn(move || {
                let mut requests = Producer::new(map.clone(), RingPlace::of_requests(&GEOMETRY, index));
                assert!(publish(&mut requests, 0));
                attention::set_channel(&map, &GEOMETRY, index);
            })
        });
        let mut poller = Poller::new(map, 2);
        poller.look();
        clients.into_iter().for_each(|client| client.join().expect("a client"));
        poller.look();
        assert_eq!(poller.taken(), 2, "no bit is set any more, so nothing waits");
    });
}

fn with_words(places: Places, words: &[usize]) -> SharedMapping {
    words.iter().fold(places, |places, word| places.word(*word)).map()
}

/// One request, then the bit, then the bell.
fn client(map: &SharedMapping, index: u32, bell: &Arc<Bell>) {
    let mut requests = Producer::new(map.clone(), RingPlace::of_requests(&GEOMETRY, index));
    assert!(publish(&mut requests, 0));
    attention::call(map, &GEOMETRY, index, || bell.ring()).expect("the bell");
}

/// What the worker's poller does: takes the bits, looks where they tell it to, and sleeps if there was nothing.
struct Poller {
    map: SharedMapping,
    requests: Vec<Consumer>,
    taken: Vec<u64>,
    ticket: u64,
}

impl Poller {
    fn new(map: SharedMapping, channels: u32) -> Self {
        let consumer = |index| Consumer::new(map.clone(), RingPlace::of_requests(&GEOMETRY, index));
        let requests = (0..channels).map(consumer).collect();
        Self { requests, taken: vec![0; channels as usize], ticket: 0, map }
    }

    fn taken(&self) -> u64 {
        self.taken.iter().sum()
    }

    fn look(&mut self) -> bool {
        let Self { map, requests, taken, .. } = self;
        let mut worked = false;
        attention::take_channels(map, &GEOMETRY, |index| {
            let index = index as usize;
            while let Some(number) = take(&mut requests[index]) {
                assert_eq!(number, taken[index]);
                taken[index] += 1;
                worked = true;
            }
        });
        worked
    }

    fn sleep(&mut self, bell: &Bell) {
        self.ticket += 1;
        attention::sleep(&self.map, &GEOMETRY, self.ticket, || bell.wait()).expect("the bell");
    }
}
