//! A segment without a name: a memfd that cannot shrink or grow, handed over the worker's socket.
//!
//! For containers that share a socket and no /dev/shm, and for hosts where nothing may be left behind: no name can be
//! squatted, nothing can be truncated, and the memory goes with the last process that looks at it.
//!
//! The worker holds two descriptions of the one object. The first carries the lock that says "alive" and never leaves the
//! process; the second is what clients get. A lock belongs to the description: handed over, it would outlive its worker in
//! every client that still maps the segment.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl, posix_fallocate};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::geteuid;

use crate::address;
use crate::memory::Memory;
use crate::segment::{AutoArena, Segment, SegmentError, Words, give_back, os, take_lock};

/// What the kernel shows of the object in /proc/PID/fd.
const SHOWN_AS: &str = "/memfd:molt";

/// Nobody can take pages away or lift a seal. Growing would do no harm, but then the size would say nothing.
fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

/// Makes the object, its pages reserved: the locked description, and the one to hand over.
pub(crate) fn create(name: &str, size: u64) -> Result<(File, File), SegmentError> {
    let room = Memory::left();
    let no_memory = || {
        let (free, limit) = (room.free, room.limit.clone());
        SegmentError::NoMemory { name: name.into(), limit, free, wanted: size }
    };
    // Beyond a container's limit the kernel would not refuse but kill.
    if room.free < size {
        return Err(no_memory());
    }
    let object = File::from(make().map_err(|errno| os("create", name)(errno.into()))?);
    object.set_permissions(Permissions::from_mode(0o600)).map_err(os("protect", name))?;
    object.set_len(size).map_err(os("size", name))?;
    // Every page now, or an error now: never a SIGBUS later.
    posix_fallocate(object.as_fd(), 0, size as i64).map_err(|errno| match errno {
        Errno::ENOSPC | Errno::ENOMEM => no_memory(),
        errno => os("reserve pages of", name)(errno.into()),
    })?;
    fcntl(&object, FcntlArg::F_ADD_SEALS(seals())).map_err(|errno| os("seal", name)(errno.into()))?;
    if !take_lock(&object) {
        return Err(os("lock", name)(io::Error::last_os_error()));
    }
    let shared = open_again(&object).map_err(os("open again", name))?;
    Ok((object, shared))
}

fn make() -> Result<OwnedFd, Errno> {
    // Since Linux 6.3 a memfd says whether it may be executed; a system may insist on it. Older ones do not know the flag.
    let never_executed = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    match memfd_create("molt", flags | never_executed) {
        Err(Errno::EINVAL) => memfd_create("molt", flags),
        made => made,
    }
}

/// Another description of the same object.
pub(crate) fn open_again(file: &File) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Opens what a worker handed over: this user's, a memfd that cannot shrink or grow any more, with a sound header.
pub fn open(object: OwnedFd, name: &str) -> Result<Segment, SegmentError> {
    let file = File::from(object);
    let meta = file.metadata().map_err(os("stat", name))?;
    if meta.uid() != geteuid().as_raw() {
        return Err(SegmentError::Foreign { name: name.into(), uid: meta.uid(), own: geteuid().as_raw() });
    }
    if !meta.is_file() {
        return Err(SegmentError::NotPlain { name: name.into() });
    }
    let not_sealed = |what: String| SegmentError::NotSealed { name: name.into(), what };
    let found = fcntl(&file, FcntlArg::F_GET_SEALS).map_err(|_| not_sealed("knows no seals".into()))?;
    let missing = seals().difference(SealFlag::from_bits_retain(found));
    if !missing.is_empty() {
        return Err(not_sealed(format!("is not sealed: {missing:?} missing")));
    }
    let segment = Segment::of_file(name, &file)?;
    Ok(Segment { object: Some(file.into()), ..segment })
}

