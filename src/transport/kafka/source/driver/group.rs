//! What the group decides: partitions that come, and those that go.

use super::super::super::refusal::{explain, kind};
use super::super::clerk::Found;
use super::super::member::{Move, accept, release};
use super::super::part::{Oddity, Part, Work};
use super::super::reader;
use super::super::seats::Name;
use super::Driver;
use crate::error::{Error, ErrorKind};
use crate::failure::Tally;
use crate::transport::{Event, Ownership};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Handlers of a partition that goes have at most so long to end.
const HANDLERS_HAVE: Duration = Duration::from_secs(10);
/// … and at most this part of the time after which the group takes it away anyway.
const SHARE_OF_POLL_INTERVAL: u32 = 3;
/// The same, where nothing else is set (`max.poll.interval.ms`).
const POLL_INTERVAL: Duration = Duration::from_secs(300);
/// What they have done is committed within this, or not at all.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);
/// A question about partitions that failed is asked again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Handlers run.
    Waiting { by: Instant },
    /// What they have done is committed.
    Committing { by: Instant },
}

/// Partitions that the group waits for. One at a time: it asks for no more before it has them.
#[derive(Debug)]
pub(in super::super) struct Leaving {
    ownership: Ownership,
    names: Vec<Name>,
    state: State,
}

impl Leaving {
    pub(super) fn until(&self) -> Instant {
        match self.state {
            State::Waiting { by } | State::Committing { by } => by,
        }
    }

    /// Whether its last commit is under way.
    pub(super) fn commits(&self) -> bool {
        matches!(self.state, State::Committing { .. })
    }

    pub(super) fn covers(&self, number: u32) -> bool {
        self.ownership.partitions.as_ref().is_some_and(|these| these.contains(&number))
    }
}

impl Driver {
    pub(super) fn moved(&mut self, next: Move) -> ControlFlow<()> {
        match next {
            Move::Assign(names) => self.assigned(&names),
            Move::Revoke { which, lost } => {
                self.revoked(which, lost);
                ControlFlow::Continue(())
            }
        }
    }

    fn assigned(&mut self, names: &[Name]) -> ControlFlow<()> {
        if let Err(error) = accept(&self.member, names) {
            let what = format!("group '{}': its assignment", self.setup.group);
            self.desk.say(Event::Failed(explain(what, &error)));
            return ControlFlow::Break(());
        }
        if self.link.joined() {
            self.desk.say(Event::Connected);
        }
        if names.is_empty() {
            return ControlFlow::Continue(());
        }
        self.epoch += 1;
        let mut numbers = Vec::with_capacity(names.len());
        for name in names {
            let number = self.seats.of(name);
            let paused = self.paused.contains(&number);
            let part = Part { name: name.clone(), number, epoch: self.epoch, paused, listed: false, work: None };
            self.parts.insert(number, part);
            numbers.push(number);
        }
        (self.look_at, self.has_new) = (None, true);
        self.desk.say(Event::Assigned(Ownership { epoch: self.epoch, partitions: Some(numbers.into()) }));
        ControlFlow::Continue(())
    }

