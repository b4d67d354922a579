//! The member of the group: it subscribes, is told which partitions are ours, and commits. It reads nothing.
//!
//! Two consumers of one group, because a member that takes its time to let go of a partition fetches nothing of any
//! other meanwhile. So the member's own partitions are paused for good, and another consumer, which the group does not
//! know of, reads them.

use super::super::context::Ear;
use super::bell::Bell;
use super::seats::Name;
use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Events that are served in one round.
const EVENTS: usize = 64;
/// After so many calls without a result there is nothing more: an event that has no result looks like none.
const SILENT: usize = 3;

/// What the group has decided, as a callback heard it.
#[derive(Debug)]
pub(super) enum Move {
    /// These are ours from now on.
    Assign(Vec<Name>),
    /// These are to be let go, or are somebody else's already.
    Revoke { which: Vec<Name>, lost: bool },
}

/// Hears what the group decides. Carries nothing out: the thread that polls does, when it has the time.
pub(super) struct MemberContext {
    ear: Ear,
    moves: Mutex<VecDeque<Move>>,
    /// The consumer is being dropped: whatever it is told to let go it lets go at once.
    closing: AtomicBool,
}

impl MemberContext {
    pub(super) fn new(ear: Ear) -> Self {
        Self { ear, moves: Mutex::default(), closing: AtomicBool::new(false) }
    }

    fn moves(&self) -> MutexGuard<'_, VecDeque<Move>> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ear(&self) -> &Ear {
        &self.ear
    }

    pub(super) fn next_move(&self) -> Option<Move> {
        self.moves().pop_front()
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.ear.log(level, facility, text);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.ear.stats_raw(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.ear.error(error, reason);
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigns = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            let _ = if assigns { take(consumer, list) } else { let_go(consumer, list) };
            return;
        }
        // A copy that outlived the consumer would hold its drop up for ever: names alone are kept.
        let name = |each: &TopicPartitionListElem<'_>| Name { topic: each.topic().into(), partition: each.partition() };
        let which = list.elements().iter().map(name).collect();
        let lost = consumer.assignment_lost();
        self.moves().push_back(if assigns { Move::Assign(which) } else { Move::Revoke { which, lost } });
    }
}

pub(super) type Member = BaseConsumer<MemberContext>;

fn take(member: &Member, list: &TopicPartitionList) -> KafkaResult<()> {
    match member.rebalance_protocol() {
        RebalanceProtocol::Cooperative => member.incremental_assign(list),
        _ => member.assign(list),
    }
}

fn let_go(member: &Member, list: &TopicPartitionList) -> KafkaResult<()> {
    match member.rebalance_protocol() {
        RebalanceProtocol::Cooperative => member.incremental_unassign(list),
        _ => member.unassign(),
    }
}

/// Says yes to an assignment, and has the member itself read nothing of it.
pub(super) fn accept(member: &Member, which: &[Name]) -> KafkaResult<()> {
    let list = list_of(which);
    // Also an empty one is to be said yes to.
    take(member, &list)?;
    if which.is_empty() { Ok(()) } else { member.pause(&list) }
}

/// Lets partitions go, which the group waits for.
pub(super) fn release(member: &Member, which: &[Name]) -> KafkaResult<()> {
    let_go(member, &list_of(which))
}

/// Lets go of everything that it has, so that dropping it has nothing to wait for.
pub(super) fn leave(member: &Member) {
    member.context().close();
    if let Ok(all) = member.assignment() {
        let _ = let_go(member, &all);
    }
}

pub(super) fn list_of(which: &[Name]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(which.len());
    for name in which {
        list.add_partition(&name.topic, name.partition);
    }
    list
}

/// Serves what the client library has to say. Messages that slipped in before the pause are the reader's to deliver.
pub(super) fn serve<C: ConsumerContext>(consumer: &BaseConsumer<C>) {
    let mut silent = 0;
    for _ in 0..EVENTS {
        silent = if consumer.poll(Duration::ZERO).is_none() { silent + 1 } else { 0 };
        if silent == SILENT {
            break;
        }
    }
}

/// Wakes the thread when the group has something to say.
pub(super) fn wake_by(member: &mut Member, bell: &Arc<Bell>) {
    let bell = bell.clone();
    member.set_nonempty_callback(move || bell.ring());
}
