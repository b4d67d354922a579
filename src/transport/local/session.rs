//! One owner at work on one group of one queue: claims, settles, gives back; without threads and without waiting.
//!
//! What is told is folded into [`Changes`] at once and written by the next [`Session::commit`], together with the
//! next claim. A commit that fails changes nothing and can be tried again. The owner's row is looked at inside every
//! transaction: where it is gone, another process has freed all of its claims, and everything told under them is
//! stale. That one look stands for `WHERE id = ? AND claim = ?` in each statement, because claims of one owner are
//! freed all together or not at all.

use super::claim::{Claimed, Wanted, claim, next_due};
use super::held::{Counts, Held, Range};
use super::owner::{self, Life, OwnerLock, boot_id, boot_ms, millis, wall_ms};
use super::rows::bytes;
use super::settle::{Changes, Put, sweepable, write_changes};
use super::statements::{self as sql, QueueStatements};
use super::store::Store;
use crate::error::{Error, ErrorKind};
use crate::failure::Tally;
use crate::message::{At, Slab};
use crate::transport::{Backlog, KeyFrom, Settlement, Verdict};
use rusqlite::{Transaction, params};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What a session is for.
#[derive(Debug, Clone)]
pub(super) struct Duty {
    pub(super) queue_name: Arc<str>,
    pub(super) queue: i64,
    pub(super) group: i64,
    pub(super) key: KeyFrom,
    pub(super) by_key: bool,
    pub(super) max_message: u64,
    pub(super) claim: Duration,
}

/// What a commit did.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) proven: Tally,
    pub(super) stale: Tally,
    pub(super) marked: Vec<At>,
    pub(super) slabs: Vec<Slab>,
    /// The epoch that ended, where the owner was found to be freed by another.
    pub(super) lost: Option<u32>,
    /// Whether the claim got as much as it wanted, so that there may be more.
    pub(super) filled: bool,
    /// When the next delay ends, by the wall clock.
    pub(super) next_due_ms: Option<i64>,
    /// Whether something was given back, to be claimed by anybody.
    pub(super) freed: bool,
    /// Whether something was settled or given back, so that its key is free for others.
    pub(super) let_go: bool,
}

/// What a claim would find.
pub(super) struct Look {
    pub(super) any: bool,
    /// When the next delay ends, by the wall clock.
    pub(super) next_due_ms: Option<i64>,
}

pub(super) struct Session {
    pub(super) store: Store,
    pub(super) duty: Duty,
    statements: QueueStatements,
    lock: OwnerLock,
    boot: String,
    owner: i64,
    epoch: u32,
    renewed_ms: i64,
    held: Held,
    changes: Changes,
    /// Keys of messages that others hold, by id.
    keys: HashMap<i64, u64>,
}

impl Session {
    /// Registers as an owner.
    pub(super) fn begin(store: Store, duty: Duty) -> Result<Self, Error> {
        let lock = OwnerLock::create(store.path()).map_err(|why| lock_error(&store, why))?;
        let boot = boot_id();
        let now = boot_ms();
        let owner = register(&store, &lock, &boot, now, duty.claim)?;
        let statements = QueueStatements::of(duty.queue);
        Ok(Self {
            store,
            duty,
            statements,
            lock,
            boot,
            owner,
            epoch: 1,
            renewed_ms: now,
            held: Held::default(),
            changes: Changes::default(),
            keys: HashMap::new(),
        })
    }

    /// Settlements, as they are told.
    pub(super) fn settle(&mut self, all: Vec<Settlement>) {
        let now = wall_ms();
        for Settlement { at, verdict } in all {
            let Some(counts) = self.take(at) else {
                verdict.count(&mut self.changes.stale);
                continue;
            };
            verdict.count(&mut self.changes.tally);
            self.changes.durable = true;
            match verdict {
                Verdict::Acked | Verdict::DeadLettered | Verdict::Discarded | Verdict::Retried => {
                    self.changes.done.push((at.position as i64, counts.has_row));
                }
                Verdict::Retry { after, attempts } => self.changes.put.push(Put {
                    id: at.position as i64,
                    held: false,
                    due_ms: now.saturating_add(millis(after)).max(1),
                    attempts,
                    unclean: counts.unclean,
                    // It has ended a run, so it kills nobody.
                    marks: 0,
                }),
            }
        }
    }

