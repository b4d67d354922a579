//! A second consumer on the channel of a quorum queue, opened for its answer.
//!
//! The answer to `basic.consume` comes from the queue itself, and the channel hears before it what became of the
//! settlements that it had sent: nothing else says that can be asked without harm. Measured on RabbitMQ 3.10.8, on a busy
//! machine:
//!
//! | 200 acks, then | runs in which acked messages came back | ends under traffic after which order was lost |
//! |---|---|---|
//! | close | 13 of 24 | 0 of 80 |
//! | `basic.cancel`, close | 0 of 12 | **38 of 80** |
//! | a witness, close | 0 of 12 | 0 of 120 |
//!
//! A cancel is asked of a consumer to which something may be under way, and that is returned singly, ahead of what we
//! hold. A witness leaves the consumer as it is. It must not be sent anything either: the queue may give it a message
//! before it has seen the last acks (9 of 80 times), and gives the consumer those behind it after.
//!
//! So it is opened with a credit of 0, as the broker's own AMQP 1.0 opens its consumers. Where a server does not know
//! that of AMQP 0.9.1, the witness has the lowest priority, which leaves it a message only while the consumer's window is
//! full; and its tag is the consumer's with something behind it, for a queue takes back from the consumers of a channel
//! that ends in the order of their tags.

use super::session::qos;
use lapin::options::BasicConsumeOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};

/// Whoever else consumes comes first.
const PRIORITY: i32 = -1_000_000;

/// A channel has no more of them. One is what a stop takes; another follows where its flush came too early.
pub(super) const MOST: usize = 4;

/// Opens one beside the consumer whose tag begins its own. It is to be kept until the channel has ended: dropped, it
/// would be cancelled.
pub(super) async fn witness(channel: Channel, queue: String, tag: String) -> Result<Consumer, lapin::Error> {
    qos(channel.clone(), 1).await?;
    let mut credit = FieldTable::default();
    credit.insert("credit".into(), AMQPValue::LongLongInt(0));
    credit.insert("drain".into(), AMQPValue::Boolean(false));
    let mut arguments = FieldTable::default();
    arguments.insert("x-credit".into(), AMQPValue::FieldTable(credit));
    arguments.insert("x-priority".into(), AMQPValue::LongInt(PRIORITY));
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.as_str().into(), tag.as_str().into(), options, arguments).await
}
