//! A look into a file, and lines taken off it.

use super::lines::{Batch, Collected, Decoder, Found, Lines};
use super::place::replace;
use super::sink::open_locked;
use crate::error::{Error, ErrorKind};
use crate::message::{At, Slab};
use crate::transport::{BoxFuture, Shelf};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Reads lines in order, and takes off what it has read. Removing rewrites the file under its lock; `at.position` is where a line was when the shelf
/// was opened, and stays its name however often lines are removed through this shelf.
#[derive(Clone)]
pub(super) struct FileShelf {
    path: PathBuf,
    decoder: Decoder,
    /// The file it was opened on, device and inode, or the one it wrote itself; nothing where there was none.
    of: Option<(u64, u64)>,
    /// Where the next line to read begins, as of the opening, and its number.
    from: (u64, u64),
    /// Lines removed through this shelf: where they began, and how long they were, as of the opening.
    removed: BTreeMap<u64, u64>,
}

impl FileShelf {
    pub(super) fn open(path: PathBuf, decoder: Decoder) -> io::Result<Self> {
        let of = match std::fs::metadata(&path) {
            Ok(about) => Some((about.dev(), about.ino())),
            // Where nothing was dead-lettered yet there is no file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.extension() == Some("dead".as_ref()) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { path, decoder, of, from: (0, 1), removed: BTreeMap::new() })
    }

    fn wrong(&self, error: io::Error) -> Error {
        Error::new(ErrorKind::Io, format!("file '{}' cannot be looked into", self.path.display())).caused_by(error)
    }

    fn check(&self, file: &File) -> io::Result<()> {
        let about = file.metadata()?;
        let same = self.of == Some((about.dev(), about.ino()));
        same.then_some(()).ok_or_else(|| io::Error::other("it was replaced meanwhile: look again"))
    }

    /// Where a byte is now that was there at the opening.
    fn moved(&self, position: u64) -> u64 {
        position - self.removed.range(..position).map(|(_, length)| length).sum::<u64>()
    }

    fn read_now(&mut self, max: u32) -> io::Result<Slab> {
        if self.of.is_none() {
            return Ok(Collected::default().finish(&self.decoder.topic).slab);
        }
        let mut file = File::open(&self.path)?;
        // A sink that is writing is let finish its line.
        file.lock_shared()?;
        self.check(&file)?;
        file.seek(SeekFrom::Start(self.moved(self.from.0)))?;
        let mut lines = Lines::new(self.from.0, self.from.1, self.decoder.line_limit());
        let mut out = Collected::default();
        while out.len() < max as usize {
            if lines.next(&mut file)? == Found::Dry && !lines.last() {
                break;
            }
            let line = lines.line();
            self.decoder.push(&line, &mut out);
            self.from = (line.end, line.number + 1);
            if lines.last() {
                break;
            }
        }
        let Batch { slab, .. } = out.finish(&self.decoder.topic);
        Ok(slab)
    }

    fn remove_now(&mut self, mut these: Vec<At>) -> io::Result<u64> {
        these.sort_unstable();
        these.dedup();
        // What this shelf has not read it cannot name.
        these.retain(|at| at.position < self.from.0 && !self.removed.contains_key(&at.position));
        if these.is_empty() {
            return Ok(0);
        }
        let mut old = open_locked(&self.path, false)?;
        self.check(&old)?;
        let length = old.metadata()?.len();
        let mut gone = BTreeMap::new();
        let mut spans = Vec::new();
        for at in &these {
            let start = self.moved(at.position);
            if start >= length {
                continue;
            }
            old.seek(SeekFrom::Start(start))?;
            let mut lines = Lines::new(start, 1, 0);
            let end = match lines.next(&mut old)? {
                Found::Line => lines.line().end,
                Found::Dry => length,
            };
            spans.push((start, end));
            gone.insert(at.position, end - start);
        }
        replace(&self.path, Some(&old), |out| {
            let mut out = BufWriter::new(out);
            let mut from = 0;
            for (start, end) in spans.iter().copied().chain([(length, length)]) {
                let mut kept = &old;
                kept.seek(SeekFrom::Start(from))?;
                io::copy(&mut kept.take(start - from), &mut out)?;
                from = end;
            }
            out.flush()
        })?;
        let about = std::fs::metadata(&self.path)?;
        self.of = Some((about.dev(), about.ino()));
        let count = gone.len() as u64;
        self.removed.append(&mut gone);
        Ok(count)
    }
}

impl Shelf for FileShelf {
    fn read(&mut self, max: u32) -> BoxFuture<'_, Result<Slab, Error>> {
        Box::pin(async move {
            let mut shelf = self.clone();
            let (read, shelf) = blocking(move || (shelf.read_now(max), shelf)).await;
            *self = shelf;
            read.map_err(|error| self.wrong(error))
        })
    }

    fn remove(&mut self, these: Vec<At>) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move {
            let mut shelf = self.clone();
            let (removed, shelf) = blocking(move || (shelf.remove_now(these), shelf)).await;
            *self = shelf;
            removed.map_err(|error| self.wrong(error))
        })
    }
}

/// Runs what may wait for the disk or a lock.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends: nobody waits for this any more.
            Err(_) => std::future::pending().await,
        },
    }
}
