//! The segment: one shared-memory object, made by a worker, found by its name.
//!
//! The segment is its own lock: the worker holds an exclusive lock on the object's open file description for as long as
//! it lives, and the kernel lets go of it when the worker dies, however it dies. So "is it alive" is never asked of a pid,
//! and asking (F_OFD_GETLK) disturbs nobody. Every start makes a new object under a name of its own, finishes it, and
//! moves it into place; a dead worker's object is never written.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, RenameFlags, fcntl, posix_fallocate, renameat2};
use nix::libc;
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
use crate::mapping::{Mapping, SharedMapping};
use crate::nameless;

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

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        use std::os::unix::ffi::OsStringExt;
        OsString::from_vec(self.header.socket.0[..self.header.socket_len as usize].to_vec()).into()
    }
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Takes the lock if nobody has it. It belongs to the open file, and ends with it.
pub(crate) fn take_lock(file: &File) -> bool {
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))).is_ok()
}

/// Whether another open file has the lock. Takes nothing, not even for a moment.
fn is_held(file: &File) -> bool {
    let mut found = whole_file(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).is_ok() && found.l_type != libc::F_UNLCK as libc::c_short
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
        if !around(|| take_lock(&file)) || !has_name(&file, &own_name) {
            return Self::create(name, plan);
        }
        // Every page now, or an error now: never a SIGBUS later.
        around(|| posix_fallocate(file.as_fd(), 0, total as i64)).map_err(|errno| {
            unlink(if errno == Errno::ENOSPC { no_space() } else { os("reserve pages of", name)(errno.into()) })
        })?;
        let segment = Segment::write(&file, name, plan, instance).map_err(unlink)?;
        Ok(Self { segment, object: file, current_name: Some(own_name) })
    }

    /// Makes a segment that has no name: its socket hands it over.
    pub fn create_nameless(plan: &Blueprint) -> Result<Self, SegmentError> {
        let name = plan.socket.display().to_string();
        check_plan(&name, plan)?;
        let (object, shared) = nameless::create(&name, plan.geometry.total_bytes() as u64)?;
        let segment = Segment::write(&object, &name, plan, random())?;
        Ok(Self { segment: Segment { object: Some(shared.into()), ..segment }, object, current_name: None })
    }

    /// Moves the finished segment to its name. A dead worker's is replaced, a live one's refused unless `replace`; then
    /// the pid of the worker that had the name is returned, for it to be told.
    pub fn publish(&mut self, replace: bool) -> Result<Option<u32>, SegmentError> {
        let name = self.segment.name.clone();
        let Some(current_name) = &self.current_name else { return Ok(None) };
        let (from, to) = (path_of(current_name), path_of(&name));
        let mut previous = None;
        loop {
            match around(|| renameat2(AT_FDCWD, &from, AT_FDCWD, &to, RenameFlags::RENAME_NOREPLACE)) {
                Ok(()) => break,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(os("publish", &name)(errno.into())),
            }
            let there = match open_object(&name) {
                Ok(there) => there,
                Err(SegmentError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            let inode = there.metadata().map_err(os("stat", &name))?.ino();
            // Holding a dead one's lock makes this process the only one that replaces it.
            if !take_lock(&there) {
                let pid = Segment::open(&name).map(|live| live.header.worker_pid).unwrap_or(0);
                if !replace {
                    return Err(SegmentError::Alive { name, pid });
                }
                previous = Some(pid).filter(|pid| *pid != 0);
            } else if std::fs::symlink_metadata(&to).map(|meta| meta.ino()).ok() != Some(inode) {
                continue; // somebody else was quicker: look again
            }
            around(|| std::fs::rename(&from, &to)).map_err(os("publish", &name))?;
            break;
        }
        self.current_name = Some(name);
        Ok(previous)
    }

    /// Says that the worker serves. The last store of a start.
    pub fn ready(&self) {
        self.segment.set_state(STATE_SERVING);
    }
}

impl Drop for OwnedSegment {
    fn drop(&mut self) {
        // Only one's own object: after an upgrade the name belongs to the next worker.
        let Some(path) = self.current_name.as_deref().map(path_of) else { return };
        let own = self.object.metadata().map(|meta| meta.ino()).ok();
        if own.is_some() && std::fs::symlink_metadata(&path).map(|meta| meta.ino()).ok() == own {
            let _ = around(|| std::fs::remove_file(path));
        }
    }
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
            // The lock is held while the name goes, so no start can be moving a new segment onto it.
            let Ok(file) = open_object(name) else { return false };
            take_lock(&file) && has_name(&file, name) && around(|| shm_unlink(name.as_str())).is_ok()
        })
        .collect()
}

/// A number that no other start has: the standard library seeds its hasher from the operating system.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
