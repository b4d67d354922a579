//! Sources and sinks of one process on one store: they share a connection, take turns with it, and wake each other.
//!
//! One connection for all of them keeps its page cache warm: SQLite empties the cache of a connection whenever
//! another one has committed.

use super::store::Writer;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

/// Something that wants to know of new messages.
pub(super) trait Ring: Send + Sync {
    /// There may be something new in this queue.
    fn ring(&self, queue: i64);
}

/// Which file: device and inode.
pub(super) type FileId = (u64, u64);

/// All stores that are open in this process.
#[derive(Default)]
pub(super) struct Neighbourhoods {
    open: Mutex<HashMap<FileId, Weak<Neighbours>>>,
}

impl Neighbourhoods {
    pub(super) fn of(&self, file: FileId) -> Arc<Neighbours> {
        let mut open = lock(&self.open);
        if let Some(there) = open.get(&file).and_then(Weak::upgrade) {
            return there;
        }
        open.retain(|_, one| one.strong_count() > 0);
        let new = Arc::new(Neighbours::default());
        open.insert(file, Arc::downgrade(&new));
        new
    }
}

/// Those of one store.
#[derive(Default)]
pub(super) struct Neighbours {
    turns: Mutex<Turns>,
    moved: Condvar,
    /// The connection, once somebody has opened it; only who has the turn locks it.
    writer: Mutex<Option<Writer>>,
    bells: Mutex<Vec<Weak<dyn Ring>>>,
}

/// Tickets: a mutex alone lets a busy thread win over a sleeping one again and again.
#[derive(Default)]
struct Turns {
    given: u64,
    serving: u64,
}

/// The connection, until it is dropped.
pub(super) struct Turn<'a> {
    pub(super) writer: MutexGuard<'a, Option<Writer>>,
    _ticket: Ticket<'a>,
}

struct Ticket<'a>(&'a Neighbours);

impl Neighbours {
    /// Waits for the connection; first come, first served. A turn is bounded by the patience of one transaction.
    pub(super) fn turn(&self) -> Turn<'_> {
        let mut turns = lock(&self.turns);
        let mine = turns.given;
        turns.given += 1;
        while turns.serving != mine {
            turns = self.moved.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        drop(turns);
        // Fields are dropped in order: the connection is free before the next ticket is served.
        let ticket = Ticket(self);
        Turn { writer: lock(&self.writer), _ticket: ticket }
    }

    pub(super) fn listen(&self, bell: Weak<dyn Ring>) {
        let mut bells = lock(&self.bells);
        bells.retain(|one| one.strong_count() > 0);
        bells.push(bell);
    }

    /// Wakes those of this queue, but for one that knows already.
    pub(super) fn ring(&self, queue: i64, but: Option<&Arc<dyn Ring>>) {
        for bell in lock(&self.bells).iter().filter_map(Weak::upgrade) {
            if !but.is_some_and(|but| Arc::ptr_eq(but, &bell)) {
                bell.ring(queue);
            }
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        lock(&self.0.turns).serving += 1;
        self.0.moved.notify_all();
    }
}

/// Locks, also after a panic elsewhere: what these locks protect is whole after every statement.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
