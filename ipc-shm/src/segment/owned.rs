//! A segment as its worker has it: made under a name of its own, finished, moved into place, removed.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, posix_fallocate, renameat2};
use nix::sys::mman::shm_unlink;
use nix::unistd::geteuid;
use shared_memory::ShmemConf;

use crate::failpoint::around;
use crate::layout::{
    Geometry, Header, LAYOUT_VERSION, MAGIC, PAGE, SOCKET_PATH_MAX, STATE_SERVING, STATE_STARTING, fnv1a, layout_hash,
};
use crate::locks::ObjectLock;
use crate::mapping::Mapping;
use crate::nameless;

use super::remains::make_way;
use super::room::{free_space, no_space};
use super::{SHM_DIR, Segment, SegmentError, check_name, is_held, list, open_object, os, path_of, take_lock};

/// Whoever changes a name does so within a few system calls.
const NAME_WITHIN: Duration = Duration::from_secs(5);

/// What a worker decides about a new segment.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// The sizes.
    pub geometry: Geometry,
    /// The Unix socket where clients say hello.
    pub socket: PathBuf,
    /// Largest request body, bytes.
    pub max_body: u64,
    /// Most arena bytes of one session.
    pub session_quota: u64,
}

/// A segment as its worker has it: locked for life, unlinked when dropped.
#[derive(Debug)]
pub struct OwnedSegment {
    /// What clients see too.
    pub segment: Segment,
    /// Locked; closing it is the end of the lock.
    object: File,
    /// Under which name it lies now, if it has one.
    current_name: Option<String>,
    /// It has given its name up, or leaves it to its supervisor.
    retired: bool,
}

/// Whether such a segment can be.
fn check_plan(name: &str, plan: &Blueprint) -> Result<(), SegmentError> {
    let len = plan.socket.as_os_str().len();
    if len > SOCKET_PATH_MAX {
        return Err(SegmentError::SocketPath { path: plan.socket.clone(), len });
    }
    match plan.geometry.fault() {
        Some(field) => Err(SegmentError::Damaged { name: name.into(), what: format!("{field} is out of bounds") }),
        None => Ok(()),
    }
}

impl Segment {
    /// Maps a new object of the plan's size, whose pages are reserved, and writes its header.
    fn write(file: &File, name: &str, plan: &Blueprint, instance: u64) -> Result<Self, SegmentError> {
        use std::os::unix::ffi::OsStrExt;
        let map = Arc::new(Mapping::new(file).map_err(os("map", name))?);
        let socket = plan.socket.as_os_str().as_bytes();
        let mut header = Header {
            magic: MAGIC,
            layout_version: LAYOUT_VERSION,
            header_bytes: PAGE as u32,
            layout_hash: layout_hash(),
            instance,
            worker_pid: std::process::id(),
            worker_uid: geteuid().as_raw(),
            started_ns: crate::os::now_ns(),
            started_unix_ns: std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64,
            max_body: plan.max_body,
            session_quota: plan.session_quota,
            socket_len: socket.len() as u64,
            ..Header::default()
        };
        header.socket.0[..socket.len()].copy_from_slice(socket);
        plan.geometry.fill(&mut header);
        header.checksum = fnv1a(&header.encode()[..Header::BYTES - 8]);
        map.write(0, &header.encode());
        let segment = Self { map, geometry: plan.geometry, header, name: name.into(), object: None };
        segment.set_state(STATE_STARTING);
        Ok(segment)
    }
}

