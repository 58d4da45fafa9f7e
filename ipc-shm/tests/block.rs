//! Blocks: what an owner cuts its extents into.

mod common;

use std::sync::Arc;

use molt_ipc_shm::arena::{Arena, Usage, owner_of_session};
use molt_ipc_shm::block::{Block, Blocks, NoBlock};
use molt_ipc_shm::layout::{ALIGN, Geometry};
use proptest::prelude::*;

const EXTENT: usize = 16 << 10;
const EXTENTS: u32 = 32;

fn geometry() -> Geometry {
    Geometry {
        sessions: 4,
        channels: 1,
        ring_bytes: 8192,
        extent_bytes: EXTENT as u32,
        extents: EXTENTS,
        ..Geometry::for_arena(0)
    }
}

fn blocks(quota: u64) -> Arc<Blocks> {
    let map = common::bytes(geometry().total_bytes());
    Blocks::new(Arena::new(map, geometry(), owner_of_session(0)), quota)
}

fn held(blocks: &Blocks) -> u64 {
    blocks.arena().usage(None).bytes
}

fn content(block: &Block) -> Vec<u8> {
    let mut bytes = vec![0; block.len()];
    block.mapping().read(block.offset(), &mut bytes);
    bytes
}

proptest! {
    #![proptest_config(common::cases(150))]

    /// No two blocks share a byte, all begin at multiples of 64, and the last one gone leaves nothing held.
    #[test]
    fn blocks_keep_their_bytes_to_themselves(
        moves in proptest::collection::vec((any::<bool>(), prop_oneof![0..300_usize, 0..3 * EXTENT], any::<usize>()), 1..150),
    ) {
        let quota = 20 * EXTENT as u64;
        let blocks = blocks(quota);
        let mut alive: Vec<(Block, Vec<u8>)> = Vec::new();
        for (number, (take, len, which)) in moves.into_iter().enumerate() {
            if take {
                match blocks.allocate(len) {
                    Ok(block) => {
                        prop_assert!(block.offset().is_multiple_of(ALIGN) && block.len() == len);
                        let bytes = common::pattern(number as u64, len);
                        block.write(0, &bytes);
                        prop_assert_eq!(blocks.arena().check(&block.handle(), owner_of_session(0)), Ok(()));
                        alive.push((block, bytes));
                    }
                    Err(NoBlock::Quota { wanted: _, held: stated, quota: allowed }) => {
                        prop_assert_eq!((stated, allowed), (held(&blocks), quota));
                    }
                    Err(NoBlock::Full(full)) => prop_assert!(full.longest < full.wanted, "{}", full),
                }
            } else if !alive.is_empty() {
                alive.swap_remove(which % alive.len());
            }
            prop_assert!(held(&blocks) <= quota);
        }
        for (block, bytes) in &alive {
            prop_assert_eq!(&content(block), bytes);
        }
        let mut handles: Vec<_> = alive.iter().map(|(block, _)| block.handle().sequence).collect();
        handles.sort_unstable();
        handles.dedup();
        prop_assert_eq!(handles.len(), alive.len(), "every block has a sequence number of its own");
        drop(alive);
        prop_assert_eq!(blocks.arena().usage(None), Usage::default(), "an idle owner keeps nothing");
    }
}

#[test]
fn small_blocks_share_an_extent_and_large_ones_do_not() {
    let blocks = blocks(u64::MAX);
    let small: Vec<Block> = (0..16).map(|_| blocks.allocate(EXTENT / 16).expect("room")).collect();
    assert_eq!(held(&blocks), EXTENT as u64);
    let large = blocks.allocate(EXTENT + 1).expect("room");
    assert_eq!(held(&blocks), 3 * EXTENT as u64);
    drop(small);
    assert_eq!(held(&blocks), 2 * EXTENT as u64);
    drop(large);
    assert_eq!(held(&blocks), 0);
}

#[test]
fn the_quota_counts_what_is_held_and_names_the_numbers() {
    let blocks = blocks(4 * EXTENT as u64);
    let first = blocks.allocate(3 * EXTENT).expect("within the quota");
    let refused = blocks.allocate(2 * EXTENT).expect_err("over the quota");
    let (wanted, held, quota) = (2 * EXTENT as u64, 3 * EXTENT as u64, 4 * EXTENT as u64);
    assert_eq!(refused, NoBlock::Quota { wanted, held, quota });
    for number in [wanted, held, quota] {
        assert!(refused.to_string().contains(&number.to_string()), "{refused}");
    }
    drop(first);
    assert!(blocks.allocate(4 * EXTENT).is_ok(), "given back is free again");
}

/// Fault 17.
#[test]
fn a_full_arena_refuses_and_recovers() {
    let blocks = blocks(u64::MAX);
    let all = blocks.allocate(EXTENT * EXTENTS as usize).expect("an empty arena");
    for len in [1, EXTENT, EXTENT * EXTENTS as usize] {
        assert!(matches!(blocks.allocate(len), Err(NoBlock::Full(full)) if full.free == 0));
    }
    drop(all);
    assert!(blocks.allocate(EXTENT * EXTENTS as usize).is_ok());
}

/// Fault 28: sizes at the end of the number range are refused like any other that is too large.
#[test]
fn no_size_overflows_into_a_block() {
    for quota in [u64::MAX, 4 * EXTENT as u64] {
        let blocks = blocks(quota);
        for len in [usize::MAX, usize::MAX - 1, usize::MAX - ALIGN, usize::MAX - EXTENT, usize::MAX / 2] {
            assert!(blocks.allocate(len).is_err(), "{len} bytes under a quota of {quota}");
        }
        assert_eq!(held(&blocks), 0);
        assert!(blocks.allocate(0).is_ok_and(|block| block.is_empty()));
    }
}

#[test]
fn a_block_of_no_bytes_has_a_handle_that_is_taken() {
    let blocks = blocks(u64::MAX);
    let empty = blocks.allocate(0).expect("room");
    assert_eq!(blocks.arena().check(&empty.handle(), owner_of_session(0)), Ok(()));
}

#[test]
#[should_panic(expected = "beyond a block's end")]
fn a_write_beyond_the_end_of_a_block_is_stopped() {
    let block = blocks(u64::MAX).allocate(100).expect("room");
    block.write(usize::MAX, b"xx");
}

#[test]
fn a_shortened_block_stays_short() {
    let mut block = blocks(u64::MAX).allocate(1000).expect("room");
    block.truncate(10);
    block.truncate(500);
    assert_eq!((block.len(), block.handle().len), (10, 10));
}

#[test]
fn threads_share_one_owners_blocks() {
    let blocks = blocks(u64::MAX);
    let threads: Vec<_> = (0..4_u64)
        .map(|thread| {
            let blocks = blocks.clone();
            std::thread::spawn(move || {
                for step in 0..3000_u64 {
                    let bytes = common::pattern(thread * 10_000 + step, (step * 37 % 9000) as usize);
                    let block = blocks.allocate(bytes.len()).expect("room for four");
                    block.write(0, &bytes);
                    assert_eq!(content(&block), bytes);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    assert_eq!(held(&blocks), 0);
}
