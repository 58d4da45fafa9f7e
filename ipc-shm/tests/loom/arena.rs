//! Extents: one owner at a time, whole runs or none, nothing lost to the dead.

use loom::thread;
use molt_ipc_shm::arena::{Arena, BadHandle, Run};
use molt_ipc_shm::failpoint::killed_at;
use molt_ipc_shm::frame::Handle;
use molt_ipc_shm::layout::Geometry;
use molt_ipc_shm::mapping::SharedMapping;

use super::model::{GEOMETRY, Places, explore, explore_deaths};

const BOTH: u64 = 2 * GEOMETRY.extent_bytes as u64;

fn arena(map: &SharedMapping, owner: u16) -> Arena {
    Arena::new(map.clone(), GEOMETRY, owner)
}

/// Writes to every extent of a run and reads it again: two owners of one extent are a race.
fn use_bytes(arena: &Arena, run: Run, mark: u64) {
    for extent in run.first..run.first + run.count {
        let data = GEOMETRY.extent_data(extent);
        arena.mapping().write(data, &mark.to_le_bytes());
        assert_eq!(arena.mapping().load_once(data), mark);
    }
}

fn free_extents(map: &SharedMapping) -> u64 {
    GEOMETRY.extents as u64 - arena(map, 0).usage(None).bytes / GEOMETRY.extent_bytes as u64
}

#[test]
fn an_extent_has_one_owner() {
    explore(Some(2), || {
        // One extent, three who want it.
        let geometry = Geometry { extents: 1, ..GEOMETRY };
        let map = Places::default().arena().map();
        let claim = move |map: SharedMapping, owner: u16| {
            let arena = Arena::new(map, geometry, owner);
            if let Ok(run) = arena.claim(1) {
                use_bytes(&arena, run, owner.into());
                arena.free(run);
            }
        };
        let others = [2, 3].map(|owner| {
            let map = map.clone();
            thread::spawn(move || claim(map, owner))
        });
        claim(map.clone(), 1);
        others.into_iter().for_each(|other| other.join().expect("an owner"));
        assert_eq!(free_extents(&map), 2);
    });
}

/// Who loses half of a run to somebody else gives back the other half.
#[test]
fn a_run_is_claimed_whole_or_not_at_all() {
    explore(Some(3), || {
        let map = Places::default().arena().map();
        let other = {
            let arena = arena(&map, 2);
            thread::spawn(move || {
                let run = arena.claim(BOTH).ok();
                run.inspect(|run| use_bytes(&arena, *run, 2))
            })
        };
        let own = arena(&map, 1);
        let small = own.claim(1).ok();
        small.inspect(|run| use_bytes(&own, *run, 1));
        let large = other.join().expect("the other owner");
        assert!(small.is_none() || large.is_none());
        let held = small.map_or(0, |run| run.count) + large.map_or(0, |run| run.count);
        assert_eq!(free_extents(&map) + u64::from(held), 2, "who got nothing holds nothing");
    });
}

/// The worker takes a run over while its sender gives it back and somebody else wants it: it changes hands whole or not at
/// all, and no extent is anybody's twice.
#[test]
fn a_run_changes_hands_whole_or_not_at_all() {
    explore(Some(2), || {
        let map = Places::default().arena().map();
        let sender = arena(&map, 1);
        let run = sender.claim(BOTH).expect("an empty arena");
        let Run { first, generation, .. } = run;
        let handle = Handle { offset: GEOMETRY.extent_data(first) as u64, len: BOTH, generation, sequence: 0 };
        let worker = {
            let arena = arena(&map, 9);
            thread::spawn(move || {
                let taken = arena.take_over(&handle, 1).ok();
                taken.inspect(|run| use_bytes(&arena, *run, 9))
            })
        };
        let third = {
            let arena = arena(&map, 2);
            thread::spawn(move || {
                let claimed = arena.claim(1).ok();
                claimed.inspect(|run| use_bytes(&arena, *run, 2))
            })
        };
        sender.free(run);
        let taken = worker.join().expect("the worker");
        let claimed = third.join().expect("the third");
        assert!(taken.is_none() || claimed.is_none());
        assert!(taken.is_none_or(|taken| taken == run));
        assert_eq!(arena(&map, 9).usage(Some(9)).blocks, u64::from(taken.is_some()));
        assert_eq!(sender.usage(Some(1)).bytes, 0, "what the worker did not take is given back");
        let held = taken.map_or(0, |run| run.count) + claimed.map_or(0, |run| run.count);
        assert_eq!(free_extents(&map) + u64::from(held), 2, "nothing is lost");
    });
}

