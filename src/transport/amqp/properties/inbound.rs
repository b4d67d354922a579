//! From AMQP to a message.

use super::order::{ORDER_HEADER, in_order, read_order};
use super::{MILLISECONDS_HEADER, PROPERTY_PREFIX, TOMBSTONE_HEADER};
use crate::message::{Head, Headers, KEY_HEADER, SlabBuilder};
use crate::transport::{ATTEMPTS_HEADER, KeyFrom, OVERSIZED_HEADER, RETRY_AFTER_HEADER, attempts_of};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;

/// How often the broker has delivered a message of a quorum queue before.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// Where a message of a stream lies in it.
const STREAM_OFFSET: &str = "x-stream-offset";
/// Headers that begin so tell of a message's way through other queues.
const PASTS: [&str; 3] = ["x-death", "x-first-death-", "x-last-death-"];
/// Tables in tables are looked into so deep; what lies deeper is left out.
const DEPTH: usize = 32;

/// How deliveries become messages.
#[derive(Debug, Clone)]
pub(in super::super) struct Reading {
    /// Where the key is.
    pub(in super::super) key: KeyFrom,
    /// A payload that is larger is left out.
    pub(in super::super) max_message: u64,
}

/// A delivery as it came.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Inbound<'a> {
    pub(in super::super) properties: &'a BasicProperties,
    pub(in super::super) routing_key: &'a str,
    /// It was delivered before, to whomever.
    pub(in super::super) redelivered: bool,
    pub(in super::super) payload: &'a [u8],
}

/// What is taken off the headers of a delivery.
#[derive(Default)]
struct Taken<'a> {
    key: Option<std::borrow::Cow<'a, [u8]>>,
    milliseconds: Option<i64>,
    tombstone: bool,
    deliveries: Option<u32>,
    retried: bool,
    order: Option<&'a AMQPValue>,
}

impl Reading {
    /// Adds a delivery as a message. [`Head::unclean`] is how often it was delivered before, as far as the broker
    /// tells: it counts orderly ends too. [`Head::attempts`] is what a retry store wrote. No content makes it panic,
    /// short of 4 GiB in one batch.
    pub(in super::super) fn push<'b>(&self, builder: &'b mut SlabBuilder, message: Inbound<'_>) -> &'b mut Head {
        let mut headers = Headers::new();
        let mut taken = Taken::default();
        properties(message.properties, &mut headers);
        if let Some(table) = message.properties.headers() {
            table.into_iter().for_each(|(name, value)| header(name.as_str(), value, &mut headers, &mut taken));
        }
        if let Some(order) = taken.order.and_then(read_order) {
            headers = in_order(headers, &order);
        }
        let mut attempts = 0;
        if taken.retried {
            attempts = headers.get(ATTEMPTS_HEADER).map_or(0, attempts_of);
            headers.remove(ATTEMPTS_HEADER);
        }
        let mut payload = message.payload;
        let size = payload.len() as u64;
        if size > self.max_message {
            headers.push(OVERSIZED_HEADER, size.to_string());
            payload = &[];
        }
        let payload = (!(taken.tombstone && size == 0)).then_some(payload);
        let routing_key = Some(message.routing_key.as_bytes());
        let key = match &taken.key {
            // On its way back from a retry store it has lost its routing key: the store keeps what the key was.
            Some(key) if taken.retried => Some(key.clone()),
            key => self.key.find(key.as_deref(), routing_key, headers.as_ref(), payload),
        };
        let timestamp = timestamp(message.properties, taken.milliseconds);
        let head = builder.push(key.as_deref(), payload, headers.as_ref(), timestamp);
        head.attempts = attempts;
        head.unclean = taken.deliveries.unwrap_or(0).max(u32::from(message.redelivered));
        head
    }
}

/// The properties that a message of ours has no field for.
fn properties(properties: &BasicProperties, headers: &mut Headers) {
    let mut push = |name: &str, value: &str| headers.push(format!("{PROPERTY_PREFIX}{name}"), value);
    let texts = [
        ("content-type", properties.content_type()),
        ("content-encoding", properties.content_encoding()),
        ("correlation-id", properties.correlation_id()),
        ("reply-to", properties.reply_to()),
        ("expiration", properties.expiration()),
        ("message-id", properties.message_id()),
        ("type", properties.kind()),
        ("user-id", properties.user_id()),
        ("app-id", properties.app_id()),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            push(name, value.as_str());
        }
    }
    if let Some(priority) = properties.priority() {
        push("priority", &priority.to_string());
    }
}

