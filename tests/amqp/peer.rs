//! What a program that is not ours does at a broker.

use super::broker::Broker;
use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};

/// A foreign client with a channel.
pub struct Peer {
    _connection: Connection,
    pub channel: Channel,
}

/// What a foreign client sees of a message.
#[derive(Debug)]
pub struct Seen {
    pub body: Vec<u8>,
    pub routing_key: String,
    pub properties: BasicProperties,
}

impl Seen {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

impl Peer {
    pub async fn at(broker: &Broker) -> Self {
        let connection = Connection::connect(broker.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        Self { _connection: connection, channel }
    }

    /// A durable queue of that type with more arguments.
    pub async fn declare(&self, queue: &str, kind: &str, more: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        for (name, value) in more {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), options, table).await.unwrap();
    }

    /// A durable exchange, with bindings by routing key.
    pub async fn exchange(&self, exchange: &str, kind: &str, bindings: &[(&str, &str)]) {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let kind = ExchangeKind::Custom(kind.into());
        self.channel.exchange_declare(exchange.into(), kind, options, FieldTable::default()).await.unwrap();
        for (key, queue) in bindings {
            let (options, table) = (QueueBindOptions::default(), FieldTable::default());
            self.channel.queue_bind((*queue).into(), exchange.into(), (*key).into(), options, table).await.unwrap();
        }
    }

    pub async fn delete_exchange(&self, exchange: &str) {
        self.channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await.unwrap();
    }

    pub async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    /// Takes everything that lies in a queue, in order.
    pub async fn take_all(&self, queue: &str) -> Vec<Seen> {
        let mut all = Vec::new();
        // The answer to one at a time says when it is empty.
        while let Some(got) = self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap() {
            all.push(Seen {
                body: got.delivery.data,
                routing_key: got.delivery.routing_key.as_str().to_owned(),
                properties: got.delivery.properties,
            });
        }
        all
    }
}
