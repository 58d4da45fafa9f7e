//! Slots after a death: wherever their last user was killed, the next one finds them as if nobody had had them.

use loom::thread;
use molt_ipc_shm::arena::{Arena, owner_of_session};
use molt_ipc_shm::failpoint::killed_at;
use molt_ipc_shm::frame::kind;
use molt_ipc_shm::layout::{SlotState, channel, session, slot_word};
use molt_ipc_shm::mapping::SharedMapping;
use molt_ipc_shm::ring::{Consumer, Producer, RingPlace};
use molt_ipc_shm::{attention, cell, lease, slot};

use super::model::{GEOMETRY, Places, explore, explore_deaths, frame, publish, take, take_kind};

const SESSION: u32 = 0;
const CHANNEL: u32 = 0;

/// What one client's process does with its session and its channel.
fn live(map: &SharedMapping) {
    let arena = Arena::new(map.clone(), GEOMETRY, owner_of_session(SESSION));
    let run = arena.claim(1).expect("room");
    map.write(arena.offset(run), &1_u64.to_le_bytes());
    let mut requests = Producer::new(map.clone(), RingPlace::of_requests(&GEOMETRY, CHANNEL));
    let room = requests.reserve(16, 0).expect("a correct peer").expect("an empty ring");
    let request_cell = map.u64(GEOMETRY.cell(CHANNEL, 0));
    cell::submit(request_cell, 1, room, &[&frame(kind::REQUEST, 1, 16)]);
    attention::call(map, &GEOMETRY, CHANNEL, || Ok(())).expect("the bell");
    lease::release(map, &GEOMETRY, SESSION, 3);
}

/// The worker's side of one request, if there is one: taken, answered.
fn serve(map: &SharedMapping, requests: &mut Consumer, responses: &mut Producer) {
    let mut due = Vec::new();
    attention::take_channels(map, &GEOMETRY, |index| due.push(index));
    for _ in due {
        if let Some(id) = take(requests) {
            let request_cell = map.u64(GEOMETRY.cell(CHANNEL, 0));
            let told = u64::from(cell::begin(request_cell, id) && cell::finish(request_cell, id));
            let room = responses.reserve(16, 0).expect("a correct peer").expect("room for an answer");
            room.commit(&[&frame(kind::RESPONSE, told, 16)]);
        }
    }
}

fn open(map: &SharedMapping) -> (u64, u64) {
    let generation = slot::prepare_session(map, &GEOMETRY, SESSION);
    slot::show_session(map, &GEOMETRY, SESSION, generation, SlotState::Active);
    (generation, slot::open_channel(map, &GEOMETRY, CHANNEL, SESSION))
}

