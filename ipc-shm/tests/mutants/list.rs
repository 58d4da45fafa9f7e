//! What the proofs rest on, one step a mutant.

/// A text that stands once in a file of `src/`, and what it becomes.
pub struct Edit {
    pub file: &'static str,
    pub old: &'static str,
    pub new: &'static str,
}

/// One step taken out.
pub struct Mutant {
    pub name: &'static str,
    /// The scenario that proves that the step is needed.
    pub scenario: &'static str,
    pub edits: &'static [Edit],
}

const fn edit(file: &'static str, old: &'static str, new: &'static str) -> Edit {
    Edit { file, old, new }
}

const WHOLE_FRAMES: &str = "ring::two_frames_of_room_carry_whole_frames_in_order";
const WRAP: &str = "ring::a_frame_that_would_cross_the_end_begins_at_the_start";
const KILLED_PRODUCER: &str = "ring::a_producer_that_is_killed_anywhere_leaves_whole_frames_or_none";
const EVERY_ANSWER: &str = "doorbell::a_sleeping_client_gets_every_answer";
const ROOM: &str = "doorbell::a_client_that_sleeps_for_room_gets_it";
const TWO_CLIENTS: &str = "doorbell::one_poller_hears_two_clients";
const STOPPED_CLIENT: &str = "doorbell::a_client_that_stops_anywhere_costs_the_other_no_wake_up";
const BITS: &str = "doorbell::who_takes_a_bit_finds_what_it_tells_of";
const QUEUED_WITH_FRAME: &str = "cell::who_sees_the_frame_finds_the_request_queued";
const ONE_OUTCOME: &str = "cell::a_request_has_one_outcome";
const REFUSED: &str = "cell::a_refused_request_has_one_outcome";
const LATE_LOOK: &str = "cell::a_late_look_sees_its_own_request_only";
const DEAD_WORKER: &str = "cell::a_dead_workers_cell_says_whether_the_request_may_have_run";
const ONE_OWNER: &str = "arena::an_extent_has_one_owner";
const WHOLE_RUN: &str = "arena::a_run_is_claimed_whole_or_not_at_all";
const HAND_OVER: &str = "arena::a_run_changes_hands_whole_or_not_at_all";
const HEAD: &str = "arena::who_sees_a_head_sees_its_run";
const RECLAIM: &str = "arena::a_reclaim_takes_nothing_from_the_next_owner";
const DEAD_OWNER: &str = "arena::a_dead_owner_leaves_nothing_that_a_reclaim_does_not_find";
const STALE: &str = "arena::a_stale_handle_is_noticed";
const EXCHANGE: &str = "exchange::a_body_is_read_where_it_lies_and_given_back";
const ONCE: &str = "lease::every_release_is_taken_once";
const TWO_COLLECTORS: &str = "lease::two_collectors_take_a_release_once";
const READ_FIRST: &str = "lease::a_result_is_read_before_it_is_overwritten";
const CUT_SHORT: &str = "lease::a_release_cut_short_is_found_by_the_scan";
const TAKEN_BACK: &str = "checkout::a_channel_that_was_taken_back_is_its_next_users_alone";
const WANTED: &str = "checkout::a_channel_that_is_wanted_comes_back";
const GIVEN_BACK: &str = "checkout::a_channel_that_is_given_back_is_its_next_users_alone";
const NEXT_USER: &str = "recovery::a_slot_is_as_new_after_a_death_anywhere";
const OPEN_CHANNEL: &str = "recovery::who_sees_a_channel_open_sees_whose_it_is";
const LET_GO: &str = "recovery::a_session_that_is_let_go_of_is_its_next_users_alone";

