//! A message on its way through a handler.

use crate::engine::attempt::Cause;
use crate::message::{At, HeadersRef, MessageRef, Slab};
use bytes::Bytes;
use std::sync::Arc;

/// A message that a worker was given to handle: shared with its batch, cheap to clone.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub(crate) slab: Arc<Slab>,
    pub(crate) index: u32,
    pub(crate) attempt: u32,
    pub(crate) cause: Cause,
}

impl Delivery {
    /// The message, read in place.
    #[inline]
    pub fn message(&self) -> MessageRef<'_> {
        self.slab.get(self.index)
    }

    /// The key, where it has one.
    #[inline]
    pub fn key(&self) -> Option<&[u8]> {
        self.message().key()
    }

    /// The payload; `None` is a tombstone.
    #[inline]
    pub fn payload(&self) -> Option<&[u8]> {
        self.message().payload()
    }

    /// The payload without a copy; holding it keeps the whole batch in memory.
    pub fn payload_bytes(&self) -> Option<Bytes> {
        self.slab.payload_bytes(self.index)
    }

    /// The headers, read when looked at.
    pub fn headers(&self) -> HeadersRef<'_> {
        self.message().headers()
    }

    /// The queue or topic it came from.
    pub fn topic(&self) -> &Arc<str> {
        self.slab.topic()
    }

    /// Which handler start of this message this is, from 1. Exact while one process holds it; across a crash at least
    /// this many.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Where it came from.
    pub fn at(&self) -> At {
        self.slab.heads()[self.index as usize].at
    }
}
