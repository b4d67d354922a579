//! What a lane lets go of: at a stop, when time is up, and when an ownership ends.

use super::jobs::Job;
use super::{Lane, LaneNews, LaneView, Members, Mode, Releasing, State};
use crate::failure::BoxError;
use crate::handler::Unit;
use crate::message::At;
use crate::transport::Ownership;
use std::sync::Arc;
use std::time::Duration;
use tower_service::Service;

/// How long a handler whose message belongs to somebody else by now may go on.
const LOST_GRACE: Duration = Duration::from_secs(5);

impl<S, U, V> Lane<S, U, V>
where
    U: Unit,
    V: LaneView,
    S: Service<U, Response = U::Done, Error: Into<BoxError>, Future: Send + 'static> + Send + 'static,
{
    /// A stop: what no handler has started goes back, and so does what waits for another attempt.
    pub(super) fn drain(&mut self) {
        if self.mode == Mode::Cancelled {
            return;
        }
        self.mode = Mode::Draining;
        self.drop_unstarted(|_| true);
    }

    /// What is there is handled to its end; only what has nowhere to go is let go of, so that nobody waits for it.
    pub(super) fn work_off(&mut self) {
        if self.mode == Mode::Cancelled {
            return;
        }
        self.mode = Mode::WorkingOff;
        let jobs = &self.jobs;
        let stuck: Vec<u32> = jobs.ids().filter(|job| jobs.get(*job).state == State::Stuck).collect();
        for job in stuck {
            self.give_back(job);
        }
    }

    /// Gives back what no handler runs or has sent for, and `which` covers.
    pub(super) fn drop_unstarted(&mut self, which: impl Fn(At) -> bool) {
        self.drop_waiting(which, |_| true);
    }

    /// Gives back what gets too old here. What was started before and comes to its next attempt stays, with the count
    /// of its attempts: it would be tried for ever if that began anew each time. What cannot get to its place goes.
    pub(super) fn recall(&mut self, token: u64, ownership: &Ownership) {
        let goes = |job: &Job| !job.is_started() || matches!(job.state, State::PlaceWaiting { .. });
        self.drop_waiting(|at| ownership.covers(at), goes);
        // What goes back is told before the answer.
        self.hand_out();
        let _ = self.news.send(LaneNews::Recalled { token });
    }

    fn drop_waiting(&mut self, which: impl Fn(At) -> bool, goes: impl Fn(&Job) -> bool) {
        for (position, slab) in std::mem::take(&mut self.inbox).into_iter().enumerate() {
            let from = if position == 0 { self.cursor } else { 0 };
            let mut kept = Vec::new();
            for index in from..slab.len() as u32 {
                let at = slab.heads()[index as usize].at;
                if !self.is_mine(&slab, index) {
                    continue;
                }
                if which(at) { self.dropped.push(at) } else { kept.push(index) }
            }
            for index in kept {
                // Rare: part of a batch stays. Each goes into the inbox as a batch of its own.
                let one = slab.only(index);
                self.inbox.push_back(Arc::new(one));
            }
        }
        self.cursor = 0;
        let mut gone = Vec::new();
        let jobs = &self.jobs;
        let covered = |job: &Job| which(job.pick.at()) && goes(job);
        let parked: Vec<u32> =
            jobs.ids().filter(|job| jobs.get(*job).state == State::Parked && covered(jobs.get(*job))).collect();
        if !parked.is_empty() {
            self.numbers.retain_waiting(&mut self.jobs, |job| !parked.contains(&job));
            for job in parked {
                self.dropped.push(self.jobs.get(job).pick.at());
                self.jobs.remove(job);
            }
        }
        for job in self.jobs.ids() {
            let unstarted = matches!(
                self.jobs.get(job).state,
                State::Ready | State::Forming | State::Waiting { .. } | State::PlaceWaiting { .. } | State::Stuck
            );
            if unstarted && covered(self.jobs.get(job)) {
                gone.push(job);
            }
        }
        self.ready.retain(|job| !gone.contains(job));
        self.forming.retain(|job| !gone.contains(&job));
        for job in gone {
            self.give_back(job);
        }
    }

    /// Time is up: handlers are dropped, and what waits for confirms goes back as well.
    pub(super) fn cancel(&mut self) {
        self.drain();
        self.mode = Mode::Cancelled;
        for slot in 0..self.slots.len() {
            if self.slots.since(slot).is_some() {
                // Unfinished, not failed: it goes back even in its last attempt.
                for job in self.drop_handler(slot) {
                    self.give_back(job);
                }
            }
        }
        let confirming: Vec<u32> =
            self.jobs.ids().filter(|job| matches!(self.jobs.get(*job).state, State::Confirming { .. })).collect();
        for job in confirming {
            let State::Confirming { attempt, .. } = self.jobs.get(job).state else { continue };
            if !matches!(std::mem::replace(&mut self.confirming[attempt as usize], Members::None), Members::None) {
                self.attempts[attempt as usize].retire();
                self.free_attempts.push(attempt);
            }
            self.give_back(job);
        }
        self.drop_unstarted(|_| true);
    }

    pub(super) fn release(&mut self, token: u64, ownership: Ownership, lost: bool) {
        self.drop_unstarted(|at| ownership.covers(at));
        let cancel_at = lost.then(|| self.now + LOST_GRACE);
        self.releasing.push(Releasing { token, ownership, cancel_at });
        self.check_released();
    }

    pub(super) fn check_released(&mut self) {
        if self.releasing.is_empty() {
            return;
        }
        let jobs = &self.jobs;
        let mut done = Vec::new();
        self.releasing.retain(|releasing| {
            let left = jobs.ids().any(|job| releasing.ownership.covers(jobs.get(job).pick.at()));
            if !left {
                done.push(releasing.token);
            }
            left
        });
        if !done.is_empty() {
            // What became of its messages is told before it is let go.
            self.hand_out();
            for token in done {
                let _ = self.news.send(LaneNews::Released { token });
            }
        }
    }

    /// Handlers of a lost ownership that are past their grace are dropped.
    pub(super) fn sweep_lost(&mut self) {
        let now = self.now;
        let over: Vec<Ownership> = self
            .releasing
            .iter()
            .filter(|releasing| releasing.cancel_at.is_some_and(|at| at <= now))
            .map(|releasing| releasing.ownership.clone())
            .collect();
        if over.is_empty() {
            return;
        }
        for slot in 0..self.slots.len() {
            if self.slots.since(slot).is_none() {
                continue;
            }
            let covered = self
                .slots
                .members(slot)
                .clone()
                .into_iter()
                .all(|job| over.iter().any(|ownership| ownership.covers(self.jobs.get(job).pick.at())));
            if covered {
                for job in self.drop_handler(slot) {
                    self.give_back(job);
                }
            }
        }
    }

    /// Whether the ownership under which it was delivered is on its way out.
    pub(super) fn is_let_go(&self, at: At) -> bool {
        self.releasing.iter().any(|releasing| releasing.ownership.covers(at))
    }
}
