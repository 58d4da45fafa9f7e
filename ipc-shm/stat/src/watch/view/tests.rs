//! What is seen, on screens of several sizes, of segments in several states.

use std::collections::VecDeque;

use molt_ipc_shm::doctor::{Finding, Ill};
use molt_ipc_shm::layout::{Geometry, SlotState, channel, session, slot_word};
use molt_ipc_shm::segment::OwnedSegment;
use molt_ipc_shm::stat::SupervisorReport;
use rand::{Rng, SeedableRng};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::sample::{busy, stats};
use super::{Chosen, Pane, Seen, draw};
use crate::watch::common;
use crate::watch::history::{EntryRates, History, Rates};
use crate::watch::requests::Age;
use crate::watch::snapshot::Snapshot;

fn screen(seen: &Seen<'_>, chosen: &mut Chosen, columns: u16, lines: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    terminal.draw(|frame| draw(frame, seen, chosen)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..lines).map(line).collect()
}

fn shown(snapshot: &Snapshot, rates: &Rates, pane: Pane, columns: u16, lines: u16) -> Vec<String> {
    let curve: VecDeque<u64> = [430, 900, 1700, 3000, 3412].into();
    let seen = Seen { address: "/molt0", snapshot: Some(snapshot), rates, curve: &curve, trouble: None };
    screen(&seen, &mut Chosen { pane, ..Chosen::default() }, columns, lines)
}

#[track_caller]
fn says(screen: &[String], words: &[&str]) {
    for word in words {
        assert!(screen.iter().any(|line| line.contains(word)), "no {word:?} in\n{}", screen.join("\n"));
    }
}

/// The whole first page. It is the picture in docs/watch.md too.
#[test]
fn the_overview_has_room_on_80_columns_and_24_lines() {
    let (snapshot, rates) = busy();
    let page = shown(&snapshot, &rates, Pane::Overview, 80, 24).join("\n");
    let picture = include_str!("../../../../../docs/watch.md");
    assert!(picture.contains(page.trim_end()), "docs/watch.md does not have this picture:\n{page}");
}

#[test]
fn every_page_shows_names_and_figures_whole_on_80_columns() {
    let (snapshot, rates) = busy();
    let pages: [(Pane, &[&str]); 5] = [
        (
            Pane::Overview,
            &[
                "molt /molt0  ● serving  pid 22447  up 2h03m",
                "✓ all is well · 3412 requests/s · 2 in flight, oldest 2.50s · arena 12%",
                "p pause  ? help  q quit",
                "3412/s  ok 1.23M  timeout 17",
                "compute                  3412 5.12µs 10.2µs 14.3µs │  1.20M 5.63µs 11.3µs 1.00ms",
                "summary_of_orders_by…       0      –      –      – │     12 25.2ms 54.5ms  1.54s",
                "31MiB of 256MiB used, longest free run 225MiB",
                "2.50s running molt.query                     in 2.50s    23072     0     4711",
                "   0    23072 active         2         2      1    20MiB ███···  50% ▏·····  <1%",
                "   5  4194304 active         2         0      1       0B ······   0% █████▉  97%",
            ],
        ),
        (Pane::Entries, &["entry                 calls/s    p50    p95    p99 │  calls    p50    p95    p99", "echo"]),
        (
            Pane::Channels,
            &[
                "3 channels of 320, rings of 32KiB each",
                "   ch slot      pid state   request ring       answer ring        queued running",
                "    0    0    23072 active  ██████······  50%  ▏···········  <1%       1       1",
                "    3    5  4194304 active  ············   0%  ███████████▋  97%       0       0",
            ],
        ),
        (Pane::Requests, &["     age state   entry                          deadline      pid    ch       id"]),
        (
            Pane::Arena,
            &[
                "a sign: an extent of 256KiB",
                "  owner             pid    bytes   runs leases   leased oldest share",
                "█ worker          22447    11MiB      1",
                "█ session 0       23072    20MiB      1      1     3MiB  2h03m",
                "█ session 5     4194304       0B      0      1     3MiB  2h03m",
                "2 runs",
            ],
        ),
    ];
    for (pane, words) in pages {
        says(&shown(&snapshot, &rates, pane, 80, 24), words);
    }
}

