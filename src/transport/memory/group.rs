//! What one group has of a queue: messages in order, each waiting, delayed, delivered or settled.
//!
//! Published slabs are kept as they are. Beside each stands one number a message: who has it. Nothing is allocated,
//! hashed or moved for a message that is delivered once and settled.

use super::reading::Reading;
use crate::message::{At, Head, Slab, SlabBuilder};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use tokio::time::Instant;

/// Most messages of one delivered batch.
pub(super) const BATCH: u32 = 256;
/// A published batch of at least so many messages is delivered on its own bytes; smaller ones are copied together.
const WORTH_SHARING: usize = 32;
/// A batch that is so many batches behind the newest delivered one, or that holds more than this part of the queue's
/// bytes, is copied down to what is unsettled of it …
const LAG: usize = 16;
const LARGE_PART: u64 = 32;
/// … once that is at most this part of it.
const SPARSE: usize = 8;

/// Who has a message: the epoch of the source it was delivered to, or one of these.
const WAITING: u32 = 0;
const SETTLED: u32 = u32::MAX;
const DELAYED: u32 = u32::MAX - 1;
/// Epochs of sources are at most this.
pub(super) const LAST_EPOCH: u32 = u32::MAX - 2;

/// Messages that were published together.
struct Chunk {
    /// Position of its first message.
    first: u64,
    /// How many positions it covers.
    covers: u32,
    /// For each message that is left in `slab` its position, counted from `first`; all of them where absent.
    left_over: Option<Box<[u32]>>,
    slab: Arc<Slab>,
    owners: Vec<u32>,
    /// Messages that are not settled.
    unsettled: u32,
}

impl Chunk {
    fn slot(&self, position: u64) -> Option<usize> {
        let offset = position.checked_sub(self.first).filter(|offset| *offset < u64::from(self.covers))? as u32;
        match &self.left_over {
            None => Some(offset as usize),
            Some(offsets) => offsets.binary_search(&offset).ok(),
        }
    }

    fn position(&self, slot: usize) -> u64 {
        self.first + self.left_over.as_ref().map_or(slot as u64, |offsets| u64::from(offsets[slot]))
    }

    /// Copies what is unsettled into a slab of its own, so that the rest is freed.
    fn shrink(&mut self) {
        let mut kept = SlabBuilder::with_capacity(self.unsettled as usize, 0);
        let mut offsets = Vec::with_capacity(self.unsettled as usize);
        let mut owners = Vec::with_capacity(self.unsettled as usize);
        for (slot, owner) in self.owners.iter().copied().enumerate().filter(|(_, owner)| *owner != SETTLED) {
            kept.push_ref(self.slab.get(slot as u32));
            offsets.push((self.position(slot) - self.first) as u32);
            owners.push(owner);
        }
        self.slab = Arc::new(kept.finish(self.slab.topic().clone()));
        self.left_over = Some(offsets.into());
        self.owners = owners;
    }
}

/// What is known of a message that was delivered before.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    attempts: u32,
    unclean: u32,
    marks: u32,
}

/// A source that consumes as this group.
pub(super) struct Member {
    pub(super) epoch: u32,
    pub(super) waker: Option<Waker>,
}

/// What a source may take now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub(super) messages: u32,
    /// What it was told last, before deliveries used it up.
    pub(super) told: u32,
    pub(super) bytes: u64,
    /// Whether it has nothing unsettled, so that one message over its bytes may come.
    pub(super) alone: bool,
}

/// A batch for a source, and what it uses up of its demand.
pub(super) struct Taken {
    pub(super) slab: Slab,
    pub(super) bytes: u64,
}

/// One group of a queue.
#[derive(Default)]
pub(super) struct Group {
    /// `None` until the first source comes: what was published before waits for it.
    pub(super) name: Option<Arc<str>>,
    pub(super) members: Vec<Member>,
    chunks: VecDeque<Chunk>,
    /// Chunks before this one were delivered wholly …
    cursor: usize,
    /// … and of this one the messages before this slot.
    cursor_slot: usize,
    /// Messages beyond the cursor.
    fresh: u64,
    /// Messages before the cursor that wait again.
    again: BTreeSet<u64>,
    /// Messages before the cursor that wait for their time.
    delayed: BTreeSet<(Instant, u64)>,
    known: BTreeMap<u64, Known>,
    /// Messages that are not settled, and the bytes of the slabs they lie in.
    messages: u64,
    bytes: u64,
    /// The chunk of the last settlement: the next one is most often beside it.
    hint: usize,
    /// Owner lists to be used again.
    spare: Vec<Vec<u32>>,
}

