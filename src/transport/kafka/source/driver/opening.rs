//! The beginning of a source: its topics are there, and both consumers are made.

use super::super::super::context::Ear;
use super::super::super::place::Topics;
use super::super::super::{client, topics};
use super::super::Setup;
use super::super::bell::Bell;
use super::super::clerk::Clerk;
use super::super::desk::Desk;
use super::super::inbound::Reading;
use super::super::member::{Member, MemberContext, wake_by};
use super::super::seats::Seats;
use super::link::Link;
use super::{Driver, Parts, Ready, TICK, committing};
use crate::error::{Error, ErrorKind};
use crate::failure::Tally;
use crate::transport::{Ask, Backlog, Event};
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::Instant;

/// Fetched ahead over all partitions of the topics, of which most are other members' if there are many.
const AHEAD_KBYTES: u32 = 32 << 10;
/// Of a partition no less is fetched ahead.
const LEAST_AHEAD_KBYTES: u32 = 64;
/// A pattern is taken to match so many partitions: what it matches is not known before.
const MATCHED: u32 = 64;

/// `None` when the source has ended meanwhile.
pub(super) fn wait_until_ready(desk: &Desk, bell: &Bell, ready: &Ready) -> Option<Vec<topics::Topic>> {
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
    pub(super) fn connect(
        setup: Arc<Setup>,
        desk: Arc<Desk>,
        bell: Arc<Bell>,
        found: &[topics::Topic],
    ) -> Result<Self, Error> {
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
}
