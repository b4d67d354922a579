//! What a program that is not ours does at a broker.

use super::broker::Broker;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
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
    fn of(delivery: Delivery) -> Self {
        let routing_key = delivery.routing_key.as_str().to_owned();
        Self { body: delivery.data, routing_key, properties: delivery.properties }
    }

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
        // One at a time is slow, and alone says when it is empty.
        loop {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let found = self.channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap();
            self.consume(queue, found.message_count() as usize, &mut all).await;
            match self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap() {
                Some(got) => all.push(Seen::of(got.delivery)),
                None => return all,
            }
        }
    }

    async fn consume(&self, queue: &str, count: usize, all: &mut Vec<Seen>) {
        if count == 0 {
            return;
        }
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        let mut consumer = consumer.await.unwrap();
        for _ in 0..count {
            all.push(Seen::of(consumer.next().await.unwrap().unwrap()));
        }
        self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.unwrap();
        // What came in meanwhile was sent on, too.
        while let Some(more) = consumer.next().await {
            all.push(Seen::of(more.unwrap()));
        }
    }
}
