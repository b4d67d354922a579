//! A batch of messages in one buffer.
//!
//! One allocation for many messages is what makes handing them between threads as cheap as polling them: an owned
//! copy for each is bought in one thread and freed in another. A slab lives until its last delivery is gone, so a
//! message that has to wait is copied into a slab of its own ([`Slab::only`]).

use super::{HeadersRef, ID_HEADER, Message};
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a delivery came from; all that its source needs to settle it.
///
/// `epoch` is the ownership under which it was delivered: a channel, an assignment, a claim. A settlement of an
/// epoch that is over is stale and changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct At {
    /// Delivery tag, offset, row or line: unique within epoch and partition, and rising in the source's order.
    pub position: u64,
    /// The ownership it was delivered under; rises with each new one.
    pub epoch: u32,
    /// The partition, 0 where the source has none.
    pub partition: u32,
}

/// A range of a slab's bytes; absent where a message has no such part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    len: u32,
}

impl Span {
    const ABSENT: Self = Self { start: 0, len: u32::MAX };

    fn get(self, bytes: &[u8]) -> Option<&[u8]> {
        (self != Self::ABSENT).then(|| &bytes[self.start as usize..][..self.len as usize])
    }
}

/// What is known of one message of a slab without looking at its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    key: Span,
    payload: Span,
    headers: Span,
    /// Hash of the key, never 0; 0 where there is no key.
    pub key_hash: u64,
    /// Where it came from.
    pub at: At,
    /// Milliseconds since 1970 UTC; `i64::MIN` where unknown.
    timestamp_ms: i64,
    /// Handler starts that the source knows of, before this delivery.
    pub attempts: u32,
    /// Times an owner of this message ended without giving it back: from 2 on it is a suspect and runs alone.
    pub unclean: u32,
}

impl Head {
    fn spans(&self) -> [&Span; 3] {
        [&self.key, &self.payload, &self.headers]
    }

    fn spans_mut(&mut self) -> [&mut Span; 3] {
        [&mut self.key, &mut self.payload, &mut self.headers]
    }
}

/// Hash of a key as the scheduler uses it: never 0, the same all over one process, of no meaning outside it.
pub fn key_hash(key: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // A fixed seed: sources, sinks and lanes must agree on the number within a process.
    let mut hasher = foldhash::fast::FixedState::with_seed(0x6c6f_6e67_7368_6f72).build_hasher();
    hasher.write(key);
    hasher.finish() | 1
}

/// Messages of one batch on one shared buffer.
pub struct Slab {
    bytes: Bytes,
    heads: Box<[Head]>,
    topic: Arc<str>,
    charge: Option<Charge>,
}

impl Slab {
    /// How many messages.
    #[inline]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether it holds none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The queue or topic all of them came from.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// What is known of each message.
    #[inline]
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// Bytes that this slab keeps in memory.
    #[inline]
    pub fn size(&self) -> u64 {
        (self.bytes.len() + self.heads.len() * size_of::<Head>()) as u64
    }

