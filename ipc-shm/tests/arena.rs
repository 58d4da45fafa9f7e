//! The arena: extents have one owner each, whatever the others do and whenever they die.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::child::{self, Child};
use molt_ipc_shm::arena::{Arena, ArenaFull, BadHandle, OWNER_NONE, OWNER_WORKER, Run, owner_of_session};
use molt_ipc_shm::frame::Handle;
use molt_ipc_shm::layout::{ALIGN, Geometry, PAGE};
use molt_ipc_shm::mapping::SharedMapping;
use proptest::prelude::*;

const EXTENT: u64 = PAGE as u64;

/// 32 extents of a page: small enough that owners meet.
fn geometry() -> Geometry {
    Geometry {
        sessions: 8,
        channels: 1,
        ring_bytes: 8192,
        extent_bytes: PAGE as u32,
        extents: 32,
        ..Geometry::for_arena(0)
    }
}

fn arena_of(map: &SharedMapping, owner: u16) -> Arena {
    Arena::new(map.clone(), geometry(), owner)
}

fn arenas(owners: &[u16]) -> (SharedMapping, Vec<Arena>) {
    let map = common::bytes(geometry().total_bytes());
    let arenas = owners.iter().map(|owner| arena_of(&map, *owner)).collect();
    (map, arenas)
}

fn handle(arena: &Arena, run: Run, len: u64) -> Handle {
    Handle { offset: arena.offset(run) as u64, len, generation: run.generation, sequence: 1 }
}

#[test]
fn child_role() {
    child::play(&[("churn", |words| {
        let arena = arena_of(&common::bytes_of(words[0].as_ref(), geometry().total_bytes()), owner_of_session(3));
        child::say("begun");
        let mut held: Vec<Run> = Vec::new();
        for step in 0_u64.. {
            match arena.claim((step * 7 % 9) * EXTENT) {
                Ok(run) if step % 3 > 0 => held.push(run),
                Ok(run) => arena.free(run),
                Err(_) => held.drain(..).for_each(|run| arena.free(run)),
            }
        }
    })]);
}

#[derive(Debug, Clone)]
enum Move {
    Claim { owner: usize, bytes: u64 },
    Free { which: usize, twice: bool },
    Reclaim { owner: usize },
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (0_usize..3, 0..12 * EXTENT).prop_map(|(owner, bytes)| Move::Claim { owner, bytes }),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(which, twice)| Move::Free { which, twice }),
        1 => (0_usize..3).prop_map(|owner| Move::Reclaim { owner }),
    ]
}

