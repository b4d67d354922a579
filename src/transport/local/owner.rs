//! Who holds claims: a lock file for each owner, and the clocks.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file that was left by an owner that never registered is removed after so long.
const ORPHAN_AGE: Duration = Duration::from_secs(60);

/// The lock of this owner: `<store>-owner-<uuid>`. The operating system frees it when the process ends; dropping it
/// frees it inside a process. The file is removed by [`OwnerLock::remove`], or by whoever frees a dead owner.
pub(super) struct OwnerLock {
    name: String,
    path: PathBuf,
    /// Holds the lock; close-on-exec, as every file that the standard library opens.
    file: File,
}

impl OwnerLock {
    /// Makes and locks a new file.
    pub(super) fn create(store: &Path) -> io::Result<Self> {
        loop {
            let name = uuid::Uuid::new_v4().simple().to_string();
            let path = path_of(store, &name);
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            let own = Self { name, path, file };
            // Somebody who tidies up may have come between creating and locking: then the file is gone or locked.
            if flock(&own.file, FlockOperation::NonBlockingLockExclusive).is_ok() && own.is_there() {
                return Ok(own);
            }
        }
    }

    /// Whether the file is still the one that is locked.
    pub(super) fn is_there(&self) -> bool {
        match (self.file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Removes the file, then frees the lock: nobody can lock a file that is gone and take it for a dead owner's.
    pub(super) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn path_of(store: &Path, name: &str) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push("-owner-");
    path.push(name);
    path.into()
}

/// What the lock of another owner says.
pub(super) enum Life {
    /// Somebody holds it.
    Lives,
    /// Nobody does, or it is gone. While this is held nobody else can come to the same answer.
    Ended(Option<OwnerLock>),
}

/// Looks whether an owner lives, by trying its lock.
pub(super) fn life(store: &Path, name: &str) -> Life {
    let path = path_of(store, name);
    match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Life::Ended(Some(OwnerLock { name: name.to_owned(), path, file })),
            Err(_) => Life::Lives,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Life::Ended(None),
        // Not to be opened says nothing about its owner; the clock decides then.
        Err(_) => Life::Lives,
    }
}

/// Removes what owners left that ended before they registered, and stores that were never finished.
pub(super) fn tidy(store: &Path, registered: &[String]) {
    let (Some(folder), Some(own)) = (store.parent(), store.file_name().and_then(|name| name.to_str())) else { return };
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(own)) else { continue };
        let old = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ORPHAN_AGE));
        if !old {
            continue;
        }
        if let Some(owner) = rest.strip_prefix("-owner-").filter(|owner| !registered.iter().any(|one| one == owner)) {
            if let Life::Ended(Some(lock)) = life(store, owner) {
                lock.remove();
            }
        } else if rest.starts_with("-new-") {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Milliseconds since this machine was started, sleep included; no setting of the clock moves it.
pub(super) fn boot_ms() -> i64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}

/// Names the boot to which [`boot_ms`] belongs; empty where the system does not tell.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Milliseconds since 1970 by the wall clock, for due times and ages alone.
pub(super) fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// A duration in the unit of the store.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
