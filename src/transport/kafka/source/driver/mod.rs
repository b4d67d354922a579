//! The thread of a source: it polls both consumers, keeps the books of every partition, and does what it was told.
//!
//! It never waits for the cluster: what the client library answers in its own time it leaves to the clerk.

mod committing;
mod group;
mod leaving;
mod link;
mod reading;

use super::super::context::Ear;
use super::super::place::{Start, Topics};
use super::super::{client, topics};
use super::Setup;
use super::bell::Bell;
use super::clerk::{Answer, Clerk, Job};
use super::desk::Desk;
use super::inbound::Reading;
use super::member::{Member, MemberContext, serve, wake_by};
use super::part::{Part, Sent};
use super::reader::Reader;
use super::seats::Seats;
use crate::error::{Error, ErrorKind};
use crate::failure::Tally;
use crate::message::At;
use crate::transport::{Ask, Backlog, Event, Settlement};
use link::Link;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// The thread looks round at least this often.
const TICK: Duration = Duration::from_millis(250);
/// Fetched ahead over all partitions of the topics, of which most are other members' if there are many.
const AHEAD_KBYTES: u32 = 32 << 10;
/// Of a partition no less is fetched ahead.
const LEAST_AHEAD_KBYTES: u32 = 64;
/// A pattern is taken to match so many partitions: what it matches is not known before.
const MATCHED: u32 = 64;

/// What the clerk is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Looking,
    Committing,
    Measuring,
    Probing,
}

type Parts = HashMap<u32, Part, foldhash::fast::RandomState>;

pub(super) struct Driver {
    setup: Arc<Setup>,
    desk: Arc<Desk>,
    bell: Arc<Bell>,
    member: Arc<Member>,
    reader: Reader,
    clerk: Clerk,
    busy: Option<(Doing, Instant)>,

    seats: Seats,
    parts: Parts,
    /// Of the last assignment; rises with each.
    epoch: u32,
    /// Told to pause, ours or not.
    paused: HashSet<u32>,
    reading: Reading,
    /// Partitions whose queues may hold something.
    filled: VecDeque<u32>,
    /// The last batch's bytes: the next one is likely to be as large.
    batch_bytes: usize,
    intake_stopped: bool,

    commits: committing::Commits,
    sent: Vec<Sent>,
    marks: Vec<At>,
    flushes: Vec<committing::Flushing>,
    leaving: Option<group::Leaving>,
    closing: Option<leaving::Closing>,
    look_at: Option<Instant>,
    measuring: bool,
    /// When every queue is looked at, rung for or not.
    look_round_at: Instant,
    /// Whether there may be partitions that are not read yet.
    has_new: bool,
    link: Link,
}

/// The result of looking for the topics.
pub(super) type Ready = Receiver<Result<Vec<topics::Topic>, Error>>;

/// Runs until the source is closed, has failed, or is dropped.
pub(super) fn run(setup: Arc<Setup>, desk: Arc<Desk>, bell: Arc<Bell>, ready: &Ready) {
    let Some(topics) = wait_until_ready(&desk, &bell, ready) else { return };
    match Driver::connect(setup, desk.clone(), bell, &topics) {
        Ok(driver) => driver.drive(),
        Err(error) => desk.say(Event::Failed(error)),
    }
}

/// `None` when the source has ended meanwhile.
fn wait_until_ready(desk: &Desk, bell: &Bell, ready: &Ready) -> Option<Vec<topics::Topic>> {
    loop {
        match ready.try_recv() {
            Ok(Ok(topics)) => return Some(topics),
            Ok(Err(error)) => {
                desk.say(Event::Failed(error));
                return None;
            }
            Err(TryRecvError::Empty) => {}
            // Its task was dropped with the source, or has panicked.
            Err(TryRecvError::Disconnected) => {
                desk.say(Event::Failed(Error::new(
                    ErrorKind::Start,
                    "the search for the topics ended without a result",
                )));
                return None;
            }
        }
        for ask in desk.asks() {
            match ask {
                // Of an earlier source: this one has delivered nothing.
                Ask::Settle(these) => {
                    let mut stale = Tally::default();
                    these.iter().for_each(|settlement| settlement.verdict.count(&mut stale));
                    let (proven, unknown) = (Tally::default(), Tally::default());
                    desk.say(Event::Settled { proven, stale, unknown });
                }
                Ask::Flush { .. } => desk.say(Event::Flushed),
                Ask::Measure => desk.say(Event::Measured(Backlog::default())),
                Ask::Close { .. } => {
                    desk.say(Event::Closed { returned: 0, unknown: Tally::default() });
                    return None;
                }
                _ => desk.go_on(),
            }
        }
        if desk.see().crashed {
            return None;
        }
        bell.wait(Some(Instant::now() + TICK), &mut Vec::new());
    }
}