impl OwnedSegment {
    /// Makes a segment under a name of its own, `starting`. [`OwnedSegment::publish`] gives it the real one.
    pub fn create(name: &str, plan: &Blueprint) -> Result<Self, SegmentError> {
        check_name(name)?;
        check_plan(name, plan)?;
        sweep(name);
        make_way(name);
        let instance = random();
        let own_name = format!("{name}.{:016x}.new", instance);
        let total = plan.geometry.total_bytes();
        if free_space().map_err(os("look at the space for", name))? < total as u64 {
            return Err(no_space(total as u64));
        }
        // The crate creates (O_EXCL, 0600) and sizes the object; it would unlink the creation name when dropped and shows
        // no descriptor, so ownership is taken from it and the object opened again, checked, locked and mapped.
        let created = around(|| ShmemConf::new().os_id(&own_name).size(total).create());
        let mut created = created.map_err(|error| SegmentError::Os {
            doing: "create",
            name: own_name.clone(),
            error: io::Error::other(error.to_string()),
        })?;
        created.set_owner(false);
        drop(created);
        let unlink = |error| {
            let _ = shm_unlink(own_name.as_str());
            error
        };
        // Until it is locked, another start takes it for one whose maker was killed, and removes it (`sweep`): then anew.
        let file = match open_object(&own_name) {
            Ok(file) => file,
            Err(SegmentError::NotFound { .. }) => return Self::create(name, plan),
            Err(error) => return Err(unlink(error)),
        };
        // The name lock is held until name and socket are in place, see `locks`.
        let locked = around(|| take_lock(&file)) && around(|| ObjectLock::Name.take(&file));
        if !locked || !has_name(&file, &own_name) {
            let _ = around(|| shm_unlink(own_name.as_str()));
            return Self::create(name, plan);
        }
        // Every page now, or an error now: never a SIGBUS later.
        around(|| posix_fallocate(file.as_fd(), 0, total as i64)).map_err(|errno| {
            unlink(if errno == Errno::ENOSPC {
                no_space(total as u64)
            } else {
                os("reserve pages of", name)(errno.into())
            })
        })?;
        let segment = Segment::write(&file, name, plan, instance).map_err(unlink)?;
        Ok(Self { segment, object: file, current_name: Some(own_name), retired: false })
    }

    /// Makes a segment that has no name: its socket hands it over.
    pub fn create_nameless(plan: &Blueprint) -> Result<Self, SegmentError> {
        let name = plan.socket.display().to_string();
        check_plan(&name, plan)?;
        let (object, shared) = nameless::create(&name, plan.geometry.total_bytes() as u64)?;
        let segment = Segment::write(&object, &name, plan, random())?;
        let segment = Segment { object: Some(shared.into()), ..segment };
        Ok(Self { segment, object, current_name: None, retired: false })
    }

    /// Moves the finished segment to its name. A dead worker's is replaced, a live one's refused unless `replace`; then the
    /// segment that had the name is returned, for its worker to be told.
    pub fn publish(&mut self, replace: bool) -> Result<Option<Segment>, SegmentError> {
        self.publish_with(if replace { Claim::Anybodys } else { Claim::Free }, |_| Ok(()))
    }

    /// The same, and whatever belongs to the name (the socket's path) changes with it in `place`, which is told whose name
    /// it was if that one lives.
    pub fn publish_with<E: From<SegmentError>>(
        &mut self,
        claim: Claim,
        place: impl FnOnce(Option<&Segment>) -> Result<(), E>,
    ) -> Result<Option<Segment>, E> {
        let name = self.segment.name.clone();
        let Some(current_name) = &self.current_name else {
            place(None)?;
            return Ok(None);
        };
        let (from, to) = (path_of(current_name), path_of(&name));
        // Held until this function returns: nobody changes the name meanwhile.
        let mut _there = None;
        let mut former = None;
        loop {
            match around(|| renameat2(AT_FDCWD, &from, AT_FDCWD, &to, RenameFlags::RENAME_NOREPLACE)) {
                Ok(()) => break,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(os("publish", &name)(errno.into()).into()),
            }
            let Some(there) = hold_name(&name)? else { continue };
            if is_held(&there) {
                former = Segment::open(&name).ok();
                if claim != Claim::Anybodys {
                    let pid = former.map_or(0, |live| live.header.worker_pid);
                    return Err(SegmentError::Alive { name, pid }.into());
                }
            } else if claim == Claim::Free && ObjectLock::Supervisor.is_held(&there) {
                let pid = Segment::open(&name).map_or(0, |dead| dead.supervision().pid);
                return Err(SegmentError::Supervised { name, pid }.into());
            }
            around(|| std::fs::rename(&from, &to)).map_err(os("publish", &name))?;
            _there = Some(there);
            break;
        }
        self.current_name = Some(name);
        place(former.as_ref())?;
        ObjectLock::Name.release(&self.object);
        Ok(former)
    }

    /// Says that the worker serves. The last store of a start.
    pub fn ready(&self) {
        self.segment.set_state(STATE_SERVING);
    }

    /// Gives the name up, once, if it is still this object's: after an upgrade it is the next worker's. `unlink` removes what
    /// belongs to the name, and is called while nobody can put something else there.
    pub fn retire(&mut self, unlink: impl FnOnce()) {
        if std::mem::replace(&mut self.retired, true) {
            return;
        }
        let Some(name) = self.current_name.take() else {
            unlink(); // without a name of its own the socket's path is all there is
            return;
        };
        if name != self.segment.name {
            unlink();
            let _ = around(|| shm_unlink(name.as_str())); // the name of its own: nobody else's business
            return;
        }
        // A lock that is not to be had leaves the names as a dead worker does: the next start replaces them.
        if !ObjectLock::Name.wait(&self.object, NAME_WITHIN) {
            return;
        }
        if has_name(&self.object, &name) {
            unlink();
            let _ = around(|| shm_unlink(name.as_str()));
        } else {
            // Another's: what belongs to the name is looked at while that one cannot be changed either.
            let _there = hold_name(&name);
            unlink();
        }
        ObjectLock::Name.release(&self.object);
    }

