//! Looking into a store without taking anything: counts, and messages one after the other.

use super::held::Range;
use super::neighbours::Neighbourhoods;
use super::owner::{self, Life, wall_ms};
use super::rows::Stored;
use super::session::other_owners;
use super::settle::ranges_between;
use super::statements::{self as sql, QueueStatements};
use super::store::{Access, Store, find_group, find_queue};
use super::{Place, dead_queue};
use crate::error::{Error, ErrorKind};
use crate::message::{At, Slab, SlabBuilder};
use crate::transport::{BoxFuture, Inspection, KeyFrom, Shelf};
use rusqlite::{OptionalExtension, Transaction, params};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a look waits for a locked store.
const PATIENCE: Duration = Duration::from_secs(5);

/// A read of a shelf ends after so many bytes.
const READ_BYTES: usize = 16 << 20;

/// Runs blocking work beside the executor.
pub(super) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|why| Err(Error::new(ErrorKind::Start, "looking into a store panicked").caused_by(why)))
}

/// Counts what is in a queue for a group. A group that does not exist yet would see all of it.
pub(super) fn inspect(place: &Place, group: &str, all: &Neighbourhoods) -> Result<Inspection, Error> {
    let store = Store::open(&place.path, Access::Read, all, PATIENCE)?;
    let path = store.path().to_owned();
    let others = store.read(|tx| other_owners(tx, -1))?;
    // What an ended owner holds is free for the next who looks.
    let ended: HashSet<i64> = others
        .into_iter()
        .filter(|other| matches!(owner::life(&path, &other.name), Life::Ended(_)))
        .map(|other| other.id)
        .collect();
    let counted = store.read(|tx| {
        let Some(queue) = find_queue(tx, &place.queue)? else { return Ok(None) };
        count(tx, queue, &place.queue, group, &ended).map(Some)
    })?;
    counted.ok_or_else(|| absent(place, &store))
}

fn absent(place: &Place, store: &Store) -> Error {
    Error::configuration(format!("queue '{}' does not exist in store '{}'", place.queue, store.path().display()))
}

fn count(
    tx: &Transaction<'_>,
    queue: i64,
    name: &str,
    group_name: &str,
    ended: &HashSet<i64>,
) -> rusqlite::Result<Inspection> {
    let statements = QueueStatements::of(queue);
    let group = find_group(tx, queue, group_name)?;
    let (mut waiting, mut delayed, mut in_flight) = (0u64, 0u64, 0u64);
    let mut cursor = 0;
    let mut oldest: Option<i64> = None;
    if let Some(group) = group {
        cursor = tx.query_row(sql::CURSOR, [group], |row| row.get(0))?;
        let mut statement = tx.prepare(sql::COUNT_PENDING)?;
        let mut rows = statement.query(params![group, wall_ms()])?;
        while let Some(row) = rows.next()? {
            let owner: Option<i64> = row.get(0)?;
            let many = row.get::<_, i64>(2)? as u64;
            match (owner, row.get::<_, bool>(1)?) {
                (Some(owner), _) if !ended.contains(&owner) => in_flight += many,
                (None, true) => delayed += many,
                _ => {
                    waiting += many;
                    oldest = oldest.into_iter().chain([row.get(3)?]).min();
                }
            }
        }
        let mut statement = tx.prepare(sql::RANGES_OF_OTHERS)?;
        let mut rows = statement.query([group, -1])?;
        while let Some(row) = rows.next()? {
            let done: Vec<u8> = row.get(2)?;
            let range = Range::read(row.get(0)?, row.get(1)?, &done);
            if ended.contains(&row.get(3)?) {
                waiting += range.open().count() as u64;
                oldest = oldest.into_iter().chain(range.open().next()).min();
            } else {
                in_flight += range.open().count() as u64;
            }
        }
    }
    let (fresh, lowest): (i64, Option<i64>) =
        tx.query_row(&statements.count_above, [cursor], |row| Ok((row.get(0)?, row.get(1)?)))?;
    waiting += fresh as u64;
    let oldest = oldest.into_iter().chain(lowest).min();
    let published: Option<i64> = match oldest {
        Some(id) => tx.query_row(&statements.published, [id], |row| row.get(0)).optional()?,
        None => None,
    };
    let dead = match find_queue(tx, &dead_queue(name, group_name))? {
        None => 0,
        Some(dead) => tx.query_row(&QueueStatements::of(dead).count_above, [0], |row| row.get::<_, i64>(0))?,
    };
    Ok(Inspection {
        queue: name.to_owned(),
        group: Some(group_name.to_owned()),
        waiting: Some(waiting),
        delayed: Some(delayed),
        in_flight: Some(in_flight),
        dead: Some(dead as u64),
        lag: Some(waiting + delayed + in_flight),
        oldest_age_ms: published.map(|at| u64::try_from(wall_ms() - at).unwrap_or(0)),
    })
}