    /// What the cluster knows of partitions that came.
    pub(super) fn looked(&mut self, found: KafkaResult<Vec<Found>>, now: Instant) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.look_at = Some(now + LOOK_AGAIN);
                tracing::debug!(worker = &*self.setup.spec.worker, "where partitions stand is not known yet: {error}");
                if error.rdkafka_error_code().map(kind) == Some(ErrorKind::Credentials) {
                    let what = format!("group '{}': its place", self.setup.group);
                    self.trouble(explain(what, &error));
                }
                return;
            }
        };
        self.look_at = None;
        self.link.answered();
        for found in found {
            let number = self.seats.of(&found.name);
            let Some(part) = self.parts.get_mut(&number).filter(|part| part.work.is_none()) else { continue };
            let (work, odd) = Work::take_over(&found);
            part.work = Some(work);
            let (worker, name) = (&*self.setup.spec.worker, &found.name);
            if found.committed.is_none() {
                tracing::info!(worker, group = &*self.setup.group, partition = %name, offset = found.start,
                    "the group has no place in this partition: it starts here, as start= says or at the earliest");
            }
            let text = match odd {
                None => continue,
                Some(Oddity::Deleted { from, to }) => {
                    format!("partition {name}: records {from} to {} were deleted before they were handled", to - 1)
                }
                Some(Oddity::Truncated { committed, end, start }) => format!(
                    "partition {name}: the group is at {committed} and the log ends at {end}: it was cut or made anew, \
                     and is read from {start}"
                ),
            };
            self.trouble(Error::new(ErrorKind::Unreachable, text));
        }
    }

    fn revoked(&mut self, names: Vec<Name>, lost: bool) {
        if let Some(earlier) = self.leaving.take() {
            // The client library asks for no more before it has the earlier ones; if it does, they are gone.
            self.part_with(earlier);
        }
        let numbers: Vec<u32> = names.iter().map(|name| self.seats.of(name)).collect();
        self.stop_reading(&numbers);
        let ownership = Ownership { epoch: self.epoch, partitions: Some(numbers.into()) };
        let open: usize =
            self.of(&ownership).filter_map(|part| part.work.as_ref()).map(|work| work.tracker.open()).sum();
        let now = Instant::now();
        let state = match open {
            0 => State::Committing { by: now + COMMIT_WITHIN },
            _ => State::Waiting { by: now + self.handlers_have() },
        };
        let leaving = Leaving { ownership, names, state };
        if lost {
            return self.part_with(leaving);
        }
        if let State::Waiting { by } = state {
            self.desk.say(Event::Revoking { ownership: leaving.ownership.clone(), by });
        }
        self.leaving = Some(leaving);
    }

    fn handlers_have(&self) -> Duration {
        let set = self.setup.place.settings.iter().find(|(name, _)| name == "max.poll.interval.ms");
        let interval =
            set.and_then(|(_, value)| value.reveal().parse().ok()).map_or(POLL_INTERVAL, Duration::from_millis);
        HANDLERS_HAVE.min(interval / SHARE_OF_POLL_INTERVAL)
    }

    fn of<'a>(&'a self, ownership: &'a Ownership) -> impl Iterator<Item = &'a Part> {
        ownership.partitions.iter().flatten().filter_map(|number| self.parts.get(number))
    }

    /// Reads nothing more of these, and takes back what was not handed over.
    fn stop_reading(&mut self, numbers: &[u32]) {
        self.take_back(|number| numbers.contains(&number));
        let mut read = Vec::new();
        for number in numbers {
            let Some(part) = self.parts.get_mut(number) else { continue };
            if part.work.as_mut().and_then(|work| work.queue.take()).is_some() {
                read.push(part.name.clone());
            }
        }
        reader::end(&self.reader, &read);
    }

    /// Nothing of it runs any more.
    pub(super) fn released(&mut self, ownership: &Ownership) {
        if let Some(leaving) = self.leaving.as_mut().filter(|leaving| leaving.ownership == *ownership) {
            leaving.state = State::Committing { by: Instant::now() + COMMIT_WITHIN };
        }
    }

    /// Takes the next step with the partitions that the group waits for.
    pub(super) fn let_go(&mut self, now: Instant) {
        let Some(leaving) = &mut self.leaving else { return };
        match leaving.state {
            State::Waiting { by } if by <= now => {
                // Handlers that still run are fenced: what they settle from now on is stale.
                leaving.state = State::Committing { by: now + COMMIT_WITHIN };
            }
            State::Waiting { .. } => return,
            State::Committing { .. } => {}
        }
        let leaving = self.leaving.as_ref().expect("it was just there");
        let left = self.of(&leaving.ownership).filter_map(|part| part.work.as_ref()).all(Work::is_left);
        if left || leaving.until() <= now {
            let leaving = self.leaving.take().expect("it was just there");
            self.part_with(leaving);
        }
    }

    /// These are ours no more.
    fn part_with(&mut self, leaving: Leaving) {
        let Leaving { ownership, names, .. } = leaving;
        if self.member.assignment_lost() {
            tracing::warn!(
                worker = &*self.setup.spec.worker,
                group = &*self.setup.group,
                partitions = names.len(),
                "the group has taken partitions away: what was not committed is handled again elsewhere"
            );
        }
        self.lose(ownership);
        if let Err(error) = release(&self.member, &names) {
            let what = format!("group '{}': partitions that it takes back", self.setup.group);
            self.trouble(explain(what, &error));
        }
    }

    /// What is known of them is over; what was settled and not proven is told.
    fn lose(&mut self, ownership: Ownership) {
        let (mut unknown, mut open) = (Tally::default(), 0);
        for number in ownership.partitions.iter().flatten() {
            let Some(part) = self.parts.remove(number) else { continue };
            self.marks.retain(|at| at.partition != *number);
            if let Some(work) = part.work {
                unknown += work.pending.total();
                open += work.tracker.open() as u64;
            }
        }
        self.desk.out_of_hand(open);
        self.say_settled(Tally::default(), Tally::default(), unknown);
        self.desk.say(Event::Lost(ownership));
    }

    /// Begins anew with a partition that stays ours: its log is not the one that it was.
    pub(super) fn forget(&mut self, number: u32) {
        self.stop_reading(&[number]);
        let Some(name) = self.parts.get(&number).map(|part| part.name.clone()) else { return };
        let paused = self.paused.contains(&number);
        self.lose(Ownership { epoch: self.epoch, partitions: Some([number].into()) });
        self.epoch += 1;
        self.parts.insert(number, Part { name, number, epoch: self.epoch, paused, listed: false, work: None });
        (self.look_at, self.has_new) = (Some(Instant::now() + LOOK_AGAIN), true);
        self.desk.say(Event::Assigned(Ownership { epoch: self.epoch, partitions: Some([number].into()) }));
    }
}
