//! Batches of a lane: collected by count, bytes and time; an outcome for each message.

use super::jobs::State;
use super::slots::{Members, Polled};
use super::{Delivery, Lane, LaneView, panicked, unreadable};
use crate::engine::attempt::Sends;
use crate::failure::{BoxError, Failure, Fate};
use crate::handler::Unit;
use crate::transport::Verdict;
use std::time::{Duration, Instant};
use tower_service::Service;

/// When a batch is handed to its handler: at the first of these that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchBounds {
    pub(crate) messages: u32,
    pub(crate) bytes: u64,
    pub(crate) linger: Duration,
}

/// The batch that is being collected.
pub(super) struct Forming {
    bounds: Option<BatchBounds>,
    jobs: Vec<u32>,
    numbers: Vec<u64>,
    bytes: u64,
    since: Option<Instant>,
}

impl Forming {
    pub(super) fn new(bounds: Option<BatchBounds>) -> Self {
        Self { bounds, jobs: Vec::new(), numbers: Vec::new(), bytes: 0, since: None }
    }

    /// Whether a member of this batch holds the number: the next message of it may join.
    pub(super) fn holds(&self, number: u64) -> bool {
        self.numbers.contains(&number)
    }

    fn add(&mut self, job: u32, number: u64, bytes: u64, now: Instant) {
        self.jobs.push(job);
        if number != 0 && !self.holds(number) {
            self.numbers.push(number);
        }
        self.bytes += bytes;
        self.since.get_or_insert(now);
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        let Some(bounds) = self.bounds else { return false };
        if self.jobs.is_empty() {
            return false;
        }
        self.jobs.len() >= bounds.messages as usize
            || self.bytes >= bounds.bytes
            || self.since.is_some_and(|since| now >= since + bounds.linger)
    }

    pub(super) fn due_at(&self) -> Option<Instant> {
        Some(self.since? + self.bounds?.linger)
    }

    fn take(&mut self) -> Vec<u32> {
        self.numbers.clear();
        self.bytes = 0;
        self.since = None;
        std::mem::take(&mut self.jobs)
    }

    pub(super) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.jobs.retain(|job| keep(*job));
        if self.jobs.is_empty() {
            self.take();
        }
    }
}

