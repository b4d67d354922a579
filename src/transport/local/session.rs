//! One owner at work on one group of one queue: claims, settles, gives back; without threads and without waiting.
//!
//! What is told is folded into [`Changes`] at once and written by the next [`Session::commit`], together with the
//! next claim. A commit that fails changes nothing and can be tried again. The owner's row is looked at inside every
//! transaction: where it is gone, another process has freed all of its claims, and everything told under them is
//! stale. That one look stands for `WHERE id = ? AND claim = ?` in each statement, because claims of one owner are
//! freed all together or not at all.

use super::held::{Counts, Held, Range, ranges_of};
use super::owner::{self, Life, OwnerLock, boot_id, boot_ms, millis, wall_ms};
use super::rows::{Stored, bytes};
use super::statements::{self as sql, QueueStatements};
use super::store::Store;
use crate::error::{Error, ErrorKind};
use crate::failure::Tally;
use crate::message::{At, HeadersRef, Slab, SlabBuilder};
use crate::transport::{Backlog, KeyFrom, Settlement, Verdict};
use rusqlite::{OptionalExtension, Transaction, params};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Most messages of one claim.
pub(super) const CLAIM_MESSAGES: u32 = 1_024;

/// A claim is cut into slabs of so many messages or bytes, so that a message that waits holds up little memory.
const SLAB: (usize, usize) = (256, 1 << 20);

/// By key, a claim steps over so many messages whose key another owner holds, and looks no further.
const STEPPED_OVER: usize = 1_024;

/// A retention is swept in steps of so many messages.
const SWEPT: usize = 1_024;

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

/// How much may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) messages: u32,
    pub(super) bytes: u64,
    /// Whether one message may be over `bytes`.
    pub(super) at_least_one: bool,
}

/// What was told and is not written.
#[derive(Debug, Default)]
struct Changes {
    /// Settled, each with whether it has a row in `pending`.
    done: Vec<(i64, bool)>,
    /// Rows of `pending` to be put: given back, to be retried, or marked.
    put: Vec<Put>,
    marked: Vec<At>,
    /// How what is in `done` and `put` was settled.
    tally: Tally,
    /// Told under an ownership that was over then.
    stale: Tally,
    /// Whether something of it must be on disk before it is said to be carried out.
    durable: bool,
}