proptest! {
    #![proptest_config(common::cases(200))]

    /// Faults 12-14, 17, 18, 52: claims, frees, double frees and reclaims of three owners against a model, also where
    /// generations (40 bits) wrap. What is held can be named by its owner alone, what was given back by nobody.
    #[test]
    fn an_extent_has_one_owner_at_a_time(
        generation in prop_oneof![Just(0_u64), (0_u64..4).prop_map(|back| (1 << 40) - 1 - back)],
        moves in proptest::collection::vec(any_move(), 1..200),
    ) {
        let owners = [owner_of_session(0), owner_of_session(1), OWNER_WORKER];
        let (map, arenas) = arenas(&owners);
        (0..32).for_each(|extent| map.u64(geometry().extent(extent)).store(generation << 24, Ordering::Relaxed));
        let mut generations = [generation; 32];
        let mut model: Vec<Option<usize>> = vec![None; 32];
        let mut runs: Vec<(usize, Run)> = Vec::new();
        let mut freed: Vec<(usize, Run)> = Vec::new();
        for step in moves {
            match step {
                Move::Claim { owner, bytes } => {
                    let count = bytes.div_ceil(EXTENT).max(1) as usize;
                    let fits = model.windows(count).position(|window| window.iter().all(Option::is_none));
                    match (arenas[owner].claim(bytes), fits) {
                        (Ok(run), Some(first)) => {
                            prop_assert_eq!((run.first as usize, run.count as usize), (first, count));
                            model[first..first + count].fill(Some(owner));
                            for extent in &mut generations[first..first + count] {
                                *extent = (*extent + 1) % (1 << 40);
                            }
                            prop_assert_eq!(run.generation, generations[first]);
                            runs.push((owner, run));
                        }
                        (Err(full), None) => {
                            let free = model.iter().filter(|extent| extent.is_none()).count() as u64 * EXTENT;
                            let longest = model.split(Option::is_some).map(<[_]>::len).max().unwrap_or(0) as u64 * EXTENT;
                            prop_assert_eq!(full, ArenaFull { wanted: bytes, free, longest, total: 32 * EXTENT });
                        }
                        (found, expected) => prop_assert!(false, "{:?} where the model has {:?}", found, expected),
                    }
                }
                Move::Free { which, twice } if !runs.is_empty() => {
                    let (owner, run) = runs.swap_remove(which % runs.len());
                    // Not another's to give back: nothing happens, or the claims after it would find the room.
                    arenas[(owner + 1) % 3].free(run);
                    prop_assert_eq!(arenas[owner].check(&handle(&arenas[owner], run, 1), owners[owner]), Ok(()));
                    arenas[owner].free(run);
                    model[run.first as usize..(run.first + run.count) as usize].fill(None);
                    freed.push((owner, run));
                    if twice {
                        freed.iter().for_each(|(owner, run)| arenas[*owner].free(*run));
                    }
                }
                Move::Free { .. } => {}
                Move::Reclaim { owner } => {
                    let held = model.iter().filter(|extent| **extent == Some(owner)).count();
                    // Any owner's view may reclaim; doing it again changes nothing.
                    prop_assert_eq!(arenas[2].reclaim(owners[owner]) as usize, held);
                    prop_assert_eq!(arenas[2].reclaim(owners[owner]), 0);
                    model.iter_mut().filter(|extent| **extent == Some(owner)).for_each(|extent| *extent = None);
                    freed.extend(runs.iter().filter(|(who, _)| *who == owner).copied());
                    runs.retain(|(who, _)| *who != owner);
                }
            }
            for (index, owner) in owners.iter().enumerate() {
                let held = model.iter().filter(|extent| **extent == Some(index)).count() as u64;
                let blocks = runs.iter().filter(|(who, _)| *who == index).count() as u64;
                let usage = arenas[index].usage(Some(*owner));
                prop_assert_eq!((usage.bytes, usage.blocks), (held * EXTENT, blocks));
            }
            for (owner, run) in &runs {
                let whole = handle(&arenas[0], *run, u64::from(run.count) * EXTENT);
                prop_assert_eq!(arenas[0].check(&whole, owners[*owner]), Ok(()));
                prop_assert!(arenas[0].check(&whole, owners[(*owner + 1) % 3]).is_err(), "somebody else's");
            }
            for (owner, run) in &freed {
                let stale = Handle { len: 1, ..handle(&arenas[0], *run, 1) };
                prop_assert!(arenas[0].check(&stale, owners[*owner]).is_err(), "{:?} was given back", run);
            }
        }
    }

    /// Faults 28, 52: a handle is taken only for bytes that its sender owns now.
    #[test]
    fn a_handle_names_its_senders_bytes_or_is_refused(
        offset in prop_oneof![any::<u64>(), 0..400_000_u64, (0..34_u64).prop_map(|n| geometry().arena_at() as u64 + n * EXTENT)],
        len in prop_oneof![any::<u64>(), 0..5 * EXTENT],
        generation in prop_oneof![any::<u64>(), 0..4_u64],
    ) {
        let (mine, theirs) = (owner_of_session(1), owner_of_session(2));
        let (_map, arenas) = arenas(&[mine, theirs]);
        let own: Vec<Run> = (0..4).map(|_| arenas[0].claim(2 * EXTENT).expect("room")).collect();
        arenas[1].claim(4 * EXTENT).expect("room");
        arenas[0].free(own[1]);
        let given = Handle { offset, len, generation, sequence: 0 };
        let from = |run: Run| arenas[0].offset(run) as u64;
        let end = offset.checked_add(len.max(1));
        // Extents 0, 1 and 4 to 7 are its own, all of the first generation.
        let whole = |first: u64, last: u64| offset >= first && end.is_some_and(|end| end <= last);
        let owned = whole(from(own[0]), from(own[1])) || whole(from(own[2]), from(own[3]) + 2 * EXTENT);
        prop_assert_eq!(arenas[0].check(&given, mine).is_ok(), owned && generation == 1);
        let stranger = arenas[0].check(&given, OWNER_NONE).is_ok() || arenas[0].check(&given, owner_of_session(6)).is_ok();
        prop_assert!(!stranger, "nobody owns what is free");
    }
}