    /// Gives back what is still held of these; how many.
    pub(super) fn give_back(&mut self, these: impl IntoIterator<Item = At>) -> u64 {
        let mut returned = 0;
        for at in these {
            let Some(counts) = self.take(at) else { continue };
            returned += 1;
            let Counts { attempts, unclean, marks, marked, .. } = counts;
            // A mark of this owner is taken back: it is alive, whatever became of the run.
            let marks = marks.saturating_sub(u32::from(marked));
            self.changes.put.push(Put { id: at.position as i64, held: false, due_ms: 0, attempts, unclean, marks });
        }
        returned
    }

    /// Gives back all that is held; how many.
    pub(super) fn give_back_all(&mut self) -> u64 {
        let epoch = self.epoch;
        let all = self.held.ids();
        self.give_back(all.into_iter().map(|id| At { position: id as u64, epoch, partition: 0 }))
    }

    /// One more start of a suspect, to be remembered before it happens. Says nothing of what is not held.
    pub(super) fn mark(&mut self, at: At) {
        let Some(counts) = self.take(at) else { return };
        let counts = Counts {
            attempts: counts.attempts.saturating_add(1),
            marks: counts.marks.saturating_add(1),
            marked: true,
            has_row: true,
            ..counts
        };
        let id = at.position as i64;
        self.held.add_row(id, counts);
        let Counts { attempts, unclean, marks, .. } = counts;
        self.changes.put.push(Put { id, held: true, due_ms: 0, attempts, unclean, marks });
        self.changes.marked.push(at);
        self.changes.durable = true;
    }

    fn take(&mut self, at: At) -> Option<Counts> {
        (at.epoch == self.epoch).then(|| self.held.take(at.position as i64)).flatten()
    }

    /// Whether something was told that is not written.
    pub(super) fn has_changes(&self) -> bool {
        self.unwritten() > 0 || self.changes.stale != Tally::default()
    }