#[test]
fn a_wider_screen_shows_more() {
    let (snapshot, rates) = busy();
    for pane in [Pane::Overview, Pane::Entries] {
        says(
            &shown(&snapshot, &rates, pane, 140, 40),
            &["summary_of_orders_by_customer_and_month ", "2 sessions"][..1],
        );
    }
    says(&shown(&snapshot, &rates, Pane::Overview, 140, 40), &["arena 12% · 2 sessions"]);
}

#[test]
fn what_is_wrong_is_said_on_top() {
    let (mut snapshot, rates) = busy();
    let text = "its worker (pid 22447) is stopped by a signal; hint: `kill -CONT 22447`, or take over with --replace";
    snapshot.findings = vec![Finding { ill: Ill::StuckWorker, text: text.into() }];
    let page = shown(&snapshot, &rates, Pane::Entries, 80, 24);
    says(&page, &["● DOES NOT ANSWER", "is stopped by a signal; hint: `kill -CONT 22447`", "take over with --replace"]);

    snapshot.findings = vec![Finding { ill: Ill::DeadWorker, text: "its worker is dead".into() }];
    snapshot.worker.alive = false;
    says(&shown(&snapshot, &rates, Pane::Overview, 80, 24), &["● DEAD", "Waiting for the next", "compute"]);
    snapshot.worker.supervisor = Some(SupervisorReport {
        pid: 4242,
        alive: true,
        restarts: 3,
        in_a_row: 1,
        last_end: None,
        last_end_ago_s: None,
        next_start_in_s: Some(1.5),
        text: "supervisor pid 4242, restarted 3 times, next start in 1.5 s".into(),
    });
    let page = shown(&snapshot, &rates, Pane::Overview, 80, 24);
    says(&page, &["● DEAD  pid 22447  restarted 3×", "is started again: supervisor pid 4242", "next start in 1.5 s"]);
    snapshot.worker.supervisor = None;
    snapshot.worker.state = "stopped";
    says(&shown(&snapshot, &rates, Pane::Overview, 80, 24), &["● GONE", "left in good order"]);

    let (snapshot, mut rates) = busy();
    rates.outcomes[5] = 12.0;
    says(&shown(&snapshot, &rates, Pane::Overview, 80, 24), &["✗ 12 requests/s are refused: too much at once"]);
}

#[test]
fn without_a_worker_it_says_what_it_waits_for() {
    let (rates, curve) = (Rates::default(), VecDeque::new());
    let seen =
        Seen { address: "/molt7", snapshot: None, rates: &rates, curve: &curve, trouble: Some("there is no segment") };
    let page = screen(&seen, &mut Chosen::default(), 80, 24);
    says(&page, &["molt /molt7", "no worker is found", "there is no segment"]);
}

#[test]
fn a_long_list_is_scrolled_to_its_end_and_no_further() {
    let (mut snapshot, _) = busy();
    snapshot.entries = (0..200).map(|number| stats(&format!("entry{number:03}"), 1000 - number)).collect();
    let (rates, curve) = (Rates::default(), VecDeque::new());
    let seen = Seen { address: "", snapshot: Some(&snapshot), rates: &rates, curve: &curve, trouble: None };
    let mut chosen = Chosen { pane: Pane::Entries, ..Chosen::default() };
    let page = screen(&seen, &mut chosen, 80, 24);
    says(&page, &["1-19 of 200", "entry000", "entry018"]);
    chosen.scroll = usize::MAX;
    says(&screen(&seen, &mut chosen, 80, 24), &["182-200 of 200", "entry181", "entry199"]);
    assert_eq!((chosen.scroll, chosen.page), (181, 19));
}