#[test]
fn each_bad_handle_says_what_is_wrong_with_it() {
    let (map, arenas) = arenas(&[1, 2]);
    let run = arenas[0].claim(2 * EXTENT).expect("room");
    let good = handle(&arenas[0], run, 2 * EXTENT);
    let check = |handle: Handle, owner| arenas[0].check(&handle, owner);
    assert_eq!(check(good, 1), Ok(()));
    assert!(matches!(check(good, 2), Err(BadHandle::Owner { found: 1, owner: 2, .. })));
    assert!(matches!(check(Handle { len: 2 * EXTENT + 1, ..good }, 1), Err(BadHandle::Owner { found: 0, .. })));
    assert!(matches!(check(Handle { offset: good.offset - 1, ..good }, 1), Err(BadHandle::Bounds { .. })));
    assert!(matches!(check(Handle { len: u64::MAX, ..good }, 1), Err(BadHandle::Bounds { .. })));
    let end = map.len() as u64;
    assert!(matches!(check(Handle { offset: end, len: 0, ..good }, 1), Err(BadHandle::Bounds { .. })));
    assert!(matches!(check(Handle { offset: u64::MAX, len: 1, ..good }, 1), Err(BadHandle::Bounds { .. })));
    arenas[0].free(run);
    assert!(matches!(check(good, 1), Err(BadHandle::Owner { found: 0, .. })));
    let next = arenas[0].claim(EXTENT).expect("room");
    assert_eq!(next.first, run.first, "the warm extent first");
    assert!(matches!(check(good, 1), Err(BadHandle::Stale { found: 2, stated: 1, .. } | BadHandle::Owner { .. })));
    assert!(matches!(check(Handle { len: 8, ..good }, 1), Err(BadHandle::Stale { found: 2, stated: 1, .. })));
}

/// Fault 18.
#[test]
fn a_fragmented_arena_says_how_long_its_longest_run_is_and_recovers() {
    let (_map, arenas) = arenas(&[1]);
    let runs: Vec<Run> = (0..32).map(|_| arenas[0].claim(EXTENT).expect("room")).collect();
    let full = |wanted| ArenaFull { wanted, free: 0, longest: 0, total: 32 * EXTENT };
    assert_eq!(arenas[0].claim(1), Err(full(1)));
    runs.iter().step_by(2).for_each(|run| arenas[0].free(*run));
    let fragmented = arenas[0].claim(2 * EXTENT).expect_err("no two side by side");
    assert_eq!((fragmented.free, fragmented.longest), (16 * EXTENT, EXTENT));
    assert!(
        fragmented.to_string().contains("65536 of 131072 bytes are free") && fragmented.to_string().contains("hint:")
    );
    runs.iter().skip(1).step_by(2).for_each(|run| arenas[0].free(*run));
    assert_eq!(arenas[0].claim(32 * EXTENT).map(|run| (run.first, run.count)), Ok((0, 32)));
    assert_eq!(arenas[0].claim(u64::MAX).map_err(|full| full.wanted), Err(u64::MAX));
}

#[test]
fn no_arena_is_silently_smaller_than_what_was_asked_for() {
    for bytes in (0..64).map(|power| 1_u64 << power).flat_map(|bytes| [bytes - 1, bytes, bytes + (2 << 20)]) {
        let geometry = Geometry::for_arena(bytes);
        assert!(geometry.fault().is_some() || geometry.arena_bytes() as u64 >= bytes, "{bytes} bytes: {geometry:?}");
        assert!(geometry.arena_at().is_multiple_of(ALIGN));
    }
}

/// Four threads, one arena: who claims an extent finds it unused.
#[test]
fn threads_never_get_the_same_extent() {
    let map = common::bytes(geometry().total_bytes());
    let users: Arc<Vec<AtomicU32>> = Arc::new((0..32).map(|_| AtomicU32::new(0)).collect());
    let threads: Vec<_> = (0..4)
        .map(|slot| {
            let (arena, users) = (arena_of(&map, owner_of_session(slot)), users.clone());
            std::thread::spawn(move || {
                let mut claims = 0;
                for step in 0..20_000_u64 {
                    let Ok(run) = arena.claim((step * (7 + u64::from(slot)) % 11) * EXTENT) else { continue };
                    let extents = || (run.first..run.first + run.count).map(|extent| &users[extent as usize]);
                    assert!(extents().all(|user| user.swap(slot + 1, Ordering::AcqRel) == 0), "{run:?} is in use");
                    assert!(extents().all(|user| user.swap(0, Ordering::AcqRel) == slot + 1), "{run:?} was taken away");
                    arena.free(run);
                    claims += 1;
                }
                claims
            })
        })
        .collect();
    let claims: HashMap<usize, u64> =
        threads.into_iter().enumerate().map(|(slot, thread)| (slot, thread.join().expect("a thread"))).collect();
    assert!(claims.values().all(|claims| *claims > 100), "everybody gets something: {claims:?}");
    assert_eq!(arena_of(&map, 0).usage(None).bytes, 0);
}