/// Segments without a name that processes of this user hold, found in /proc: also those of a worker that hangs and answers
/// nobody, and those of a dead one that a client still maps. Each is named by its worker's socket, and there as often as
/// somebody holds it.
pub(crate) fn find_all() -> Vec<Segment> {
    let mut found: Vec<Segment> = Vec::new();
    let Ok(processes) = std::fs::read_dir("/proc") else { return found };
    let is_process = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit());
    for process in processes.flatten().map(|entry| entry.path()).filter(|path| is_process(path)) {
        // Another user's processes show nothing.
        let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else { continue };
        for descriptor in descriptors.flatten().map(|entry| entry.path()) {
            let shown = std::fs::read_link(&descriptor).unwrap_or_default();
            if !shown.as_os_str().as_encoded_bytes().starts_with(SHOWN_AS.as_bytes()) {
                continue;
            }
            let Ok(object) = OpenOptions::new().read(true).write(true).open(&descriptor) else { continue };
            let Ok(segment) = open(object.into(), &descriptor.display().to_string()) else { continue };
            let name = segment.socket().display().to_string();
            found.push(Segment { name, ..segment });
        }
    }
    found
}

/// The same, one of each: of a dead worker's segment and its stand-in, the one that its supervisor has.
pub fn find() -> Vec<Segment> {
    let mut found = find_all();
    found.sort_by_cached_key(|segment| (segment.name.clone(), segment.header.instance, !segment.is_supervised()));
    found.dedup_by_key(|segment| segment.header.instance);
    found
}

/// The live nameless segment behind that socket which a process of this user has made, and a description of it of the
/// caller's own.
pub(crate) fn made_by(pid: u32, socket: &Path) -> Option<(Segment, File)> {
    let made = |descriptor: &Path| {
        let shown = std::fs::read_link(descriptor).unwrap_or_default();
        if !shown.as_os_str().as_encoded_bytes().starts_with(SHOWN_AS.as_bytes()) {
            return None;
        }
        let object = || OpenOptions::new().read(true).write(true).open(descriptor).ok();
        let segment = open(object()?.into(), &descriptor.display().to_string()).ok()?;
        let is_it = segment.header.worker_pid == pid && segment.socket() == socket && segment.is_alive();
        Some((Segment { name: socket.display().to_string(), ..segment }, object()?)).filter(|_| is_it)
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    descriptors.flatten().find_map(|descriptor| made(&descriptor.path()))
}

/// What `--arena auto` takes of the memory there is, for a worker behind that socket. What a dead one there left, and clients
/// that do not know of its death still hold, is given back first.
pub fn auto_arena(socket: &Path, tables: u64) -> AutoArena {
    let former = address::held_for(socket, None).map(|former| former.geometry);
    make_way(socket);
    let free = Memory::left().free;
    // The worker and its neighbours need memory too: half stays.
    AutoArena::of(free, free / 2, former, tables)
}

/// Gives back the pages that nobody can look at of dead workers' segments behind that socket which nobody starts again.
pub(crate) fn make_way(socket: &Path) {
    let nobodys = |segment: &Segment| !segment.is_alive() && !segment.is_supervised();
    for dead in address::all_held_for(socket).into_iter().filter(nobodys) {
        if let Some(object) = &dead.object {
            give_back(&dead, object);
        }
    }
}

/// A stand-in for a dead worker's segment (`segment::remains`), sealed as that one is: what its supervisor keeps instead.
pub(crate) fn stand_in(dead: &Segment, object: &File) -> Result<File, SegmentError> {
    let name = &dead.name;
    let words = Words::of(dead);
    give_back(dead, object);
    let stand_in = File::from(make().map_err(|errno| os("create", name)(errno.into()))?);
    stand_in.set_permissions(Permissions::from_mode(0o600)).map_err(os("protect", name))?;
    words.put_into(&stand_in).map_err(os("write a stand-in for", name))?;
    fcntl(&stand_in, FcntlArg::F_ADD_SEALS(seals())).map_err(|errno| os("seal", name)(errno.into()))?;
    Ok(stand_in)
}
