//! From a message to AMQP.

use super::order::{ORDER_HEADER, order_of};
use super::{MILLISECONDS_HEADER, PROPERTY_PREFIX, TOMBSTONE_HEADER};
use crate::failure::Failure;
use crate::message::{KEY_HEADER, MessageRef};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

/// Persistent, as the protocol numbers it.
const PERSISTENT: u8 = 2;
/// What a header frame has besides headers and properties: frame, class, size, flags, delivery mode, timestamp.
const FRAME_OVERHEAD: usize = 64;
/// Type, lengths of name and value of one entry of a table.
const ENTRY_OVERHEAD: usize = 6;
/// Headers by which the broker would route a copy elsewhere, and which it closes the channel for where they are no
/// array. They travel beside the table.
pub(super) const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];

/// The properties of a message that is published as that number.
///
/// The number stands in the property that the protocol once had for clusters: the broker hands it back with a message
/// that it returns, nobody else looks at it, and every other property stays free for the message.
///
/// # Errors
/// Permanent: what AMQP or the agreed size of frames cannot carry.
pub(in crate::transport::amqp) fn properties(
    message: MessageRef<'_>,
    number: u64,
    frame_max: usize,
) -> Result<BasicProperties, Failure> {
    let mut properties =
        BasicProperties::default().with_delivery_mode(PERSISTENT).with_cluster_id(number.to_string().into());
    let mut table = FieldTable::default();
    let mut size = FRAME_OVERHEAD;
    let mut put = |name: &str, value: AMQPValue, bytes: usize| {
        let name = ShortString::try_new(name).map_err(|_| {
            let start: String = name.chars().take(40).collect();
            permanent(format!("the name of header '{start}…' is longer than 255 bytes"))
        })?;
        size += ENTRY_OVERHEAD + name.as_str().len() + bytes;
        table.insert(name, value);
        Ok::<(), Failure>(())
    };
    for (name, value) in message.headers().iter() {
        if let Some(property) = name.strip_prefix(PROPERTY_PREFIX) {
            match set(properties, property, value) {
                Set::Done(with) | Set::Never(with) => {
                    properties = with;
                    continue;
                }
                Set::No(without) => properties = without,
            }
        }
        if ROUTING_HEADERS.contains(&name) || (name == KEY_HEADER && message.key().is_some()) {
            continue;
        }
        put(name, text(value), value.len())?;
    }
    if let Some(key) = message.key() {
        put(KEY_HEADER, text(key), key.len())?;
    }
    if message.payload().is_none() {
        put(TOMBSTONE_HEADER, AMQPValue::Boolean(true), 1)?;
    }
    if let Some((order, bytes)) = order_of(message.headers()) {
        put(ORDER_HEADER, order, bytes)?;
    }
    if let Some(ms) = message.timestamp_ms() {
        match u64::try_from(ms) {
            Ok(ms) => {
                properties = properties.with_timestamp(ms / 1_000);
                if ms % 1_000 != 0 {
                    put(MILLISECONDS_HEADER, AMQPValue::LongLongInt(ms as i64), 8)?;
                }
            }
            // Before 1970, which the property cannot say.
            Err(_) => put(MILLISECONDS_HEADER, AMQPValue::LongLongInt(ms), 8)?,
        }
    }
    size += properties_size(&properties);
    if size > frame_max {
        return Err(permanent(format!(
            "headers of some {size} bytes do not fit into one frame, which this connection limits to {frame_max} bytes"
        )));
    }
    // A message without headers has no table at all.
    Ok(if table.inner().is_empty() { properties } else { properties.with_headers(table) })
}

/// The number that a message was published as, read from what was returned.
pub(in crate::transport::amqp) fn publish_number(properties: &BasicProperties) -> Option<u64> {
    properties.cluster_id().as_ref()?.as_str().parse().ok()
}

fn permanent(text: String) -> Failure {
    Failure::reject(text)
}

fn text(value: &[u8]) -> AMQPValue {
    AMQPValue::LongString(value.to_vec().into())
}

enum Set {
    /// The header became a property.
    Done(BasicProperties),
    /// The header stands for a property that is never published.
    Never(BasicProperties),
    /// Not a property, or no value of one: it goes as the header that it is.
    No(BasicProperties),
}

fn set(properties: BasicProperties, name: &str, value: &[u8]) -> Set {
    if matches!(name, "expiration" | "user-id") {
        // It would expire here too; and the broker refuses a user who is not the publisher.
        return Set::Never(properties);
    }
    let Some(value) = std::str::from_utf8(value).ok().filter(|value| value.len() <= usize::from(u8::MAX)) else {
        return Set::No(properties);
    };
    Set::Done(match name {
        "content-type" => properties.with_content_type(value.into()),
        "content-encoding" => properties.with_content_encoding(value.into()),
        "correlation-id" => properties.with_correlation_id(value.into()),
        "message-id" => properties.with_message_id(value.into()),
        "type" => properties.with_type(value.into()),
        "app-id" => properties.with_app_id(value.into()),
        // Where it names a client that waits on its own channel, the broker refuses it on any other.
        "reply-to" if !value.starts_with("amq.rabbitmq.reply-to") => properties.with_reply_to(value.into()),
        "priority" => match value.parse() {
            Ok(priority) => properties.with_priority(priority),
            Err(_) => return Set::No(properties),
        },
        _ => return Set::No(properties),
    })
}

fn properties_size(properties: &BasicProperties) -> usize {
    [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.message_id(),
        properties.kind(),
        properties.app_id(),
        properties.reply_to(),
        properties.cluster_id(),
    ]
    .into_iter()
    .flatten()
    .map(|text| text.as_str().len() + 1)
    .sum()
}
