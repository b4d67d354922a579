//! Taking messages for an owner: which, and in what order.

use super::held::{Counts, Range, ranges_of};
use super::owner::wall_ms;
use super::rows::{Stored, bytes};
use super::session::Duty;
use super::statements::{self as sql, QueueStatements};
use crate::message::{HeadersRef, Slab, SlabBuilder};
use crate::transport::KeyFrom;
use rusqlite::{OptionalExtension, Transaction, params};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Most messages of one claim.
pub(super) const CLAIM_MESSAGES: u32 = 1_024;

/// A claim is cut into slabs of so many messages or bytes, so that a message that waits holds up little memory.
const SLAB: (usize, usize) = (256, 1 << 20);

/// By key, a claim steps over so many messages whose key another owner holds, and looks no further.
const STEPPED_OVER: usize = 1_024;

/// How much may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) messages: u32,
    pub(super) bytes: u64,
    /// Whether one message may be over `bytes`.
    pub(super) at_least_one: bool,
}

/// Rows and ranges that a claim made, to be remembered once it is committed.
#[derive(Default)]
pub(super) struct Claimed {
    pub(super) slabs: Vec<Slab>,
    pub(super) ranges: Vec<Range>,
    pub(super) rows: Vec<(i64, Counts)>,
    pub(super) filled: bool,
    pub(super) next_due_ms: Option<i64>,
}

/// Takes what is wanted: first what came back and what is due, then what was never claimed.
pub(super) fn claim(
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
                    let counts = Counts {
                        attempts: stored.attempts,
                        unclean: stored.unclean,
                        marks: stored.marks,
                        marked: false,
                        has_row: true,
                    };
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
        put.execute(params![duty.group, id, None::<i64>, 0, 0, 0, 0])?;
    }
    let next_due_ms = next_due(tx, duty.group, now)?;
    let filled = taking.filled;
    Ok(Claimed { slabs: taking.finish(), ranges, rows: rows_taken, filled, next_due_ms })
}

/// When the next delay ends.
pub(super) fn next_due(tx: &Transaction<'_>, group: i64, now: i64) -> rusqlite::Result<Option<i64>> {
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
