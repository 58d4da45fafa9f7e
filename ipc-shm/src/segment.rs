//! The segment: one shared-memory object, made by a worker, found by its name.
//!
//! The segment is its own lock: the worker holds one on its object for as long as it lives (`locks`), so "is it alive" is
//! never asked of a pid. Every start makes a new object under a name of its own, finishes it, and moves it into place; a
//! dead worker's object is not written any more, but for what its supervisor says there about the next start.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, posix_fallocate, renameat2};
use nix::sys::mman::{shm_open, shm_unlink};
use nix::sys::stat::Mode;
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;
use shared_memory::ShmemConf;

use crate::failpoint::around;
use crate::layout::{
    Geometry, Header, LAYOUT_VERSION, MAGIC, PAGE, READY_AT, SOCKET_PATH_MAX, STATE_SERVING, STATE_STARTING, fnv1a,
    layout_hash,
};
use crate::locks::ObjectLock;
use crate::mapping::{Mapping, SharedMapping};
use crate::nameless;

/// Whoever changes a name does so within a few system calls.
const NAME_WITHIN: Duration = Duration::from_secs(5);
/// Where Linux keeps named shared memory.
pub const SHM_DIR: &str = "/dev/shm";

/// Why a segment could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Not a name that shared memory can have.
    #[error("{0:?} is not a segment name; hint: a slash, then letters, digits, '.', '_' or '-', like /molt0")]
    Name(String),
    /// Nothing has that name.
    #[error(
        "there is no segment {name}: no molt_worker runs under that name; hint: start one with `molt_worker --shm {name}`"
    )]
    NotFound {
        /// The name.
        name: String,
    },
    /// Another user's, or not a plain shared-memory object.
    #[error("segment {name} belongs to user {uid}, not to {own}; nothing of it was read")]
    Foreign {
        /// The name.
        name: String,
        /// Its owner.
        uid: u32,
        /// Who asks.
        own: u32,
    },
    /// A symbolic link, a folder, a device.
    #[error("{name} is not a plain shared-memory object; nothing of it was read")]
    NotPlain {
        /// The name.
        name: String,
    },
    /// Made by other code.
    #[error(
        "segment {name} has layout version {theirs}, this program has {ours}; hint: install the same version of molt_worker and molt_accel"
    )]
    Version {
        /// The name.
        name: String,
        /// The segment's.
        theirs: u32,
        /// This program's.
        ours: u32,
    },
    /// Made by another build of the same layout version.
    #[error(
        "segment {name} was made by another build of molt (layout hash {theirs:#x}, this program has {ours:#x}); hint: install molt_worker and molt_accel from the same build"
    )]
    Build {
        /// The name.
        name: String,
        /// The segment's.
        theirs: u64,
        /// This program's.
        ours: u64,
    },
    /// Not a segment, or a broken one.
    #[error("segment {name} is damaged: {what}; hint: stop its worker and start it again")]
    Damaged {
        /// The name.
        name: String,
        /// Which field, and the numbers.
        what: String,
    },
    /// Its worker has not finished starting, or is no longer there.
    #[error(
        "the worker of segment {name} (pid {pid}) is {state}; hint: start it again with `molt_worker --shm {name}`"
    )]
    NotServing {
        /// The name.
        name: String,
        /// The worker's process.
        pid: u32,
        /// What it is instead.
        state: &'static str,
    },
    /// A live worker has the name.
    #[error(
        "segment {name} belongs to a running worker (pid {pid}); hint: choose another --shm, stop that worker, or take over with --replace"
    )]
    Alive {
        /// The name.
        name: String,
        /// Its worker.
        pid: u32,
    },
    /// A dead worker has the name, and its supervisor is about to start it again.
    #[error(
        "segment {name} belongs to a supervised worker that is being started again (supervisor pid {pid}); hint: choose another --shm, stop that supervisor, or take over with --replace"
    )]
    Supervised {
        /// The name.
        name: String,
        /// Its supervisor.
        pid: u32,
    },
    /// Somebody holds the lock on a name's changes and does not let go.
    #[error("the name {name} is being changed by another process that does not go on; hint: is one of them stopped?")]
    NameBusy {
        /// The name.
        name: String,
    },
    /// /dev/shm is too small.
    #[error(
        "{dir} has {free} bytes free, the segment needs {wanted}; hint: use a smaller --arena, or enlarge {dir} (docker run --shm-size)"
    )]
    NoSpace {
        /// The folder.
        dir: &'static str,
        /// Bytes free there.
        free: u64,
        /// Bytes needed.
        wanted: u64,
    },
    /// A descriptor that came over a socket is not what a worker without a name keeps its segment in.
    #[error("the descriptor that {name} handed over {what}; nothing of it was read")]
    NotSealed {
        /// The socket.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// Too little memory for a segment without a name.
    #[error(
        "{limit} leaves {free} bytes of memory, the segment of {name} needs {wanted}; hint: use a smaller --arena, or \
         allow more memory"
    )]
    NoMemory {
        /// The socket.
        name: String,
        /// What limits it.
        limit: String,
        /// Bytes that are left.
        free: u64,
        /// Bytes needed.
        wanted: u64,
    },
    /// The socket's path does not fit the header.
    #[error("socket path {path:?} has {len} bytes, at most {SOCKET_PATH_MAX} fit; hint: choose a shorter --socket")]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        len: usize,
    },
    /// The operating system refused.
    #[error("{doing} segment {name}: {error}")]
    Os {
        /// What was tried.
        doing: &'static str,
        /// The name.
        name: String,
        /// Why not.
        error: io::Error,
    },
}