impl Group {
    /// Messages that are not settled.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes of the slabs in which unsettled messages lie.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Messages that could be delivered now.
    pub(super) fn waiting(&self) -> u64 {
        self.fresh + self.again.len() as u64
    }

    /// Messages that wait for their time.
    pub(super) fn delayed(&self) -> u64 {
        self.delayed.len() as u64
    }

    /// Takes in a published batch, which begins at this position.
    pub(super) fn push(&mut self, slab: Arc<Slab>, first: u64) {
        let mut owners = self.spare.pop().unwrap_or_default();
        owners.resize(slab.len(), WAITING);
        let messages = slab.len() as u32;
        self.messages += u64::from(messages);
        self.fresh += u64::from(messages);
        self.bytes += slab.size();
        self.chunks.push_back(Chunk { first, covers: messages, left_over: None, slab, owners, unsettled: messages });
    }

    /// When the next delayed message is due, after those that are due now have joined what waits.
    pub(super) fn release_due(&mut self) -> Option<Instant> {
        if self.delayed.is_empty() {
            return None;
        }
        let now = Instant::now();
        while let Some((due, position)) = self.delayed.first().copied() {
            if due > now {
                return Some(due);
            }
            self.delayed.pop_first();
            self.set_owner(position, WAITING);
            self.again.insert(position);
        }
        None
    }

    /// Delivers the next messages in order to the source of that epoch, as far as its demand goes.
    pub(super) fn take(
        &mut self,
        epoch: u32,
        topic: &Arc<str>,
        demand: Demand,
        reading: &Reading,
        part_of: u64,
    ) -> Option<Taken> {
        if demand.messages == 0 {
            return None;
        }
        if !self.again.is_empty() {
            return self.take_again(epoch, topic, demand, reading);
        }
        let taken = match self.chunks.get(self.cursor) {
            None => None,
            Some(chunk)
                if reading.takes_as_is(&chunk.slab)
                    && chunk.unsettled as usize == chunk.owners.len()
                    && (chunk.owners.len() - self.cursor_slot >= WORTH_SHARING
                        || self.cursor + 1 == self.chunks.len()) =>
            {
                self.take_shared(epoch, topic, demand)
            }
            Some(_) => self.take_copied(epoch, topic, demand, reading),
        };
        // One message of an old batch that is stuck must not hold the rest of it.
        if let Some(lagging) = self.cursor.checked_sub(LAG) {
            self.shrink_if_sparse(lagging, part_of);
        }
        taken
    }

    fn take_shared(&mut self, epoch: u32, topic: &Arc<str>, demand: Demand) -> Option<Taken> {
        let chunk = &mut self.chunks[self.cursor];
        let start = self.cursor_slot;
        let rest = (chunk.owners.len() - start).min(BATCH as usize);
        if (demand.messages as usize) < rest && demand.told as usize >= rest {
            // The rest of a demand that whole batches used up: the next one takes this batch whole.
            return None;
        }
        let most = (chunk.owners.len() - start).min(demand.messages.min(BATCH) as usize);
        let (count, bytes) = if most == chunk.owners.len() && chunk.slab.buffer_len() <= demand.bytes {
            (most, chunk.slab.buffer_len())
        } else {
            let mut bytes = 0;
            let mut count = 0;
            while count < most {
                let size = chunk.slab.get((start + count) as u32).size() as u64;
                if !fits(demand, bytes, size, count) {
                    break;
                }
                bytes += size;
                count += 1;
            }
            (count, bytes)
        };
        if count == 0 {
            return None;
        }
        let first = chunk.first + start as u64;
        let slab = chunk.slab.share(start as u32..(start + count) as u32, topic.clone(), |index, head| {
            head.at = At { position: first + u64::from(index), epoch, partition: 0 };
            head.attempts = 0;
            head.unclean = 0;
            head.marks = 0;
        });
        chunk.owners[start..start + count].fill(epoch);
        self.fresh -= count as u64;
        self.cursor_slot += count;
        self.step_over();
        Some(Taken { slab, bytes })
    }