    /// How many changes wait to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.changes.done.len() + self.changes.put.len()
    }

    /// Messages that are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> u64 {
        self.held.len()
    }

    #[cfg(test)]
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether a third of the claim has passed since it was renewed.
    pub(super) fn renewal_is_due(&self) -> bool {
        boot_ms() - self.renewed_ms >= self.renewal_ms()
    }

    pub(super) fn renewal_ms(&self) -> i64 {
        (millis(self.duty.claim) / 3).max(1)
    }

    /// Writes every change, renews the claims if that is due, and claims what is wanted.
    ///
    /// # Errors
    /// Nothing was changed; every change waits for the next commit.
    pub(super) fn commit(&mut self, wanted: Option<Wanted>) -> Result<Report, Error> {
        let now = boot_ms();
        let renew = now - self.renewed_ms >= self.renewal_ms();
        if !renew && wanted.is_none() && self.unwritten() == 0 {
            return Ok(Report { stale: std::mem::take(&mut self.changes.stale), ..Report::default() });
        }
        let Self { store, duty, statements, owner, held, changes, keys, epoch, .. } = self;
        let owner = *owner;
        let epoch = *epoch;
        let written = store.write(changes.durable, |tx| {
            if !is_owner(tx, owner, renew.then_some(now))? {
                return Ok(None);
            }
            write_changes(tx, duty, statements, owner, held, changes)?;
            let claimed = match wanted {
                Some(wanted) => claim(tx, duty, statements, owner, epoch, wanted, keys)?,
                None => Claimed::default(),
            };
            Ok(Some(claimed))
        })?;
        let Some(claimed) = written else { return self.lose() };
        if renew {
            self.renewed_ms = now;
        }
        self.held.written();
        let freed = self.changes.put.iter().any(|put| !put.held);
        let let_go = freed || !self.changes.done.is_empty();
        let Changes { marked, tally, stale, .. } = std::mem::take(&mut self.changes);
        for range in claimed.ranges {
            self.held.add_range(range);
        }
        for (id, counts) in claimed.rows {
            self.held.add_row(id, counts);
        }
        Ok(Report {
            proven: tally,
            stale,
            marked,
            slabs: claimed.slabs,
            lost: None,
            filled: claimed.filled,
            next_due_ms: claimed.next_due_ms,
            freed,
            let_go,
        })
    }

    /// Another process has freed what was held here: begins again as a new owner under a new epoch.
    fn lose(&mut self) -> Result<Report, Error> {
        if !self.lock.is_there() {
            self.lock = OwnerLock::create(self.store.path()).map_err(|why| lock_error(&self.store, why))?;
        }
        let now = boot_ms();
        self.owner = register(&self.store, &self.lock, &self.boot, now, self.duty.claim)?;
        self.renewed_ms = now;
        let lost = self.epoch;
        self.epoch += 1;
        self.held = Held::default();
        let Changes { tally, mut stale, .. } = std::mem::take(&mut self.changes);
        stale += tally;
        Ok(Report { stale, lost: Some(lost), ..Report::default() })
    }

    /// Frees the claims of owners that ended, or did not renew them in time; how many owners.
    pub(super) fn free_ended_owners(&mut self) -> Result<u64, Error> {
        let me = self.owner;
        let others = self.store.read(|tx| other_owners(tx, me))?;
        let now = boot_ms();
        let mut freed = 0;
        for other in others {
            let tombstone = match owner::life(self.store.path(), &other.name) {
                Life::Ended(lock) => lock,
                Life::Lives if other.boot == self.boot && now - other.renewed_ms > other.claim_ms => None,
                Life::Lives => continue,
            };
            // Ends with the power: nothing here has to wait for the disk.
            if self.store.write(false, |tx| free(tx, other.id, other.renewed_ms))? {
                freed += 1;
                tracing::info!(event = "owner_freed", store = %self.store.path().display(), owner = other.name);
            }
            if let Some(lock) = tombstone {
                lock.remove();
            }
        }
        Ok(freed)
    }

    /// Whether a claim would find something; cheap beside a transaction that writes.
    pub(super) fn look(&self) -> Result<Look, Error> {
        let (group, now, any_fresh) = (self.duty.group, wall_ms(), &self.statements.any_fresh);
        self.store.read(|tx| {
            let cursor: i64 = tx.prepare_cached(sql::CURSOR)?.query_row([group], |row| row.get(0))?;
            let any = tx.prepare_cached(sql::ANY_DUE)?.exists([group, now])?
                || tx.prepare_cached(any_fresh)?.exists([cursor])?;
            Ok(Look { any, next_due_ms: next_due(tx, group, now)? })
        })
    }

    /// Counts what waits for this group.
    pub(super) fn backlog(&mut self) -> Result<Backlog, Error> {
        let (group, now, highest) = (self.duty.group, wall_ms(), &self.statements.highest);
        self.store.read(|tx| {
            let mut backlog = Backlog { waiting: Some(0), delayed: Some(0) };
            let mut statement = tx.prepare_cached(sql::COUNT_PENDING)?;
            let mut rows = statement.query(params![group, now])?;
            while let Some(row) = rows.next()? {
                if row.get::<_, Option<i64>>(0)?.is_none() {
                    let place = if row.get(1)? { &mut backlog.delayed } else { &mut backlog.waiting };
                    *place = Some(place.unwrap_or(0) + row.get::<_, i64>(2)? as u64);
                }
            }
            // Ids above the cursor have no gaps but those that a person made by hand: no need to count rows.
            let cursor: i64 = tx.prepare_cached(sql::CURSOR)?.query_row([group], |row| row.get(0))?;
            let highest: Option<i64> = tx.prepare_cached(highest)?.query_row([], |row| row.get(0))?;
            let fresh = highest.map_or(0, |highest| (highest - cursor).max(0)) as u64;
            backlog.waiting = backlog.waiting.map(|waiting| waiting + fresh);
            Ok(backlog)
        })
    }

    /// Deletes what every group has settled and whose retention is over; how many messages, a bounded step.
    pub(super) fn sweep(&mut self) -> Result<u64, Error> {
        let (queue, statements) = (self.duty.queue, &self.statements);
        let due = self.store.read(|tx| sweepable(tx, queue, statements))?;
        if due.is_empty() {
            return Ok(0);
        }
        self.store.write(false, |tx| {
            // Looked at again: a group may be new.
            let due = sweepable(tx, queue, statements)?;
            let Some((first, last)) = due.first().zip(due.last()) else { return Ok(0) };
            Ok(tx.prepare_cached(&statements.delete)?.execute([first, last])? as u64)
        })
    }

    /// Leaves: nothing is held any more, the owner is forgotten, its file is removed.
    pub(super) fn end(self) -> Result<(), Error> {
        let owner = self.owner;
        let gone = self.store.write(false, |tx| tx.execute(sql::REMOVE_SELF, [owner]).map(|_| ()));
        if gone.is_ok() {
            self.lock.remove();
        }
        gone
    }

    /// Frees these claims from outside, as another process does once they have expired.
    #[cfg(test)]
    pub(super) fn expire_for_test(&self, outside: &Store) {
        let freed = outside.write(true, |tx| free(tx, self.owner, self.renewed_ms)).unwrap();
        assert!(freed, "it was registered");
    }

    /// Every message that is held, in order.
    #[cfg(test)]
    pub(super) fn held_ids(&self) -> Vec<i64> {
        self.held.ids()
    }
}