#[derive(Debug)]
struct Put {
    id: i64,
    held: bool,
    due_ms: i64,
    attempts: u32,
    unclean: u32,
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

/// Rows and ranges that a claim made, to be remembered once it is committed.
#[derive(Default)]
struct Claimed {
    slabs: Vec<Slab>,
    ranges: Vec<Range>,
    rows: Vec<(i64, Counts)>,
    filled: bool,
    next_due_ms: Option<i64>,
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
                Verdict::Acked | Verdict::DeadLettered | Verdict::Discarded => {
                    self.changes.done.push((at.position as i64, counts.has_row));
                }
                Verdict::Retry { after, attempts } => self.changes.put.push(Put {
                    id: at.position as i64,
                    held: false,
                    due_ms: now.saturating_add(millis(after)).max(1),
                    attempts,
                    unclean: counts.unclean,
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
            let Counts { attempts, unclean, .. } = counts;
            self.changes.put.push(Put { id: at.position as i64, held: false, due_ms: 0, attempts, unclean });
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
        let counts = Counts { attempts: counts.attempts.saturating_add(1), has_row: true, ..counts };
        let id = at.position as i64;
        self.held.add_row(id, counts);
        self.changes.put.push(Put { id, held: true, due_ms: 0, attempts: counts.attempts, unclean: counts.unclean });
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

    /// Deletes what every group has settled and whose retention is over; how many messages, at most [`SWEPT`].
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
            put.execute(params![group, id, None::<i64>, 0, 0, 1])?;
        }
    }
    tx.execute(sql::REMOVE_RANGES_OF, [owner])?;
    tx.execute(sql::FREE_PENDING_OF, [owner])?;
    Ok(true)
}

fn write_changes(
    tx: &Transaction<'_>,
    duty: &Duty,
    statements: &QueueStatements,
    owner: i64,
    held: &Held,
    changes: &mut Changes,
) -> rusqlite::Result<()> {
    for range in held.touched() {
        if range.is_done() {
            tx.prepare_cached(sql::REMOVE_RANGE)?.execute(params![duty.group, range.first])?;
        } else {
            tx.prepare_cached(sql::SET_RANGE)?.execute(params![duty.group, range.first, range.done])?;
        }
    }
    if !changes.put.is_empty() {
        let mut put = tx.prepare_cached(&statements.put_pending)?;
        for one in &changes.put {
            let owner = one.held.then_some(owner);
            put.execute(params![duty.group, one.id, owner, one.due_ms, one.attempts, one.unclean])?;
        }
    }
    if changes.done.is_empty() {
        return Ok(());
    }
    // A mark that was told in the same breath has put its row already; the settlement takes it away again.
    let mut remove = tx.prepare_cached(sql::REMOVE_PENDING)?;
    for (id, _) in changes.done.iter().filter(|(_, has_row)| *has_row) {
        remove.execute([duty.group, *id])?;
    }
    changes.done.sort_unstable();
    let kept = kept_by_others(tx, duty, &changes.done)?;
    let retain_ms: i64 = tx.prepare_cached(sql::RETENTION)?.query_row([duty.queue], |row| row.get(0))?;
    let forget = if retain_ms == 0 { &statements.delete } else { &statements.forget_uid };
    let mut forget = tx.prepare_cached(forget)?;
    for (first, last) in runs(changes.done.iter().map(|(id, _)| *id).filter(|id| !kept.contains(id))) {
        forget.execute([first, last])?;
    }
    Ok(())
}

/// Rising ids as first and last of each unbroken run.
fn runs(ids: impl Iterator<Item = i64>) -> Vec<(i64, i64)> {
    let mut all: Vec<(i64, i64)> = Vec::new();
    for id in ids {
        match all.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => all.push((id, id)),
        }
    }
    all
}

/// Which of these some other group has not settled.
fn kept_by_others(tx: &Transaction<'_>, duty: &Duty, done: &[(i64, bool)]) -> rusqlite::Result<HashSet<i64>> {
    let (Some((first, _)), Some((last, _))) = (done.first(), done.last()) else { return Ok(HashSet::new()) };
    let mut kept = HashSet::new();
    let mut groups = tx.prepare_cached(sql::GROUPS)?;
    let mut groups = groups.query([duty.queue])?;
    while let Some(row) = groups.next()? {
        let (group, cursor): (i64, i64) = (row.get(0)?, row.get(1)?);
        if group == duty.group {
            continue;
        }
        let above = done.partition_point(|(id, _)| *id <= cursor);
        kept.extend(done[above..].iter().map(|(id, _)| *id));
        for range in ranges_between(tx, group, *first, *last)? {
            kept.extend(range.open());
        }
        let mut pending = tx.prepare_cached(sql::PENDING_BETWEEN)?;
        let mut pending = pending.query([group, *first, *last])?;
        while let Some(row) = pending.next()? {
            kept.insert(row.get(0)?);
        }
    }
    Ok(kept)
}

pub(super) fn ranges_between(tx: &Transaction<'_>, group: i64, first: i64, last: i64) -> rusqlite::Result<Vec<Range>> {
    let mut statement = tx.prepare_cached(sql::RANGES_BETWEEN)?;
    let ranges = statement.query_map([group, first, last], |row| {
        Ok(Range::read(row.get(0)?, row.get(1)?, bytes(row, 2)?.unwrap_or_default()))
    })?;
    ranges.collect()
}

