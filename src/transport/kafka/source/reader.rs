//! The consumer that reads: told partition by partition where, and known to no group.
//!
//! Each partition has a queue of its own. One that is not polled fills up to `queued.max.messages.kbytes` and no further,
//! so that nothing has to be paused to bound what is read, and nothing is fetched anew when it goes on.

use super::super::context::Ear;
use super::bell::Bell;
use super::member::list_of;
use super::seats::Name;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::Duration;

pub(super) type Reader = Arc<BaseConsumer<Ear>>;
pub(super) type Queue = PartitionQueue<Ear>;

fn at(name: &Name, offset: u64) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&name.topic, name.partition, Offset::Offset(offset as i64))?;
    Ok(list)
}

/// Begins to read a partition there. `number` is rung when its queue fills.
pub(super) fn begin(reader: &Reader, name: &Name, number: u32, offset: u64, bell: &Arc<Bell>) -> KafkaResult<Queue> {
    // Split off before it is assigned, so that no message goes to the queue of all.
    let queue = reader.split_partition_queue(&name.topic, name.partition);
    let mut queue = queue.ok_or(KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownPartition))?;
    let bell = bell.clone();
    queue.set_nonempty_callback(move || bell.filled(number));
    reader.incremental_assign(&at(name, offset)?)?;
    Ok(queue)
}

/// Reads a partition no more. Its queue is to be dropped.
pub(super) fn end(reader: &Reader, names: &[Name]) {
    if !names.is_empty() {
        // It is assigned; what else may fail is the end of the client itself.
        let _ = reader.incremental_unassign(&list_of(names));
    }
}

/// Goes on reading elsewhere; what is queued is dropped by the client library, which numbers the fetches.
pub(super) fn seek(reader: &Reader, name: &Name, offset: u64) -> KafkaResult<()> {
    // Without a time-out it does not wait for the answer.
    reader.seek(&name.topic, name.partition, Offset::Offset(offset as i64), Duration::ZERO)
}
