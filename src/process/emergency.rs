//! Writing to stderr when nothing else works: no lock, no allocation, and never a wait for the reader.

use super::board::{Board, Cells, Doing};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::fmt::{self, Write};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Whoever reads stderr has so long to take all of a report; the rest is dropped.
const PATIENCE: Duration = Duration::from_millis(100);

/// Below `PIPE_BUF`: a pipe that polls as writable takes so much without blocking.
const CHUNK: usize = 1_024;

/// At most so many threads are listed.
const THREADS: usize = 256;

/// At most so many running messages of an actor are listed.
const MESSAGES: usize = 64;

/// A descriptor of stderr of our own, so that nobody can close or lock it.
#[derive(Debug)]
pub(super) struct Stderr(OwnedFd);

impl Stderr {
    pub(super) fn duplicate() -> io::Result<Self> {
        let same = rustix::io::fcntl_dupfd_cloexec(io::stderr().as_fd(), 3)?;
        Ok(Self(reopen(same.as_fd()).unwrap_or(same)))
    }

    pub(super) fn begin(&self) -> Lines<'_> {
        Lines { fd: self.0.as_fd(), bytes: [0; CHUNK], len: 0, until: Instant::now() + PATIENCE }
    }
}

/// The same pipe or terminal under a description of its own that never blocks: `O_NONBLOCK` on a duplicate would reach
/// everybody who shares it. Without that, another thread may fill a pipe between our poll and our write. Nothing else
/// is opened anew: a file would be written from its start.
#[cfg(target_os = "linux")]
fn reopen(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    use rustix::fd::AsRawFd;
    use rustix::fs::{FileType, Mode, OFlags};
    let kind = FileType::from_raw_mode(rustix::fs::fstat(fd).ok()?.st_mode);
    if !matches!(kind, FileType::Fifo | FileType::CharacterDevice) {
        return None;
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, Mode::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn reopen(_fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    None
}

/// Text on its way to stderr through a buffer on the stack.
pub(super) struct Lines<'a> {
    fd: BorrowedFd<'a>,
    bytes: [u8; CHUNK],
    len: usize,
    until: Instant,
}

impl Lines<'_> {
    /// Hands over what is in the buffer, or drops it when nobody takes it.
    pub(super) fn flush(&mut self) {
        let mut rest = &self.bytes[..self.len];
        while !rest.is_empty() {
            let left = self.until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).unwrap_or_default();
            let mut ready = [PollFd::new(&self.fd, PollFlags::OUT)];
            match poll(&mut ready, Some(&timeout)) {
                Ok(0) => break,
                Ok(_) => match rustix::io::write(self.fd, rest) {
                    Ok(written) => rest = &rest[written..],
                    // A terminal may say that it is writable and then take nothing.
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) if !left.is_zero() => {}
                    Err(_) => break,
                },
                Err(rustix::io::Errno::INTR) if !left.is_zero() => {}
                Err(_) => break,
            }
        }
        self.len = 0;
    }
}

impl Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            if self.len == CHUNK {
                self.flush();
            }
            let part = rest.len().min(CHUNK - self.len);
            self.bytes[self.len..self.len + part].copy_from_slice(&rest[..part]);
            self.len += part;
            rest = &rest[part..];
        }
        Ok(())
    }
}

/// What every actor does and what is in its handlers; with `all`, also of actors that are gone.
pub(super) fn write_actors(out: &mut Lines<'_>, board: &Board, all: bool) -> fmt::Result {
    let now = board.now_ms();
    for actor in board.actors() {
        let (doing, since) = actor.doing();
        let mut running = actor.running().peekable();
        if !all && doing == Doing::Stopped && running.peek().is_none() {
            continue;
        }
        let waits = actor.cells.awaiting_confirms.load(std::sync::atomic::Ordering::Relaxed);
        let in_flight = actor.cells.in_flight.load(std::sync::atomic::Ordering::Relaxed);
        write!(out, "  {} {}: {} for {} ms", actor.kind(), actor.name(), doing.name(), now.saturating_sub(since))?;
        writeln!(out, ", {in_flight} in flight, {waits} confirms awaited")?;
        for message in running.by_ref().take(MESSAGES) {
            writeln!(out, "    {message} since {} ms", now.saturating_sub(message.started_ms))?;
        }
        match running.count() {
            0 => {}
            more => writeln!(out, "    and {more} more")?,
        }
    }
    Ok(())
}

/// What became of every delivery, summed over the workers, in the words of the report. What is not settled is
/// abandoned: nobody will settle it any more.
pub(super) fn write_counts(out: &mut Lines<'_>, board: &Board) -> fmt::Result {
    let sum = |of: fn(&Cells) -> &AtomicU64| -> u64 {
        board.actors().iter().map(|actor| of(&actor.cells).load(Relaxed)).fold(0, u64::wrapping_add)
    };
    let received = sum(|cells| &cells.received);
    let (acked, retried) = (sum(|cells| &cells.acked), sum(|cells| &cells.retried));
    let (dead_lettered, discarded) = (sum(|cells| &cells.dead_lettered), sum(|cells| &cells.discarded));
    let (returned, unknown) = (sum(|cells| &cells.returned), sum(|cells| &cells.unknown));
    let settled = [acked, retried, dead_lettered, discarded, returned, unknown].into_iter().fold(0, u64::wrapping_add);
    let abandoned = received.saturating_sub(settled);
    writeln!(
        out,
        "counts received={received} acked={acked} retried={retried} dead_lettered={dead_lettered} \
         discarded={discarded} returned={returned} abandoned={abandoned} unknown={unknown} unaccounted=0"
    )
}