/// On whatever screen.
fn draws_everywhere(snapshot: &Snapshot, rates: &Rates) {
    let curve: VecDeque<u64> = [0, 1, 1_000_000_000_000].into();
    let seen = Seen { address: "/molt0", snapshot: Some(snapshot), rates, curve: &curve, trouble: None };
    for (columns, lines) in [(1, 1), (2, 40), (13, 3), (80, 5), (80, 24), (79, 24), (200, 60)] {
        for pane in Pane::ALL {
            for scroll in [0, 3, usize::MAX] {
                screen(&seen, &mut Chosen { pane, scroll, ..Chosen::default() }, columns, lines);
            }
        }
        screen(&seen, &mut Chosen { help: true, paused: true, ..Chosen::default() }, columns, lines);
    }
}

#[test]
fn a_small_screen_and_impossible_figures_are_drawn_too() {
    let (mut snapshot, mut rates) = busy();
    draws_everywhere(&snapshot, &rates);
    snapshot.at_ns = u64::MAX;
    snapshot.worker.up_ns = u64::MAX;
    snapshot.totals.requests = u64::MAX;
    snapshot.totals.outcomes = [u64::MAX; 10];
    snapshot.totals.cut = u64::MAX;
    for session in &mut snapshot.sessions {
        (session.pid, session.channels, session.in_flight, session.leases) = (u32::MAX, u32::MAX, u32::MAX, u32::MAX);
        (session.arena_bytes, session.state) = (u64::MAX, "cut");
    }
    for channel in &mut snapshot.channels {
        (channel.requests, channel.responses) = (None, Some(u64::MAX));
        (channel.queued, channel.running, channel.session) = (u32::MAX, u32::MAX, u32::MAX);
    }
    for request in &mut snapshot.requests {
        (request.id, request.age, request.left_ns) = (u64::MAX, Age::AtLeast(u64::MAX), Some(i64::MIN));
        request.entry = Some("\u{1f600}\u{301}漢字".repeat(50));
    }
    snapshot.entries[0].name = "漢".repeat(40);
    rates.entries = vec![EntryRates { per_second: f64::INFINITY, ..EntryRates::default() }];
    rates.requests = f64::MAX;
    rates.outcomes = [f64::INFINITY; 10];
    draws_everywhere(&snapshot, &rates);
    snapshot.arena.words.clear();
    snapshot.ring_bytes = 0;
    draws_everywhere(&snapshot, &rates);
}

/// A real segment in which every word that somebody writes while it serves holds anything.
#[test]
fn a_segment_full_of_nonsense_is_read_and_drawn() {
    let names = common::Names::new();
    let plan = common::worker::blueprint(names.socket.clone(), common::small());
    let owned: OwnedSegment = common::worker::create(&names.shm, &plan).expect("a segment");
    let (segment, geometry) = (&owned.segment, owned.segment.geometry);
    owned.ready();
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let (from, to) = (Geometry::sessions_at(&geometry), geometry.rings_at() + geometry.ring_bytes as usize * 4);
    let mut history = History::default();
    let mut look = None;
    for round in 0..12 {
        let mut bytes = vec![0xff; to - from];
        if round > 0 {
            random.fill(&mut bytes[..]);
        }
        segment.map.write(from, &bytes);
        // Slots that are in use, so that all that hangs on them is read.
        for slot in 0..geometry.sessions {
            segment
                .map
                .write(geometry.session(slot) + session::WORD, &slot_word(u64::MAX, SlotState::Active).to_le_bytes());
        }
        for index in 0..geometry.channels {
            segment
                .map
                .write(geometry.channel(index) + channel::WORD, &slot_word(u64::MAX, SlotState::Active).to_le_bytes());
        }
        let (snapshot, seen) = Snapshot::of(segment, look.as_ref());
        look = Some(seen);
        let (snapshot, rates) = history.take(snapshot);
        draws_everywhere(&snapshot, &rates);
    }
}