/// Ids from the lowest whose retention is over, below everything that any group has not settled.
fn sweepable(tx: &Transaction<'_>, queue: i64, statements: &QueueStatements) -> rusqlite::Result<Vec<i64>> {
    let retain_ms: i64 = tx.prepare_cached(sql::RETENTION)?.query_row([queue], |row| row.get(0))?;
    let mut below = None;
    let mut groups = tx.prepare_cached(sql::GROUPS)?;
    let mut groups = groups.query([queue])?;
    while let Some(row) = groups.next()? {
        let (group, cursor): (i64, i64) = (row.get(0)?, row.get(1)?);
        let pending: Option<i64> = tx.prepare_cached(sql::FIRST_PENDING)?.query_row([group], |row| row.get(0))?;
        let range: Option<i64> = tx.prepare_cached(sql::FIRST_RANGE)?.query_row([group], |row| row.get(0))?;
        let lowest = [Some(cursor + 1), pending, range, below].into_iter().flatten().min();
        below = lowest;
    }
    let Some(below) = below else { return Ok(Vec::new()) };
    let latest = wall_ms() - retain_ms;
    let mut statement = tx.prepare_cached(&statements.oldest_below)?;
    let mut rows = statement.query([below])?;
    let mut due = Vec::new();
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(1)? > latest || due.len() == SWEPT {
            break;
        }
        due.push(row.get(0)?);
    }
    Ok(due)
}

/// Takes what is wanted: first what came back and what is due, then what was never claimed.
fn claim(
    tx: &Transaction<'_>,
    duty: &Duty,
    statements: &QueueStatements,
    owner: i64,
    epoch: u32,
    wanted: Wanted,
    keys: &mut HashMap<i64, u64>,
) -> rusqlite::Result<Claimed> {
    let blocked = if duty.by_key { keys_of_others(tx, duty, statements, owner, keys)? } else { HashSet::new() };
    let max_message = i64::try_from(duty.max_message).unwrap_or(i64::MAX);
    let now = wall_ms();
    let mut taking = Taking::new(duty, epoch, wanted, blocked);
    let mut rows_taken = Vec::new();
    {
        let mut statement = tx.prepare_cached(&statements.due)?;
        let mut rows = statement.query(params![duty.group, max_message, now])?;
        while let Some(row) = rows.next()? {
            let stored = Stored::read(row)?;
            match taking.offer(&stored) {
                Offer::Taken => {
                    let counts = Counts { attempts: stored.attempts, unclean: stored.unclean, has_row: true };
                    rows_taken.push((stored.id, counts));
                }
                Offer::Blocked => {}
                Offer::Full => break,
            }
        }
    }
    let mut take = tx.prepare_cached(sql::TAKE_PENDING)?;
    for (id, _) in &rows_taken {
        take.execute([duty.group, *id, owner])?;
    }
    let mut ids = Vec::new();
    let mut stepped_over = Vec::new();
    if !taking.full {
        let cursor: i64 = tx.prepare_cached(sql::CURSOR)?.query_row([duty.group], |row| row.get(0))?;
        let mut reached = cursor;
        {
            let mut statement = tx.prepare_cached(&statements.fresh)?;
            let mut rows = statement.query([cursor, max_message])?;
            while let Some(row) = rows.next()? {
                let stored = Stored::read(row)?;
                match taking.offer(&stored) {
                    Offer::Taken => ids.push(stored.id),
                    Offer::Blocked => stepped_over.push(stored.id),
                    Offer::Full => break,
                }
                reached = stored.id;
            }
        }
        if reached > cursor {
            tx.prepare_cached(sql::SET_CURSOR)?.execute([duty.group, reached])?;
        }
    }
    let ranges = ranges_of(&ids);
    let mut add = tx.prepare_cached(sql::ADD_RANGE)?;
    for range in &ranges {
        add.execute(params![duty.group, range.first, range.last, owner, range.done])?;
    }
    let mut put = tx.prepare_cached(&statements.put_pending)?;
    for id in stepped_over {
        put.execute(params![duty.group, id, None::<i64>, 0, 0, 0])?;
    }
    let next_due_ms = next_due(tx, duty.group, now)?;
    let filled = taking.filled;
    Ok(Claimed { slabs: taking.finish(), ranges, rows: rows_taken, filled, next_due_ms })
}

/// When the next delay ends.
fn next_due(tx: &Transaction<'_>, group: i64, now: i64) -> rusqlite::Result<Option<i64>> {
    tx.prepare_cached(sql::NEXT_DUE)?.query_row([group, now], |row| row.get(0)).optional()
}

