//! The end of a source: what was settled is committed, the consumers are dropped, and the group is left.

use super::super::clerk::{Answer, Job};
use super::super::part::Work;
use super::Driver;
use crate::failure::Tally;
use crate::transport::Event;
use rdkafka::consumer::Consumer;
use std::time::Instant;

/// Of the time for a close, this part is for leaving the group, which spares its heirs the wait for our session.
const LEAVING_SHARE: u32 = 4;

/// A close that was asked for.
#[derive(Debug)]
pub(in super::super) struct Closing {
    by: Instant,
    /// Until then the last commit is tried.
    commit_until: Instant,
}

impl Closing {
    pub(super) fn new(by: Instant) -> Self {
        let time = by.saturating_duration_since(Instant::now());
        Self { by, commit_until: by - time / LEAVING_SHARE }
    }

    pub(super) fn until(&self) -> Instant {
        self.commit_until
    }
}

impl Driver {
    /// Whether all is committed, or the time for that is over.
    pub(super) fn may_leave(&self, now: Instant) -> bool {
        let Some(closing) = &self.closing else { return false };
        let left = self.parts.values().filter_map(|part| part.work.as_ref()).all(Work::is_left);
        left && !matches!(self.busy, Some((super::Doing::Committing, _))) || closing.commit_until <= now
    }

    /// Drops the consumers where that may take its time, and says that the source is closed.
    pub(super) fn leave(mut self) {
        let by = self.closing.as_ref().map_or_else(Instant::now, |closing| closing.by);
        let (mut unknown, mut returned) = (Tally::default(), 0);
        for work in self.parts.values().filter_map(|part| part.work.as_ref()) {
            unknown += work.pending.total();
            returned += work.tracker.open() as u64;
        }
        for _ in self.flushes.drain(..) {
            self.desk.say(Event::Flushed);
        }
        let desk = self.desk.clone();
        let answers = self.dismiss();
        loop {
            let left = by.saturating_duration_since(Instant::now());
            match answers.recv_timeout(left) {
                Ok(Answer::Left) | Err(_) => break,
                Ok(_) => {}
            }
        }
        desk.say(Event::Closed { returned, unknown });
    }

    /// Ends as a process that dies: nothing is committed.
    pub(super) fn part_without_a_word(self) {
        drop(self.dismiss());
    }

    /// Hands the consumers to the clerk, who drops them.
    fn dismiss(self) -> std::sync::mpsc::Receiver<Answer> {
        let Self { parts, member, reader, clerk, .. } = self;
        // Queues hold the reader.
        drop(parts);
        let _ = reader.unassign();
        clerk.ask(Job::Leave { member, reader });
        clerk.answers
    }
}