#[test]
fn a_slot_is_as_new_after_a_death_anywhere() {
    explore_deaths(Some(2), |place| {
        let map = Places::default().session(SESSION).channel(CHANNEL).attention().arena().map();
        let first = open(&map);
        let client = {
            let map = map.clone();
            thread::spawn(move || killed_at(place, || live(&map)).is_none())
        };
        let places = (RingPlace::of_requests(&GEOMETRY, CHANNEL), RingPlace::of_responses(&GEOMETRY, CHANNEL));
        let mut requests = Consumer::new(map.clone(), places.0);
        let mut responses = Producer::new(map.clone(), places.1);
        serve(&map, &mut requests, &mut responses);
        // The kernel says when the process is dead: after its last step.
        let killed = client.join().expect("the client");
        Arena::new(map.clone(), GEOMETRY, u16::MAX).reclaim(owner_of_session(SESSION));
        slot::free_channel(&map, &GEOMETRY, CHANNEL, first.1);
        slot::show_session(&map, &GEOMETRY, SESSION, first.0, SlotState::Free);

        let second = open(&map);
        assert_eq!(second, (first.0 + 1, first.1 + 1), "the next use of a slot has the next generation");
        let active = |at: usize| map.u64(at).load(std::sync::atomic::Ordering::Acquire);
        assert_eq!(active(GEOMETRY.session(SESSION) + session::WORD), slot_word(second.0, SlotState::Active));
        assert_eq!(active(GEOMETRY.channel(CHANNEL) + channel::WORD), slot_word(second.1, SlotState::Active));
        // A lease that is lent to the new one is not let go of by the old one's bit.
        lease::take_released(&map, &GEOMETRY, SESSION, |lease| panic!("lease {lease} was let go of by the dead"));
        assert_eq!(Arena::new(map.clone(), GEOMETRY, 0).usage(None).bytes, 0, "no extent is left");
        // Room for two requests, then for more, and no frame but these.
        let mut asking = Producer::new(map.clone(), places.0);
        let mut hearing = Consumer::new(map.clone(), places.1);
        let mut requests = Consumer::new(map.clone(), places.0);
        let mut responses = Producer::new(map.clone(), places.1);
        serve(&map, &mut requests, &mut responses); // a bit that the dead one left costs a look for nothing
        assert_eq!([10, 11, 12].map(|id| publish(&mut asking, id)), [true, true, false], "a ring of two frames");
        assert_eq!([take(&mut requests), take(&mut requests), take(&mut requests)], [Some(10), Some(11), None]);
        for id in 13..16 {
            assert_eq!(take_kind(&mut hearing, kind::RESPONSE), None, "no answer to a dead one's request");
            cell::queue(map.u64(GEOMETRY.cell(CHANNEL, 0)), id);
            assert!(publish(&mut asking, id));
            attention::set_channel(&map, &GEOMETRY, CHANNEL);
            serve(&map, &mut requests, &mut responses);
            assert_eq!(take_kind(&mut hearing, kind::RESPONSE), Some(1));
            cell::release(map.u64(GEOMETRY.cell(CHANNEL, 0)));
        }
        killed
    });
}

/// Tools look at slots at any time: a channel that is open is the session's that it names.
#[test]
fn who_sees_a_channel_open_sees_whose_it_is() {
    explore(None, || {
        let map = Places::default().channel(CHANNEL).map();
        let first = slot::open_channel(&map, &GEOMETRY, CHANNEL, 0);
        slot::free_channel(&map, &GEOMETRY, CHANNEL, first);
        let worker = {
            let map = map.clone();
            thread::spawn(move || slot::open_channel(&map, &GEOMETRY, CHANNEL, 1))
        };
        let at = GEOMETRY.channel(CHANNEL);
        let word = map.u64(at + channel::WORD).load(std::sync::atomic::Ordering::Acquire);
        if word == slot_word(first + 1, SlotState::Active) {
            let owner = map.u32(at + channel::SESSION).load(std::sync::atomic::Ordering::Relaxed);
            assert_eq!(owner, 1);
        }
        worker.join().expect("the worker");
    });
}

/// Its client lets go of the slot, and says so once more, late: by then it may be its next user's.
#[test]
fn a_session_that_is_let_go_of_is_its_next_users_alone() {
    explore(None, || {
        let map = Places::default().session(SESSION).arena().map();
        let touch = |map: &SharedMapping, number: u64| map.write(GEOMETRY.extent_data(0), &number.to_le_bytes());
        let first = slot::prepare_session(&map, &GEOMETRY, SESSION);
        slot::hold_session(&map, &GEOMETRY, SESSION, first);
        let client = {
            let map = map.clone();
            thread::spawn(move || {
                touch(&map, 1);
                slot::let_go_of_session(&map, &GEOMETRY, SESSION, first);
                slot::let_go_of_session(&map, &GEOMETRY, SESSION, first);
            })
        };
        let held = |generation: u64| slot::is_session_held(&map, &GEOMETRY, SESSION, generation);
        let early = !held(first);
        if early {
            slot::show_session(&map, &GEOMETRY, SESSION, first, SlotState::Free);
            let second = slot::prepare_session(&map, &GEOMETRY, SESSION);
            slot::hold_session(&map, &GEOMETRY, SESSION, second);
            touch(&map, 2);
            client.join().expect("the client");
            assert!(held(second), "it is its own");
        } else {
            client.join().expect("the client");
            assert!(!held(first), "nobody's");
        }
    });
}