enum Offer {
    Taken,
    /// Another owner holds its key.
    Blocked,
    /// It was not looked at; no more this time.
    Full,
}

/// A claim in the making.
struct Taking<'a> {
    duty: &'a Duty,
    epoch: u32,
    wanted: Wanted,
    blocked: HashSet<u64>,
    steps: usize,
    bytes: u64,
    messages: u32,
    full: bool,
    /// Full because of what was wanted, not because of what is blocked.
    filled: bool,
    builder: SlabBuilder,
    slabs: Vec<Slab>,
}

impl<'a> Taking<'a> {
    fn new(duty: &'a Duty, epoch: u32, wanted: Wanted, blocked: HashSet<u64>) -> Self {
        let wanted = Wanted { messages: wanted.messages.min(CLAIM_MESSAGES), ..wanted };
        Self {
            duty,
            epoch,
            wanted,
            blocked,
            steps: 0,
            bytes: 0,
            messages: 0,
            full: false,
            filled: false,
            builder: SlabBuilder::new(),
            slabs: Vec::new(),
        }
    }

    fn offer(&mut self, stored: &Stored<'_>) -> Offer {
        let size = stored.size();
        let fits = self.messages < self.wanted.messages
            && (self.bytes + size <= self.wanted.bytes || (self.wanted.at_least_one && self.messages == 0));
        if !fits {
            (self.full, self.filled) = (true, true);
            return Offer::Full;
        }
        if !self.blocked.is_empty() && self.blocked.contains(&stored.key_hash(&self.duty.key)) {
            if self.steps == STEPPED_OVER {
                self.full = true;
                return Offer::Full;
            }
            self.steps += 1;
            return Offer::Blocked;
        }
        let head = stored.push(&self.duty.key, &mut self.builder);
        head.at.epoch = self.epoch;
        self.messages += 1;
        self.bytes += size;
        if self.builder.len() >= SLAB.0 || self.builder.bytes() >= SLAB.1 {
            self.cut();
        }
        Offer::Taken
    }

    fn cut(&mut self) {
        let builder = std::mem::take(&mut self.builder);
        if !builder.is_empty() {
            self.slabs.push(builder.finish(self.duty.queue_name.clone()));
        }
    }

    fn finish(mut self) -> Vec<Slab> {
        self.cut();
        self.slabs
    }
}

/// Hashes of the keys of which another owner holds a message. Two keys of one hash wait for each other, nothing worse.
fn keys_of_others(
    tx: &Transaction<'_>,
    duty: &Duty,
    statements: &QueueStatements,
    owner: i64,
    known: &mut HashMap<i64, u64>,
) -> rusqlite::Result<HashSet<u64>> {
    let mut ids = BTreeSet::new();
    let mut statement = tx.prepare_cached(sql::RANGES_OF_OTHERS)?;
    let mut rows = statement.query([duty.group, owner])?;
    while let Some(row) = rows.next()? {
        ids.extend(Range::read(row.get(0)?, row.get(1)?, bytes(row, 2)?.unwrap_or_default()).open());
    }
    let mut statement = tx.prepare_cached(sql::PENDING_OF_OTHERS)?;
    let mut rows = statement.query([duty.group, owner])?;
    while let Some(row) = rows.next()? {
        ids.insert(row.get(0)?);
    }
    known.retain(|id, _| ids.contains(id));
    let in_payload = matches!(duty.key, KeyFrom::Pointer(_));
    for id in ids {
        if known.contains_key(&id) {
            continue;
        }
        let statement = if in_payload { &statements.key_and_payload } else { &statements.key };
        let hash = tx
            .prepare_cached(statement)?
            .query_row([id], |row| {
                let headers = HeadersRef::from_encoded(bytes(row, 1)?.unwrap_or_default());
                let payload = if in_payload { bytes(row, 2)? } else { None };
                let key = duty.key.find(bytes(row, 0)?, None, headers, payload);
                Ok(key.map_or(0, |key| crate::message::key_hash(&key)))
            })
            .optional()?;
        known.insert(id, hash.unwrap_or(0));
    }
    Ok(known.values().copied().filter(|hash| *hash != 0).collect())
}