fn header<'a>(name: &str, value: &'a AMQPValue, headers: &mut Headers, taken: &mut Taken<'a>) {
    match name {
        KEY_HEADER => taken.key = Some(bytes(value)),
        TOMBSTONE_HEADER => taken.tombstone = true,
        DELIVERY_COUNT => taken.deliveries = number(value).map(clamped),
        RETRY_AFTER_HEADER => taken.retried = true,
        ORDER_HEADER => taken.order = Some(value),
        MILLISECONDS_HEADER if number(value).is_some() => taken.milliseconds = number(value),
        STREAM_OFFSET => {}
        past if PASTS.iter().any(|prefix| past.starts_with(prefix)) => {}
        name => headers.push(name, bytes(value)),
    }
}

fn clamped(count: i64) -> u32 {
    u32::try_from(count.max(0)).unwrap_or(u32::MAX)
}

/// Where a message of a stream lies in it.
pub(in super::super) fn stream_offset(properties: &BasicProperties) -> Option<i64> {
    number(properties.headers().as_ref()?.inner().get(STREAM_OFFSET)?)
}

/// The header with milliseconds where it speaks of the same second as the property, else that; seconds that no
/// calendar has are no timestamp.
fn timestamp(properties: &BasicProperties, milliseconds: Option<i64>) -> Option<i64> {
    let seconds = properties.timestamp().and_then(|seconds| i64::try_from(seconds).ok());
    match (seconds, milliseconds) {
        (Some(seconds), Some(ms)) if ms.div_euclid(1_000) == seconds => Some(ms),
        (None, Some(ms)) => Some(ms),
        (Some(seconds), _) => seconds.checked_mul(1_000),
        (None, None) => None,
    }
    .filter(|ms| *ms != i64::MIN)
}

fn number(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::ShortShortInt(value) => i64::from(*value),
        AMQPValue::ShortShortUInt(value) => i64::from(*value),
        AMQPValue::ShortInt(value) => i64::from(*value),
        AMQPValue::ShortUInt(value) => i64::from(*value),
        AMQPValue::LongInt(value) => i64::from(*value),
        AMQPValue::LongUInt(value) => i64::from(*value),
        AMQPValue::LongLongInt(value) => *value,
        AMQPValue::Timestamp(value) => i64::try_from(*value).ok()?,
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok()?.parse().ok()?,
        AMQPValue::ShortString(text) => text.as_str().parse().ok()?,
        _ => return None,
    })
}

/// A header's value as text; what is bytes stays as it is.
fn bytes(value: &AMQPValue) -> std::borrow::Cow<'_, [u8]> {
    match value {
        AMQPValue::LongString(text) => text.as_bytes().into(),
        AMQPValue::ShortString(text) => text.as_str().as_bytes().into(),
        AMQPValue::ByteArray(bytes) => bytes.as_slice().into(),
        AMQPValue::Void => [].as_slice().into(),
        value => match json(value, DEPTH) {
            Value::String(text) => text.into_bytes().into(),
            other => other.to_string().into_bytes().into(),
        },
    }
}

/// As JSON writes it: a timestamp as RFC 3339, bytes as far as they are UTF-8, nothing as null.
fn json(value: &AMQPValue, depth: usize) -> Value {
    if let Some(number) = number(value).filter(|_| !matches!(value, AMQPValue::Timestamp(_))) {
        let is_text = matches!(value, AMQPValue::LongString(_) | AMQPValue::ShortString(_));
        if !is_text {
            return number.into();
        }
    }
    match value {
        AMQPValue::Boolean(value) => (*value).into(),
        AMQPValue::Float(value) => f64::from(*value).into(),
        AMQPValue::Double(value) => (*value).into(),
        AMQPValue::DecimalValue(value) => {
            let digits = i32::from(value.scale);
            (f64::from(value.value) / 10_f64.powi(digits)).into()
        }
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into(),
        AMQPValue::Timestamp(seconds) => i64::try_from(*seconds)
            .ok()
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
            .map_or_else(|| (*seconds).into(), |timestamp| timestamp.to_string().into()),
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) if depth == 0 => Value::Null,
        AMQPValue::FieldArray(array) => array.as_slice().iter().map(|value| json(value, depth - 1)).collect(),
        AMQPValue::FieldTable(table) => object(table, depth - 1),
        _ => Value::Null,
    }
}

