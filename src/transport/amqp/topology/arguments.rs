//! Arguments of a queue: what ours are declared with, and their values as the broker names them.

use super::super::place::{Place, QueueType};
use lapin::types::{AMQPValue, FieldTable};
use std::collections::BTreeMap;
use std::fmt;

/// Longshore alone counts deliveries: a limit of the broker's would drop messages that were only handed back often
/// (RabbitMQ 4 has one of 20 where none is declared).
pub(in super::super) const DELIVERY_LIMIT: i64 = 1_000_000;

pub(super) const TYPE: &str = "x-queue-type";
pub(super) const LIMIT: &str = "x-delivery-limit";
pub(super) const SINGLE_ACTIVE: &str = "x-single-active-consumer";
pub(super) const OVERFLOW: &str = "x-overflow";
pub(super) const MAX_PRIORITY: &str = "x-max-priority";
pub(super) const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";
pub(super) const MAX_LENGTH: &str = "x-max-length";
pub(super) const MAX_BYTES: &str = "x-max-length-bytes";
pub(super) const TTL: &str = "x-message-ttl";
pub(super) const EXPIRES: &str = "x-expires";

/// The value of an argument, of the types that queues have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Value {
    Text(String),
    Number(i64),
    Bool(bool),
}

impl Value {
    pub(in super::super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub(super) fn number(&self) -> Option<i64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Bool(is) => write!(f, "{is}"),
        }
    }
}

/// Arguments by name.
pub(in super::super) type Arguments = BTreeMap<String, Value>;

/// Arguments that a queue of ours is declared with.
pub(super) fn ours(place: &Place) -> Arguments {
    let mut all = Arguments::new();
    let mut set = |name: &str, value| drop(all.insert(name.to_owned(), value));
    let queue_type = place.declared_type();
    set(TYPE, Value::text(queue_type.name()));
    if queue_type == QueueType::Quorum {
        set(LIMIT, Value::Number(DELIVERY_LIMIT));
    }
    if place.rejects_when_full {
        set(OVERFLOW, Value::text("reject-publish"));
    }
    if place.single_active {
        set(SINGLE_ACTIVE, Value::Bool(true));
    }
    if let Some(priorities) = place.max_priority {
        set(MAX_PRIORITY, Value::Number(priorities.into()));
    }
    all
}

/// As they go over the wire.
pub(super) fn table(arguments: &Arguments) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Value::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Value::Number(number) => AMQPValue::LongLongInt(*number),
            Value::Bool(is) => AMQPValue::Boolean(*is),
        };
        table.insert(name.as_str().into(), value);
    }
    table
}

/// `x-queue-type=quorum, x-delivery-limit=1000000`, in the words of the broker.
pub(super) fn words(arguments: &Arguments) -> String {
    let all: Vec<String> = arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
    all.join(", ")
}
