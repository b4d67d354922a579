//! Commits: one at a time, soon after something was settled, and no more often than [`EVERY`].

use super::super::super::refusal::explain;
use super::super::clerk::{Job, Line};
use super::super::part::{Part, Work};
use super::super::reader;
use super::{Doing, Driver};
use crate::failure::Tally;
use crate::transport::Event;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use std::time::{Duration, Instant};

/// What a killed worker has done since is done again.
const EVERY: Duration = Duration::from_millis(100);
/// A commit that failed is tried again after this, then twice this, up to [`AGAIN_LAST`].
const AGAIN_FIRST: Duration = Duration::from_millis(20);
const AGAIN_LAST: Duration = Duration::from_secs(1);

/// When commits are made.
#[derive(Debug, Default)]
pub(in super::super) struct Commits {
    /// The last one that was begun.
    round: u64,
    began: Option<Instant>,
    /// Something was settled that no commit has told.
    worth_at: Option<Instant>,
    /// After one that failed.
    not_before: Option<Instant>,
    failures: u32,
}

impl Commits {
    /// Something was settled.
    pub(super) fn worth(&mut self, now: Instant) {
        let next = self.began.map_or(now, |began| (began + EVERY).max(now));
        self.worth_at.get_or_insert(next);
    }
}

/// A flush that is under way.
#[derive(Debug)]
pub(in super::super) struct Flushing {
    pub(super) by: Instant,
    /// The commit that carries out what was told before.
    pub(super) round: Option<u64>,
}

impl Driver {
    /// When the next commit is to be made; it may turn out that there is nothing to say.
    pub(super) fn commit_is_due(&self, now: Instant) -> Option<Instant> {
        let unannounced =
            || self.parts.values().any(|part| part.work.as_ref().is_some_and(|work| !work.is_announced()));
        let leaves = self.leaving.as_ref().is_some_and(super::group::Leaving::commits) || self.closing.is_some();
        let urgent = !self.marks.is_empty() || !self.flushes.is_empty() || leaves || self.has_new && unannounced();
        let at = if urgent { Some(now) } else { self.commits.worth_at };
        at.map(|at| self.commits.not_before.map_or(at, |bound| at.max(bound)))
    }

    /// Gives the clerk a commit of everything that is due. False when there is nothing to say.
    pub(super) fn commit(&mut self, now: Instant) -> bool {
        self.commits.worth_at = None;
        let closing = self.closing.is_some();
        let leaving = self.leaving.as_ref().filter(|leaving| leaving.commits());
        for part in self.parts.values_mut() {
            let leaves = closing || leaving.is_some_and(|leaving| leaving.covers(part.number));
            let marked = self.marks.iter().any(|at| at.partition == part.number);
            let Some(work) = &part.work else { continue };
            if work.is_due() || marked || leaves && !work.is_left() {
                let was_held = work.held;
                self.sent.extend(part.send(leaves));
                let holds = part.work.as_ref().is_some_and(|work| work.held);
                if was_held && !holds {
                    self.bell.filled(part.number);
                }
            }
        }
        if self.sent.is_empty() {
            for flush in self.flushes.drain(..) {
                let _ = flush;
                self.desk.say(Event::Flushed);
            }
            return false;
        }
        self.commits.round += 1;
        self.commits.began = Some(now);
        for flush in &mut self.flushes {
            flush.round.get_or_insert(self.commits.round);
        }
        let lines: Vec<Line> = self.sent.iter().map(|sent| sent.line.clone()).collect();
        self.ask(Doing::Committing, Job::Commit(lines), now);
        true
    }

    pub(super) fn committed(&mut self, done: KafkaResult<()>, now: Instant) {
        let sent = std::mem::take(&mut self.sent);
        let error = match done {
            Ok(()) => {
                self.link.answered();
                (self.commits.failures, self.commits.not_before) = (0, None);
                let mut proven = Tally::default();
                let mut begun = Vec::new();
                for sent in sent {
                    let part = self.parts.get_mut(&sent.number).filter(|part| part.epoch == sent.epoch);
                    let Some(work) = part.and_then(|part| part.work.as_mut()) else { continue };
                    let number = sent.number;
                    let marked = sent.mark;
                    proven += work.confirm(sent);
                    begun.push(number);
                    self.marks.retain(|at| {
                        let durable = at.partition == number && marked.is_some_and(|(offset, _)| offset == at.position);
                        if durable {
                            self.desk.say(Event::Marked(*at));
                        }
                        !durable
                    });
                }
                self.say_settled(proven, Tally::default(), Tally::default());
                let round = self.commits.round;
                self.flushes.retain(|flush| {
                    let done = flush.round == Some(round);
                    if done {
                        self.desk.say(Event::Flushed);
                    }
                    !done
                });
                for number in begun {
                    self.begin_reading(number);
                }
                let is_new = |part: &Part| !part.work.as_ref().is_some_and(Work::is_announced);
                self.has_new = self.has_new && self.parts.values().any(is_new);
                return;
            }
            Err(error) => error,
        };
        self.flushes.iter_mut().for_each(|flush| flush.round = None);
        let code = error.rdkafka_error_code();
        if code == Some(Code::OffsetMetadataTooLarge) {
            for sent in &sent {
                let part = self.parts.get_mut(&sent.number).filter(|part| part.epoch == sent.epoch);
                if let Some(work) = part.and_then(|part| part.work.as_mut()) {
                    work.shorten();
                }
            }
            tracing::warn!(
                worker = &*self.setup.spec.worker,
                "the broker takes no metadata as long as that in a commit: less is kept of what is finished"
            );
        } else {
            self.commits.failures = self.commits.failures.saturating_add(1);
            let delay = AGAIN_FIRST.saturating_mul(1 << self.commits.failures.min(10)).min(AGAIN_LAST);
            self.commits.not_before = Some(now + delay);
            // Usual while the group changes hands, and mended by trying again.
            let usual = [
                Code::RebalanceInProgress,
                Code::StaleMemberEpoch,
                Code::IllegalGeneration,
                Code::UnknownMemberId,
                Code::CoordinatorLoadInProgress,
                Code::NotCoordinator,
                Code::CoordinatorNotAvailable,
                Code::NoOffset,
            ];
            let group = format!("group '{}': commit", self.setup.group);
            if code.is_some_and(|code| usual.contains(&code)) {
                tracing::debug!(worker = &*self.setup.spec.worker, "{group}: {error}");
            } else {
                self.trouble(explain(group, &error));
            }
        }
        self.commits.worth_at = Some(now);
    }

    /// Ends those flushes whose time is over.
    pub(super) fn flushes_end(&mut self, now: Instant) {
        self.flushes.retain(|flush| {
            let over = flush.by <= now;
            if over {
                self.desk.say(Event::Flushed);
            }
            !over
        });
    }

    /// Reads a partition once it is known that we do.
    pub(super) fn begin_reading(&mut self, number: u32) {
        let leaves = self.leaving.as_ref().is_some_and(|leaving| leaving.covers(number));
        if leaves || self.intake_stopped || self.closing.is_some() {
            return;
        }
        let Some(part) = self.parts.get_mut(&number) else { return };
        let Some(work) = part.work.as_mut().filter(|work| work.queue.is_none() && work.is_announced()) else { return };
        match reader::begin(&self.reader, &part.name, number, work.tracker.cursor(), &self.bell) {
            Ok(queue) => {
                work.queue = Some(queue);
                self.list(number);
            }
            Err(error) => {
                let what = format!("partition {}", part.name);
                self.trouble(explain(what, &error));
            }
        }
    }
}
