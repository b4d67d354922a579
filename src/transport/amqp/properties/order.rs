//! Order and repeats of headers: a table of AMQP has neither.
//!
//! A message comes in with its properties first and then its table by name. Where its headers are in another order, or
//! repeat, or may stand in neither, the header [`ORDER_HEADER`] lists them: an array with, for each header in order, its
//! name where property or table has the value, and an array of name and value where none has.

use super::PROPERTY_PREFIX;
use crate::message::{Headers, HeadersRef};
use crate::transport::RETRY_AFTER_HEADER;
use lapin::types::{AMQPValue, FieldArray};
use std::collections::BTreeMap;

/// Header that lists the headers of a message in order.
pub(super) const ORDER_HEADER: &str = "longshore-headers";

/// Properties in the order in which they come in.
const PROPERTIES: [&str; 10] = [
    "content-type",
    "content-encoding",
    "correlation-id",
    "reply-to",
    "expiration",
    "message-id",
    "type",
    "user-id",
    "app-id",
    "priority",
];
/// It would expire here too; and the broker refuses a user who is not the publisher.
const NEVER: [&str; 2] = ["expiration", "user-id"];
/// Headers by which the broker would route a copy elsewhere, and which it closes the channel for where they are no
/// array.
const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];
/// Where it names a client that waits on its own channel, the broker closes any other channel for it.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// How a header goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Carried<'a> {
    /// As the property of this number in [`PROPERTIES`]; the value is one of it.
    Property(usize),
    /// In the table.
    Header(&'a str),
    /// Nowhere but in [`ORDER_HEADER`].
    Listed,
    /// Not at all.
    Never,
}

impl<'a> Carried<'a> {
    pub(super) fn of(name: &'a str, value: &[u8]) -> Self {
        if ROUTING_HEADERS.contains(&name) {
            return Self::Listed;
        }
        let property = name.strip_prefix(PROPERTY_PREFIX);
        let Some(at) = property.and_then(|name| PROPERTIES.iter().position(|property| *property == name)) else {
            return Self::Header(name);
        };
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= usize::from(u8::MAX));
        match (PROPERTIES[at], text) {
            (never, _) if NEVER.contains(&never) => Self::Never,
            ("priority", Some(text)) if text.parse::<u8>().is_ok_and(|number| number.to_string() == text) => {
                Self::Property(at)
            }
            ("priority", _) | (_, None) => Self::Listed,
            ("reply-to", Some(text)) if text.starts_with(DIRECT_REPLY) => Self::Listed,
            _ => Self::Property(at),
        }
    }

    fn is_elsewhere(self) -> bool {
        matches!(self, Self::Property(_) | Self::Header(_))
    }
}

/// What [`ORDER_HEADER`] says, and about how many bytes it takes; `None` where properties and table say it all.
pub(super) fn order_of(headers: HeadersRef<'_>) -> Option<(AMQPValue, usize)> {
    let all = || {
        let all = headers.iter().map(|(name, value)| (name, value, Carried::of(name, value)));
        all.filter(|(.., carried)| *carried != Carried::Never)
    };
    let rises = all().zip(all().skip(1)).all(|((.., one), (.., next))| one < next);
    if rises && all().all(|(.., carried)| carried.is_elsewhere()) {
        return None;
    }
    // Of repeats property and table have the last.
    let last: BTreeMap<&str, usize> = all()
        .enumerate()
        .filter(|(_, (.., carried))| carried.is_elsewhere())
        .map(|(at, (name, ..))| (name, at))
        .collect();
    let mut order = FieldArray::default();
    let mut size = 8;
    let text = |bytes: &[u8]| AMQPValue::LongString(bytes.to_vec().into());
    for (at, (name, value, _)) in all().enumerate() {
        size += 5 + name.len();
        if last.get(name) == Some(&at) {
            order.push(text(name.as_bytes()));
        } else {
            size += 10 + value.len();
            let mut pair = FieldArray::default();
            pair.push(text(name.as_bytes()));
            pair.push(text(value));
            order.push(AMQPValue::FieldArray(pair));
        }
    }
    Some((AMQPValue::FieldArray(order), size))
}

/// A header as [`ORDER_HEADER`] lists it: its name, and its value where nothing else has it.
pub(super) type Listed<'a> = (&'a str, Option<&'a [u8]>);

/// Reads [`ORDER_HEADER`]; `None` where this is not what we write.
pub(super) fn read_order(order: &AMQPValue) -> Option<Vec<Listed<'_>>> {
    fn name(value: &AMQPValue) -> Option<&str> {
        match value {
            AMQPValue::LongString(name) => std::str::from_utf8(name.as_bytes()).ok(),
            _ => None,
        }
    }
    let AMQPValue::FieldArray(order) = order else { return None };
    order
        .as_slice()
        .iter()
        .map(|entry| match entry {
            AMQPValue::FieldArray(pair) => match pair.as_slice() {
                [first, AMQPValue::LongString(value)] => Some((name(first)?, Some(value.as_bytes()))),
                _ => None,
            },
            entry => Some((name(entry)?, None)),
        })
        .collect()
}

/// The headers of properties and table, in the order that was listed and with what was listed besides; those that
/// nobody listed, which others on the way have added, come last.
pub(super) fn in_order(found: Headers, order: &[Listed<'_>]) -> Headers {
    let mut rest: BTreeMap<&str, &[u8]> = found.iter().collect();
    let mut all = Headers::new();
    for (name, value) in order.iter().filter(|(name, _)| *name != RETRY_AFTER_HEADER) {
        match value {
            Some(value) => all.push(name, value),
            None => {
                if let Some(value) = rest.remove(name) {
                    all.push(name, value);
                }
            }
        }
    }
    for (name, _) in found.iter() {
        if let Some(value) = rest.remove(name) {
            all.push(name, value);
        }
    }
    all
}