/// A head stands for its whole run: it is claimed last and given back first.
#[test]
fn who_sees_a_head_sees_its_run() {
    explore(Some(3), || {
        let map = Places::default().arena().map();
        let owner = {
            let arena = arena(&map, 1);
            thread::spawn(move || arena.free(arena.claim(BOTH).expect("nobody else claims")))
        };
        head_stands_for_its_run(&map);
        owner.join().expect("the owner");
    });
}

/// Looks at the head, at its tail, and at the head again: if it was the same run all the time, the tail was there.
fn head_stands_for_its_run(map: &SharedMapping) {
    let handle = |run: Run| Handle {
        offset: GEOMETRY.extent_data(run.first) as u64,
        len: BOTH,
        generation: run.generation,
        sequence: 0,
    };
    let head = |generation| Handle { len: 1, ..handle(Run { first: 0, count: 2, generation }) };
    let arena = arena(map, 0);
    // The first run of a new arena has generation 1.
    if arena.check(&head(1), 1).is_ok() {
        let whole = arena.check(&handle(Run { first: 0, count: 2, generation: 1 }), 1);
        let still = arena.check(&head(1), 1);
        assert!(whole.is_ok() || still.is_err(), "a head without its tail: {whole:?}");
    }
}

/// The owner gives back, the worker reclaims, somebody else claims: each extent ends with one of them.
#[test]
fn a_reclaim_takes_nothing_from_the_next_owner() {
    explore(Some(3), || {
        let map = Places::default().arena().map();
        let owner = arena(&map, 1);
        let run = owner.claim(1).expect("an empty arena");
        let leaving = thread::spawn(move || owner.free(run));
        let next = {
            let arena = arena(&map, 2);
            thread::spawn(move || arena.claim(BOTH).inspect(|run| use_bytes(&arena, *run, 2)).ok())
        };
        arena(&map, u16::MAX).reclaim(1);
        leaving.join().expect("the owner");
        let next = next.join().expect("the next owner");
        assert_eq!(arena(&map, 0).usage(Some(1)).bytes, 0);
        let held = next.map_or(0, |run| u64::from(run.count));
        assert_eq!(arena(&map, 0).usage(Some(2)).bytes / GEOMETRY.extent_bytes as u64, held, "what was claimed stays");
    });
}

/// An owner that dies anywhere while it claims, uses and gives back, against one that lives: the living one keeps what it
/// has, a reclaim finds the rest.
#[test]
fn a_dead_owner_leaves_nothing_that_a_reclaim_does_not_find() {
    explore_deaths(Some(2), |place| {
        let map = Places::default().arena().map();
        let dying = {
            let arena = arena(&map, 1);
            thread::spawn(move || {
                let steps = || {
                    if let Ok(run) = arena.claim(BOTH) {
                        use_bytes(&arena, run, 1);
                        arena.free(run);
                    }
                };
                killed_at(place, steps).is_none()
            })
        };
        let living = arena(&map, 2);
        let run = living.claim(1).ok();
        run.inspect(|run| use_bytes(&living, *run, 2));
        let killed = dying.join().expect("the one that dies");
        head_stands_for_its_run(&map);
        arena(&map, u16::MAX).reclaim(1);
        let held = run.map_or(0, |run| u64::from(run.count));
        assert_eq!(free_extents(&map) + held, 2);
        let first = arena(&map, 3).claim(if held == 0 { BOTH } else { 1 }).expect("what is free can be claimed");
        use_bytes(&arena(&map, 3), first, 3);
        killed
    });
}

/// A handle outlives its run, and its owner claims again: the handle is stale, and so is giving back the old run.
#[test]
fn a_stale_handle_is_noticed() {
    explore(None, || {
        let map = Places::default().arena().map();
        let owner = arena(&map, 1);
        let run = owner.claim(1).expect("an empty arena");
        let offset = owner.offset(run) as u64;
        let old = Handle { offset, len: 8, generation: run.generation, sequence: 0 };
        let again = {
            let owner = owner.clone();
            thread::spawn(move || {
                owner.free(run);
                owner.claim(1).expect("its own")
            })
        };
        let worker = arena(&map, u16::MAX);
        // Now it may be good, given back, or claimed again.
        let _ = worker.check(&old, 1);
        let next = again.join().expect("the owner");
        assert_eq!(next.first, run.first);
        assert!(matches!(worker.check(&old, 1), Err(BadHandle::Stale { .. })));
        owner.free(run);
        let new = Handle { generation: next.generation, ..old };
        assert_eq!(worker.check(&new, 1), Ok(()), "the old run's end is not the new one's");
        assert!(matches!(worker.check(&new, 2), Err(BadHandle::Owner { .. })));
    });
}
