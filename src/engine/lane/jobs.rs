//! The messages of a lane that wait for something, in an arena.

use super::Pick;
use super::places::Place;
use crate::engine::order::{Links, NOBODY};
use crate::failure::Failure;
use crate::message::At;
use crate::transport::Verdict;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// For its number, which another job holds.
    Parked,
    /// For a slot; it holds its number.
    Ready,
    /// For its batch to be full.
    Forming,
    /// For its handler.
    Running,
    /// For the confirms of what was sent; then it is settled so.
    Confirming { attempt: u32, then: Verdict },
    /// For its next attempt.
    Waiting { until: Instant },
    /// For the place that it goes to to be tried again.
    PlaceWaiting { until: Instant },
    /// For the end: bad input that has no place to go.
    Stuck,
}

pub(super) struct Job {
    pub(super) pick: Pick,
    pub(super) number: u64,
    pub(super) state: State,
    /// Of one that failed and is parked: when its back-off is over.
    pub(super) not_before: Option<Instant>,
    next: u32,
    copied: bool,
    since: Instant,
    /// Of one that goes to another place: which, and why.
    pub(super) parting: Option<Box<Parting>>,
}

/// Why a message leaves its queue for another place.
pub(super) struct Parting {
    pub(super) to: Place,
    pub(super) failure: Failure,
    /// How often the place has refused it.
    pub(super) tries: u32,
}

impl Job {
    /// Whether a handler has started on this delivery.
    pub(super) fn is_started(&self) -> bool {
        self.pick.attempts > self.pick.slab.heads()[self.pick.index as usize].attempts
    }

    fn copy_out(&mut self) {
        self.pick.slab = Arc::new(self.pick.slab.only(self.pick.index));
        self.pick.index = 0;
        self.copied = true;
    }
}

/// The arena.
#[derive(Default)]
pub(super) struct Jobs {
    all: Vec<Option<Job>>,
    free: Vec<u32>,
}

impl Jobs {
    pub(super) fn add(&mut self, pick: Pick, number: u64, state: State, now: Instant) -> u32 {
        let copied = pick.slab.len() == 1;
        let job = Job { pick, number, state, not_before: None, next: NOBODY, copied, since: now, parting: None };
        match self.free.pop() {
            Some(id) => {
                self.all[id as usize] = Some(job);
                id
            }
            None => {
                self.all.push(Some(job));
                (self.all.len() - 1) as u32
            }
        }
    }

    pub(super) fn remove(&mut self, id: u32) -> Job {
        let job = self.all[id as usize].take().expect("a job is removed once");
        self.free.push(id);
        job
    }

    pub(super) fn get(&self, id: u32) -> &Job {
        self.all[id as usize].as_ref().expect("a job that is referred to is there")
    }

    pub(super) fn get_mut(&mut self, id: u32) -> &mut Job {
        self.all[id as usize].as_mut().expect("a job that is referred to is there")
    }

    pub(super) fn pick(&self, id: u32) -> Pick {
        self.get(id).pick.clone()
    }

    pub(super) fn at(&self, id: u32) -> At {
        self.get(id).pick.at()
    }

    pub(super) fn set_state(&mut self, id: u32, state: State) {
        self.get_mut(id).state = state;
    }

    pub(super) fn set_attempts(&mut self, id: u32, attempts: u32) {
        self.get_mut(id).pick.attempts = attempts;
    }

    /// Copies a message out of its batch, so that it does not keep the whole batch in memory while it waits.
    pub(super) fn copy_out(&mut self, id: u32) {
        let job = self.get_mut(id);
        if !job.copied {
            job.copy_out();
        }
    }

    /// Copies out every message that has been here for so long.
    pub(super) fn copy_out_older_than(&mut self, now: Instant, age: Duration) {
        for job in self.all.iter_mut().flatten() {
            if !job.copied && now.saturating_duration_since(job.since) >= age {
                job.copy_out();
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.len() == self.free.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.all.iter().enumerate().filter(|(_, job)| job.is_some()).map(|(id, _)| id as u32)
    }
}

impl Links for Jobs {
    fn next(&self, job: u32) -> u32 {
        self.get(job).next
    }

    fn set_next(&mut self, job: u32, next: u32) {
        self.get_mut(job).next = next;
    }
}