    /// Several small batches become one, and what the source must change is changed.
    fn take_copied(&mut self, epoch: u32, topic: &Arc<str>, demand: Demand, reading: &Reading) -> Option<Taken> {
        let mut out = SlabBuilder::new();
        let mut bytes = 0;
        while let Some(chunk) = self.chunks.get_mut(self.cursor) {
            let large = chunk.owners.len() - self.cursor_slot >= WORTH_SHARING && reading.takes_as_is(&chunk.slab);
            let full = out.len() >= demand.messages.min(BATCH) as usize;
            // A large batch after small ones goes by itself; one with gaps comes here first.
            if full || (large && !out.is_empty()) {
                break;
            }
            let slot = self.cursor_slot;
            if chunk.owners[slot] == WAITING {
                let message = chunk.slab.get(slot as u32);
                let size = message.size() as u64;
                if !fits(demand, bytes, size, out.len()) {
                    break;
                }
                bytes += size;
                let at = At { position: chunk.position(slot), epoch, partition: 0 };
                deliver(reading.push(&mut out, message), at, Known::default());
                chunk.owners[slot] = epoch;
                self.fresh -= 1;
            }
            self.cursor_slot += 1;
            self.step_over();
        }
        (!out.is_empty()).then(|| Taken { slab: out.finish(topic.clone()), bytes })
    }

    fn take_again(&mut self, epoch: u32, topic: &Arc<str>, demand: Demand, reading: &Reading) -> Option<Taken> {
        let mut out = SlabBuilder::new();
        let mut bytes = 0;
        while let Some(position) = self.again.first().copied() {
            let (chunk, slot) = self.find(position).expect("a message that waits again is not settled");
            let message = self.chunks[chunk].slab.get(slot as u32);
            let size = message.size() as u64;
            if out.len() >= demand.messages.min(BATCH) as usize || !fits(demand, bytes, size, out.len()) {
                break;
            }
            bytes += size;
            let known = self.known.get(&position).copied().unwrap_or_default();
            deliver(reading.push(&mut out, message), At { position, epoch, partition: 0 }, known);
            self.chunks[chunk].owners[slot] = epoch;
            self.again.pop_first();
        }
        (!out.is_empty()).then(|| Taken { slab: out.finish(topic.clone()), bytes })
    }

    fn step_over(&mut self) {
        if self.chunks.get(self.cursor).is_some_and(|chunk| self.cursor_slot == chunk.owners.len()) {
            self.cursor += 1;
            self.cursor_slot = 0;
        }
    }

    /// Settles a message that the source of that epoch has; whether it had it.
    pub(super) fn settle(&mut self, position: u64, epoch: u32, part_of: u64) -> bool {
        match self.find(position) {
            Some((chunk, slot)) if self.chunks[chunk].owners[slot] == epoch => {
                self.finish(chunk, slot, part_of);
                true
            }
            _ => false,
        }
    }

    /// Makes a message wait until then; whether the source of that epoch had it.
    pub(super) fn delay(&mut self, position: u64, epoch: u32, due: Instant, attempts: u32) -> bool {
        if !self.owns(position, epoch) {
            return false;
        }
        self.set_owner(position, DELAYED);
        self.known.entry(position).or_default().attempts = attempts;
        self.delayed.insert((due, position));
        true
    }

    /// Puts a message back in its old place; whether the source of that epoch had it.
    pub(super) fn put_back(&mut self, position: u64, epoch: u32) -> bool {
        let had = self.owns(position, epoch);
        if had {
            if let Some(known) = self.known.get_mut(&position) {
                // Whoever gives it back is alive, whatever became of the run.
                known.marks = 0;
            }
            self.set_owner(position, WAITING);
            self.again.insert(position);
        }
        had
    }

    /// Puts back all that the source of that epoch has, and how many that were. `unclean`: it did not give them back
    /// by itself.
    pub(super) fn put_back_all(&mut self, epoch: u32, unclean: bool) -> u64 {
        let before = self.again.len();
        for chunk in self.chunks.iter_mut().take(self.cursor + 1) {
            for slot in 0..chunk.owners.len() {
                if chunk.owners[slot] == epoch {
                    chunk.owners[slot] = WAITING;
                    let position = chunk.position(slot);
                    self.again.insert(position);
                    if unclean {
                        let known = self.known.entry(position).or_default();
                        known.unclean = known.unclean.saturating_add(1);
                    }
                }
            }
        }
        (self.again.len() - before) as u64
    }