pub const MUTANTS: &[Mutant] = &[
    // Rings
    Mutant {
        name: "the tail is not released",
        scenario: WHOLE_FRAMES,
        edits: &[edit(
            "ring.rs",
            "store(self.next_tail, Ordering::Release)",
            "store(self.next_tail, Ordering::Relaxed)",
        )],
    },
    Mutant {
        name: "the tail is not acquired",
        scenario: WHOLE_FRAMES,
        edits: &[edit(
            "ring.rs",
            "(self.place.tail).load(Ordering::Acquire)",
            "(self.place.tail).load(Ordering::Relaxed)",
        )],
    },
    Mutant {
        name: "the head is not released",
        scenario: WHOLE_FRAMES,
        edits: &[edit("ring.rs", "store(self.head, Ordering::Release)", "store(self.head, Ordering::Relaxed)")],
    },
    Mutant {
        name: "the head is not acquired",
        scenario: WHOLE_FRAMES,
        edits: &[edit(
            "ring.rs",
            "(self.place.head).load(Ordering::Acquire)",
            "(self.place.head).load(Ordering::Relaxed)",
        )],
    },
    Mutant {
        name: "a frame is committed before it is written",
        scenario: KILLED_PRODUCER,
        edits: &[
            edit(
                "ring.rs",
                "        let mut at = self.at;\n",
                "        self.ring.map.u64(self.ring.place.tail).store(self.next_tail, Ordering::Release);\n        let mut at = self.at;\n",
            ),
            edit(
                "ring.rs",
                "        self.ring.tail = self.next_tail;\n        self.ring.map.u64(self.ring.place.tail).store(self.next_tail, Ordering::Release);\n",
                "        self.ring.tail = self.next_tail;\n",
            ),
        ],
    },
    Mutant {
        name: "room is given back before it is read",
        scenario: WHOLE_FRAMES,
        edits: &[edit(
            "ring.rs",
            "            frame.clear();\n            self.map.read_to_vec(at, len as usize, frame);\n",
            "            self.map.u64(self.place.head).store(self.head.wrapping_add(self::padded(len as usize)), Ordering::Release);\n            frame.clear();\n            self.map.read_to_vec(at, len as usize, frame);\n",
        )],
    },
    Mutant {
        name: "the producer takes one frame too many",
        scenario: WHOLE_FRAMES,
        edits: &[edit("ring.rs", "Ok(need <= self.free())", "Ok(need <= self.free() + 64)")],
    },
    Mutant {
        name: "room for the pad is not counted",
        scenario: WRAP,
        edits: &[edit(
            "ring.rs",
            "let need = pad + frame + keep as u64;",
            "let need = frame + keep as u64; let _ = pad;",
        )],
    },
    // Doorbell
    Mutant {
        name: "the producer has no fence",
        scenario: EVERY_ANSWER,
        edits: &[edit("doorbell.rs", "    fence(Ordering::SeqCst);\n    let ticket", "    let ticket")],
    },
    Mutant {
        name: "the producer's fence is only AcqRel",
        scenario: EVERY_ANSWER,
        edits: &[edit(
            "doorbell.rs",
            "    fence(Ordering::SeqCst);\n    let ticket",
            "    fence(Ordering::AcqRel);\n    let ticket",
        )],
    },
    Mutant {
        name: "the sleeper has no fence",
        scenario: EVERY_ANSWER,
        edits: &[edit(
            "doorbell.rs",
            "    set(word, ticket);\n    fence(Ordering::SeqCst);\n",
            "    set(word, ticket);\n",
        )],
    },
    Mutant {
        name: "the sleeper's fence is only AcqRel",
        scenario: TWO_CLIENTS,
        edits: &[edit(
            "doorbell.rs",
            "    set(word, ticket);\n    fence(Ordering::SeqCst);\n",
            "    set(word, ticket);\n    fence(Ordering::AcqRel);\n",
        )],
    },
    Mutant {
        name: "the sleeper looks before it announces",
        scenario: EVERY_ANSWER,
        edits: &[edit(
            "doorbell.rs",
            "    announce(word, ticket);\n    let woken = if look() {",
            "    let found = look();\n    announce(word, ticket);\n    let woken = if found {",
        )],
    },
    Mutant {
        name: "the sleeper for room does not look again",
        scenario: ROOM,
        edits: &[edit("doorbell.rs", "let woken = if look() {", "let woken = if false && look() {")],
    },
    Mutant {
        name: "the poller does not look again",
        scenario: TWO_CLIENTS,
        edits: &[edit("attention.rs", "ticket, || any(map, geometry), wait)", "ticket, || false, wait)")],
    },
    Mutant {
        name: "a ticket is cleared whichever it is",
        scenario: EVERY_ANSWER,
        edits: &[edit(
            "doorbell.rs",
            "word.compare_exchange(ticket, 0, Ordering::Relaxed, Ordering::Relaxed)",
            "word.swap(0, Ordering::Relaxed)",
        )],
    },
    Mutant {
        name: "every sleep has the same ticket",
        scenario: EVERY_ANSWER,
        edits: &[edit("doorbell.rs", "    set(word, ticket);\n", "    set(word, ticket.min(1));\n")],
    },
    Mutant {
        name: "the ticket is cleared before the bell rings",
        scenario: STOPPED_CLIENT,
        edits: &[
            edit("doorbell.rs", "    ring()?;\n    //", "    //"),
            edit(
                "doorbell.rs",
                "    let _ = word.compare_exchange(ticket, 0, Ordering::Relaxed, Ordering::Relaxed);\n",
                "    let _ = word.compare_exchange(ticket, 0, Ordering::Relaxed, Ordering::Relaxed);\n    ring()?;\n",
            ),
        ],
    },
    // Attention bits
    Mutant {
        name: "the bell rings before the bit is set",
        scenario: TWO_CLIENTS,
        edits: &[edit(
            "attention.rs",
            "    set_channel(map, geometry, channel);\n    doorbell::ring_if_asleep(map.u64(geometry.worker_sleep()), ring)\n",
            "    let rang = doorbell::ring_if_asleep(map.u64(geometry.worker_sleep()), ring);\n    set_channel(map, geometry, channel);\n    rang\n",
        )],
    },
    Mutant {
        name: "an attention bit is not released",
        scenario: BITS,
        edits: &[edit("attention.rs", "% BITS), Ordering::Release);", "% BITS), Ordering::Relaxed);")],
    },
    Mutant {
        name: "attention bits are not acquired",
        scenario: BITS,
        edits: &[edit("attention.rs", "bits.swap(0, Ordering::AcqRel)", "bits.swap(0, Ordering::Release)")],
    },
    Mutant {
        name: "an attention bit is set by a store",
        scenario: BITS,
        edits: &[edit(
            "attention.rs",
            "    map.u64(word).fetch_or(1 << (index as usize % BITS), Ordering::Release);\n",
            "    let bits = map.u64(word).load(Ordering::Relaxed) | 1 << (index as usize % BITS);\n    map.u64(word).store(bits, Ordering::Release);\n",
        )],
    },
    Mutant {
        name: "attention bits are cleared by a store",
        scenario: BITS,
        edits: &[edit(
            "attention.rs",
            "    let mut set = bits.swap(0, Ordering::AcqRel);\n",
            "    let mut set = bits.load(Ordering::Acquire);\n    bits.store(0, Ordering::Release);\n",
        )],
    },
    Mutant {
        name: "attention bits are cleared after the look",
        scenario: TWO_CLIENTS,
        edits: &[
            edit(
                "attention.rs",
                "    let mut set = bits.swap(0, Ordering::AcqRel);\n",
                "    let mut set = bits.load(Ordering::Acquire);\n",
            ),
            edit(
                "attention.rs",
                "        each(word as u32 * BITS as u32 + bit);\n    }\n",
                "        each(word as u32 * BITS as u32 + bit);\n    }\n    bits.swap(0, Ordering::AcqRel);\n",
            ),
        ],
    },
    // Cells
    Mutant {
        name: "the frame is committed before the cell",
        scenario: QUEUED_WITH_FRAME,
        edits: &[edit(
            "cell.rs",
            "    queue(cell, id);\n    room.commit(parts);\n",
            "    room.commit(parts);\n    queue(cell, id);\n",
        )],
    },
    Mutant {
        name: "a request is moved on by a store",
        scenario: ONE_OUTCOME,
        edits: &[edit(
            "cell.rs",
            "    cell.compare_exchange(word(id, from), word(id, to), Ordering::AcqRel, Ordering::Acquire).is_ok()\n",
            "    let stands = cell.load(Ordering::Acquire) == word(id, from);\n    if stands {\n        cell.store(word(id, to), Ordering::Release);\n    }\n    stands\n",
        )],
    },
    Mutant {
        name: "a cancellation looks at running first",
        scenario: ONE_OUTCOME,
        edits: &[edit(
            "cell.rs",
            "    [CellState::Queued, CellState::Running].into_iter().find(",
            "    [CellState::Running, CellState::Queued].into_iter().find(",
        )],
    },
    Mutant {
        name: "a step asks for no id",
        scenario: LATE_LOOK,
        edits: &[edit(
            "cell.rs",
            "    cell.compare_exchange(word(id, from), word(id, to), Ordering::AcqRel, Ordering::Acquire).is_ok()\n",
            "    let held = cell.load(Ordering::Acquire);\n    held as u8 == from as u8 && cell.compare_exchange(held, word(id, to), Ordering::AcqRel, Ordering::Acquire).is_ok()\n",
        )],
    },
    Mutant {
        name: "a look asks for no id",
        scenario: LATE_LOOK,
        edits: &[edit("cell.rs", "if word >> 8 != id & ID_MASK {", "if word >> 8 != id & ID_MASK && false {")],
    },
    Mutant {
        name: "running is not said before it runs",
        scenario: DEAD_WORKER,
        edits: &[edit(
            "cell.rs",
            "    advance(cell, id, CellState::Queued, CellState::Running)\n",
            "    state(cell, id) == Some(CellState::Queued)\n",
        )],
    },
    // Extents
    Mutant {
        name: "an extent is claimed by a store",
        scenario: ONE_OWNER,
        edits: &[edit(
            "arena.rs",
            "                    .compare_exchange(seen, claimed, Ordering::AcqRel, Ordering::Relaxed)\n                    .is_ok();",
            "                    .swap(claimed, Ordering::AcqRel)\n                    != claimed;",
        )],
    },
    Mutant {
        name: "an extent is not released",
        scenario: ONE_OWNER,
        edits: &[edit("arena.rs", "                Ordering::Release,\n", "                Ordering::Relaxed,\n")],
    },
    Mutant {
        name: "an extent is not acquired",
        scenario: ONE_OWNER,
        edits: &[
            edit(
                "arena.rs",
                "(self.geometry.extent(extent)).load(Ordering::Acquire)",
                "(self.geometry.extent(extent)).load(Ordering::Relaxed)",
            ),
            edit(
                "arena.rs",
                "claimed, Ordering::AcqRel, Ordering::Relaxed",
                "claimed, Ordering::Release, Ordering::Relaxed",
            ),
        ],
    },
    Mutant {
        name: "who loses half a run keeps the other half",
        scenario: WHOLE_RUN,
        edits: &[edit(
            "arena.rs",
            "                (extent + 1..first + count).for_each(|mine| self.free_extent(mine));\n",
            "",
        )],
    },
    Mutant {
        name: "a run changes hands by stores",
        scenario: HAND_OVER,
        edits: &[edit(
            "arena.rs",
            "place.compare_exchange(seen, taken, Ordering::AcqRel, Ordering::Acquire).is_err()",
            "place.swap(taken, Ordering::AcqRel) != seen",
        )],
    },
    Mutant {
        name: "half of a run that did not change hands is kept",
        scenario: HAND_OVER,
        edits: &[edit(
            "arena.rs",
            "                (extent + 1..end).for_each(|taken| self.free_extent(taken));\n",
            "",
        )],
    },
    Mutant {
        name: "a head is claimed first",
        scenario: HEAD,
        edits: &[
            edit("arena.rs", "for extent in (first..first + count).rev() {", "for extent in first..first + count {"),
            edit("arena.rs", "(extent + 1..first + count).for_each(|mine|", "(first..extent).for_each(|mine|"),
            edit("arena.rs", "            if extent == first {\n", "            if extent == first + count - 1 {\n"),
        ],
    },
    Mutant {
        name: "a head is given back last",
        scenario: HEAD,
        edits: &[edit(
            "arena.rs",
            "(run.first..run.first + run.count).for_each(|extent| self.free_extent(extent));",
            "(run.first..run.first + run.count).rev().for_each(|extent| self.free_extent(extent));",
        )],
    },
    Mutant {
        name: "a killed claim leaves a head without its run",
        scenario: DEAD_OWNER,
        edits: &[
            edit("arena.rs", "for extent in (first..first + count).rev() {", "for extent in first..first + count {"),
            edit("arena.rs", "(extent + 1..first + count).for_each(|mine|", "(first..extent).for_each(|mine|"),
            edit("arena.rs", "            if extent == first {\n", "            if extent == first + count - 1 {\n"),
        ],
    },
    Mutant {
        name: "an extent is given back by a store",
        scenario: RECLAIM,
        edits: &[edit(
            "arena.rs",
            "            let _ = self.map.u64(self.geometry.extent(extent)).compare_exchange(\n                seen,\n                word(generation_of(seen), OWNER_NONE, FREE),\n                Ordering::Release,\n                Ordering::Relaxed,\n            );",
            "            let free = word(generation_of(seen), OWNER_NONE, FREE);\n            self.map.u64(self.geometry.extent(extent)).store(free, Ordering::Release);",
        )],
    },
    Mutant {
        name: "who gives back does not ask whose it is",
        scenario: RECLAIM,
        edits: &[edit(
            "arena.rs",
            "if owner_of(seen) == self.owner && state_of(seen) != FREE {",
            "if state_of(seen) != FREE {",
        )],
    },
    Mutant {
        name: "a claim has no new generation",
        scenario: STALE,
        edits: &[edit(
            "arena.rs",
            "word(generation_of(seen) + 1, self.owner, state)",
            "word(generation_of(seen), self.owner, state)",
        )],
    },
    Mutant {
        name: "a run is given back whatever its generation",
        scenario: STALE,
        edits: &[edit("arena.rs", "if generation_of(self.load(run.first)) != run.generation {", "if false {")],
    },
    Mutant {
        name: "a handle is good whoever owns the extent",
        scenario: STALE,
        edits: &[edit(
            "arena.rs",
            "if owner_of(word) != owner || state_of(word) == FREE {",
            "if state_of(word) == FREE {",
        )],
    },
    // A whole call
    Mutant {
        name: "a call without the tail's release",
        scenario: EXCHANGE,
        edits: &[edit(
            "ring.rs",
            "store(self.next_tail, Ordering::Release)",
            "store(self.next_tail, Ordering::Relaxed)",
        )],
    },
    Mutant {
        name: "a refused request ends by a store",
        scenario: REFUSED,
        edits: &[edit(
            "cell.rs",
            "    [CellState::Running, CellState::Queued].into_iter().any(|from| advance(cell, id, from, CellState::Done))\n",
            "    cell.store(word(id, CellState::Done), Ordering::Release);\n    true\n",
        )],
    },
    // Leases
    Mutant {
        name: "the session's bit is set before the lease's",
        scenario: ONCE,
        edits: &[
            edit(
                "lease.rs",
                "    let at = geometry.session(slot)",
                "    attention::set_session(map, geometry, slot);\n    let at = geometry.session(slot)",
            ),
            edit(
                "lease.rs",
                "Ordering::Release);\n    attention::set_session(map, geometry, slot);\n",
                "Ordering::Release);\n",
            ),
        ],
    },
    Mutant {
        name: "a release is not released",
        scenario: READ_FIRST,
        edits: &[edit(
            "lease.rs",
            "fetch_or(1 << (lease % 64), Ordering::Release)",
            "fetch_or(1 << (lease % 64), Ordering::Relaxed)",
        )],
    },
    Mutant {
        name: "releases are not acquired",
        scenario: READ_FIRST,
        edits: &[edit("lease.rs", "word.swap(0, Ordering::AcqRel)", "word.swap(0, Ordering::Release)")],
    },
    Mutant {
        name: "a lease is let go of by a store",
        scenario: ONCE,
        edits: &[edit(
            "lease.rs",
            "    map.u64(at).fetch_or(1 << (lease % 64), Ordering::Release);\n",
            "    let bits = map.u64(at).load(Ordering::Relaxed) | 1 << (lease % 64);\n    map.u64(at).store(bits, Ordering::Release);\n",
        )],
    },
    Mutant {
        name: "releases are cleared by a store",
        scenario: TWO_COLLECTORS,
        edits: &[edit(
            "lease.rs",
            "let mut bits = word.swap(0, Ordering::AcqRel);",
            "let mut bits = word.load(Ordering::Acquire);\n        word.store(0, Ordering::Release);",
        )],
    },
    Mutant {
        name: "the session's bit comes first, and its client dies",
        scenario: CUT_SHORT,
        edits: &[
            edit(
                "lease.rs",
                "    let at = geometry.session(slot)",
                "    attention::set_session(map, geometry, slot);\n    let at = geometry.session(slot)",
            ),
            edit(
                "lease.rs",
                "Ordering::Release);\n    attention::set_session(map, geometry, slot);\n",
                "Ordering::Release);\n",
            ),
        ],
    },
    // Who uses a channel
    Mutant {
        name: "a channel is checked out by a store",
        scenario: TAKEN_BACK,
        edits: &[edit(
            "checkout.rs",
            "    advance(at, generation, Use::Idle, Use::InUse, Ordering::Relaxed)\n",
            "    at.store(word(generation, Use::InUse), Ordering::Relaxed);\n    true\n",
        )],
    },
    Mutant {
        name: "a channel is taken back by a store",
        scenario: TAKEN_BACK,
        edits: &[edit(
            "checkout.rs",
            "    advance(at, generation, Use::Idle, Use::Returned, Ordering::Acquire)\n",
            "    at.store(word(generation, Use::Returned), Ordering::Relaxed);\n    true\n",
        )],
    },
    Mutant {
        name: "a use of a channel does not name its generation",
        scenario: TAKEN_BACK,
        edits: &[edit("checkout.rs", "    generation << 8 | state as u64", "    generation * 0 | state as u64")],
    },
    Mutant {
        name: "a channel that is checked in is not released",
        scenario: TAKEN_BACK,
        edits: &[edit("checkout.rs", "Use::Idle, Ordering::Release", "Use::Idle, Ordering::Relaxed")],
    },
    Mutant {
        name: "a channel that is taken back is not acquired",
        scenario: TAKEN_BACK,
        edits: &[edit("checkout.rs", "Use::Returned, Ordering::Acquire", "Use::Returned, Ordering::Relaxed")],
    },
    Mutant {
        name: "a channel is checked in by a store",
        scenario: WANTED,
        edits: &[edit(
            "checkout.rs",
            "    advance(at, generation, Use::InUse, Use::Idle, Ordering::Release)\n",
            "    at.store(word(generation, Use::Idle), Ordering::Release);\n    true\n",
        )],
    },
    Mutant {
        name: "an idle channel is wanted",
        scenario: WANTED,
        edits: &[edit(
            "checkout.rs",
            "    advance(at, generation, Use::InUse, Use::Wanted, Ordering::Relaxed)\n",
            "    at.store(word(generation, Use::Wanted), Ordering::Relaxed);\n    true\n",
        )],
    },
    Mutant {
        name: "a channel that is given back is not released",
        scenario: GIVEN_BACK,
        edits: &[edit(
            "checkout.rs",
            "from, Use::Returned, Ordering::Release",
            "from, Use::Returned, Ordering::Relaxed",
        )],
    },
    Mutant {
        name: "a channel that was given back is not acquired",
        scenario: GIVEN_BACK,
        edits: &[edit("checkout.rs", "at.load(Ordering::Acquire) == word", "at.load(Ordering::Relaxed) == word")],
    },
    Mutant {
        name: "a channel is given back by a store",
        scenario: GIVEN_BACK,
        edits: &[edit(
            "checkout.rs",
            "    let _ = states.into_iter().any(|from| advance(at, generation, from, Use::Returned, Ordering::Release));\n",
            "    let _ = states;\n    at.store(word(generation, Use::Returned), Ordering::Release);\n",
        )],
    },
    Mutant {
        name: "a channel that is wanted is not given back",
        scenario: GIVEN_BACK,
        edits: &[edit("checkout.rs", "[Use::Idle, Use::InUse, Use::Wanted]", "[Use::Idle, Use::InUse]")],
    },
    Mutant {
        name: "a channel that is wanted just then is not given back",
        scenario: GIVEN_BACK,
        edits: &[edit("checkout.rs", "[Use::Idle, Use::InUse, Use::Wanted]", "[Use::Idle, Use::Wanted, Use::InUse]")],
    },
    // Slots
    Mutant {
        name: "a slot keeps its generation",
        scenario: NEXT_USER,
        edits: &[edit(
            "slot.rs",
            "(map.u64(word).load(Ordering::Relaxed) >> 8) + 1",
            "(map.u64(word).load(Ordering::Relaxed) >> 8).max(1)",
        )],
    },
    Mutant {
        name: "a session keeps what the last one let go of",
        scenario: NEXT_USER,
        edits: &[edit(
            "slot.rs",
            "    map.zero(at + session::RELEASED, geometry.leases_per_session as usize / 8);\n",
            "",
        )],
    },
    Mutant {
        name: "a channel keeps the last one's requests",
        scenario: NEXT_USER,
        edits: &[edit("slot.rs", "        channel::REQUEST_TAIL,\n", "")],
    },
    Mutant {
        name: "a channel keeps the last one's answers",
        scenario: NEXT_USER,
        edits: &[edit("slot.rs", "        channel::RESPONSE_TAIL,\n", "")],
    },
    Mutant {
        name: "a channel keeps the last one's room",
        scenario: NEXT_USER,
        edits: &[edit("slot.rs", "        channel::REQUEST_HEAD,\n", "")],
    },
    Mutant {
        name: "a channel is open before it says whose it is",
        scenario: OPEN_CHANNEL,
        edits: &[edit(
            "slot.rs",
            "    map.u32(slot + channel::SESSION).store(session, Ordering::Relaxed);\n    map.u64(slot + channel::WORD).store(slot_word(generation, SlotState::Active), Ordering::Release);\n",
            "    map.u64(slot + channel::WORD).store(slot_word(generation, SlotState::Active), Ordering::Release);\n    map.u32(slot + channel::SESSION).store(session, Ordering::Relaxed);\n",
        )],
    },
    Mutant {
        name: "an open channel is not released",
        scenario: OPEN_CHANNEL,
        edits: &[edit(
            "slot.rs",
            "    map.u64(slot + channel::WORD).store(slot_word(generation, SlotState::Active), Ordering::Release);\n    generation\n",
            "    map.u64(slot + channel::WORD).store(slot_word(generation, SlotState::Active), Ordering::Relaxed);\n    generation\n",
        )],
    },
    Mutant {
        name: "a session that is let go of is not released",
        scenario: LET_GO,
        edits: &[edit(
            "slot.rs",
            "(generation, 0, Ordering::Release, Ordering::Relaxed)",
            "(generation, 0, Ordering::Relaxed, Ordering::Relaxed)",
        )],
    },
    Mutant {
        name: "a session that was let go of is not acquired",
        scenario: LET_GO,
        edits: &[edit("slot.rs", "load(Ordering::Acquire) == generation", "load(Ordering::Relaxed) == generation")],
    },
    Mutant {
        name: "a session is let go of by a store",
        scenario: LET_GO,
        edits: &[edit(
            "slot.rs",
            "    let _ = held.compare_exchange(generation, 0, Ordering::Release, Ordering::Relaxed);\n",
            "    let _ = generation;\n    held.store(0, Ordering::Release);\n",
        )],
    },
];