impl Driver {
    /// Makes both consumers and subscribes.
    fn connect(setup: Arc<Setup>, desk: Arc<Desk>, bell: Arc<Bell>, found: &[topics::Topic]) -> Result<Self, Error> {
        let (place, worker, group) = (&setup.place, &setup.spec.worker, &setup.group);
        let ear = || Ear::new(worker.clone(), place);
        // It reads nothing; what slips in before it is paused is not worth a buffer.
        let mut config = client::member(place, worker, group, 1);
        // Places in a log are those of all its records.
        config.set("isolation.level", "read_uncommitted");
        let mut member: Member = client::create(&config, MemberContext::new(ear()), place)?;
        wake_by(&mut member, &bell);
        let partitions: u32 = match &place.topics {
            Topics::Named(_) => found.iter().filter_map(|topic| topic.partitions).sum(),
            Topics::Pattern(_) => MATCHED,
        };
        let ahead = (AHEAD_KBYTES / partitions.max(1)).max(LEAST_AHEAD_KBYTES);
        let mut config = client::reader(place, worker, group, ahead);
        // An offset out of range is ours to judge, not the client library's.
        config.set("auto.offset.reset", "error").set("enable.partition.eof", "true");
        let mut reader: BaseConsumer<Ear> = client::create(&config, ear(), place)?;
        let ring = bell.clone();
        reader.set_nonempty_callback(move || ring.ring());
        let topics: Vec<&str> = match &place.topics {
            Topics::Named(topics) => topics.iter().map(String::as_str).collect(),
            Topics::Pattern(pattern) => vec![pattern],
        };
        let failed = |why: &dyn std::fmt::Display| Error::new(ErrorKind::Start, format!("group '{group}': {why}"));
        member.subscribe(&topics).map_err(|error| failed(&error))?;
        let (member, reader) = (Arc::new(member), Arc::new(reader));
        let clerk = Clerk::start(worker, member.clone(), reader.clone(), bell.clone());
        let clerk = clerk.map_err(|error| failed(&format_args!("no thread: {error}")))?;
        let seats = match &place.topics {
            Topics::Named(topics) => Seats::new(topics.iter().map(String::as_str)),
            Topics::Pattern(_) => Seats::default(),
        };
        let link = Link::new(Instant::now() + setup.spec.patience);
        let reading = Reading::new(place.key.clone(), setup.spec.max_message);
        Ok(Self {
            setup,
            desk,
            bell,
            member,
            reader,
            clerk,
            busy: None,
            seats,
            parts: Parts::default(),
            epoch: 0,
            paused: HashSet::new(),
            reading,
            filled: VecDeque::new(),
            batch_bytes: 0,
            intake_stopped: false,
            commits: committing::Commits::default(),
            sent: Vec::new(),
            marks: Vec::new(),
            flushes: Vec::new(),
            leaving: None,
            closing: None,
            look_at: None,
            measuring: false,
            look_round_at: Instant::now(),
            has_new: false,
            link,
        })
    }