    /// Counts a handler start of a message that the source of that epoch has.
    pub(super) fn mark(&mut self, position: u64, epoch: u32) {
        if self.owns(position, epoch) {
            let known = self.known.entry(position).or_default();
            known.attempts = known.attempts.saturating_add(1);
            known.marks = known.marks.saturating_add(1);
        }
    }

    /// Copies messages that are not settled, from this position on, at most so many.
    pub(super) fn look(&self, from: u64, max: u32, topic: &Arc<str>) -> Slab {
        let mut out = SlabBuilder::new();
        'chunks: for chunk in &self.chunks {
            for slot in 0..chunk.owners.len() {
                let position = chunk.position(slot);
                if position < from || chunk.owners[slot] == SETTLED {
                    continue;
                }
                if out.len() >= max as usize {
                    break 'chunks;
                }
                let known = self.known.get(&position).copied().unwrap_or_default();
                deliver(out.push_ref(chunk.slab.get(slot as u32)), At { position, epoch: 0, partition: 0 }, known);
            }
        }
        out.finish(topic.clone())
    }

    /// Takes off a message that no source has; whether it was there.
    pub(super) fn remove(&mut self, position: u64, part_of: u64) -> bool {
        let Some((chunk, slot)) = self.find(position) else { return false };
        match self.chunks[chunk].owners[slot] {
            WAITING if !self.again.remove(&position) => self.fresh -= 1,
            WAITING => {}
            DELAYED => self.delayed.retain(|(_, delayed)| *delayed != position),
            _ => return false,
        }
        self.finish(chunk, slot, part_of);
        true
    }

    fn owns(&mut self, position: u64, epoch: u32) -> bool {
        self.find(position).is_some_and(|(chunk, slot)| self.chunks[chunk].owners[slot] == epoch)
    }

    fn set_owner(&mut self, position: u64, owner: u32) {
        let (chunk, slot) = self.find(position).expect("only what is not settled changes its owner");
        self.chunks[chunk].owners[slot] = owner;
    }

    fn find(&mut self, position: u64) -> Option<(usize, usize)> {
        for near in [self.hint, self.hint + 1] {
            if let Some(slot) = self.chunks.get(near).and_then(|chunk| chunk.slot(position)) {
                self.hint = near;
                return Some((near, slot));
            }
        }
        let after = self.chunks.partition_point(|chunk| chunk.first <= position);
        let found = after.checked_sub(1)?;
        self.hint = found;
        self.chunks[found].slot(position).map(|slot| (found, slot))
    }

    fn finish(&mut self, at: usize, slot: usize, part_of: u64) {
        let chunk = &mut self.chunks[at];
        chunk.owners[slot] = SETTLED;
        chunk.unsettled -= 1;
        self.messages -= 1;
        if !self.known.is_empty() {
            self.known.remove(&chunk.position(slot));
        }
        if chunk.unsettled > 0 {
            self.shrink_if_sparse(at, part_of);
            return;
        }
        // Removed even from the middle: behind a stuck head the list must not grow by what is settled.
        let mut gone = self.chunks.remove(at).expect("it was just looked at");
        self.bytes -= gone.slab.size();
        if at < self.cursor {
            self.cursor -= 1;
        } else if at == self.cursor {
            self.cursor_slot = 0;
        }
        if self.spare.len() < LAG {
            gone.owners.clear();
            self.spare.push(gone.owners);
        }
    }

    fn shrink_if_sparse(&mut self, at: usize, part_of: u64) {
        let chunk = &mut self.chunks[at];
        let sparse = chunk.unsettled as usize * SPARSE <= chunk.owners.len();
        if sparse && at < self.cursor && (at + LAG <= self.cursor || chunk.slab.size() > part_of / LARGE_PART) {
            let before = chunk.slab.size();
            chunk.shrink();
            self.bytes = self.bytes - before + chunk.slab.size();
        }
    }
}

fn fits(demand: Demand, used: u64, size: u64, taken: usize) -> bool {
    used + size <= demand.bytes || (taken == 0 && demand.alone)
}

fn deliver(head: &mut Head, at: At, known: Known) {
    head.at = at;
    head.attempts = known.attempts;
    head.unclean = known.unclean;
    head.marks = known.marks;
}
