//! Handles that a peer sends, against an arena whose control words any process may have written: taken exactly if every
//! byte lies in extents that the sender has now.

use std::sync::atomic::Ordering;

use molt_ipc_shm::arena::{Arena, BadHandle, OWNER_NONE, OWNER_WORKER, Run, owner_of_session};
use molt_ipc_shm::frame::Handle;

use super::input::Input;
use super::segment;

const OWNERS: [u16; 4] = [OWNER_NONE, 1, 2, OWNER_WORKER];

/// Steps: claim, free, reclaim, write a control word, check a handle.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let geometry = segment::small();
    let map = segment::bytes(geometry.total_bytes());
    let size = geometry.extent_bytes as u64;
    let arenas = OWNERS.map(|owner| Arena::new(map.clone(), geometry, owner));
    let word = |extent: u32| map.u64(geometry.extent(extent));
    let mut runs: Vec<(usize, Run)> = Vec::new();
    while !input.is_empty() {
        match input.u8() % 8 {
            0 | 1 => {
                let (who, bytes) = (1 + input.u8() as usize % 3, input.near(size));
                if let Ok(run) = arenas[who].claim(bytes) {
                    assert!(run.count as u64 * size >= bytes && run.first + run.count <= geometry.extents);
                    let whole = Handle {
                        offset: arenas[who].offset(run) as u64,
                        len: bytes,
                        generation: run.generation,
                        sequence: 0,
                    };
                    assert_eq!(arenas[0].check(&whole, OWNERS[who]), Ok(()), "what was just claimed");
                    runs.push((who, run));
                }
            }
            2 if !runs.is_empty() => {
                let which = input.u8() as usize % runs.len();
                let (who, run) = runs[which];
                let before: Vec<u64> = (0..geometry.extents).map(|at| word(at).load(Ordering::Relaxed)).collect();
                arenas[who].free(run);
                for (extent, before) in (0..).zip(before) {
                    let now = word(extent).load(Ordering::Relaxed);
                    let inside = (run.first..run.first + run.count).contains(&extent);
                    assert!(now == before || (inside && owner_of(before) == OWNERS[who]), "another's extent was freed");
                }
            }
            3 => {
                let owner = owner_of_session(input.u8() as u32 % geometry.sessions);
                arenas[3].reclaim(owner);
                assert_eq!(arenas[0].usage(Some(owner)).bytes, 0);
            }
            4 => word(input.u8() as u32 % geometry.extents).store(input.u64(), Ordering::Relaxed),
            _ => {
                let extent = input.u8() as u32 % geometry.extents;
                let handle = Handle {
                    offset: input.near(geometry.extent_data(extent) as u64),
                    len: input.near(size),
                    generation: input.near(word(extent).load(Ordering::Relaxed) >> 24),
                    sequence: input.u8() as u64,
                };
                let owner = OWNERS[input.u8() as usize % OWNERS.len()];
                let found = arenas[1].check(&handle, owner);
                let words: Vec<u64> = (0..geometry.extents).map(|at| word(at).load(Ordering::Relaxed)).collect();
                let expected = expected(&handle, owner, geometry.arena_at() as u64, size, &words);
                let agree = match (&found, expected) {
                    (Ok(()), Ok(())) => true,
                    (Err(BadHandle::Bounds { .. }), Err(Wrong::Bounds)) => true,
                    (Err(BadHandle::Owner { extent, .. }), Err(Wrong::Owner(at))) => *extent == at,
                    (Err(BadHandle::Stale { .. }), Err(Wrong::Stale)) => true,
                    _ => false,
                };
                assert!(agree, "{handle:?} of {owner}: {found:?}, the model has {expected:?}");
                if found.is_ok() {
                    let _ = map.readable(handle.offset as usize, handle.len as usize);
                }
            }
        }
    }
}

fn owner_of(word: u64) -> u16 {
    (word >> 8) as u16
}

#[derive(Debug, Clone, Copy)]
enum Wrong {
    Bounds,
    Owner(u32),
    Stale,
}

/// The rule, in numbers that cannot overflow: byte by byte is what it means, extent by extent is how it is done.
fn expected(handle: &Handle, owner: u16, from: u64, size: u64, words: &[u64]) -> Result<(), Wrong> {
    let (first, len) = (handle.offset as i128 - from as i128, handle.len as i128);
    let end = size as i128 * words.len() as i128;
    if first < 0 || first >= end || first + len > end {
        return Err(Wrong::Bounds);
    }
    let covered = |extent: i128| {
        let (low, high) = (extent * size as i128, (extent + 1) * size as i128);
        first < high && first + len.max(1) > low
    };
    let mut begun = false;
    for (extent, word) in (0_u32..).zip(words).filter(|(extent, _)| covered(*extent as i128)) {
        if owner_of(*word) != owner || word & 0xff == 0 {
            return Err(Wrong::Owner(extent));
        }
        if !begun && word >> 24 != handle.generation {
            return Err(Wrong::Stale);
        }
        begun = true;
    }
    Ok(())
}
