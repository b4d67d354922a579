//! Rows of a queue's table, as messages.

use crate::message::{Head, HeadersRef, SlabBuilder};
use crate::transport::{KeyFrom, OVERSIZED_HEADER};
use rusqlite::Row;
use rusqlite::types::ValueRef;

/// The bytes of a column, or `None` where it is NULL.
pub(super) fn bytes<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<Option<&'a [u8]>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => Some(bytes),
        _ => None,
    })
}

/// A row of `fresh`, `due` or `shelf`, read in place.
pub(super) struct Stored<'a> {
    pub(super) id: i64,
    pub(super) attempts: u32,
    pub(super) unclean: u32,
    pub(super) marks: u32,
    key: Option<&'a [u8]>,
    headers: HeadersRef<'a>,
    timestamp_ms: Option<i64>,
    /// Size of the payload, also where it is over the limit and left out.
    payload_len: Option<i64>,
    payload: Option<&'a [u8]>,
}

impl<'a> Stored<'a> {
    pub(super) fn read(row: &'a Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            attempts: row.get(1)?,
            unclean: row.get(2)?,
            marks: row.get(3)?,
            key: bytes(row, 4)?,
            headers: HeadersRef::from_encoded(bytes(row, 5)?.unwrap_or_default()),
            timestamp_ms: row.get(6)?,
            payload_len: row.get(7)?,
            payload: bytes(row, 8)?,
        })
    }

    /// Bytes of key, payload and headers.
    pub(super) fn size(&self) -> u64 {
        let key = self.key.map_or(0, <[u8]>::len);
        (key + self.payload.map_or(0, <[u8]>::len) + self.headers.encoded().len()) as u64
    }

    /// Adds it to a slab under the key that `from` finds.
    pub(super) fn push<'b>(&self, from: &KeyFrom, into: &'b mut SlabBuilder) -> &'b mut Head {
        let key = from.find(self.key, None, self.headers, self.payload);
        let head = match (self.payload, self.payload_len) {
            (None, Some(size)) => {
                let mut headers = self.headers.to_headers();
                headers.set(OVERSIZED_HEADER, size.to_string());
                into.push(key.as_deref(), None, headers.as_ref(), self.timestamp_ms)
            }
            _ => into.push(key.as_deref(), self.payload, self.headers, self.timestamp_ms),
        };
        head.at.position = self.id as u64;
        head.attempts = self.attempts;
        head.unclean = self.unclean;
        head.marks = self.marks;
        head
    }

    /// The key that `from` finds, hashed; 0 where there is none.
    pub(super) fn key_hash(&self, from: &KeyFrom) -> u64 {
        from.find(self.key, None, self.headers, self.payload).map_or(0, |key| crate::message::key_hash(&key))
    }
}
