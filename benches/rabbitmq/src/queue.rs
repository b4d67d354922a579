//! The queues that laps run on: made, filled, looked at and deleted here, by none of the contenders.

use crate::contender::bare::{self, Returns};
use crate::lap::Meter;
use crate::payload::Payloads;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum QueueType {
    Quorum,
    Classic,
}

impl fmt::Display for QueueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        })
    }
}

impl FromStr for QueueType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "quorum" => Ok(Self::Quorum),
            "classic" => Ok(Self::Classic),
            other => Err(format!("a queue is quorum or classic, not {other}")),
        }
    }
}

/// The view of the queues beside the laps, over a connection of its own.
pub struct Queues {
    url: String,
    channel: Channel,
    _connection: Connection,
}

impl Queues {
    pub async fn open(url: &str) -> lapin::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok(Self { url: url.to_owned(), channel, _connection: connection })
    }

    /// A new, durable, empty queue of that name.
    pub async fn make(&self, queue: &str, kind: QueueType) -> lapin::Result<()> {
        self.remove(queue).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.to_string().into()));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        self.channel.queue_declare(queue.into(), options, arguments).await?;
        Ok(())
    }

    /// Puts so many messages in.
    pub async fn fill(&self, queue: &str, messages: u64) -> lapin::Result<()> {
        bare::publish(&self.url, queue, &Payloads::new(messages), &Meter::new(messages), Returns::Lost).await
    }

    /// How many messages are ready in it.
    pub async fn ready(&self, queue: &str) -> lapin::Result<u64> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let found = self.channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
        Ok(found.message_count().into())
    }

    pub async fn remove(&self, queue: &str) -> lapin::Result<()> {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
        Ok(())
    }
}
