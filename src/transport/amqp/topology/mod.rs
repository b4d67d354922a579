//! What exists at the broker: looked for first, declared only where it is absent and may be.
//!
//! `arguments` is what ours are declared with, `probe` what a queue really is, `concerns` what an operator should know of
//! it, `permission` whether it may be read or written, `tiers` the queues in which retries wait.

mod arguments;
mod concerns;
mod permission;
mod probe;
mod tiers;

use super::management::{self, Told};
use super::place::{Place, QueueType, RoutingKey, Side};
use super::refusal::{Refusal, explain, refusal};
use super::wire::{Wire, answered, answered_or_refused};
use crate::error::Error;
use arguments::{LIMIT, SINGLE_ACTIVE};
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use probe::{Found, Probed};

pub(super) use arguments::{Arguments, DELIVERY_LIMIT, Value};
pub(super) use tiers::{Tier, declare as declare_tier, supported as tiers_supported};

/// A queue that goes while it is looked at, or comes while it is made, is looked at so often.
const LOOKS: usize = 3;

/// A queue as it was found or declared.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    /// What it is, where that is known: declared by us just now, or probed.
    pub(super) queue_type: Option<QueueType>,
    /// Whether it was absent, and this process has made it.
    pub(super) declared: bool,
    /// Whether a single active consumer is an argument of it, where that is known.
    pub(super) single_active: Option<bool>,
    /// The broker's own limit of deliveries, where there is one that is known.
    pub(super) delivery_limit: Option<i64>,
    /// What an operator should know about it, each a sentence without a full stop.
    pub(super) warnings: Vec<String>,
    /// What could not be seen, and what goes without saying, in the same form: for `check` alone.
    pub(super) notes: Vec<String>,
}

