//! From a message to AMQP.

use super::order::{Carried, ORDER_HEADER, order_of};
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
        match Carried::of(name, value) {
            Carried::Property(_) => properties = set(properties, name, value),
            Carried::Header(KEY_HEADER) if message.key().is_some() => {}
            Carried::Header(name) => put(name, text(value), value.len())?,
            Carried::Listed | Carried::Never => {}
        }
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

/// With the property that a header stands for, whose value was found to be one of it.
fn set(properties: BasicProperties, name: &str, value: &[u8]) -> BasicProperties {
    let text = || ShortString::try_new(String::from_utf8_lossy(value)).unwrap_or_default();
    match name.strip_prefix(PROPERTY_PREFIX).unwrap_or_default() {
        "content-type" => properties.with_content_type(text()),
        "content-encoding" => properties.with_content_encoding(text()),
        "correlation-id" => properties.with_correlation_id(text()),
        "reply-to" => properties.with_reply_to(text()),
        "message-id" => properties.with_message_id(text()),
        "type" => properties.with_type(text()),
        "app-id" => properties.with_app_id(text()),
        "priority" => properties.with_priority(text().as_str().parse().unwrap_or_default()),
        _ => properties,
    }
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

#[cfg(test)]
mod tests {
    use super::super::inbound::{Inbound, Reading};
    use super::*;
    use crate::message::{Headers, Message, Slab, SlabBuilder};
    use crate::transport::KeyFrom;
    use proptest::prelude::*;

    const FRAME_MAX: usize = 131_072;

    fn slab(message: &Message) -> Slab {
        let mut builder = SlabBuilder::new();
        builder.push_message(message);
        builder.finish("q".into())
    }

    fn out(message: &Message) -> Result<BasicProperties, Failure> {
        properties(slab(message).get(0), 7, FRAME_MAX)
    }

    fn there_and_back(message: &Message) -> Message {
        let properties = out(message).unwrap();
        let reading = Reading { key: KeyFrom::Message, max_message: u64::MAX };
        let payload = message.payload.as_deref().unwrap_or_default();
        let inbound = Inbound { properties: &properties, routing_key: "q", redelivered: false, payload };
        let mut builder = SlabBuilder::new();
        reading.push(&mut builder, inbound);
        builder.finish("q".into()).get(0).to_message()
    }

    /// Names of headers as they come: properties, those that the broker must not see, repeats.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-c]{1,2}",
            "[\\PC]{0,8}",
            proptest::sample::select(vec![
                "CC",
                "BCC",
                "amqp-type",
                "amqp-priority",
                "amqp-message-id",
                "amqp-reply-to"
            ])
            .prop_map(str::to_owned),
        ]
    }

    proptest! {
        #[test]
        fn a_message_comes_back_as_it_went(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
            payload in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
            headers in proptest::collection::vec((name(), proptest::collection::vec(any::<u8>(), 0..20)), 0..8),
            timestamp_ms in proptest::option::of(-10_000_000_000_000..10_000_000_000_000_i64),
        ) {
            let headers: Headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
            let sent = Message { key: key.map(Into::into), payload: payload.map(Into::into), headers, timestamp_ms };
            prop_assert_eq!(there_and_back(&sent), sent);
        }
    }

    #[test]
    fn a_foreign_reader_sees_properties_where_it_looks_for_them() {
        let mut sent = Message::new("p").with_key("k");
        for (name, value) in [
            ("amqp-content-type", "application/json"),
            ("amqp-content-encoding", "gzip"),
            ("amqp-priority", "9"),
            ("amqp-correlation-id", "c"),
            ("amqp-reply-to", "answers"),
            ("amqp-message-id", "m"),
            ("amqp-type", "order"),
            ("amqp-app-id", "shop"),
            ("amqp-expiration", "1000"),
            ("amqp-user-id", "somebody"),
        ] {
            sent.headers.push(name, value);
        }
        sent.timestamp_ms = Some(1_700_000_000_123);
        let properties = out(&sent).unwrap();
        let text = |property: &Option<ShortString>| property.as_ref().map(|text| text.as_str().to_owned());
        assert_eq!(text(properties.content_type()).as_deref(), Some("application/json"));
        assert_eq!(text(properties.content_encoding()).as_deref(), Some("gzip"));
        assert_eq!(*properties.priority(), Some(9));
        assert_eq!(text(properties.correlation_id()).as_deref(), Some("c"));
        assert_eq!(text(properties.reply_to()).as_deref(), Some("answers"));
        assert_eq!(text(properties.message_id()).as_deref(), Some("m"));
        assert_eq!(text(properties.kind()).as_deref(), Some("order"));
        assert_eq!(text(properties.app_id()).as_deref(), Some("shop"));
        assert_eq!((text(properties.expiration()), text(properties.user_id())), (None, None));
        assert_eq!(*properties.timestamp(), Some(1_700_000_000));
        assert_eq!(*properties.delivery_mode(), Some(PERSISTENT));
        assert_eq!(publish_number(&properties), Some(7));
    }

    #[test]
    fn a_message_without_headers_needs_no_table() {
        assert_eq!(out(&Message::new("p")).unwrap().headers(), &None);
    }

    #[test]
    fn what_the_broker_would_close_the_channel_for_does_not_reach_it() {
        let sent =
            Message::new("p").with_header("CC", "[\"q\"]").with_header("amqp-reply-to", "amq.rabbitmq.reply-to.g");
        let properties = out(&sent).unwrap();
        let headers = properties.headers().as_ref().unwrap().inner();
        assert!(!headers.contains_key("CC") && properties.reply_to().is_none(), "{headers:?}");
        assert_eq!(there_and_back(&sent), sent);
    }

    #[test]
    fn what_no_frame_holds_is_refused_for_good() {
        for sent in [
            Message::new("p").with_header("h", vec![b'x'; FRAME_MAX]),
            Message::new("p").with_key(vec![b'x'; FRAME_MAX]),
            Message::new("p").with_header("n".repeat(256), ""),
        ] {
            assert_eq!(out(&sent).unwrap_err().fate(), &crate::Fate::Reject);
        }
    }
}
