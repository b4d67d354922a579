//! The broker as a stranger uses it: queues and messages that are not ours.

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

/// A stranger.
pub struct Raw {
    /// Kept: with it go its channels.
    pub connection: Connection,
    channel: Channel,
}

/// Whether a queue outlives the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Durable,
    Transient,
    Exclusive,
}

pub fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

pub fn number(number: i64) -> AMQPValue {
    AMQPValue::LongLongInt(number)
}

impl Raw {
    pub async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { connection, channel }
    }

    pub async fn declare(&self, queue: &str, life: Life, arguments: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions {
            durable: life == Life::Durable,
            exclusive: life == Life::Exclusive,
            ..QueueDeclareOptions::default()
        };
        self.channel.queue_declare(queue.into(), options, table).await.unwrap();
    }

    /// Messages `0`, `1`, … that the broker has confirmed.
    pub async fn publish(&self, queue: &str, many: usize) {
        self.publish_numbers(queue, 0..many).await;
    }

    pub async fn publish_numbers(&self, queue: &str, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let durable = BasicProperties::default().with_delivery_mode(2);
            let payload = number.to_string();
            let options = BasicPublishOptions::default();
            let sent = self.channel.basic_publish("".into(), queue.into(), options, payload.as_bytes(), durable);
            assert!(sent.await.unwrap().await.unwrap().is_ack());
        }
    }

    /// Takes everything off, in order.
    pub async fn take(&self, queue: &str) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(got) = self.channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap() {
            all.push(String::from_utf8(got.delivery.data.clone()).unwrap());
            self.channel.basic_ack(got.delivery_tag, BasicAckOptions::default()).await.unwrap();
        }
        all
    }

    /// Whether there is such a queue.
    pub async fn has(&self, queue: &str) -> bool {
        let channel = self.connection.create_channel().await.unwrap();
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), passive, FieldTable::default()).await.is_ok()
    }
}
