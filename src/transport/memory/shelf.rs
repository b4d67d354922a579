//! A look into a queue.

use super::group::Group;
use super::queue::{Queue, Wakes};
use crate::error::Error;
use crate::message::{At, Slab};
use crate::transport::{BoxFuture, Shelf};
use std::sync::Arc;

/// Reads the group that has most unsettled messages; removes from every group.
pub(super) struct MemoryShelf {
    queue: Arc<Queue>,
    /// The position after the last one read.
    from: u64,
}

impl MemoryShelf {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, from: 0 }
    }
}

impl Shelf for MemoryShelf {
    fn read(&mut self, max: u32) -> BoxFuture<'_, Result<Slab, Error>> {
        Box::pin(async move {
            let state = self.queue.lock();
            let fullest = state.groups.iter().max_by_key(|group| group.messages());
            let slab = fullest.expect("a queue has a group").look(self.from, max, &self.queue.name);
            if let Some(last) = slab.heads().last() {
                self.from = last.at.position + 1;
            }
            Ok(slab)
        })
    }

    fn remove(&mut self, these: Vec<At>) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move {
            let mut state = self.queue.lock();
            let part_of = state.limits.bytes;
            let take_off = |group: &mut Group, at: &At| group.remove(at.position, part_of);
            let gone = these
                .iter()
                .filter(|at| state.groups.iter_mut().fold(false, |gone, group| take_off(group, at) | gone))
                .count() as u64;
            let mut wakes = Wakes::default();
            state.room_was_made(&mut wakes);
            drop(state);
            wakes.wake();
            Ok(gone)
        })
    }
}