/// A segment, opened by a client or a tool.
#[derive(Clone)]
pub struct Segment {
    /// The bytes.
    pub map: SharedMapping,
    /// The sizes.
    pub geometry: Geometry,
    /// The header as it was at attach.
    pub header: Header,
    /// The name it was opened by; of a segment without a name, its socket's path.
    pub name: String,
    /// A segment without a name is asked for its lock here: nothing else leads back to it.
    pub(crate) object: Option<Arc<File>>,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({} of worker {})", self.name, self.header.worker_pid)
    }
}

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

fn check_name(name: &str) -> Result<(), SegmentError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name.strip_prefix('/') {
        Some(rest) if (1..=200).contains(&rest.len()) && rest.chars().all(plain) && !rest.starts_with('.') => Ok(()),
        _ => Err(SegmentError::Name(name.into())),
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(SHM_DIR).join(name.trim_start_matches('/'))
}

pub(crate) fn os(doing: &'static str, name: &str) -> impl FnOnce(io::Error) -> SegmentError {
    let name = name.to_owned();
    move |error| SegmentError::Os { doing, name, error }
}

/// Opens the object itself: this user's, plain, not through a link (`shm_open` follows none).
fn open_object(name: &str) -> Result<File, SegmentError> {
    check_name(name)?;
    let file = match shm_open(name, OFlag::O_RDWR, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::ENOENT) => return Err(SegmentError::NotFound { name: name.into() }),
        Err(Errno::ELOOP | Errno::EISDIR | Errno::EINVAL) => return Err(SegmentError::NotPlain { name: name.into() }),
        Err(Errno::EACCES) => {
            let uid = std::fs::symlink_metadata(path_of(name)).map(|meta| meta.uid()).unwrap_or(u32::MAX);
            return Err(SegmentError::Foreign { name: name.into(), uid, own: geteuid().as_raw() });
        }
        Err(errno) => return Err(os("open", name)(errno.into())),
    };
    let meta = file.metadata().map_err(os("stat", name))?;
    if !meta.is_file() {
        return Err(SegmentError::NotPlain { name: name.into() });
    }
    if meta.uid() != geteuid().as_raw() {
        return Err(SegmentError::Foreign { name: name.into(), uid: meta.uid(), own: geteuid().as_raw() });
    }
    Ok(file)
}

