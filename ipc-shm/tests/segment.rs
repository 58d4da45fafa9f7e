//! Segments: what is refused, what is replaced, what is left behind.

mod common;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::child::{self, Child};
use common::worker::{blueprint, spawn};
use common::{Names, small};
use molt_ipc_shm::layout::{
    Geometry, HEARTBEAT_AT, Header, LAYOUT_VERSION, READY_AT, STATE_SERVING, STATE_STOPPED, fnv1a,
};
use molt_ipc_shm::segment::{self, AutoArena, OwnedSegment, Segment, SegmentError};

#[test]
fn child_role() {
    child::play(&[
        ("worker", common::worker::role),
        // Makes a segment, never publishes it, waits for the end.
        ("half", |words| {
            let _owned = OwnedSegment::create(&words[0], &blueprint("/tmp/unused".into(), small())).expect("a segment");
            child::say("made");
            while child::hear().is_some() {}
        }),
    ]);
}

fn create(names: &Names) -> OwnedSegment {
    OwnedSegment::create(&names.shm, &blueprint(names.socket.clone(), small())).expect("a segment")
}

/// A published segment that says it serves.
fn serving(names: &Names) -> OwnedSegment {
    let mut owned = create(names);
    owned.publish(false).expect("a free name");
    owned.ready();
    owned
}

fn file_of(names: &Names) -> File {
    OpenOptions::new().read(true).write(true).open(names.path()).expect("the object")
}

#[test]
fn what_a_worker_writes_a_client_reads() {
    let names = Names::new();
    let owned = serving(&names);
    let seen = Segment::open_serving(&names.shm).expect("a serving segment");
    assert_eq!((seen.header, seen.geometry), (owned.segment.header, small()));
    assert_eq!(seen.socket(), names.socket);
    assert_eq!(seen.header.worker_pid, std::process::id());
    assert!(seen.is_alive());
    assert!(segment::list().contains(&names.shm));
    owned.segment.map.u64(HEARTBEAT_AT).store(77, Ordering::Release);
    assert_eq!(seen.map.u64(HEARTBEAT_AT).load(Ordering::Acquire), 77, "the same bytes");
    drop(owned);
    assert_eq!(names.objects(), [] as [&str; 0]);
}

/// Fault 23: each of the header's bytes, each of two flips: refused, with the segment's name.
#[test]
fn every_flipped_byte_of_the_header_is_noticed() {
    let names = Names::new();
    let _owned = serving(&names);
    let file = file_of(&names);
    let mut header = [0; Header::BYTES];
    file.read_exact_at(&mut header, 0).expect("the header");
    for at in 0..Header::BYTES {
        for flip in [0x01, 0x80] {
            file.write_all_at(&[header[at] ^ flip], at as u64).expect("a flip");
            let error = Segment::open(&names.shm).expect_err(&format!("byte {at} ^ {flip:#x}"));
            assert!(matches!(error, SegmentError::Damaged { .. } | SegmentError::Version { .. }), "byte {at}: {error}");
            assert!(error.to_string().contains(&names.shm), "{error}");
        }
        file.write_all_at(&header[at..=at], at as u64).expect("the byte");
    }
    assert!(Segment::open_serving(&names.shm).is_ok());
}

/// Fault 24.
#[test]
fn another_layout_version_is_refused_with_both_numbers() {
    let names = Names::new();
    let owned = serving(&names);
    let header = Header { layout_version: LAYOUT_VERSION + 41, ..owned.segment.header };
    let file = file_of(&names);
    let write = |mut header: Header| {
        header.checksum = fnv1a(&header.encode()[..Header::BYTES - 8]);
        file.write_all_at(&header.encode(), 0).expect("a header");
        Segment::open(&names.shm).expect_err("another layout")
    };
    let error = write(header);
    assert!(
        matches!(error, SegmentError::Version { theirs, ours, .. } if (theirs, ours) == (LAYOUT_VERSION + 41, LAYOUT_VERSION))
    );
    assert!(error.to_string().contains(&(LAYOUT_VERSION + 41).to_string()) && error.to_string().contains("hint:"));
    let error = write(Header { layout_hash: 1, ..owned.segment.header });
    assert!(matches!(error, SegmentError::Build { theirs: 1, .. }) && error.to_string().contains("hint:"));
    // Sizes that are well signed and impossible all the same.
    let sound = owned.segment.header;
    for bad in [
        Header { extents: u32::MAX, ..sound },
        Header { ring_bytes: 3000, ..sound },
        Header { arena_at: 64, ..sound },
        Header { total_bytes: sound.total_bytes + 1, ..sound },
        Header { socket_len: 5000, ..sound },
        Header { channels: sound.channels + 1, ..sound },
    ] {
        assert!(matches!(write(bad), SegmentError::Damaged { .. }));
    }
}

