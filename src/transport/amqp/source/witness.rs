//! A second consumer on the channel of a quorum queue, opened for its answer.
//!
//! The answer to `basic.consume` comes from the queue itself, behind every settlement that its channel sent before, which
//! nothing else says that can be asked without harm. Measured on RabbitMQ 3.10.8, all runs on a busy machine:
//!
//! | 200 acks, then | runs in which acked messages came back | ends under traffic after which order was lost |
//! |---|---|---|
//! | close | 12 of 12 | 0 of 40 |
//! | `basic.cancel`, close | 0 of 12 | **38 of 80** |
//! | a witness, close | 0 of 24 | 0 of 80 |
//!
//! A cancel is asked of a consumer to which something may be under way, and that is returned singly, ahead of what we
//! hold. A witness leaves the consumer as it is, and may be sent one message itself. That one lies behind everything
//! that the consumer has, and comes back behind it, as long as no ack follows:
//!
//! - its priority is the lowest, so that it is sent something only while the consumer's window is full;
//! - its tag is the consumer's with something behind it, and a queue takes back from the consumers of a channel that
//!   ends in the order of their tags.

use super::session::qos;
use lapin::options::BasicConsumeOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};

/// Whoever else consumes comes first.
const PRIORITY: i32 = -1_000_000;

/// A channel has no more of them. One is what a stop takes; another follows where its flush came too early.
pub(super) const MOST: usize = 4;

/// Opens one beside the consumer of that tag. It is to be kept until the channel has ended: dropped, it would be
/// cancelled.
pub(super) async fn witness(channel: Channel, queue: String, tag: String) -> Result<Consumer, lapin::Error> {
    qos(channel.clone(), 1).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongInt(PRIORITY));
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.as_str().into(), tag.as_str().into(), options, arguments).await
}