    /// One message. Panics when `index` is not below [`Slab::len`].
    #[inline]
    pub fn get(&self, index: u32) -> MessageRef<'_> {
        MessageRef { slab: self, head: &self.heads[index as usize] }
    }

    /// Every message in order.
    pub fn iter(&self) -> impl Iterator<Item = MessageRef<'_>> {
        self.heads.iter().map(|head| MessageRef { slab: self, head })
    }

    /// A slab that holds a copy of this one message alone, so that the rest of the batch can be freed.
    pub fn only(&self, index: u32) -> Slab {
        let mut one = SlabBuilder::with_capacity(1, 0);
        one.push_ref(self.get(index));
        let mut one = one.finish(self.topic.clone());
        if let Some(charge) = &self.charge {
            one.charge_to(charge.budget.clone());
        }
        one
    }

    /// A slab of these messages on the same bytes, none of which are copied; each head passes through `each` with its
    /// index in the new slab. It is charged to no budget, and keeps the bytes alive as this one does.
    pub(crate) fn share(&self, range: Range<u32>, topic: Arc<str>, mut each: impl FnMut(u32, &mut Head)) -> Slab {
        let whole = range.len() == self.heads.len();
        let mut heads: Box<[Head]> = self.heads[range.start as usize..range.end as usize].into();
        let mut bytes = self.bytes.clone();
        if !whole {
            // Narrowed to what these messages use, so that a part of a batch is not charged as the whole.
            let spans = || heads.iter().flat_map(Head::spans).filter(|span| **span != Span::ABSENT);
            let start = spans().map(|span| span.start).min().unwrap_or(0);
            let end = spans().map(|span| span.start + span.len).max().unwrap_or(start);
            bytes = bytes.slice(start as usize..end as usize);
            for span in heads.iter_mut().flat_map(Head::spans_mut).filter(|span| **span != Span::ABSENT) {
                span.start -= start;
            }
        }
        for (index, head) in heads.iter_mut().enumerate() {
            each(index as u32, head);
        }
        Slab { bytes, heads, topic, charge: None }
    }

    /// Bytes of the buffer behind it, without heads.
    pub(crate) fn buffer_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether a budget counts it.
    pub(crate) fn is_charged(&self) -> bool {
        self.charge.is_some()
    }

    /// The payload as shared bytes, without a copy; keeps the whole slab alive.
    #[inline]
    pub fn payload_bytes(&self, index: u32) -> Option<Bytes> {
        let span = self.heads[index as usize].payload;
        (span != Span::ABSENT).then(|| self.bytes.slice(span.start as usize..(span.start + span.len) as usize))
    }

    /// Counts this slab against a budget until it is dropped.
    pub(crate) fn charge_to(&mut self, budget: Arc<ByteBudget>) {
        let bytes = self.size();
        budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.charge = Some(Charge { budget, bytes });
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab")
            .field("topic", &self.topic)
            .field("messages", &self.len())
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// Bytes of slabs that are alive for one worker.
#[derive(Debug, Default)]
pub(crate) struct ByteBudget {
    used: AtomicU64,
    freed: tokio::sync::Notify,
}

impl ByteBudget {
    /// Bytes alive now.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Waits until some slab is dropped; remembers one drop that came before the call.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }
}

struct Charge {
    budget: Arc<ByteBudget>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.freed.notify_one();
    }
}

/// One message of a slab, read in place.
#[derive(Clone, Copy)]
pub struct MessageRef<'a> {
    slab: &'a Slab,
    head: &'a Head,
}

impl<'a> MessageRef<'a> {
    /// What orders it.
    #[inline]
    pub fn key(self) -> Option<&'a [u8]> {
        self.head.key.get(&self.slab.bytes)
    }

    /// What it says; `None` is a tombstone.
    #[inline]
    pub fn payload(self) -> Option<&'a [u8]> {
        self.head.payload.get(&self.slab.bytes)
    }

    /// Its headers, read when looked at.
    #[inline]
    pub fn headers(self) -> HeadersRef<'a> {
        HeadersRef::from_encoded(self.head.headers.get(&self.slab.bytes).unwrap_or_default())
    }

    /// The id that its publisher gave it.
    pub fn id(self) -> Option<&'a str> {
        self.headers().text(ID_HEADER)
    }

    /// When it was made, in milliseconds since 1970 UTC.
    pub fn timestamp_ms(self) -> Option<i64> {
        (self.head.timestamp_ms != i64::MIN).then_some(self.head.timestamp_ms)
    }

    /// The queue or topic it came from.
    pub fn topic(self) -> &'a Arc<str> {
        &self.slab.topic
    }

    /// What is known of it without its bytes.
    #[inline]
    pub fn head(self) -> &'a Head {
        self.head
    }

    /// Bytes of key, payload and headers.
    #[inline]
    pub fn size(self) -> usize {
        self.key().map_or(0, <[u8]>::len) + self.payload().map_or(0, <[u8]>::len) + self.headers().encoded().len()
    }

    /// A message of its own, copied.
    pub fn to_message(self) -> Message {
        Message {
            key: self.key().map(Bytes::copy_from_slice),
            payload: self.payload().map(Bytes::copy_from_slice),
            headers: self.headers().to_headers(),
            timestamp_ms: self.timestamp_ms(),
        }
    }
}

impl fmt::Debug for MessageRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageRef")
            .field("topic", self.topic())
            .field("at", &self.head.at)
            .field("key", &self.key().map(|key| key.escape_ascii().to_string()))
            .field("payload_len", &self.payload().map(<[u8]>::len))
            .finish()
    }
}

/// Collects messages into one buffer. [`SlabBuilder::finish`] makes it a [`Slab`].
#[derive(Debug, Default)]
pub struct SlabBuilder {
    bytes: BytesMut,
    heads: Vec<Head>,
}