/// Finds the queue of a source, or makes it, and binds it where the URL names an exchange.
///
/// # Errors
/// A queue or exchange that is absent and may not be declared, one that is not what a promise needs, a permission; the
/// connection.
pub(super) async fn for_source(wire: &Wire, place: &Place) -> Result<Queue, Error> {
    let queue = queue(wire, place, Side::Source).await?;
    say_if_declared(&queue, place);
    if !place.exchange.is_empty()
        && place.declare
        && let RoutingKey::Fixed(key) = &place.routing_key
    {
        let channel = wire.channel().await?;
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

/// Finds what a sink publishes to, or makes it where it is a queue, and makes sure that it may be written to.
///
/// # Errors
/// As [`for_source`].
pub(super) async fn for_sink(wire: &Wire, place: &Place) -> Result<Option<Queue>, Error> {
    let queue = if place.exchange.is_empty() {
        let queue = queue(wire, place, Side::Sink).await?;
        say_if_declared(&queue, place);
        Some(queue)
    } else {
        exchange(wire, place).await?;
        None
    };
    // The first publish would tell too, by the death of its channel.
    permission::to_write(wire, place).await?;
    Ok(queue)
}

fn say_if_declared(queue: &Queue, place: &Place) {
    if queue.declared {
        let arguments = arguments::words(&arguments::ours(place));
        tracing::info!(event = "queue_declared", queue = place.queue, arguments, "queue '{}' was absent", place.queue);
    }
}

/// Looks at all that a source or sink of this place needs, and changes nothing.
///
/// # Errors
/// What would keep it from starting.
pub(super) async fn check(wire: &Wire, place: &Place, side: Side) -> Result<Queue, Error> {
    let mut queue = Queue::default();
    if !place.queue.is_empty() {
        match existing(wire, place).await? {
            Some(_) => {
                match look(wire, place, side).await? {
                    Some(found) => queue = found,
                    None => queue.notes.push(format!("queue '{}' was deleted while it was looked at", place.queue)),
                }
                if side == Side::Source {
                    permission::to_read(wire, place).await?;
                }
            }
            None if !place.declare => return Err(may_not_be_declared(place)),
            None => match probe::probe(wire, place).await? {
                Probed::Forbidden(why) => return Err(forbidden(place, &why)),
                _ => queue.notes.push(format!(
                    "queue '{}' is absent: it will be declared with {}",
                    place.queue,
                    arguments::words(&arguments::ours(place))
                )),
            },
        }
    }
    if !place.exchange.is_empty() {
        exchange(wire, place).await?;
    }
    if side == Side::Sink {
        permission::to_write(wire, place).await?;
    }
    Ok(queue)
}

/// How many messages are ready in the queue of a place; `None` where it is absent.
pub(super) async fn existing(wire: &Wire, place: &Place) -> Result<Option<u32>, Error> {
    let what = format!("queue '{}'", place.queue);
    // A refusal closes the channel it was given on: each question has its own.
    let channel = wire.channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(place.queue.as_str().into(), passive, FieldTable::default());
    match answered_or_refused(&what, asked).await? {
        Ok(found) => Ok(Some(found.message_count())),
        Err(error) => match refusal(&error) {
            Refusal::Absent => Ok(None),
            Refusal::Locked => {
                Err(Error::configuration(format!("{what} is exclusive: it belongs to another connection alone")))
            }
            _ => Err(explain(what, &error)),
        },
    }
}

async fn exchange(wire: &Wire, place: &Place) -> Result<(), Error> {
    let channel = wire.channel().await?;
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    // The kind is not looked at in a passive declaration.
    let found =
        channel.exchange_declare(place.exchange.as_str().into(), ExchangeKind::Direct, options, FieldTable::default());
    answered(format!("exchange '{}'", place.exchange), found).await
}

async fn queue(wire: &Wire, place: &Place, side: Side) -> Result<Queue, Error> {
    let mut last = None;
    for _ in 0..LOOKS {
        if existing(wire, place).await?.is_some() {
            if let Some(queue) = look(wire, place, side).await? {
                return Ok(queue);
            }
            // It was deleted in between.
            continue;
        }
        if !place.declare {
            return Err(may_not_be_declared(place));
        }
        let what = format!("declaring queue '{}'", place.queue);
        let channel = wire.channel().await?;
        let ours = arguments::ours(place);
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let asked = channel.queue_declare(place.queue.as_str().into(), durable, arguments::table(&ours));
        match answered_or_refused(&what, asked).await? {
            Ok(_) => {
                return Ok(Queue {
                    declared: true,
                    ..described(&Found { durable: true, auto_delete: false, arguments: ours })
                });
            }
            // Somebody else has made it meanwhile, and otherwise: then it is used as it is.
            Err(error) if refusal(&error) == Refusal::Precondition => last = Some(explain(what, &error)),
            Err(error) if refusal(&error) == Refusal::Access => {
                return Err(forbidden(place, &super::refusal::words(&error)));
            }
            Err(error) => return Err(explain(what, &error)),
        }
    }
    Err(last.unwrap_or_else(|| {
        Error::new(crate::ErrorKind::Unreachable, format!("queue '{}' comes and goes", place.queue))
    }))
}

/// What a queue that exists is; `None` where it has gone meanwhile.
pub(super) async fn look(wire: &Wire, place: &Place, side: Side) -> Result<Option<Queue>, Error> {
    let (policy, mut notes) = match management::queue(place).await {
        None => (
            Default::default(),
            vec![format!(
                "policies of queue '{}' are not told by AMQP: they are seen where management=URL is given",
                place.queue
            )],
        ),
        Some(Ok(Told { policy, .. })) => (policy, Vec::new()),
        Some(Err(error)) => {
            (Default::default(), vec![format!("policies of queue '{}' are not seen: {error}", place.queue)])
        }
    };
    let mut queue = match probe::probe(wire, place).await? {
        Probed::Absent => return Ok(None),
        Probed::Known(found) => {
            concerns::refused(&found, place)?;
            let warnings = concerns::warnings(&found, &policy, place, side);
            let mut queue = Queue { warnings, ..described(&found) };
            if let Some(limit) = policy.get(LIMIT.trim_start_matches("x-")).and_then(Value::number) {
                queue.delivery_limit = Some(queue.delivery_limit.map_or(limit, |own| own.min(limit)));
            }
            queue
        }
        Probed::Hidden(why) | Probed::Forbidden(why) => {
            notes.push(format!("what queue '{}' is declared with is not seen: {why}", place.queue));
            Queue::default()
        }
    };
    queue.notes = notes;
    Ok(Some(queue))
}

fn described(found: &Found) -> Queue {
    Queue {
        queue_type: found.queue_type(),
        single_active: Some(found.arguments.get(SINGLE_ACTIVE) == Some(&Value::Bool(true))),
        delivery_limit: found.arguments.get(LIMIT).and_then(Value::number),
        ..Queue::default()
    }
}

fn may_not_be_declared(place: &Place) -> Error {
    Error::configuration(format!("queue '{}' is absent, and the URL says declare=false", place.queue))
}

fn forbidden(place: &Place, why: &str) -> Error {
    Error::new(
        crate::ErrorKind::Credentials,
        format!("queue '{}' is absent and user '{}' may not declare it: {why}", place.queue, place.server.user),
    )
}
