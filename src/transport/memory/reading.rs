//! How a source changes what it reads: its key, and payloads that are too large.

use crate::message::{Head, Headers, MessageRef, Slab, SlabBuilder};
use crate::transport::{KeyFrom, OVERSIZED_HEADER};

/// What a source does to each message before it delivers it.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) key: KeyFrom,
    pub(super) max_message: u64,
}

impl Reading {
    /// Whether nothing of this batch has to be changed.
    pub(super) fn takes_as_is(&self, slab: &Slab) -> bool {
        self.key == KeyFrom::Message && slab.buffer_len() <= self.max_message
    }

    /// Copies a message to the end of `out` as the source delivers it.
    pub(super) fn push<'a>(&self, out: &'a mut SlabBuilder, message: MessageRef<'_>) -> &'a mut Head {
        let size = message.payload().map_or(0, <[u8]>::len) as u64;
        let key = self.key.find(message.key(), None, message.headers(), message.payload());
        if size <= self.max_message {
            return out.push(key.as_deref(), message.payload(), message.headers(), message.timestamp_ms());
        }
        let mut headers: Headers = message.headers().to_headers();
        headers.set(OVERSIZED_HEADER, size.to_string());
        out.push(key.as_deref(), Some(b""), headers.as_ref(), message.timestamp_ms())
    }
}
