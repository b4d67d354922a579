//! The place of a group in a file: what is settled, kept beside the file.
//!
//! The first line of a place says what it is, its version, and a checksum of the rest; the rest is JSON. It is written
//! anew beside itself, synced, and renamed.

use crate::error::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MAGIC: &str = "longshore-place 1";
/// At most so many bytes of the file's beginning are hashed to know it again.
const HASHED: u64 = 4096;
/// How long a place that is in use is waited for: an owner that was dropped may still be writing it.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// How far a group has come in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Lines up to here were delivered at some time …
    pub(super) frontier: u64,
    /// … which is the beginning of the line of this number.
    pub(super) next_line: u64,
    /// … except that these are not settled: where they begin, and their numbers. All else before the frontier is.
    pub(super) unsettled: BTreeMap<u64, u64>,
}

impl Progress {
    /// Where the first line begins that is not settled, and its number.
    pub(super) fn offset(&self) -> (u64, u64) {
        let first = self.unsettled.first_key_value().map(|(start, number)| (*start, *number));
        first.unwrap_or((self.frontier, self.next_line.max(1)))
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    device: u64,
    inode: u64,
    /// Everything before it is settled.
    offset: u64,
    /// Hash of the first min(4 KiB, offset) bytes.
    hash: String,
    progress: Progress,
}

/// An open place; nobody else has it.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    file: PathBuf,
    /// Held for as long as this lives. A file of its own: the place itself is replaced at each write.
    _lock: File,
}

impl Place {
    /// Opens the place of `file` at one of these paths, the first whose folder can be written.
    pub(super) fn open(file: &Path, paths: &[PathBuf]) -> Result<Self, Error> {
        let mut refused = None;
        for path in paths {
            match lock(path) {
                Ok(lock) => return Ok(Self { path: path.clone(), file: file.to_owned(), _lock: lock }),
                Err(LockFailed::InUse) => {
                    let text = format!("place '{}' is in use by another source of this group", path.display());
                    return Err(Error::configuration(text));
                }
                Err(LockFailed::Io(error)) => {
                    let text = format!("place '{}' cannot be written", path.display());
                    refused = Some(Error::configuration(text).caused_by(error));
                }
            }
        }
        Err(refused.unwrap_or_else(|| Error::configuration("a place needs a path")))
    }

    /// What was written last, if it belongs to this file.
    pub(super) fn load(&self, file: &File) -> Result<Progress, Error> {
        load(&self.path, &self.file, file)
    }

    /// Writes it, and returns when it is on the disk.
    pub(super) fn save(&self, file: &File, progress: &Progress) -> io::Result<()> {
        let about = file.metadata()?;
        let (offset, _) = progress.offset();
        let written = Written {
            device: about.dev(),
            inode: about.ino(),
            offset,
            hash: hash_of_start(file, offset)?,
            progress: progress.clone(),
        };
        let body = serde_json::to_string(&written).map_err(io::Error::other)?;
        let text = format!("{MAGIC} {:016x}\n{body}\n", fnv(body.as_bytes()));
        write_whole(&self.path, text.as_bytes(), None)
    }
}

/// What a place at this path says of the file; nothing when it is not there.
pub(super) fn load(path: &Path, file_path: &Path, file: &File) -> Result<Progress, Error> {
    let (place, named) = (path.display(), file_path.display());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Progress::default()),
        Err(error) => return Err(Error::configuration(format!("place '{place}' cannot be read")).caused_by(error)),
    };
    let body = match text.split_once('\n') {
        Some((first, body)) if first.starts_with(MAGIC) => {
            let body = body.trim_end();
            if first[MAGIC.len()..].trim() != format!("{:016x}", fnv(body.as_bytes())) {
                let text = format!("place '{place}' is damaged: its checksum is wrong");
                return Err(Error::new(ErrorKind::Start, text));
            }
            body
        }
        _ => return Err(Error::configuration(format!("'{place}' is no place of this version"))),
    };
    let written: Written = serde_json::from_str(body)
        .map_err(|error| Error::configuration(format!("'{place}' is no place of this version")).caused_by(error))?;
    let unreadable = |error| Error::configuration(format!("file '{named}' cannot be read")).caused_by(error);
    let about = file.metadata().map_err(unreadable)?;
    let remedy = "remove the place to start again";
    let wrong =
        |why: String| Err(Error::configuration(format!("place '{place}' is not of file '{named}': {why}; {remedy}")));
    if (about.dev(), about.ino()) != (written.device, written.inode) {
        return wrong("it was made for another file of that name".into());
    }
    if about.len() < written.progress.frontier {
        let (is, was) = (about.len(), written.progress.frontier);
        return wrong(format!("the file has shrunk to {is} bytes, and {was} were read"));
    }
    if hash_of_start(file, written.offset).map_err(unreadable)? != written.hash {
        return wrong("the beginning of the file has changed".into());
    }
    Ok(written.progress)
}

/// Replaces a file by these bytes so that at any moment the old or the new one is there, and the new one is on the
/// disk when this returns.
pub(super) fn write_whole(path: &Path, bytes: &[u8], like: Option<&File>) -> io::Result<()> {
    replace(path, like, |out| out.write_all(bytes))
}

/// As [`write_whole`], from a writer.
pub(super) fn replace(
    path: &Path,
    like: Option<&File>,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let done = (|| {
        let mut out = File::create(&temporary)?;
        if let Some(like) = like {
            out.set_permissions(like.metadata()?.permissions())?;
        }
        write(&mut out)?;
        out.sync_all()?;
        std::fs::rename(&temporary, path)?;
        sync_folder(path)
    })();
    if done.is_err() {
        // Best effort: a later write replaces it.
        let _ = std::fs::remove_file(&temporary);
    }
    done
}

/// Makes the name of a file as durable as its bytes.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

enum LockFailed {
    InUse,
    Io(io::Error),
}

fn lock(place: &Path) -> Result<File, LockFailed> {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    if let Some(folder) = place.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(LockFailed::Io)?;
    }
    let path = place.with_file_name(name);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(LockFailed::Io)?;
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::WouldBlock) => return Err(LockFailed::InUse),
            Err(TryLockError::Error(error)) => return Err(LockFailed::Io(error)),
        }
    }
}

fn hash_of_start(file: &File, offset: u64) -> io::Result<String> {
    let mut start = vec![0; offset.min(HASHED) as usize];
    // Read at a place, so that nobody's position moves.
    file.read_exact_at(&mut start, 0)?;
    Ok(format!("{:016x}", fnv(&start)))
}

/// FNV-1a of 64 bits: written to disk, so it must be the same in every version.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Where the place of a group in a file lies: as the URL says, or beside the file, or in the user's state folder.
pub(super) fn paths(file: &Path, group: &str, chosen: Option<&str>) -> Vec<PathBuf> {
    if let Some(chosen) = chosen {
        return vec![chosen.into()];
    }
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{group}.place"));
    let mut all = vec![PathBuf::from(beside)];
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state")));
    if let Some(state) = state {
        // Files of one name in two folders must not share a place.
        let whole = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let hash = fnv(whole.as_os_str().as_encoded_bytes());
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        all.push(state.join("longshore").join(format!("{name}.{group}.{hash:016x}.place")));
    }
    all
}
