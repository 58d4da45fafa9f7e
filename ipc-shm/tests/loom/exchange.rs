//! A whole call: a body in the arena, the request, its answer, and the room that both took, with both sides asleep whenever
//! they find nothing.

use loom::thread;
use molt_ipc_shm::arena::Arena;
use molt_ipc_shm::frame::{Handle, kind};
use molt_ipc_shm::layout::channel;
use molt_ipc_shm::ring::{Consumer, Producer, RingPlace};
use molt_ipc_shm::{attention, cell, doorbell};

use super::model::{Bell, GEOMETRY, Places, explore, frame, take_kind};

const CLIENT: u16 = 1;
const NEXT: u16 = 2;
const WORKER: u16 = u16::MAX;

#[test]
fn a_body_is_read_where_it_lies_and_given_back() {
    explore(Some(2), || {
        let map = Places::default().channel(0).attention().arena().map();
        let (work, answer) = (Bell::new(), Bell::new());
        let (requests, responses) = (RingPlace::of_requests(&GEOMETRY, 0), RingPlace::of_responses(&GEOMETRY, 0));
        let response_sleep = GEOMETRY.channel(0) + channel::RESPONSE_SLEEP;
        let request_cell = GEOMETRY.cell(0, 0);
        let worker = {
            let (map, work, answer) = (map.clone(), work.clone(), answer.clone());
            thread::spawn(move || {
                let mut taking = Consumer::new(map.clone(), requests);
                let mut answering = Producer::new(map.clone(), responses);
                let arena = Arena::new(map.clone(), GEOMETRY, WORKER);
                let mut ticket = 0;
                let generation = loop {
                    let mut due = Vec::new();
                    attention::take_channels(&map, &GEOMETRY, |index| due.push(index));
                    if let Some(generation) = due.iter().find_map(|_| take_kind(&mut taking, kind::REQUEST)) {
                        break generation;
                    }
                    ticket += 1;
                    attention::sleep(&map, &GEOMETRY, ticket, || work.wait()).expect("the bell");
                };
                let offset = GEOMETRY.extent_data(0) as u64;
                let handle = Handle { offset, len: 8, generation, sequence: 0 };
                assert_eq!(arena.check(&handle, CLIENT), Ok(()));
                assert!(cell::begin(map.u64(request_cell), generation));
                let body = map.load_once(offset as usize);
                assert!(cell::finish(map.u64(request_cell), generation));
                let room = answering.reserve(16, 0).expect("a correct peer").expect("an empty ring");
                room.commit(&[&frame(kind::RESPONSE, body, 16)]);
                doorbell::ring_if_asleep(map.u64(response_sleep), || answer.ring()).expect("the bell");
            })
        };
        let arena = Arena::new(map.clone(), GEOMETRY, CLIENT);
        let run = arena.claim(1).expect("an empty arena");
        assert_eq!((run.first, run.generation), (0, 1));
        map.write(arena.offset(run), &42_u64.to_le_bytes());
        let mut asking = Producer::new(map.clone(), requests);
        let mut hearing = Consumer::new(map.clone(), responses);
        let room = asking.reserve(16, 0).expect("a correct peer").expect("an empty ring");
        cell::submit(map.u64(request_cell), run.generation, room, &[&frame(kind::REQUEST, run.generation, 16)]);
        attention::call(&map, &GEOMETRY, 0, || work.ring()).expect("the bell");
        let mut ticket = 0;
        let told = loop {
            if let Some(told) = take_kind(&mut hearing, kind::RESPONSE) {
                break told;
            }
            ticket += 1;
            let look = || hearing.has_frame().expect("a correct peer");
            doorbell::sleep(map.u64(response_sleep), ticket, look, || answer.wait()).expect("the bell");
        };
        assert_eq!(told, 42);
        cell::release(map.u64(request_cell));
        arena.free(run);
        // Whoever gets these bytes next may write at once: the worker has read them.
        let next = Arena::new(map.clone(), GEOMETRY, NEXT);
        let run = next.claim(1).expect("it was given back");
        map.write(next.offset(run), &43_u64.to_le_bytes());
        worker.join().expect("the worker");
    });
}
