//! What exists at the broker: looked for first, declared only where it is absent and may be.

use super::place::{Place, QueueType};
use super::refusal::{Refusal, explain, refusal};
use super::wire::{ANSWER_LIMIT, Wire, answered};
use crate::error::{Error, ErrorKind};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

/// Longshore alone counts deliveries: a limit of the broker's would drop messages that were only handed back often
/// (RabbitMQ 4 has one of 20 where none is declared).
pub(super) const DELIVERY_LIMIT: i64 = 1_000_000;

/// A queue as it was found or declared.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    /// What it is, where that is known: declared by us just now, or probed.
    pub(super) queue_type: Option<QueueType>,
    /// Whether it was absent, and this process has made it.
    pub(super) declared: bool,
    /// Whether a single active consumer is an argument of it, where that is known.
    pub(super) single_active: Option<bool>,
    /// Whether a delivery limit below ours may drop messages, where that is known.
    pub(super) delivery_limit: Option<i64>,
    /// What an operator should know about it, each a sentence without a full stop.
    pub(super) warnings: Vec<String>,
}

/// Arguments that a queue of ours is declared with.
pub(super) fn arguments(place: &Place) -> FieldTable {
    let mut table = FieldTable::default();
    let queue_type = place.declared_type();
    table.insert("x-queue-type".into(), AMQPValue::LongString(queue_type.name().into()));
    if queue_type == QueueType::Quorum {
        table.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
    }
    if place.rejects_when_full {
        table.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    }
    if place.single_active {
        table.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    }
    if let Some(priorities) = place.max_priority {
        table.insert("x-max-priority".into(), AMQPValue::LongLongInt(i64::from(priorities)));
    }
    table
}

/// Finds the queue of a source, or makes it, and binds it where the URL names an exchange.
pub(super) async fn for_source(wire: &Wire, place: &Place) -> Result<Queue, Error> {
    let queue = queue(wire, place).await?;
    if !place.exchange.is_empty() && place.declare {
        let channel = wire.channel().await?;
        let super::place::RoutingKey::Fixed(key) = &place.routing_key else { return Ok(queue) };
        let bound = channel.queue_bind(
            place.queue.as_str().into(),
            place.exchange.as_str().into(),
            key.as_str().into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        answered(format!("binding queue '{}' to exchange '{}'", place.queue, place.exchange), bound).await?;
    }
    Ok(queue)
}

/// Finds what a sink publishes to, or makes it where it is a queue.
pub(super) async fn for_sink(wire: &Wire, place: &Place) -> Result<Option<Queue>, Error> {
    if place.exchange.is_empty() {
        return queue(wire, place).await.map(Some);
    }
    let channel = wire.channel().await?;
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    // The kind is not looked at in a passive declaration.
    let found =
        channel.exchange_declare(place.exchange.as_str().into(), ExchangeKind::Direct, options, FieldTable::default());
    answered(format!("exchange '{}'", place.exchange), found).await?;
    Ok(None)
}

async fn queue(wire: &Wire, place: &Place) -> Result<Queue, Error> {
    // A refusal closes the channel it was given on: each question has its own.
    let what = format!("queue '{}'", place.queue);
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match declare(&wire.channel().await?, place, passive, FieldTable::default()).await {
        Ok(()) => {
            return Ok(Queue {
                queue_type: None,
                declared: false,
                single_active: None,
                delivery_limit: None,
                warnings: Vec::new(),
            });
        }
        Err(Some(error)) if refusal(&error) == Refusal::Absent && place.declare => {}
        Err(Some(error)) if refusal(&error) == Refusal::Absent => {
            return Err(explain(format_args!("{what} is absent and 'declare=false'"), &error));
        }
        Err(Some(error)) => return Err(explain(what, &error)),
        Err(None) => return Err(silent(what)),
    }
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    match declare(&wire.channel().await?, place, durable, arguments(place)).await {
        Ok(()) => Ok(Queue {
            queue_type: Some(place.declared_type()),
            declared: true,
            single_active: Some(place.single_active),
            delivery_limit: Some(DELIVERY_LIMIT),
            warnings: Vec::new(),
        }),
        Err(Some(error)) => Err(explain(format_args!("declaring {what}"), &error)),
        Err(None) => Err(silent(format!("declaring {what}"))),
    }
}

/// `Err(None)`: the broker did not answer.
async fn declare(
    channel: &Channel,
    place: &Place,
    options: QueueDeclareOptions,
    arguments: FieldTable,
) -> Result<(), Option<lapin::Error>> {
    let asked = channel.queue_declare(place.queue.as_str().into(), options, arguments);
    match tokio::time::timeout(ANSWER_LIMIT, asked).await {
        Ok(answer) => answer.map(|_| ()).map_err(Some),
        Err(_) => Err(None),
    }
}

fn silent(what: String) -> Error {
    Error::new(ErrorKind::Unreachable, format!("{what}: the broker did not answer within {} s", ANSWER_LIMIT.as_secs()))
}
