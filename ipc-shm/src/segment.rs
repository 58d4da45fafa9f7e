//! The segment: one shared-memory object, made by a worker, found by its name.
//!
//! The segment is its own lock: the worker holds one on its object for as long as it lives (`locks`), so "is it alive" is
//! never asked of a pid. Every start makes a new object under a name of its own, finishes it, and moves it into place; a
//! dead worker's object is not written any more, but for what its supervisor says there about the next start; what nobody
//! can look at of it gives its pages back (`remains`).

mod error;
mod owned;
mod remains;
mod room;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::{fmt, io};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::mman::shm_open;
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

use crate::layout::{
    Geometry, Header, LAYOUT_VERSION, MAGIC, PAGE, READY_AT, SOCKET_PATH_MAX, STATE_SERVING, fnv1a, layout_hash,
};
use crate::locks::ObjectLock;
use crate::mapping::{Mapping, SharedMapping};

pub use error::SegmentError;
pub use owned::{Blueprint, Claim, OwnedSegment, remove_dead, sweep};
pub(crate) use owned::{has_name, random, retire_dead};
pub(crate) use remains::{Words, give_back, replace_by_stand_in};
pub use room::{AutoArena, auto_arena};

/// Where Linux keeps named shared memory.
pub const SHM_DIR: &str = "/dev/shm";

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

    /// Whether its worker is dead, or says that it leaves.
    pub(crate) fn is_going(&self) -> bool {
        !self.is_serving() || !self.is_alive()
    }

    /// Whether a supervisor lives that starts the worker of the object which has this name now again when it dies; without
    /// a name, the worker of this very segment.
    pub fn is_supervised(&self) -> bool {
        let held = |object: &File| ObjectLock::Supervisor.is_held(object);
        if let Some(object) = &self.object {
            return held(object);
        }
        loop {
            let Ok(object) = open_object(&self.name) else { return false };
            if held(&object) {
                return true;
            }
            // Where the name went on to a stand-in in between, its supervisor let go of this one after that.
            if has_name(&object, &self.name) {
                return false;
            }
        }
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

/// Objects that starts which were killed before they had written a header have left in /dev/shm, and the bytes that each of
/// them holds.
pub fn unfinished() -> Vec<(String, u64)> {
    let Ok(folder) = std::fs::read_dir(SHM_DIR) else { return Vec::new() };
    let mut found: Vec<(String, u64)> = folder
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|file| format!("/{file}"))
        .filter(|name| owned::is_unpublished(name) && !has_magic(name))
        .filter_map(|name| {
            let object = open_object(&name).ok().filter(|object| !owned::is_wanted(object))?;
            let bytes = object.metadata().ok()?.blocks() * 512;
            Some((name, bytes))
        })
        .collect();
    found.sort();
    found
}

fn has_magic(name: &str) -> bool {
    open_object(name).is_ok_and(|file| {
        use std::os::unix::fs::FileExt;
        let mut magic = [0; 8];
        file.read_exact_at(&mut magic, 0).is_ok() && u64::from_le_bytes(magic) == MAGIC
    })
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
