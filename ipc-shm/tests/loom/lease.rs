//! Leases: no release is lost, none is taken twice, and what was read is read before it is overwritten.

use loom::thread;
use molt_ipc_shm::{attention, lease};

use super::model::{GEOMETRY, Places, explore, explore_deaths};

/// What the poller does about sessions: takes the bits, and what the sessions that they name have let go of.
fn collect(map: &molt_ipc_shm::mapping::Mapping, taken: &mut Vec<u32>) {
    attention::take_sessions(map, &GEOMETRY, |slot| {
        lease::take_released(map, &GEOMETRY, slot, |lease| taken.push(lease));
    });
}

#[test]
fn every_release_is_taken_once() {
    explore(None, || {
        let map = Places::default().session(0).attention().map();
        let clients = [3, 5].map(|number| {
            let map = map.clone();
            thread::spawn(move || lease::release(&map, &GEOMETRY, 0, number))
        });
        let mut taken = Vec::new();
        collect(&map, &mut taken);
        clients.into_iter().for_each(|client| client.join().expect("a client"));
        collect(&map, &mut taken);
        taken.sort_unstable();
        assert_eq!(taken, [3, 5], "the bits told of both, and of neither twice");
    });
}

/// A thread that finds the arena full takes what was let go of without asking the bits, against the poller that does.
#[test]
fn two_collectors_take_a_release_once() {
    explore(None, || {
        let map = Places::default().session(0).attention().map();
        let client = {
            let map = map.clone();
            thread::spawn(move || lease::release(&map, &GEOMETRY, 0, 3))
        };
        let hungry = {
            let map = map.clone();
            thread::spawn(move || {
                let mut taken = Vec::new();
                lease::take_released(&map, &GEOMETRY, 0, |lease| taken.push(lease));
                taken
            })
        };
        let mut taken = Vec::new();
        collect(&map, &mut taken);
        client.join().expect("the client");
        taken.extend(hungry.join().expect("the hungry one"));
        collect(&map, &mut taken);
        assert_eq!(taken, [3]);
    });
}

/// The client reads a result, then lets go; whoever takes the release may overwrite it at once.
#[test]
fn a_result_is_read_before_it_is_overwritten() {
    explore(None, || {
        let map = Places::default().session(0).attention().arena().map();
        let result = GEOMETRY.extent_data(0);
        map.write(result, &7_u64.to_le_bytes());
        let client = {
            let map = map.clone();
            thread::spawn(move || {
                assert_eq!(map.load_once(result), 7);
                lease::release(&map, &GEOMETRY, 0, 3);
            })
        };
        lease::take_released(&map, &GEOMETRY, 0, |_| map.write(result, &8_u64.to_le_bytes()));
        client.join().expect("the client");
    });
}

/// A client killed between its two steps has let go or has not; the worker's scan finds what the bit does not tell.
#[test]
fn a_release_cut_short_is_found_by_the_scan() {
    explore_deaths(None, |place| {
        let map = Places::default().session(0).attention().map();
        let client = {
            let map = map.clone();
            thread::spawn(move || {
                molt_ipc_shm::failpoint::killed_at(place, || lease::release(&map, &GEOMETRY, 0, 3)).is_none()
            })
        };
        let mut taken = Vec::new();
        collect(&map, &mut taken);
        let killed = client.join().expect("the client");
        lease::take_released(&map, &GEOMETRY, 0, |lease| taken.push(lease));
        assert!(taken.len() == 1 || (killed && place == 0 && taken.is_empty()), "{taken:?}, killed at {place}");
        killed
    });
}