impl<S, U, V> Lane<S, U, V>
where
    U: Unit,
    V: LaneView,
    S: Service<U, Response = U::Done, Error: Into<BoxError>, Future: Send + 'static> + Send + 'static,
{
    /// Puts a job that holds its number into the batch that is being collected.
    pub(super) fn form(&mut self, job: u32) {
        self.jobs.set_state(job, State::Forming);
        let (pick, number) = (self.jobs.pick(job), self.jobs.get(job).number);
        if let Some(failure) = unreadable(&pick) {
            self.failed(pick, Some(job), failure);
            return;
        }
        let bytes = pick.slab.get(pick.index).size() as u64;
        self.forming.add(job, number, bytes, self.now);
    }

    /// Calls the handler for the batch that is collected and polls it once.
    pub(super) fn start_batch(&mut self) -> Option<Duration> {
        if !self.may_start_now() {
            return None;
        }
        let jobs = self.forming.take();
        let attempt = self.attempt();
        let cause = self.attempts[attempt as usize].open();
        let mut members = Vec::with_capacity(jobs.len());
        for &job in &jobs {
            let attempts = self.jobs.get(job).pick.attempts.saturating_add(1);
            self.jobs.set_attempts(job, attempts);
            self.jobs.set_state(job, State::Running);
            let pick = &self.jobs.get(job).pick;
            members.push(Delivery {
                slab: pick.slab.clone(),
                index: pick.index,
                attempt: attempts,
                cause: cause.clone(),
            });
        }
        let (at, attempts) = (self.jobs.at(jobs[0]), self.jobs.get(jobs[0]).pick.attempts);
        let slot = self.slots.take();
        let (polled, took) = self.call(slot, at, attempts, || U::gather(members));
        match polled {
            Polled::Pending => {
                self.slots.occupy(slot, Members::Many(jobs), attempt, self.now);
                self.view.pending(slot, at, attempts, self.now);
            }
            Polled::Ready(done) => {
                self.slots.give_back(slot);
                self.view.handled(took);
                self.ended_batch(jobs, attempt, done);
            }
            Polled::Panicked(text) => {
                self.slots.give_back(slot);
                self.view.handled(took);
                self.ended_batch(jobs, attempt, Err(panicked(&text).into_error()));
            }
        }
        Some(took)
    }

    /// Puts a job into the batch that is being collected, and then those that wait for its number: what came later must
    /// not come before them.
    pub(super) fn form_with_those_behind(&mut self, job: u32) {
        let number = self.jobs.get(job).number;
        self.form(job);
        while self.forming.holds(number)
            && !self.forming.is_due(self.now)
            && let Some(next) = self.numbers.join(number, &mut self.jobs)
        {
            self.form(next);
        }
    }

    /// The handler of a batch has ended: each message is settled by its own outcome, as far as its order allows.
    pub(super) fn ended_batch(&mut self, jobs: Vec<u32>, attempt: u32, done: Result<U::Done, BoxError>) {
        let mut outcomes = Vec::with_capacity(jobs.len());
        U::spread(done, jobs.len(), &mut |_, outcome| outcomes.push(outcome));
        let sends = self.attempts[attempt as usize].close();
        let confirming = matches!(sends, Sends::Pending);
        let mut acked = Vec::new();
        let mut behind = Vec::new();
        let mut failed: Vec<u64> = Vec::new();
        for (job, mut outcome) in jobs.into_iter().zip(outcomes) {
            let number = self.jobs.get(job).number;
            if number != 0 && failed.contains(&number) {
                // An earlier message of its key comes again: this one comes after it, whatever became of it now.
                behind.push(job);
                continue;
            }
            if let (Ok(()), Sends::Failed(failure)) = (&outcome, &sends) {
                // Which of them the send was for is not known.
                outcome = Err(failure.copied());
            }
            match outcome {
                Ok(()) => acked.push(job),
                Err(failure) => {
                    let pick = self.jobs.pick(job);
                    let earlier =
                        confirming && number != 0 && acked.iter().any(|&job| self.jobs.get(job).number == number);
                    let again = matches!(failure.fate(), Fate::Retry { .. })
                        && pick.attempts < self.config.retry.max_attempts();
                    // What does not come again has nobody come after it.
                    if number != 0 && again {
                        failed.push(number);
                    }
                    match failure.fate() {
                        // An earlier one may still fail by its confirm, and comes before this one then.
                        Fate::Retry { after } if earlier => {
                            let delay = self.config.retry.delay_after(pick.attempts, fastrand::f64());
                            if let Some(delay) = delay {
                                self.jobs.get_mut(job).not_before = Some(self.now + after.unwrap_or(delay));
                                behind.push(job);
                            } else {
                                self.failed(pick, Some(job), failure);
                            }
                        }
                        _ => self.failed(pick, Some(job), failure),
                    }
                }
            }
        }
        if acked.is_empty() || !confirming {
            self.attempts[attempt as usize].retire();
            self.free_attempts.push(attempt);
            for job in acked {
                let at = self.jobs.at(job);
                self.settle(at, Some(job), Verdict::Acked);
            }
        } else {
            for &job in &acked {
                self.jobs.set_state(job, State::Confirming { attempt, then: Verdict::Acked });
            }
            self.confirming[attempt as usize] = Members::Many(acked);
        }
        self.put_behind(behind);
    }

    /// Messages of one call failed by one cause: of each key the first is tried again, the others come behind it.
    pub(super) fn failed_together(&mut self, jobs: impl IntoIterator<Item = u32>, why: impl Fn() -> Failure) {
        let mut failed: Vec<u64> = Vec::new();
        let mut behind = Vec::new();
        for job in jobs {
            let number = self.jobs.get(job).number;
            if number != 0 && failed.contains(&number) {
                behind.push(job);
                continue;
            }
            if number != 0 {
                failed.push(number);
            }
            let pick = self.jobs.pick(job);
            self.failed(pick, Some(job), why());
        }
        self.put_behind(behind);
    }

    /// Puts messages before all that wait for their key and behind the one that failed.
    fn put_behind(&mut self, jobs: Vec<u32>) {
        // From the last to the first, since each goes to the front.
        for job in jobs.into_iter().rev() {
            self.jobs.copy_out(job);
            let number = self.jobs.get(job).number;
            let stopping = matches!(self.mode, super::Mode::Draining | super::Mode::Cancelled);
            self.jobs.set_state(job, State::Parked);
            // It held the number together with the one that failed; now it waits for it.
            if let Some(next) = self.numbers.leave(number, job, &mut self.jobs) {
                self.next_up(next);
            }
            if stopping {
                self.drop_unstarted(|_| true);
            }
        }
    }
}