/// Fault 22 at attach.
#[test]
fn a_truncated_object_is_refused_and_never_read_beyond_its_end() {
    let names = Names::new();
    let owned = serving(&names);
    let total = owned.segment.header.total_bytes;
    let copy = Names::new();
    let (from, to) = (file_of(&names), File::create(copy.path()).expect("an object"));
    let mut header = [0; 8192];
    from.read_exact_at(&mut header, 0).expect("the header");
    for len in [0, 1, 8, 511, 512, 4095, 4096, 8192, total - 1] {
        to.set_len(0).and_then(|()| to.set_len(len)).expect("a length");
        to.write_all_at(&header[..header.len().min(len as usize)], 0).expect("the header");
        let error = Segment::open(&copy.shm).expect_err(&format!("{len} bytes"));
        assert!(matches!(error, SegmentError::Damaged { .. }), "{len} bytes: {error}");
    }
    assert!(!segment::is_locked(&copy.shm));
}

/// Fault 55: what squats on a name is neither read nor replaced.
#[test]
fn what_is_no_plain_object_is_refused_and_left_alone() {
    let names = Names::new();
    let target = names.file("target");
    std::fs::write(&target, vec![0; 8192]).expect("a file");
    let squat: [(&str, &dyn Fn()); 3] = [
        ("a symbolic link", &|| symlink(&target, names.path()).expect("a link")),
        ("a folder", &|| std::fs::create_dir(names.path()).expect("a folder")),
        ("a pipe", &|| nix::unistd::mkfifo(&names.path(), nix::sys::stat::Mode::S_IRWXU).expect("a pipe")),
    ];
    for (what, make) in squat {
        make();
        assert!(matches!(Segment::open(&names.shm), Err(SegmentError::NotPlain { .. })), "{what}");
        assert!(create(&names).publish(false).is_err(), "{what}");
        assert!(create(&names).publish(true).is_err(), "{what}, with replace");
        assert_eq!(names.objects().len(), 1, "{what} stays, and nothing of ours does");
        let _ = std::fs::remove_file(names.path()).or_else(|_| std::fs::remove_dir(names.path()));
    }
    assert_eq!(std::fs::read(&target).expect("the file"), vec![0; 8192]);
}

#[test]
fn a_file_that_is_no_segment_is_refused() {
    let names = Names::new();
    for content in [vec![0; 4096], vec![0xff; 100_000], b"MOLTSHM1".to_vec(), b"MOLTSHM1".repeat(2000)] {
        std::fs::write(names.path(), content).expect("a file");
        assert!(matches!(
            Segment::open_serving(&names.shm),
            Err(SegmentError::Damaged { .. } | SegmentError::Version { .. })
        ));
    }
}

#[test]
fn names_that_are_none_are_refused() {
    let long = format!("/{}", "x".repeat(201));
    for name in ["", "/", "molt0", "/a/b", "/../etc/passwd", "/.hidden", "/a b", "/a\0b", "/ü", "//a", &long] {
        assert!(matches!(Segment::open(name), Err(SegmentError::Name(_))), "{name:?}");
        let created = OwnedSegment::create(name, &blueprint("/tmp/unused".into(), small()));
        assert!(matches!(created, Err(SegmentError::Name(_))), "{name:?}");
    }
    assert!(matches!(Segment::open("/molt-no-such-segment"), Err(SegmentError::NotFound { .. })));
    let error = Segment::open("/molt-no-such-segment").expect_err("nothing").to_string();
    assert!(error.contains("/molt-no-such-segment") && error.contains("molt_worker --shm"), "{error}");
}