    /// Leaves the name where it is: whoever supervises this worker starts it again.
    pub fn keep_name(&mut self) {
        self.retired = true;
    }
}

impl Drop for OwnedSegment {
    fn drop(&mut self) {
        self.retire(|| {});
    }
}

/// Which names a start may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// One that nobody has, or a dead worker that nobody starts again.
    Free,
    /// A dead worker's too whose supervisor has made this start.
    Restart,
    /// A live worker's too: it is told to finish.
    Anybodys,
}

/// The object that has the name, with its name lock: the name stays with it until the file is closed. `None`: the name has
/// been changed meanwhile, look again.
pub(super) fn hold_name(name: &str) -> Result<Option<File>, SegmentError> {
    let there = match open_object(name) {
        Ok(there) => there,
        Err(SegmentError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    if !ObjectLock::Name.wait(&there, NAME_WITHIN) {
        return Err(SegmentError::NameBusy { name: name.into() });
    }
    Ok(has_name(&there, name).then_some(there))
}

/// Removes a dead worker's name, if the segment of that instance still has it, and with `unlink` what belongs to it.
pub(crate) fn retire_dead(name: &str, instance: u64, unlink: impl FnOnce()) {
    let Ok(Some(there)) = hold_name(name) else { return };
    let same = Segment::open(name).is_ok_and(|dead| dead.header.instance == instance);
    if !is_held(&there) {
        unlink();
        if same {
            let _ = around(|| shm_unlink(name));
        }
    }
}

/// Removes what starts that were killed half-way left behind: unpublished objects whose lock nobody holds. That may be one
/// whose maker has not locked it yet; it notices, and makes another.
pub fn sweep(name: &str) {
    remove_unlocked(|other| is_unpublished(other) && other.strip_prefix(name).is_some_and(|rest| rest.len() == 21));
}

/// Whether a name is one that a start gives an object until it is finished: `NAME.0123456789abcdef.new`.
pub(super) fn is_unpublished(name: &str) -> bool {
    let start = name.strip_suffix(".new").and_then(|rest| rest.rsplit_once('.'));
    start.is_some_and(|(name, number)| {
        number.len() == 16 && number.bytes().all(|byte| byte.is_ascii_hexdigit()) && check_name(name).is_ok()
    })
}

/// Whether somebody who lives has the object: its worker, its supervisor, or whoever is just giving it its name.
pub(super) fn is_wanted(object: &File) -> bool {
    [ObjectLock::Life, ObjectLock::Name, ObjectLock::Supervisor].iter().any(|lock| lock.is_held(object))
}

/// Whether the file is the one that has that name now.
pub(crate) fn has_name(file: &File, name: &str) -> bool {
    let found = std::fs::symlink_metadata(path_of(name)).map(|meta| meta.ino());
    found.is_ok_and(|found| file.metadata().is_ok_and(|own| own.ino() == found))
}

/// Removes every segment of this user whose worker is provably dead, and what killed starts have not finished. Returns
/// their names.
pub fn remove_dead() -> Vec<String> {
    let segments = list();
    remove_unlocked(|name| is_unpublished(name) || segments.iter().any(|segment| segment == name))
}

fn remove_unlocked(which: impl Fn(&str) -> bool) -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(SHM_DIR) else { return Vec::new() };
    let names =
        folder.flatten().filter_map(|entry| entry.file_name().into_string().ok()).map(|file| format!("/{file}"));
    names
        .filter(|name| which(name))
        .filter(|name| {
            // The name stays with the object while it is looked at, so no start can be moving a new segment onto it.
            let Ok(file) = open_object(name) else { return false };
            let held = |lock: ObjectLock| lock.is_held(&file);
            ObjectLock::Name.take(&file)
                && !held(ObjectLock::Life)
                && !held(ObjectLock::Supervisor)
                && has_name(&file, name)
                && around(|| shm_unlink(name.as_str())).is_ok()
        })
        .collect()
}

/// A number that no other start has: the standard library seeds its hasher from the operating system.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