/// Reads and checks a header: every byte of it is covered by the magic, the version, the hash or the checksum.
fn check_header(name: &str, file: &File, mapping: &Mapping) -> Result<Header, SegmentError> {
    let damaged = |what: String| SegmentError::Damaged { name: name.into(), what };
    let mut bytes = [0; Header::BYTES];
    mapping.read(0, &mut bytes);
    let header = Header::decode(&bytes);
    if header.magic != MAGIC {
        return Err(damaged(format!("its magic is {:#x}, not {MAGIC:#x}", header.magic)));
    }
    if header.layout_version != LAYOUT_VERSION {
        let (theirs, ours) = (header.layout_version, LAYOUT_VERSION);
        return Err(SegmentError::Version { name: name.into(), theirs, ours });
    }
    let sum = fnv1a(&bytes[..Header::BYTES - 8]);
    if header.checksum != sum {
        return Err(damaged(format!("its checksum is {:#x}, its bytes sum up to {sum:#x}", header.checksum)));
    }
    if header.layout_hash != layout_hash() {
        let (theirs, ours) = (header.layout_hash, layout_hash());
        return Err(SegmentError::Build { name: name.into(), theirs, ours });
    }
    let geometry = Geometry::of(&header);
    if let Some(field) = geometry.fault() {
        return Err(damaged(format!("its {field} is out of bounds")));
    }
    let mut expected = header;
    geometry.fill(&mut expected);
    let size = file.metadata().map_err(os("stat", name))?.len();
    if expected != header || header.total_bytes != size || header.socket_len as usize > SOCKET_PATH_MAX {
        return Err(damaged(format!("its offsets or its size ({size} bytes) do not fit its counts")));
    }
    Ok(header)
}

/// The state word in words.
fn state_name(state: u32) -> &'static str {
    match state {
        0 => "starting",
        1 => "serving",
        2 => "stopping",
        3 => "stopped",
        _ => "in an unknown state",
    }
}

impl Segment {
    /// Opens a segment and checks all of its header. It may be a dead worker's: see [`Segment::is_alive`].
    pub fn open(name: &str) -> Result<Self, SegmentError> {
        Self::of_file(name, &open_object(name)?)
    }

    /// The same for an object that is open already; `name` is what messages call it.
    pub fn of_file(name: &str, file: &File) -> Result<Self, SegmentError> {
        let size = file.metadata().map_err(os("stat", name))?.len();
        if size < PAGE as u64 {
            let what = format!("it has {size} bytes, less than a header");
            return Err(SegmentError::Damaged { name: name.into(), what });
        }
        let map = Arc::new(Mapping::with_view(file).map_err(os("map", name))?);
        let header = check_header(name, file, &map)?;
        Ok(Self { map, geometry: Geometry::of(&header), header, name: name.into(), object: None })
    }

    /// The same segment mapped for reading alone. If another worker has taken its name over meanwhile, that one's.
    pub fn read_only(self) -> Result<Self, SegmentError> {
        let name = self.name.clone();
        let file = match &self.object {
            Some(object) => object.clone(),
            None => Arc::new(open_object(&name)?),
        };
        let map = Arc::new(Mapping::read_only(&file).map_err(os("map", &name))?);
        let header = check_header(&name, &file, &map)?;
        Ok(Self { map, geometry: Geometry::of(&header), header, ..self })
    }

    /// Opens a segment whose worker serves.
    pub fn open_serving(name: &str) -> Result<Self, SegmentError> {
        Self::open(name)?.serving()
    }

    /// The same segment, if its worker serves.
    pub fn serving(self) -> Result<Self, SegmentError> {
        let not = |state| SegmentError::NotServing { name: self.name.clone(), pid: self.header.worker_pid, state };
        match self.state() {
            _ if !self.is_alive() => Err(not("dead")),
            STATE_SERVING => Ok(self),
            state => Err(not(state_name(state))),
        }
    }

    /// The ready word.
    pub fn state(&self) -> u32 {
        self.map.u32(READY_AT).load(Ordering::Acquire)
    }

    /// The ready word in words.
    pub fn state_name(&self) -> &'static str {
        state_name(self.state())
    }

    /// Stores the ready word. For the worker.
    pub fn set_state(&self, state: u32) {
        self.map.u32(READY_AT).store(state, Ordering::Release);
    }

    /// Whether the worker that made the object which has this name now still lives; without a name, the worker of this
    /// very segment.
    pub fn is_alive(&self) -> bool {
        self.object.as_ref().map_or_else(|| is_locked(&self.name), |object| is_held(object))
    }

    /// Whether it has no name: whoever looks for it asks its socket.
    pub fn is_nameless(&self) -> bool {
        self.object.is_some()
    }

    /// Whether it says that it serves. A worker that has died could not say otherwise.
    pub fn is_serving(&self) -> bool {
        self.state() == STATE_SERVING
    }

    /// Whether a supervisor lives that starts the worker of the object which has this name now again when it dies; without
    /// a name, the worker of this very segment.
    pub fn is_supervised(&self) -> bool {
        let held = |object: &File| ObjectLock::Supervisor.is_held(object);
        self.object
            .as_ref()
            .map_or_else(|| open_object(&self.name).is_ok_and(|object| held(&object)), |object| held(object))
    }

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        use std::os::unix::ffi::OsStringExt;
        OsString::from_vec(self.header.socket.0[..self.header.socket_len as usize].to_vec()).into()
    }
}

