//! What wakes a lane: handlers that can go on, and sends that are confirmed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Wake, Waker};
use tokio::sync::Notify;

/// Shared between a lane and all that can wake it. Each list is bounded by the lane's slots: one entry a slot.
#[derive(Debug, Default)]
pub(crate) struct LaneSignal {
    lists: Mutex<Lists>,
    /// Something is in a list; spares the lane the lock when nothing is.
    some: AtomicBool,
    pub(crate) bell: Notify,
}

#[derive(Debug, Default)]
struct Lists {
    woken: Vec<u32>,
    confirmed: Vec<(u32, u32)>,
}

impl LaneSignal {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn ring(&self) {
        // One ring until the lane has looked: a permit of `Notify` is kept when nobody waits yet.
        if !self.some.swap(true, Ordering::AcqRel) {
            self.bell.notify_one();
        }
    }

    /// The sends of this attempt have come to an end.
    pub(crate) fn confirmed(&self, attempt: u32, generation: u32) {
        self.lists().confirmed.push((attempt, generation));
        self.ring();
    }

    fn woken(&self, slot: u32) {
        self.lists().woken.push(slot);
        self.ring();
    }

    /// Moves what has come into the lane's own vectors, which keep their room.
    pub(crate) fn take(&self, woken: &mut Vec<u32>, confirmed: &mut Vec<(u32, u32)>) {
        if self.some.swap(false, Ordering::AcqRel) {
            let mut lists = self.lists();
            woken.append(&mut lists.woken);
            confirmed.append(&mut lists.confirmed);
        }
    }

    #[cfg(test)]
    pub(crate) fn take_confirmed(&self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.lists().confirmed)
    }
}

/// The waker of one slot, made once and used again for each handler that lies in it.
#[derive(Debug)]
pub(crate) struct SlotWaker {
    slot: u32,
    queued: AtomicBool,
    lane: Arc<LaneSignal>,
}

impl SlotWaker {
    pub(crate) fn new(slot: u32, lane: Arc<LaneSignal>) -> (Arc<Self>, Waker) {
        let waker = Arc::new(Self { slot, queued: AtomicBool::new(false), lane });
        (waker.clone(), waker.into())
    }

    /// To be called before the poll: a wake from now on counts again.
    pub(crate) fn rearm(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.lane.woken(self.slot);
        }
    }
}
