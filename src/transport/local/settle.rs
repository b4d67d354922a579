//! Writing down what was told of messages: done, given back, to be retried, marked.

use super::held::{Held, Range};
use super::owner::wall_ms;
use super::rows::bytes;
use super::session::Duty;
use super::statements::{self as sql, QueueStatements};
use crate::failure::Tally;
use crate::message::At;
use rusqlite::{Transaction, params};
use std::collections::HashSet;

/// A retention is swept in steps of so many messages.
const SWEPT: usize = 1_024;

/// What was told and is not written.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Settled, each with whether it has a row in `pending`.
    pub(super) done: Vec<(i64, bool)>,
    /// Rows of `pending` to be put: given back, to be retried, or marked.
    pub(super) put: Vec<Put>,
    pub(super) marked: Vec<At>,
    /// How what is in `done` and `put` was settled.
    pub(super) tally: Tally,
    /// Told under an ownership that was over then.
    pub(super) stale: Tally,
    /// Whether something of it must be on disk before it is said to be carried out.
    pub(super) durable: bool,
}

#[derive(Debug)]
pub(super) struct Put {
    pub(super) id: i64,
    pub(super) held: bool,
    pub(super) due_ms: i64,
    pub(super) attempts: u32,
    pub(super) unclean: u32,
    pub(super) marks: u32,
}

/// Writes every change of an owner.
pub(super) fn write_changes(
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
            put.execute(params![duty.group, one.id, owner, one.due_ms, one.attempts, one.unclean, one.marks])?;
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
pub(super) fn sweepable(tx: &Transaction<'_>, queue: i64, statements: &QueueStatements) -> rusqlite::Result<Vec<i64>> {
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