    fn drive(mut self) {
        let mut rung = Vec::new();
        loop {
            serve(&self.member);
            serve(&self.reader);
            while let Some(next) = self.member.context().next_move() {
                if self.moved(next).is_break() {
                    return self.part_without_a_word();
                }
            }
            loop {
                match self.clerk.answers.try_recv() {
                    Ok(answer) => self.answered(answer),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => panic!("the clerk works until it has dropped the consumers"),
                }
            }
            for ask in self.desk.asks() {
                self.told(ask);
            }
            let seen = self.desk.see();
            self.intake_stopped = seen.intake_stopped;
            if seen.crashed || self.watch(Instant::now()).is_break() {
                return self.part_without_a_word();
            }
            let now = Instant::now();
            self.let_go(now);
            if self.may_leave(now) {
                return self.leave();
            }
            self.occupy_clerk(now);
            let more = self.read();
            let until = if more { now } else { self.wakes_at(now) };
            self.bell.wait(Some(until), &mut rung);
            for number in rung.drain(..) {
                self.list(number);
            }
            if now >= self.look_round_at {
                self.look_round_at = now + TICK;
                self.list_all();
            }
        }
    }

    /// When there is something to do of which no bell tells.
    fn wakes_at(&self, now: Instant) -> Instant {
        let leaving = self.leaving.as_ref().map(group::Leaving::until);
        let closing = self.closing.as_ref().map(leaving::Closing::until);
        let flushes = self.flushes.iter().map(|flush| flush.by);
        let commit = self.commit_is_due(now).filter(|_| self.busy.is_none());
        let look = self.look_at.filter(|_| self.busy.is_none() && self.has_new);
        let moments = [leaving, closing, commit, look].into_iter().flatten().chain(flushes);
        moments.fold(now + TICK, Instant::min)
    }

    fn told(&mut self, ask: Ask) {
        match ask {
            Ask::Settle(these) => self.settle(&these),
            Ask::Return(these) => {
                for at in &these {
                    self.give_back(*at);
                }
                self.desk.out_of_hand(these.len() as u64);
                let touched: HashSet<u32> = these.iter().map(|at| at.partition).collect();
                self.read_again(&touched);
                self.desk.go_on();
            }
            Ask::Mark(at) => {
                let part = self.parts.get_mut(&at.partition).filter(|part| part.is_of(at));
                if let Some(work) = part.and_then(|part| part.work.as_mut()) {
                    work.begin_run(at.position);
                    self.marks.push(at);
                }
            }
            Ask::Flush { by } => self.flushes.push(committing::Flushing { by, round: None }),
            Ask::StopIntake => {
                self.intake_stopped = true;
                self.take_back(|_| true);
            }
            Ask::Pause(Some(partitions)) => {
                let these: HashSet<u32> = partitions.iter().copied().collect();
                for part in self.parts.values_mut().filter(|part| these.contains(&part.number)) {
                    part.paused = true;
                }
                self.read_again(&these);
                self.paused.extend(these);
                self.desk.go_on();
            }
            Ask::Resume(partitions) => {
                let resumed: Vec<u32> = match partitions {
                    Some(these) => these.into_vec(),
                    None => self.paused.iter().copied().collect(),
                };
                for number in resumed {
                    self.paused.remove(&number);
                    self.parts.entry(number).and_modify(|part| part.paused = false);
                    self.list(number);
                }
            }
            Ask::Released(ownership) => self.released(&ownership),
            Ask::Measure => self.measuring = true,
            Ask::Close { by } => {
                self.take_back(|_| true);
                self.closing = Some(leaving::Closing::new(by));
            }
            _ => {}
        }
    }

    fn settle(&mut self, these: &[Settlement]) {
        let (mut stale, mut settled) = (Tally::default(), 0);
        // Settlements of a partition come in a row: it is looked up once for each.
        for row in these.chunk_by(|one, next| one.at.partition == next.at.partition) {
            let mut part = self.parts.get_mut(&row[0].at.partition);
            for Settlement { at, verdict } in row {
                let ours = part.as_mut().filter(|part| part.is_of(*at)).and_then(|part| part.work.as_mut());
                let Some(work) = ours else {
                    verdict.count(&mut stale);
                    continue;
                };
                if !work.tracker.settle(at.position) {
                    verdict.count(&mut stale);
                    continue;
                }
                work.pending.add(at.position, *verdict);
                work.end_run(at.position, true);
                settled += 1;
            }
        }
        if settled > 0 {
            self.desk.out_of_hand(settled);
            self.commits.worth(Instant::now());
        }
        if stale.total() > 0 {
            self.say_settled(Tally::default(), stale, Tally::default());
        }
    }