fn object(table: &FieldTable, depth: usize) -> Value {
    Value::Object(table.into_iter().map(|(name, value)| (name.to_string(), json(value, depth))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, Slab};
    use lapin::types::{DecimalValue, FieldArray};

    const READING: Reading = Reading { key: KeyFrom::Message, max_message: 1_000 };

    fn read_as(reading: &Reading, properties: &BasicProperties, redelivered: bool, payload: &[u8]) -> Slab {
        let mut builder = SlabBuilder::new();
        reading.push(&mut builder, Inbound { properties, routing_key: "orders", redelivered, payload });
        builder.finish("q".into())
    }

    fn table<const N: usize>(all: [(&str, AMQPValue); N]) -> BasicProperties {
        let mut table = FieldTable::default();
        for (name, value) in all {
            table.insert(name.into(), value);
        }
        BasicProperties::default().with_headers(table)
    }

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn read<const N: usize>(headers: [(&str, AMQPValue); N]) -> Message {
        read_as(&READING, &table(headers), false, b"p").get(0).to_message()
    }

    #[test]
    fn a_message_without_properties_is_a_payload() {
        let slab = read_as(&READING, &BasicProperties::default(), false, b"\xff\x00");
        assert_eq!(slab.get(0).to_message(), Message::new(&b"\xff\x00"[..]));
        assert_eq!((slab.heads()[0].attempts, slab.heads()[0].unclean), (0, 0));
    }

    #[test]
    fn every_type_of_header_comes_in_as_text() {
        let mut nested = FieldTable::default();
        nested.insert("n".into(), AMQPValue::LongInt(-3));
        nested.insert("t".into(), AMQPValue::Timestamp(0));
        nested.insert("l".into(), FieldArray::from(vec![AMQPValue::Void, text("x"), AMQPValue::Boolean(true)]).into());
        for (value, wanted) in [
            (AMQPValue::Boolean(false), "false"),
            (AMQPValue::ShortShortInt(-1), "-1"),
            (AMQPValue::ShortShortUInt(255), "255"),
            (AMQPValue::ShortInt(-2), "-2"),
            (AMQPValue::ShortUInt(2), "2"),
            (AMQPValue::LongInt(-3), "-3"),
            (AMQPValue::LongUInt(3), "3"),
            (AMQPValue::LongLongInt(i64::MIN), "-9223372036854775808"),
            (AMQPValue::Float(0.5), "0.5"),
            (AMQPValue::Double(f64::NAN), "null"),
            (AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 1_250 }), "12.5"),
            (AMQPValue::ShortString("s".into()), "s"),
            (text("17"), "17"),
            (AMQPValue::Timestamp(1_700_000_000), "2023-11-14T22:13:20Z"),
            (AMQPValue::Timestamp(u64::MAX), "18446744073709551615"),
            (AMQPValue::ByteArray(vec![b'b'].into()), "b"),
            (AMQPValue::Void, ""),
            (AMQPValue::FieldTable(nested.clone()), r#"{"l":[null,"x",true],"n":-3,"t":"1970-01-01T00:00:00Z"}"#),
        ] {
            let shown = format!("{value:?}");
            let message = read([("h", value)]);
            assert_eq!(std::str::from_utf8(message.headers.get("h").unwrap()), Ok(wanted), "{shown}");
        }
    }

    #[test]
    fn a_table_in_a_table_in_a_table_ends_somewhere() {
        let deep = (0..10_000).fold(AMQPValue::Void, |inner, _| FieldArray::from(vec![inner]).into());
        let message = read([("h", deep)]);
        assert!(message.headers.get("h").unwrap().len() <= 2 * DEPTH + "null".len());
    }

    #[test]
    fn the_key_is_found_where_it_is_said_to_be() {
        let properties = table([("longshore-key", AMQPValue::LongString(vec![0xff].into())), ("h", text("header"))]);
        for (key, wanted) in [
            (None, &b"\xff"[..]),
            (Some("header:h"), b"header"),
            (Some("routing-key"), b"orders"),
            (Some("/k"), b"json"),
        ] {
            let reading = Reading { key: KeyFrom::parse(key).unwrap(), max_message: 1_000 };
            let message = read_as(&reading, &properties, false, br#"{"k":"json"}"#).get(0).to_message();
            assert_eq!(message.key.as_deref(), Some(wanted), "{key:?}");
            // Ours alone: it is no header of the user's.
            assert_eq!(message.headers, [("h", "header")].into_iter().collect());
        }
    }

    #[test]
    fn properties_without_a_field_of_ours_are_headers() {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_priority(7)
            .with_message_id("m-1".into())
            .with_type("order".into());
        let message = read_as(&READING, &properties, false, b"p").get(0).to_message();
        let wanted = [
            ("amqp-content-type", "application/json"),
            ("amqp-message-id", "m-1"),
            ("amqp-type", "order"),
            ("amqp-priority", "7"),
        ];
        assert_eq!(message.headers, wanted.into_iter().collect());
    }

    #[test]
    fn what_the_broker_adds_of_the_past_is_not_handed_on() {
        let message = read([
            ("x-death", FieldArray::default().into()),
            ("x-first-death-queue", text("q")),
            ("x-last-death-reason", text("expired")),
            ("x-stream-offset", AMQPValue::LongLongInt(4)),
            ("x-mine", text("1")),
        ]);
        assert_eq!(message.headers, [("x-mine", "1")].into_iter().collect());
    }

    #[test]
    fn an_earlier_delivery_is_counted_as_far_as_the_broker_tells() {
        let count = |count| table([("x-delivery-count", AMQPValue::LongLongInt(count))]);
        for (properties, redelivered, unclean) in [
            (BasicProperties::default(), true, 1),
            (count(3), true, 3),
            (count(-3), false, 0),
            (count(i64::MAX), true, u32::MAX),
        ] {
            assert_eq!(read_as(&READING, &properties, redelivered, b"").heads()[0].unclean, unclean);
        }
    }

    #[test]
    fn attempts_are_taken_from_a_retry_alone_and_absurd_ones_are_clamped() {
        let retried = |attempts| table([("longshore-retry-after", text("10")), ("longshore-attempts", text(attempts))]);
        for (given, attempts) in [("3", 3), ("99999999999999999999", u32::MAX), ("-1", 0), ("many", 0)] {
            let slab = read_as(&READING, &retried(given), false, b"");
            assert_eq!(slab.heads()[0].attempts, attempts, "{given}");
            assert!(slab.get(0).headers().is_empty());
        }
        let slab = read_as(&READING, &table([("longshore-attempts", text("3"))]), false, b"");
        assert_eq!((slab.heads()[0].attempts, slab.get(0).headers().text("longshore-attempts")), (0, Some("3")));
    }

    #[test]
    fn a_payload_over_the_limit_is_left_out_and_its_size_said() {
        let message = read_as(&READING, &BasicProperties::default(), false, &[b'x'; 1_001]).get(0).to_message();
        assert_eq!(message.payload.as_deref(), Some(&b""[..]));
        assert_eq!(message.headers, [(OVERSIZED_HEADER, "1001")].into_iter().collect());
    }

    #[test]
    fn a_tombstone_has_no_payload_and_one_with_a_body_is_none() {
        let properties = table([("longshore-tombstone", AMQPValue::Boolean(true))]);
        assert_eq!(read_as(&READING, &properties, false, b"").get(0).payload(), None);
        assert_eq!(read_as(&READING, &properties, false, b"x").get(0).payload(), Some(&b"x"[..]));
    }

    #[test]
    fn a_timestamp_has_milliseconds_where_they_belong_to_its_second() {
        let at = |seconds: Option<u64>, ms: Option<i64>| {
            let mut properties =
                ms.map_or_else(BasicProperties::default, |ms| table([("timestamp_in_ms", AMQPValue::LongLongInt(ms))]));
            if let Some(seconds) = seconds {
                properties = properties.with_timestamp(seconds);
            }
            read_as(&READING, &properties, false, b"").get(0).timestamp_ms()
        };
        assert_eq!(at(Some(1_700_000_000), Some(1_700_000_000_123)), Some(1_700_000_000_123));
        assert_eq!(at(Some(1_700_000_000), Some(5)), Some(1_700_000_000_000));
        assert_eq!(at(None, Some(5)), Some(5));
        assert_eq!(at(Some(u64::MAX), None), None);
        assert_eq!(at(Some(i64::MAX as u64), None), None);
    }
}