#[test]
fn a_live_workers_name_is_refused_and_taken_over_only_on_request() {
    let names = Names::new();
    let mut first = Child::start(&["worker", &names.shm, names.socket.to_str().expect("a plain path")]);
    assert_eq!(first.line(), "serving");
    let instance = Segment::open(&names.shm).expect("a segment").header.instance;
    let mut second = create(&names);
    match second.publish(false) {
        Err(SegmentError::Alive { pid, .. }) => assert_eq!(pid, first.pid()),
        other => panic!("{other:?}"),
    }
    assert_eq!(Segment::open_serving(&names.shm).expect("still serving").header.instance, instance);
    assert_eq!(second.publish(true).expect("a takeover").map(|former| former.header.worker_pid), Some(first.pid()));
    second.ready();
    assert_eq!(Segment::open_serving(&names.shm).expect("the new one").header.instance, second.segment.header.instance);
    assert!(first.finish(), "the old worker leaves in good order");
    assert_eq!(
        Segment::open_serving(&names.shm).expect("not unlinked by the old worker").header,
        second.segment.header
    );
}

/// Faults 15, 57.
#[test]
fn the_name_of_a_worker_that_was_killed_is_replaced() {
    let names = Names::new();
    let mut worker = spawn(&names);
    worker.kill();
    let dead = Segment::open(&names.shm).expect("its object is still there");
    assert!(!dead.is_alive() && dead.state() == STATE_SERVING, "it had no time to say so");
    assert!(matches!(Segment::open_serving(&names.shm), Err(SegmentError::NotServing { state: "dead", .. })));
    let owned = serving(&names);
    assert_eq!(Segment::open_serving(&names.shm).expect("the new one").header, owned.segment.header);
    assert_ne!(owned.segment.header.instance, dead.header.instance);
    assert_eq!(dead.header.worker_pid, worker.pid(), "the dead one's bytes were not touched");
}

/// Faults 15, 23: nothing of it can be told to anybody, so no stand-in takes its place.
#[test]
fn a_killed_workers_segment_that_is_damaged_is_in_nobodys_way() {
    let names = Names::new();
    spawn(&names).kill();
    file_of(&names).write_all_at(&[0xff], 200).expect("a damaged header");
    assert!(matches!(Segment::open(&names.shm), Err(SegmentError::Damaged { .. })));
    let mut owned = create(&names);
    assert!(!names.path().exists(), "its name is gone before the next one is there");
    owned.publish(false).expect("a free name");
}

/// A start under a dead worker's name succeeds although clients ask all the time whether somebody serves there.
#[test]
fn asking_whether_a_worker_lives_never_makes_a_dead_one_look_alive() {
    let names = Names::new();
    let stop = Arc::new(AtomicBool::new(false));
    spawn(&names).kill();
    let askers: Vec<_> = (0..2)
        .map(|_| {
            let (shm, stop) = (names.shm.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = segment::is_locked(&shm);
                }
            })
        })
        .collect();
    let mut refused = Vec::new();
    for _ in 0..30 {
        let mut owned = create(&names);
        if let Err(error) = owned.publish(false) {
            refused.push(error.to_string());
            continue;
        }
        // It dies: the object stays, nobody has it.
        let keep = names.file("keep");
        let copied = std::fs::copy(names.path(), &keep);
        drop(owned);
        copied.and_then(|_| std::fs::copy(&keep, names.path())).expect("a dead worker's object");
    }
    stop.store(true, Ordering::Relaxed);
    askers.into_iter().for_each(|asker| asker.join().expect("an asker"));
    assert_eq!(refused, [] as [&str; 0]);
}

