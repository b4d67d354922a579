//! Plain values: what a message is, alone and in a batch.
//!
//! A [`Message`] owns its parts and is what a person builds by hand. Inside the framework messages travel in a
//! [`Slab`], one buffer for a whole batch, and a [`MessageRef`] looks at one of them without copying.

mod headers;
mod slab;

pub use headers::{Headers, HeadersRef};
pub(crate) use slab::ByteBudget;
pub use slab::{At, Head, MessageRef, Slab, SlabBuilder, key_hash};

use bytes::Bytes;

/// Header that carries a message's id; a durable store uses it to recognise a repeated publish.
pub const ID_HEADER: &str = "longshore-id";
/// Header in which a transport without keys of its own carries the key.
pub const KEY_HEADER: &str = "longshore-key";

/// One message with parts of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// What orders it: messages of one key are handled one after the other. Without a key it is ordered with no other.
    pub key: Option<Bytes>,
    /// What it says; `None` is a tombstone, which is not the same as an empty payload.
    pub payload: Option<Bytes>,
    /// Names and values, in order, repeats allowed.
    pub headers: Headers,
    /// When it was made, in milliseconds since 1970 UTC, where that is known.
    pub timestamp_ms: Option<i64>,
}

impl Message {
    /// A message with a payload and nothing else.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: Some(payload.into()), ..Self::default() }
    }

    /// A message without payload: "this key is gone".
    pub fn tombstone(key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// The same message with this key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same message with one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// The same message with an id, by which a durable store recognises a repeated publish.
    #[must_use]
    pub fn with_id(self, id: impl AsRef<str>) -> Self {
        self.with_header(ID_HEADER, id.as_ref())
    }
}