/// Takes the lock that says that a worker lives, if nobody has it.
pub(crate) fn take_lock(file: &File) -> bool {
    ObjectLock::Life.take(file)
}

/// Whether another open file has that lock.
fn is_held(file: &File) -> bool {
    ObjectLock::Life.is_held(file)
}

/// Whether somebody holds the lock of the object of that name.
pub fn is_locked(name: &str) -> bool {
    open_object(name).is_ok_and(|file| is_held(&file))
}

/// The names of all objects in /dev/shm that begin like a segment.
pub fn list() -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(SHM_DIR) else { return Vec::new() };
    let mut names: Vec<String> = folder
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|file| format!("/{file}"))
        .filter(|name| has_magic(name))
        .collect();
    names.sort();
    names
}

fn has_magic(name: &str) -> bool {
    open_object(name).is_ok_and(|file| {
        use std::os::unix::fs::FileExt;
        let mut magic = [0; 8];
        file.read_exact_at(&mut magic, 0).is_ok() && u64::from_le_bytes(magic) == MAGIC
    })
}

/// What `--arena auto` takes of the space there is, in bytes, and what it saw. `tables`: bytes that will lie there from
/// the start, beside what requests need.
pub fn auto_arena(tables: u64) -> io::Result<(u64, u64)> {
    let most = (256 << 20) + tables / 8 * 9;
    let free = free_space()?;
    let extent = 256 << 10;
    // A quarter stays for the rings and for others who use /dev/shm.
    let share = free / 4 * 3;
    let overhead = Geometry::for_arena(share.min(most));
    let overhead = (overhead.total_bytes() - overhead.arena_bytes()) as u64;
    Ok((share.saturating_sub(overhead).min(most) / extent * extent, free))
}

fn free_space() -> io::Result<u64> {
    let space = statvfs(SHM_DIR)?;
    Ok(space.blocks_available() as u64 * space.fragment_size() as u64)
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
        let instance = random();
        let own_name = format!("{name}.{:016x}.new", instance);
        let total = plan.geometry.total_bytes();
        let free = free_space().map_err(os("look at the space for", name))?;
        let no_space = || SegmentError::NoSpace { dir: SHM_DIR, free, wanted: total as u64 };
        if (free as usize) < total {
            return Err(no_space());
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
            unlink(if errno == Errno::ENOSPC { no_space() } else { os("reserve pages of", name)(errno.into()) })
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
fn hold_name(name: &str) -> Result<Option<File>, SegmentError> {
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

/// The object of that name, if it is this instance's.
pub(crate) fn open_instance(name: &str, pid: u32) -> Result<(Segment, File), SegmentError> {
    let object = open_object(name)?;
    let segment = Segment::of_file(name, &object)?;
    if segment.header.worker_pid == pid {
        return Ok((segment, object));
    }
    Err(SegmentError::NotServing { name: name.into(), pid, state: "another's by now" })
}

/// Removes what starts that were killed half-way left behind: unpublished objects whose lock nobody holds. That may be one
/// whose maker has not locked it yet; it notices, and makes another.
fn sweep(name: &str) {
    remove_unlocked(|other| {
        other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".new"))
    });
}

/// Whether the file is the one that has that name now.
fn has_name(file: &File, name: &str) -> bool {
    let found = std::fs::symlink_metadata(path_of(name)).map(|meta| meta.ino());
    found.is_ok_and(|found| file.metadata().is_ok_and(|own| own.ino() == found))
}

/// Removes every segment of this user whose worker is provably dead. Returns their names.
pub fn remove_dead() -> Vec<String> {
    let segments = list();
    remove_unlocked(|name| segments.iter().any(|segment| segment == name))
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
