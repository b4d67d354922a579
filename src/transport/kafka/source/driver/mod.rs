//! The thread of a source: it polls both consumers, keeps the books of every partition, and does what it was told.
//!
//! It never waits for the cluster: what the client library answers in its own time it leaves to the clerk.

mod asks;
mod committing;
mod group;
mod leaving;
mod link;
mod opening;
mod reading;

use super::super::context::Heard;
use super::super::place::Start;
use super::super::topics;
use super::Setup;
use super::bell::Bell;
use super::clerk::{Answer, Clerk, Job};
use super::desk::Desk;
use super::inbound::Reading;
use super::member::{Member, serve};
use super::part::{Part, Sent};
use super::reader::Reader;
use super::seats::Seats;
use crate::error::Error;
use crate::message::At;
use crate::transport::Event;
use link::Link;
use rdkafka::consumer::Consumer;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// The thread looks round at least this often.
const TICK: Duration = Duration::from_millis(250);

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
    let Some(topics) = opening::wait_until_ready(&desk, &bell, ready) else { return };
    match Driver::connect(setup, desk.clone(), bell, &topics) {
        Ok(driver) => driver.drive(),
        Err(error) => desk.say(Event::Failed(error)),
    }
}

impl Driver {
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
        let of_reader = self.reader.context().take();
        // The same outage twice would be two: the member's word holds.
        let of_reader = of_reader.into_iter().filter(|heard| !matches!(heard, Heard::Lost(_)));
        let heard: Vec<_> = self.member.context().ear().take().into_iter().chain(of_reader).collect();
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