/// Faults 1, 12-14: a process that is killed at any instruction leaves nothing that its owner's number does not find.
#[test]
fn what_a_killed_process_held_is_reclaimed_and_nothing_else() {
    let names = common::Names::new();
    let file = names.file("arena");
    let map = common::bytes_of(&file, geometry().total_bytes());
    let (worker, theirs) = (arena_of(&map, OWNER_WORKER), owner_of_session(3));
    let kept = worker.claim(3 * EXTENT).expect("an empty arena");
    for _ in 0..25 {
        let mut child = Child::start(&["churn", file.to_str().expect("a plain path")]);
        assert_eq!(child.line(), "begun");
        common::until("the child holds something", || worker.usage(Some(theirs)).bytes > 0);
        child.kill();
        worker.reclaim(theirs);
        assert_eq!(worker.usage(Some(theirs)).bytes, 0);
        assert_eq!(worker.usage(None).bytes, 3 * EXTENT, "the worker's own run stays");
        assert_eq!(worker.check(&handle(&worker, kept, 3 * EXTENT), OWNER_WORKER), Ok(()));
        let rest = worker.claim(29 * EXTENT).expect("all that the child had");
        worker.free(rest);
    }
}

#[test]
fn a_run_that_is_taken_over_is_the_takers_alone() {
    let session = owner_of_session(2);
    let (_map, arenas) = arenas(&[session, OWNER_WORKER]);
    let [client, worker] = &arenas[..] else { unreachable!("two owners") };
    let before = client.claim(EXTENT).expect("an extent");
    let run = client.claim(3 * EXTENT).expect("a run");
    let behind = client.claim(2 * EXTENT).expect("a run");
    let sent = handle(client, run, 2 * EXTENT + 5);
    let taken = worker.take_over(&sent, session).expect("it begins a run of the session's");
    assert_eq!((taken.first, taken.count, taken.generation), (run.first, 3, run.generation));
    assert_eq!(worker.check(&sent, OWNER_WORKER), Ok(()), "the same handle, another owner");
    assert!(matches!(worker.check(&sent, session), Err(BadHandle::Owner { found: OWNER_WORKER, .. })));
    client.free(run);
    assert_eq!(client.reclaim(session), 3, "the two others");
    assert_eq!(worker.usage(None).bytes, 3 * EXTENT, "neither a late free nor a reclaim gives it away");
    for other in [before, behind] {
        assert!(matches!(worker.take_over(&handle(client, other, 1), session), Err(BadHandle::Owner { .. })));
    }
    worker.free(taken);
    assert_eq!(worker.usage(None).bytes, 0);
}

#[test]
fn only_the_start_of_a_run_can_be_taken_over() {
    let session = owner_of_session(2);
    let (_map, arenas) = arenas(&[session, owner_of_session(4), OWNER_WORKER]);
    let [client, other, worker] = &arenas[..] else { unreachable!("three owners") };
    let run = client.claim(3 * EXTENT).expect("a run");
    let foreign = other.claim(EXTENT).expect("an extent");
    let sent = handle(client, run, EXTENT);
    for wrong in [
        Handle { offset: sent.offset + EXTENT, ..sent },
        Handle { offset: sent.offset + ALIGN as u64, ..sent },
        Handle { generation: sent.generation + 1, ..sent },
        Handle { len: u64::MAX, ..sent },
        handle(other, foreign, 1),
    ] {
        assert!(worker.take_over(&wrong, session).is_err(), "{wrong:?}");
        assert_eq!(worker.usage(Some(OWNER_WORKER)).bytes, 0, "nothing of it is kept: {wrong:?}");
        assert_eq!(worker.usage(Some(session)).bytes, 3 * EXTENT);
    }
    assert!(worker.take_over(&sent, session).is_ok());
}

/// The sender frees the run while the worker takes it over: whoever wins an extent, none is lost or owned twice.
#[test]
fn a_free_that_races_with_a_take_over_loses_nothing() {
    let session = owner_of_session(2);
    let (_map, arenas) = arenas(&[session, OWNER_WORKER]);
    let [client, worker] = &arenas[..] else { unreachable!("two owners") };
    let mut won = 0;
    for _ in 0..2000 {
        let run = client.claim(5 * EXTENT).expect("an empty arena");
        let sent = handle(client, run, 5 * EXTENT);
        let start = std::sync::Barrier::new(2);
        let taken = std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                client.free(run);
            });
            start.wait();
            worker.take_over(&sent, session).ok()
        });
        if let Some(taken) = taken {
            won += 1;
            assert_eq!(worker.usage(Some(OWNER_WORKER)).bytes, taken.count as u64 * EXTENT);
            worker.free(taken);
        }
        // What the loser kept is its own still.
        client.reclaim(session);
        assert_eq!(worker.usage(None).bytes, 0);
    }
    assert!(won > 0, "the worker is sometimes first");
}