/// Two starts at once: one gets the name, the other is told who has it, and neither destroys the other's half-made one.
#[test]
fn starts_at_the_same_moment_do_not_sweep_each_other_away() {
    let names = Names::new();
    let failed: Vec<String> = std::thread::scope(|scope| {
        let start = || {
            (0..40)
                .filter_map(|_| {
                    let plan = blueprint(names.socket.clone(), Geometry { extents: 4, channels: 2, ..small() });
                    OwnedSegment::create(&names.shm, &plan).err().map(|error| error.to_string())
                })
                .collect::<Vec<_>>()
        };
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        starts.into_iter().flat_map(|start| start.join().expect("a start")).collect()
    });
    assert_eq!(failed, [] as [&str; 0]);
}

/// Fault 57: unfinished objects of starts that were killed go with the next start; a live one's stay.
#[test]
fn leftovers_of_killed_starts_are_swept() {
    let names = Names::new();
    let (mut killed, mut alive) = (Child::start(&["half", &names.shm]), Child::start(&["half", &names.shm]));
    assert_eq!((killed.line(), alive.line()), ("made".into(), "made".into()));
    assert_eq!(names.objects().len(), 2);
    killed.kill();
    // One was killed a moment ago, between making its object and locking it.
    std::fs::write(format!("{}.0000000000000001.new", names.path().display()), b"").expect("an object");
    let owned = create(&names);
    assert_eq!(names.objects().len(), 2, "the live one's and the new one's: {:?}", names.objects());
    drop(owned);
    assert!(alive.finish());
    assert_eq!(names.objects(), [] as [&str; 0], "each takes its own away");
}

#[test]
fn only_ones_own_object_is_unlinked() {
    let names = Names::new();
    let owned = serving(&names);
    std::fs::remove_file(names.path()).expect("the object");
    std::fs::write(names.path(), b"somebody else's").expect("another");
    drop(owned);
    assert_eq!(std::fs::read(names.path()).expect("still there"), b"somebody else's");
}

/// Fault 19.
#[test]
fn an_arena_larger_than_the_space_is_refused_with_the_numbers() {
    let names = Names::new();
    let space = nix::sys::statvfs::statvfs(segment::SHM_DIR).expect("the space");
    let all = space.blocks() as u64 * space.fragment_size() as u64;
    let plan =
        blueprint(names.socket.clone(), Geometry { extent_bytes: 1 << 30, extents: (all >> 30) as u32 + 2, ..small() });
    let error = OwnedSegment::create(&names.shm, &plan).expect_err("no room");
    let wanted = plan.geometry.total_bytes();
    assert!(matches!(error, SegmentError::NoSpace { wanted: stated, .. } if stated == wanted as u64), "{error}");
    assert!(error.to_string().contains(&wanted.to_string()) && error.to_string().contains("hint:"), "{error}");
    assert_eq!(names.objects(), [] as [&str; 0]);
    let AutoArena { bytes: arena, free, former } = segment::auto_arena(&names.shm, 0).expect("the space");
    assert_eq!(former, None);
    assert!(arena > 0 && (Geometry::for_arena(arena).total_bytes() as u64) < free);
    let AutoArena { bytes: with_tables, free, .. } = segment::auto_arena(&names.shm, free).expect("the space");
    assert!((Geometry::for_arena(with_tables).total_bytes() as u64) < free, "never all there is");
    assert!(free < 4 << 30 || with_tables > arena, "tables that lie there from the start get room beside requests");
}

#[test]
fn states_are_seen_as_they_change() {
    let names = Names::new();
    let mut owned = create(&names);
    assert!(
        matches!(Segment::open_serving(&names.shm), Err(SegmentError::NotFound { .. })),
        "not before it is published"
    );
    owned.publish(false).expect("a free name");
    assert!(matches!(Segment::open_serving(&names.shm), Err(SegmentError::NotServing { state: "starting", .. })));
    owned.ready();
    assert!(Segment::open_serving(&names.shm).is_ok());
    owned.segment.set_state(STATE_STOPPED);
    assert!(matches!(Segment::open_serving(&names.shm), Err(SegmentError::NotServing { state: "stopped", .. })));
    owned.segment.map.u32(READY_AT).store(99, Ordering::Release);
    assert!(matches!(Segment::open_serving(&names.shm), Err(SegmentError::NotServing { .. })));
}