fn lock_error(store: &Store, why: std::io::Error) -> Error {
    let kind = match why.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Configuration,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("store '{}': its owner file cannot be made", store.path().display())).caused_by(why)
}

fn register(store: &Store, lock: &OwnerLock, boot: &str, now: i64, claim: Duration) -> Result<i64, Error> {
    store.write(false, |tx| {
        tx.execute(sql::ADD_OWNER, params![lock.name(), boot, now, millis(claim)])?;
        Ok(tx.last_insert_rowid())
    })
}

/// Whether the owner is still registered; renews it where `now` is given.
fn is_owner(tx: &Transaction<'_>, owner: i64, now: Option<i64>) -> rusqlite::Result<bool> {
    match now {
        Some(now) => Ok(tx.prepare_cached(sql::RENEW)?.execute([owner, now])? == 1),
        None => tx.prepare_cached(sql::OWNER)?.exists([owner]),
    }
}

pub(super) struct OtherOwner {
    pub(super) id: i64,
    pub(super) name: String,
    boot: String,
    renewed_ms: i64,
    claim_ms: i64,
}

pub(super) fn other_owners(tx: &Transaction<'_>, me: i64) -> rusqlite::Result<Vec<OtherOwner>> {
    let mut statement = tx.prepare_cached(sql::OTHER_OWNERS)?;
    let all = statement.query_map([me], |row| {
        Ok(OtherOwner {
            id: row.get(0)?,
            name: row.get(1)?,
            boot: row.get(2)?,
            renewed_ms: row.get(3)?,
            claim_ms: row.get(4)?,
        })
    })?;
    all.collect()
}

/// Frees every claim of an owner, unless it renewed them meanwhile or somebody else was faster.
fn free(tx: &Transaction<'_>, owner: i64, renewed_ms: i64) -> rusqlite::Result<bool> {
    if tx.execute(sql::REMOVE_OWNER, [owner, renewed_ms])? == 0 {
        return Ok(false);
    }
    let ranges = {
        let mut statement = tx.prepare_cached(sql::RANGES_OF)?;
        let ranges = statement.query_map([owner], |row| {
            let done = bytes(row, 4)?.unwrap_or_default();
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, Range::read(row.get(2)?, row.get(3)?, done)))
        })?;
        ranges.collect::<rusqlite::Result<Vec<_>>>()?
    };
    for (group, queue, range) in ranges {
        let statements = QueueStatements::of(queue);
        let mut put = tx.prepare_cached(&statements.put_pending)?;
        for id in range.open() {
            put.execute(params![group, id, None::<i64>, 0, 0, 1, 0])?;
        }
    }
    tx.execute(sql::REMOVE_RANGES_OF, [owner])?;
    tx.execute(sql::FREE_PENDING_OF, [owner])?;
    Ok(true)
}
