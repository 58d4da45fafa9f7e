//! The doorbell: no wake-up is lost, nobody who is awake is rung, and odd bytes do no harm.

mod common;

use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::child::{self, Child};
use molt_ipc_shm::bell::{LONGEST_SLEEP, drain, ring, wait};
use molt_ipc_shm::doorbell::{Woken, ring_if_asleep, sleep};
use molt_ipc_shm::mapping::Mapping;
use molt_ipc_shm::os::now_ns;
use molt_ipc_shm::spin::SpinBudget;
use molt_ipc_shm::word::Word64;

/// Places in the shared bytes: what each side has committed, when it had rung, its sleep word.
const COMMITTED: [usize; 2] = [0, 128];
const RUNG_AT: [usize; 2] = [256, 384];
const SLEEP: [usize; 2] = [512, 640];
const LOST: usize = 768;

#[test]
fn child_role() {
    child::play(&[("pong", |words| {
        let map = common::bytes_of(words[0].as_ref(), 4096);
        let bell = UnixStream::connect(&words[1]).expect("the parent's socket");
        play_side(&map, &bell, 1, words[2].parse().expect("a number"));
    })]);
}

/// Takes turns with the other side: commit and ring, then sleep until the other has committed.
///
/// A wake-up is lost when a sleep runs into its longest time although the other side had committed and finished ringing
/// well before, and no byte is there.
fn play_side(map: &Mapping, bell: &UnixStream, side: usize, rounds: u64) {
    let other = 1 - side;
    let committed = |side: usize| map.u64(COMMITTED[side]);
    for round in 1..=rounds {
        if side == 1 {
            listen(map, bell, side, round);
        }
        committed(side).store(round, Ordering::Release);
        ring_if_asleep(map.u64(SLEEP[other]), || ring(bell.as_fd())).expect("a listening peer");
        map.u64(RUNG_AT[side]).store(now_ns(), Ordering::Release);
        if side == 0 {
            listen(map, bell, side, round);
        }
    }
}