/// Every OS thread of the process by name and state.
#[cfg(target_os = "linux")]
pub(super) fn write_threads(out: &mut Lines<'_>) -> fmt::Result {
    use rustix::fs::{Mode, OFlags, RawDir, openat};
    let read_only = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(tasks) = rustix::fs::open(c"/proc/self/task", read_only | OFlags::DIRECTORY, Mode::empty()) else {
        return Ok(());
    };
    let mut entries = [std::mem::MaybeUninit::uninit(); 2_048];
    let mut dir = RawDir::new(&tasks, &mut entries);
    let mut listed = 0;
    while let Some(Ok(entry)) = dir.next() {
        let id = entry.file_name();
        if !id.to_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        if listed == THREADS {
            return out.write_str("  and more threads\n");
        }
        listed += 1;
        // A thread may be gone by now.
        let Ok(task) = openat(&tasks, id, read_only | OFlags::DIRECTORY, Mode::empty()) else { continue };
        let Ok(stat) = openat(&task, c"stat", read_only, Mode::empty()) else { continue };
        let mut text = [0; 128];
        let Ok(len) = rustix::io::read(&stat, &mut text) else { continue };
        // `ID (NAME) STATE …`; a name may hold anything, parentheses too.
        let text = &text[..len];
        let (Some(open), Some(close)) = (text.iter().position(|&b| b == b'('), text.iter().rposition(|&b| b == b')'))
        else {
            continue;
        };
        out.write_str("  thread ")?;
        write_plain(out, id.to_bytes())?;
        out.write_char(' ')?;
        write_plain(out, text.get(open + 1..close).unwrap_or_default())?;
        let state = match text.get(close + 2) {
            Some(b'R') => "running",
            Some(b'S') => "sleeping",
            Some(b'D') => "in uninterruptible wait",
            Some(b'T' | b't') => "stopped",
            Some(b'Z' | b'X') => "dead",
            _ => "in an unknown state",
        };
        writeln!(out, ": {state}")?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn write_threads(_out: &mut Lines<'_>) -> fmt::Result {
    Ok(())
}

/// Printable ASCII as it is, everything else as a question mark.
#[cfg(target_os = "linux")]
fn write_plain(out: &mut Lines<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|&b| out.write_char(if b == b' ' || b.is_ascii_graphic() { b.into() } else { '?' }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn text_longer_than_the_buffer_arrives_whole() {
        let (mut reader, writer) = io::pipe().unwrap();
        let stderr = Stderr(writer.into());
        let mut lines = stderr.begin();
        let long = "x".repeat(CHUNK + 10);
        write!(lines, "{long}|{long}").unwrap();
        lines.flush();
        drop(stderr);
        let mut found = String::new();
        reader.read_to_string(&mut found).unwrap();
        assert_eq!(found, format!("{long}|{long}"));
    }

    #[test]
    fn what_is_not_settled_at_the_last_way_out_is_abandoned() {
        use crate::process::board::ActorSpec;
        let board = Board::new("orders");
        board.register(vec![ActorSpec { name: "ship".into(), kind: "consumer", lanes: 1, slots: 1 }]);
        let cells = &board.actor(0).cells;
        cells.received.store(10, Relaxed);
        cells.acked.store(6, Relaxed);
        cells.returned.store(1, Relaxed);
        let (mut reader, writer) = io::pipe().unwrap();
        let stderr = Stderr(writer.into());
        let mut lines = stderr.begin();
        write_counts(&mut lines, &board).unwrap();
        lines.flush();
        drop(stderr);
        let mut found = String::new();
        reader.read_to_string(&mut found).unwrap();
        let wanted = "counts received=10 acked=6 retried=0 dead_lettered=0 discarded=0 returned=1 abandoned=3 unknown=0 \
                      unaccounted=0\n";
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_reader_that_takes_nothing_holds_nobody_up() {
        let (reader, writer) = io::pipe().unwrap();
        let stderr = Stderr(writer.into());
        let mut lines = stderr.begin();
        // More than any pipe holds. Without the patience this never returns.
        for _ in 0..100_000 {
            lines.write_str("a line that nobody reads, and that is long enough\n").unwrap();
        }
        lines.flush();
        drop(reader);
    }

    #[test]
    fn writing_to_a_pipe_never_blocks_and_leaves_the_others_of_that_pipe_blocking() {
        let (reader, writer) = io::pipe().unwrap();
        let own = reopen(writer.as_fd()).unwrap();
        // Returns only if it does not block.
        while rustix::io::write(&own, &[b'x'; CHUNK]).is_ok() {}
        assert!(!rustix::fs::fcntl_getfl(&writer).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
        drop(reader);
    }
}
