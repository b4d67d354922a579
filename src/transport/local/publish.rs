//! Messages into a queue's table.

use super::owner::wall_ms;
use super::statements::{self as sql, QueueStatements};
use crate::failure::Failure;
use crate::message::{ID_HEADER, Slab};
use rusqlite::{ErrorCode, Transaction, params};

/// What the store refuses for good: index and reason.
pub(super) type Refused = Vec<(u32, Failure)>;

/// Inserts the messages of some slabs in order; for each slab what was refused. An id that waits or is in flight is
/// there already, which is as good as stored.
pub(super) fn publish<'a>(
    tx: &Transaction<'_>,
    queue: i64,
    statements: &QueueStatements,
    slabs: impl IntoIterator<Item = &'a Slab>,
) -> rusqlite::Result<Vec<Refused>> {
    let first: i64 = tx.prepare_cached(sql::NEXT)?.query_row([queue], |row| row.get(0))?;
    let mut next = first;
    let now = wall_ms();
    let mut insert = tx.prepare_cached(&statements.insert)?;
    let mut insert_once = tx.prepare_cached(&statements.insert_once)?;
    let mut all = Vec::new();
    for slab in slabs {
        let mut refused = Refused::new();
        for (index, message) in slab.iter().enumerate() {
            let headers = message.headers();
            let encoded = (!headers.is_empty()).then(|| headers.encoded());
            let (key, payload, made) = (message.key(), message.payload(), message.timestamp_ms());
            let stored = match headers.text(ID_HEADER) {
                None => insert.execute(params![next, key, payload, encoded, made, now]),
                Some(uid) => insert_once.execute(params![next, key, payload, encoded, made, now, uid]),
            };
            match stored {
                Ok(rows) => next += rows as i64,
                Err(why) if why.sqlite_error_code() == Some(ErrorCode::TooBig) => {
                    refused.push((index as u32, Failure::reject(why).classed("oversized")));
                }
                Err(why) => return Err(why),
            }
        }
        all.push(refused);
    }
    if next > first {
        tx.prepare_cached(sql::SET_NEXT)?.execute([queue, next])?;
    }
    Ok(all)
}