fn listen(map: &Mapping, bell: &UnixStream, side: usize, round: u64) {
    let other = 1 - side;
    let mut ticket = round << 8;
    let there = || map.u64(COMMITTED[other]).load(Ordering::Acquire) >= round;
    while !there() {
        ticket += 1;
        let woken = sleep(map.u64(SLEEP[side]), ticket, there, || wait(bell.as_fd(), LONGEST_SLEEP)).expect("a sleep");
        let ended = now_ns();
        assert_ne!(woken, Woken::HungUp, "round {round}");
        let rung_at = map.u64(RUNG_AT[other]).load(Ordering::Acquire);
        if woken == Woken::TimedOut && there() && rung_at + 50_000_000 < ended {
            map.u64(LOST).fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn no_wake_up_is_lost_between_two_threads() {
    const ROUNDS: u64 = 30_000;
    let map = common::bytes(4096);
    let (own, theirs) = UnixStream::pair().expect("a pair");
    let other = map.clone();
    let pong = std::thread::spawn(move || play_side(&other, &theirs, 1, ROUNDS));
    play_side(&map, &own, 0, ROUNDS);
    pong.join().expect("the other side");
    assert_eq!(map.u64(LOST).load(Ordering::Relaxed), 0);
}

#[test]
fn no_wake_up_is_lost_between_two_processes() {
    const ROUNDS: u64 = 10_000;
    let names = common::Names::new();
    let file = names.file("words");
    let map = common::bytes_of(&file, 4096);
    let listener = UnixListener::bind(&names.socket).expect("a socket");
    let text = |path: &std::path::Path| path.to_str().expect("a plain path").to_owned();
    let _child = Child::start(&["pong", &text(&file), &text(&names.socket), &ROUNDS.to_string()]);
    let (bell, _) = listener.accept().expect("the child");
    play_side(&map, &bell, 0, ROUNDS);
    assert_eq!(map.u64(LOST).load(Ordering::Relaxed), 0);
}

#[test]
fn nothing_is_sent_to_who_is_awake() {
    let (own, theirs) = UnixStream::pair().expect("a pair");
    theirs.set_nonblocking(true).expect("a socket");
    let word = Word64::new(0);
    for _ in 0..1000 {
        assert!(!ring_if_asleep(&word, || ring(own.as_fd())).expect("a peer"));
    }
    let nothing = std::io::Read::read(&mut &theirs, &mut [0; 8]).expect_err("no byte");
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_sleeper_is_rung_once_and_its_word_is_cleared() {
    let (own, theirs) = UnixStream::pair().expect("a pair");
    let word = Word64::new(7);
    assert!(ring_if_asleep(&word, || ring(own.as_fd())).expect("a peer"));
    assert_eq!(word.load(Ordering::Relaxed), 0);
    assert!(!ring_if_asleep(&word, || ring(own.as_fd())).expect("a peer"));
    assert_eq!(std::io::Read::read(&mut &theirs, &mut [0; 8]).expect("a byte"), 1);
}

/// A producer that is stopped after its byte and before its CAS has woken the sleeper already, and its late CAS leaves
/// a later sleep alone.
#[test]
fn a_producer_stopped_between_byte_and_cas_strands_nobody() {
    let (own, theirs) = UnixStream::pair().expect("a pair");
    let word = Word64::new(0);
    let look = || {
        ring(own.as_fd()).expect("a peer"); // the byte of ticket 1; its producer stops here
        false
    };
    let first = sleep(&word, 1, look, || wait(theirs.as_fd(), LONGEST_SLEEP));
    assert_eq!(first.expect("a sleep"), Woken::Look);
    let look = || {
        // The stopped one goes on, with the ticket it had seen.
        assert!(word.compare_exchange(1, 0, Ordering::Relaxed, Ordering::Relaxed).is_err());
        assert!(ring_if_asleep(&word, || ring(own.as_fd())).expect("a peer"), "the second sleep is seen");
        false
    };
    let second = sleep(&word, 2, look, || wait(theirs.as_fd(), LONGEST_SLEEP));
    assert_eq!(second.expect("a sleep"), Woken::Look);
}

/// Fault 39: doubled bytes wake for nothing, lost ones cost at most the longest sleep.
#[test]
fn doubled_bytes_wake_for_nothing_and_lost_ones_only_delay() {
    let (own, theirs) = UnixStream::pair().expect("a pair");
    let word = Word64::new(0);
    (0..500).for_each(|_| ring(own.as_fd()).expect("a peer"));
    let mut wakes = 0;
    while sleep(&word, 1, || false, || wait(theirs.as_fd(), Duration::from_millis(1))).expect("a sleep") == Woken::Look
    {
        wakes += 1;
    }
    assert!((1..=500).contains(&wakes), "{wakes} wakes of 500 bytes");
    let started = Instant::now();
    assert_eq!(
        sleep(&word, 2, || false, || wait(theirs.as_fd(), Duration::from_secs(3600))).expect("a sleep"),
        Woken::TimedOut
    );
    assert!(started.elapsed() >= LONGEST_SLEEP && started.elapsed() < common::PATIENCE);
    assert_eq!(word.load(Ordering::Relaxed), 0, "awake again");
}

#[test]
fn a_full_socket_never_stops_the_producer() {
    let (own, theirs) = UnixStream::pair().expect("a pair");
    for _ in 0..100_000 {
        ring(own.as_fd()).expect("a peer that does not read is a peer");
    }
    assert_eq!(drain(theirs.as_fd()).expect("bytes"), Woken::Look);
}

#[test]
fn the_end_of_the_other_process_is_noticed_on_both_sides() {
    let (own, theirs) = UnixStream::pair().expect("a pair");
    let word = Word64::new(0);
    ring(own.as_fd()).expect("a peer");
    drop(own);
    let mut seen = Vec::new();
    while seen.last() != Some(&Woken::HungUp) {
        seen.push(sleep(&word, 1, || false, || wait(theirs.as_fd(), LONGEST_SLEEP)).expect("a sleep"));
    }
    assert_eq!(seen, [Woken::Look, Woken::HungUp], "the byte that was sent first, then the end");
    assert!(ring(theirs.as_fd()).is_err(), "nobody is there to be rung");
}

#[test]
fn what_is_there_already_ends_a_sleep_before_it_begins() {
    let (_own, theirs) = UnixStream::pair().expect("a pair");
    let word = Word64::new(0);
    assert_eq!(sleep(&word, 9, || true, || wait(theirs.as_fd(), LONGEST_SLEEP)).expect("a sleep"), Woken::Look);
    assert_eq!(word.load(Ordering::Relaxed), 0);
}

#[test]
fn spinning_ends_without_a_result_and_gives_up_where_it_never_pays() {
    let mut spin = SpinBudget::worker();
    assert!(spin.spin(|| true));
    (0..200).for_each(|_| assert!(!spin.spin(|| false)));
    let mut looks = 0;
    let mut looked = |spin: &mut SpinBudget| {
        looks = 0;
        spin.spin(|| {
            looks += 1;
            false
        });
        looks
    };
    // Whatever was waited for came just after it had gone to sleep: worth a probe now and then.
    let mut sleeps = |spin: &mut SpinBudget, nanoseconds: u64, waits: u32| {
        let spun = |_: &u32| {
            let looks = looked(spin);
            spin.slept(nanoseconds);
            looks > 1
        };
        (0..waits).filter(spun).count()
    };
    sleeps(&mut spin, 20_000, 2000);
    let idle = sleeps(&mut spin, 20_000, 500);
    assert!(idle <= 2, "{idle} of 500 waits still spin although none of 2,000 paid");
    assert_eq!(sleeps(&mut spin, 3_000_000, 5000), 0, "who comes seldom is not waited for awake");
}

#[test]
fn after_a_caller_who_came_seldom_a_quick_one_is_noticed_soon() {
    for mut spin in [SpinBudget::client(), SpinBudget::worker()] {
        for _ in 0..1000 {
            spin.spin(|| false);
            spin.slept(3_000_000);
        }
        let mut quick = || {
            let mut looks = 0;
            let paid = spin.spin(|| {
                looks += 1;
                looks > 1
            });
            spin.slept(20_000);
            paid
        };
        let sleeps = (0..100).position(|_| quick()).expect("a probe among 100 waits");
        // 16; or 32, if somebody took the core while it still spun: then it gave up early. Probes made for who comes seldom
        // would have worn it out to 256.
        assert!((1..=32).contains(&sleeps), "{sleeps} short sleeps before the first probe");
    }
}

#[test]
fn who_has_given_up_spinning_finds_out_when_it_pays_again() {
    for mut spin in [SpinBudget::client(), SpinBudget::worker()] {
        (0..200).for_each(|_| assert!(!spin.spin(|| false)));
        // From now on everything comes at the second look: right after the wait has begun.
        let paid = |spin: &mut SpinBudget| {
            let mut looks = 0;
            let paid = spin.spin(|| {
                looks += 1;
                looks > 1
            });
            spin.slept(20_000);
            paid
        };
        let waits = (0..4096).position(|_| paid(&mut spin)).expect("a probe among 4,096 waits");
        assert!(waits > 0, "it had given up");
        assert!((0..100).all(|_| paid(&mut spin)), "once it pays, every wait spins");
    }
}
