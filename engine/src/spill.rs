//! The folder that SQL spills to: private to this worker, gone when it ends, and cleared away by the next one where it was
//! killed.
//!
//! ```text
//! BASE/molt-spill-UID/            mode 0700, kept
//! BASE/molt-spill-UID/lock        held while folders are made and cleared away
//! BASE/molt-spill-UID/PID-N/      mode 0700, one worker's
//! BASE/molt-spill-UID/PID-N/lock  held for the worker's life: the kernel lets go of it however that ends
//! ```

use std::fs::{DirBuilder, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use tracing::{info, warn};

const LOCK: &str = "lock";

/// A worker's folder. Dropping it removes it with all that is in it.
#[derive(Debug)]
pub struct SpillFolder {
    path: PathBuf,
    /// Held for as long as the folder is in use.
    _lock: File,
}

impl SpillFolder {
    /// Makes one in `base`, and removes those of workers that are dead.
    pub fn make(base: &Path) -> Result<Self, String> {
        let uid = nix::unistd::getuid().as_raw();
        let home = base.join(format!("molt-spill-{uid}"));
        private(&home, uid)?;
        let said = |error: std::io::Error| format!("{}: {error}", home.display());
        let lock = open_lock(&home).map_err(said)?;
        lock.lock().map_err(said)?;
        clear(&home);
        let pid = std::process::id();
        for number in 0.. {
            let path = home.join(format!("{pid}-{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let own = open_lock(&path).and_then(|own| own.lock().map(|()| own)).map_err(said)?;
                    return Ok(Self { path, _lock: own });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(said(error)),
            }
        }
        unreachable!("numbers do not end")
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            warn!(path = %self.path.display(), %error, "the spill folder stays behind");
        }
    }
}

fn open_lock(folder: &Path) -> std::io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(folder.join(LOCK))
}

/// Makes the folder, or looks whether it is this user's own: in /tmp anybody could have made one of that name.
fn private(home: &Path, uid: u32) -> Result<(), String> {
    match DirBuilder::new().mode(0o700).create(home) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(format!("{}: {error}", home.display())),
    }
    let metadata = std::fs::symlink_metadata(home).map_err(|error| format!("{}: {error}", home.display()))?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
    match metadata.is_dir() && owner == uid && mode == 0o700 {
        true => Ok(()),
        false => Err(format!(
            "{} is not private: owner {owner}, mode {mode:o}, expected a folder of {uid} with mode 700; hint: --spill-dir",
            home.display()
        )),
    }
}

/// Removes what dead workers have left: whose lock can be had.
fn clear(home: &Path) {
    for entry in std::fs::read_dir(home).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        // Without a lock file nobody lives there: one is made, and this lock held, before the other is let go of.
        let dead = match File::options().write(true).open(path.join(LOCK)) {
            Ok(lock) => !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if dead {
            match std::fs::remove_dir_all(&path) {
                Ok(()) => info!(path = %path.display(), "removed what a dead worker had spilled"),
                Err(error) => warn!(path = %path.display(), %error, "what a dead worker had spilled stays behind"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Base(PathBuf);

    impl Base {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("molt-spill-test-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Base {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_folder_is_private_goes_with_its_worker_and_leaves_the_living_alone() {
        let base = Base::new("life");
        let one = SpillFolder::make(&base.0).unwrap();
        for folder in [one.path(), one.path().parent().unwrap()] {
            assert_eq!(std::fs::metadata(folder).unwrap().mode() & 0o777, 0o700, "{}", folder.display());
        }
        std::fs::write(one.path().join("spilled"), b"rows").unwrap();
        // What a killed worker leaves: nobody holds its lock.
        let dead = one.path().with_file_name("1-0");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join("spilled"), b"rows").unwrap();
        open_lock(&dead).unwrap();
        let unlocked = one.path().with_file_name("2-0");
        std::fs::create_dir(&unlocked).unwrap();
        let two = SpillFolder::make(&base.0).unwrap();
        assert!(!dead.exists() && !unlocked.exists(), "cleared away");
        assert!(one.path().join("spilled").exists(), "its worker lives");
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && two.path().exists());
    }

    #[test]
    fn a_folder_that_others_can_open_is_refused() {
        let base = Base::new("open");
        let uid = nix::unistd::getuid().as_raw();
        let home = base.0.join(format!("molt-spill-{uid}"));
        std::fs::create_dir(&home).unwrap();
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = SpillFolder::make(&base.0).unwrap_err();
        assert!(error.contains("not private") && error.contains("755"), "{error}");
        std::fs::remove_dir(&home).unwrap();
        std::os::unix::fs::symlink(std::env::temp_dir(), &home).unwrap();
        assert!(SpillFolder::make(&base.0).unwrap_err().contains("not private"));
    }
}