/// A queue, read from its lowest message on.
pub(super) struct LocalShelf {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    store: Store,
    queue: i64,
    name: Arc<str>,
    /// Where the URL names a group that exists: only what it has not settled.
    group: Option<i64>,
    key: KeyFrom,
    statements: QueueStatements,
    after: i64,
}

impl LocalShelf {
    /// Opens a queue to look into. An absent store or queue is an error: nothing is made.
    pub(super) fn open(place: &Place, all: &Neighbourhoods) -> Result<Self, Error> {
        let store = Store::open(&place.path, Access::Write, all, PATIENCE)?;
        let found = store.read(|tx| {
            let Some(queue) = find_queue(tx, &place.queue)? else { return Ok(None) };
            let group = match &place.group {
                Some(group) => find_group(tx, queue, group)?,
                None => None,
            };
            Ok(Some((queue, group)))
        })?;
        let Some((queue, group)) = found else { return Err(absent(place, &store)) };
        let inner = Inner {
            store,
            queue,
            name: place.queue.as_str().into(),
            group,
            key: place.key.clone(),
            statements: QueueStatements::of(queue),
            after: 0,
        };
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }
}

impl Shelf for LocalShelf {
    fn read(&mut self, max: u32) -> BoxFuture<'_, Result<Slab, Error>> {
        let inner = self.inner.clone();
        Box::pin(beside(move || super::neighbours::lock(&inner).read(max)))
    }

    fn remove(&mut self, these: Vec<At>) -> BoxFuture<'_, Result<u64, Error>> {
        let inner = self.inner.clone();
        Box::pin(beside(move || super::neighbours::lock(&inner).remove(&these)))
    }
}

impl Inner {
    fn read(&mut self, max: u32) -> Result<Slab, Error> {
        let Self { store, name, group, key, statements, after, .. } = self;
        let (slab, reached) = store.read(|tx| {
            let cursor: Option<i64> = match *group {
                Some(group) => Some(tx.query_row(sql::CURSOR, [group], |row| row.get(0))?),
                None => None,
            };
            let mut statement = tx.prepare_cached(&statements.shelf)?;
            let mut rows = statement.query([*after, i64::MAX])?;
            let mut builder = SlabBuilder::new();
            let mut reached = *after;
            while let Some(row) = rows.next()? {
                if builder.len() as u32 >= max || builder.bytes() >= READ_BYTES {
                    break;
                }
                let stored = Stored::read(row)?;
                reached = stored.id;
                let settled = match (*group, cursor) {
                    (Some(group), Some(cursor)) if stored.id <= cursor => is_settled(tx, group, stored.id)?,
                    _ => false,
                };
                if !settled {
                    stored.push(key, &mut builder);
                }
            }
            Ok((builder.finish(name.clone()), reached))
        })?;
        *after = reached;
        Ok(slab)
    }

    fn remove(&mut self, these: &[At]) -> Result<u64, Error> {
        let (queue, statements) = (self.queue, &self.statements);
        self.store.write(true, |tx| {
            let mut removed = 0;
            for at in these {
                let id = at.position as i64;
                removed += tx.prepare_cached(&statements.delete)?.execute([id, id])?;
                tx.prepare_cached(sql::REMOVE_PENDING_EVERYWHERE)?.execute([queue, id])?;
            }
            Ok(removed as u64)
        })
    }
}

/// Whether a group has settled a message below its cursor.
fn is_settled(tx: &Transaction<'_>, group: i64, id: i64) -> rusqlite::Result<bool> {
    if tx.prepare_cached(sql::PENDING_BETWEEN)?.exists([group, id, id])? {
        return Ok(false);
    }
    Ok(!ranges_between(tx, group, id, id)?.iter().any(|range| range.holds(id)))
}