    fn say_settled(&self, proven: Tally, stale: Tally, unknown: Tally) {
        if proven.total() + stale.total() + unknown.total() > 0 {
            self.desk.say(Event::Settled { proven, stale, unknown });
        }
    }

    fn give_back(&mut self, at: At) {
        let part = self.parts.get_mut(&at.partition).filter(|part| part.is_of(at));
        let Some(work) = part.and_then(|part| part.work.as_mut()) else { return };
        if work.tracker.give_back(at.position) {
            work.end_run(at.position, false);
        }
    }

    /// Takes back what was read of these and not handed over.
    fn take_back(&mut self, which: impl Fn(u32) -> bool) {
        for slab in self.desk.take_ready(which) {
            for head in slab.heads() {
                self.give_back(head.at);
            }
        }
    }

    /// Takes back what was read of these and not handed over, and goes back to the first one that was given back.
    fn read_again(&mut self, these: &HashSet<u32>) {
        self.take_back(|number| these.contains(&number));
        if self.intake_stopped {
            return;
        }
        for number in these {
            self.rewind(*number);
        }
    }

    /// Gives the clerk the next thing to do, the most urgent first.
    fn occupy_clerk(&mut self, now: Instant) {
        self.flushes_end(now);
        if self.busy.is_some() {
            return;
        }
        if self.commit_is_due(now).is_some_and(|at| at <= now) && self.commit(now) {
            return;
        }
        let looks = self.has_new && !self.intake_stopped && self.closing.is_none();
        let looks = looks && self.look_at.is_none_or(|at| at <= now);
        let absent = self.parts.values().filter(|part| looks && part.work.is_none());
        let looked_for: Vec<_> = absent.map(|part| part.name.clone()).collect();
        if !looked_for.is_empty() {
            let start = self.setup.place.start.unwrap_or(Start::Earliest);
            self.ask(Doing::Looking, Job::Look(looked_for, start), now);
        } else if self.measuring && self.closing.is_none() {
            self.measuring = false;
            let names: Vec<_> = self.parts.values().map(|part| part.name.clone()).collect();
            self.ask(Doing::Measuring, Job::Ends(names), now);
        } else if self.link.probes(now) {
            self.ask(Doing::Probing, Job::Probe, now);
        }
    }

    fn ask(&mut self, doing: Doing, job: Job, now: Instant) {
        self.busy = Some((doing, now));
        self.clerk.ask(job);
    }

    fn answered(&mut self, answer: Answer) {
        self.busy = None;
        let now = Instant::now();
        match answer {
            Answer::Looked(found) => self.looked(found, now),
            Answer::Committed(done) => self.committed(done, now),
            Answer::Ends(ends) => self.measured(ends),
            Answer::Probed(done) => self.link.probed(done.is_ok(), now),
            Answer::Left => {}
        }
        if self.link.is_back() {
            self.desk.say(Event::Connected);
        }
    }

    /// Looks whether the cluster is there, and what the client library has to say of it.
    fn watch(&mut self, now: Instant) -> ControlFlow<()> {
        let heard: Vec<_> =
            self.member.context().ear().take().into_iter().chain(self.reader.context().take()).collect();
        for heard in heard {
            if let Some(event) = self.link.heard(heard) {
                let over = matches!(event, Event::Failed(_));
                self.desk.say(event);
                if over {
                    return ControlFlow::Break(());
                }
            }
        }
        let silent = self.busy.map(|(_, since)| now.saturating_duration_since(since));
        if let Some(event) = self.link.watch(silent, now, self.member.context().ear(), &self.setup) {
            let over = matches!(event, Event::Failed(_));
            self.desk.say(event);
            if over {
                return ControlFlow::Break(());
            }
        }
        let committing = matches!(self.busy, Some((Doing::Committing, _)));
        self.desk.doubt(self.link.doubts(silent.filter(|_| committing)));
        ControlFlow::Continue(())
    }

    fn trouble(&mut self, error: Error) {
        if let Some(event) = self.link.trouble(error) {
            self.desk.say(event);
        }
    }
}