impl SlabBuilder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty one with room for so many messages and bytes.
    pub fn with_capacity(messages: usize, bytes: usize) -> Self {
        Self { bytes: BytesMut::with_capacity(bytes), heads: Vec::with_capacity(messages) }
    }

    /// How many messages are in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether it holds none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Bytes of what is in it.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn put(&mut self, part: Option<&[u8]>) -> Span {
        let Some(part) = part else { return Span::ABSENT };
        let start = self.bytes.len() as u32;
        self.bytes.put_slice(part);
        Span { start, len: part.len() as u32 }
    }

    /// Adds a message from its parts; the head that comes back takes the rest of what its source knows.
    ///
    /// Panics when the buffer would grow past 4 GiB, which `max_message` and the batch bounds forbid.
    #[inline]
    pub fn push(
        &mut self,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: HeadersRef<'_>,
        timestamp_ms: Option<i64>,
    ) -> &mut Head {
        let headers = Some(headers.encoded()).filter(|encoded| !encoded.is_empty());
        let adds = key.map_or(0, <[u8]>::len) + payload.map_or(0, <[u8]>::len) + headers.map_or(0, <[u8]>::len);
        assert!(self.bytes.len() + adds < u32::MAX as usize, "a batch stays below 4 GiB");
        let head = Head {
            key: self.put(key),
            payload: self.put(payload),
            headers: self.put(headers),
            key_hash: key.map_or(0, key_hash),
            at: At { position: self.heads.len() as u64, epoch: 0, partition: 0 },
            timestamp_ms: timestamp_ms.unwrap_or(i64::MIN),
            attempts: 0,
            unclean: 0,
        };
        self.heads.push(head);
        self.heads.last_mut().expect("one was just pushed")
    }

    /// Adds a message that has parts of its own.
    pub fn push_message(&mut self, message: &Message) -> &mut Head {
        self.push(message.key.as_deref(), message.payload.as_deref(), message.headers.as_ref(), message.timestamp_ms)
    }

    /// Adds a copy of a message of another slab, with all that is known of it.
    pub fn push_ref(&mut self, message: MessageRef<'_>) -> &mut Head {
        let known = *message.head();
        let head = self.push(message.key(), message.payload(), message.headers(), message.timestamp_ms());
        *head = Head { key: head.key, payload: head.payload, headers: head.headers, ..known };
        head
    }

    /// The slab of what was pushed.
    pub fn finish(self, topic: Arc<str>) -> Slab {
        Slab { bytes: self.bytes.freeze(), heads: self.heads.into_boxed_slice(), topic, charge: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Slab {
        let mut builder = SlabBuilder::new();
        builder.push_message(&Message::new("one").with_key("k").with_header("h", "v"));
        builder.push_message(&Message::tombstone("gone")).at = At { position: 7, epoch: 2, partition: 3 };
        builder.push_message(&Message::new(""));
        builder.finish("orders".into())
    }

    #[test]
    fn messages_come_back_as_they_were_put_in() {
        let slab = sample();
        assert_eq!(slab.get(0).to_message(), Message::new("one").with_key("k").with_header("h", "v"));
        assert_eq!(slab.get(1).to_message(), Message::tombstone("gone"));
    }

    #[test]
    fn a_tombstone_is_not_an_empty_payload() {
        let slab = sample();
        assert_eq!((slab.get(1).payload(), slab.get(2).payload()), (None, Some(b"".as_slice())));
    }

    #[test]
    fn a_part_that_is_shared_shows_the_same_messages_and_no_more_bytes() {
        let slab = sample();
        for (start, end) in [(0, 3), (0, 1), (1, 2), (1, 3), (2, 3), (1, 1)] {
            let part = slab.share(start..end, "other".into(), |index, head| head.at.position = 100 + u64::from(index));
            let wanted: Vec<Message> = (start..end).map(|index| slab.get(index).to_message()).collect();
            assert_eq!(part.iter().map(MessageRef::to_message).collect::<Vec<_>>(), wanted);
            assert!(part.iter().zip(100..).all(|(message, at)| message.head().at.position == at));
            assert_eq!(part.buffer_len() as usize, part.iter().map(MessageRef::size).sum::<usize>());
        }
    }

    #[test]
    fn a_message_copied_out_keeps_what_is_known_of_it_and_frees_the_batch() {
        let budget = Arc::new(ByteBudget::default());
        let mut slab = sample();
        slab.charge_to(budget.clone());
        let whole = budget.used();
        let one = slab.only(1);
        assert_eq!(one.get(0).head().at, At { position: 7, epoch: 2, partition: 3 });
        assert_eq!(one.get(0).head().key_hash, key_hash(b"gone"));
        drop(slab);
        assert!(budget.used() > 0 && budget.used() < whole);
        drop(one);
        assert_eq!(budget.used(), 0);
    }
}
