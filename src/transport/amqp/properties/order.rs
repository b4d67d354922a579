//! Order and repeats of headers: a table of AMQP has neither.
//!
//! Where the names of a message's headers do not rise, or repeat, or may not stand in the table, the header
//! [`ORDER_HEADER`] lists them: an array with, for each header in order, its name where the table has the value, and an
//! array of name and value where it has not.

use super::outbound::ROUTING_HEADERS;
use crate::message::{Headers, HeadersRef};
use lapin::types::{AMQPValue, FieldArray};

/// Header that lists the headers of a message in order.
pub(super) const ORDER_HEADER: &str = "longshore-headers";

/// What [`ORDER_HEADER`] says, and about how many bytes it takes; `None` where the table says it all.
pub(super) fn order_of(headers: HeadersRef<'_>) -> Option<(AMQPValue, usize)> {
    let names = || headers.iter().map(|(name, _)| name);
    let rises = names().zip(names().skip(1)).all(|(one, next)| one < next);
    if rises && !names().any(|name| ROUTING_HEADERS.contains(&name)) {
        return None;
    }
    let mut order = FieldArray::default();
    let mut size = 8;
    let text = |bytes: &[u8]| AMQPValue::LongString(bytes.to_vec().into());
    for (at, (name, value)) in headers.iter().enumerate() {
        let again = headers.iter().skip(at + 1).any(|(later, _)| later == name);
        size += 5 + name.len();
        if again || ROUTING_HEADERS.contains(&name) {
            size += 10 + value.len();
            let mut pair = FieldArray::default();
            pair.push(text(name.as_bytes()));
            pair.push(text(value));
            order.push(AMQPValue::FieldArray(pair));
        } else {
            order.push(text(name.as_bytes()));
        }
    }
    Some((AMQPValue::FieldArray(order), size))
}

/// A header as [`ORDER_HEADER`] lists it: its name, and its value where the table has it not.
pub(super) type Listed<'a> = (&'a str, Option<&'a [u8]>);

/// Reads [`ORDER_HEADER`]: for each header in order its name, and its value where the table has it not. Whatever else
/// the table holds comes after these; `None` where this is not what we write.
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

/// The headers of the table, in the order that was listed and with what was listed besides; those that nobody listed,
/// which others on the way have added, come last.
pub(super) fn in_order(table: Headers, order: &[Listed<'_>]) -> Headers {
    let mut all = Headers::new();
    for (name, value) in order {
        if let Some(value) = value.or_else(|| table.get(name)) {
            all.push(name, value);
        }
    }
    for (name, value) in table.iter() {
        if !order.iter().any(|(listed, _)| *listed == name) {
            all.push(name, value);
        }
    }
    all
}
