//! What messages carry, in from a foreign client and out to one.

use super::broker;
use super::peer::Peer;
use super::writer::{PATIENCE, Writer};
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable};
use longshore::message::{Message, MessageRef};
use longshore::transport::amqp::Amqp;
use longshore::transport::{Ask, Event, SourceHooks, SourceSpec, Transport, Url};

/// So many messages that a source of this queue delivers.
async fn read(url: &str, count: usize) -> Vec<Message> {
    let spec = SourceSpec::new("reader", "test", PATIENCE);
    let plan = Amqp::default().source(&Url::parse(url).unwrap(), &spec).unwrap();
    let mut source = plan.open(SourceHooks::default()).await.unwrap();
    source.tell(Ask::Demand { messages: 10, bytes: 1 << 20 });
    let reading = async {
        let mut all = Vec::new();
        while all.len() < count {
            if let Event::Batch(slab) = source.next().await {
                all.extend(slab.iter().map(MessageRef::to_message));
            }
        }
        all
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("as many messages")
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// One header of each type that a broker takes, and a table of all of them once more.
fn every_type() -> (FieldTable, Vec<(&'static str, &'static str)>) {
    let values = [
        (
            "array",
            AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::LongInt(1), text("two"), AMQPValue::Void])),
            r#"[1,"two",null]"#,
        ),
        ("boolean", AMQPValue::Boolean(true), "true"),
        ("byte", AMQPValue::ShortShortInt(-1), "-1"),
        ("bytes", AMQPValue::ByteArray(b"raw".to_vec().into()), "raw"),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 1, value: 25 }), "2.5"),
        ("double", AMQPValue::Double(0.25), "0.25"),
        ("float", AMQPValue::Float(0.5), "0.5"),
        ("int", AMQPValue::LongInt(-3), "-3"),
        ("long", AMQPValue::LongLongInt(i64::MAX), "9223372036854775807"),
        ("short", AMQPValue::ShortInt(-2), "-2"),
        ("text", text("ü"), "ü"),
        ("time", AMQPValue::Timestamp(1_700_000_000), "2023-11-14T22:13:20Z"),
        ("uint", AMQPValue::LongUInt(3), "3"),
        ("ushort", AMQPValue::ShortUInt(2), "2"),
        ("void", AMQPValue::Void, ""),
    ];
    let mut table = FieldTable::default();
    for (name, value, _) in &values {
        table.insert((*name).into(), value.clone());
    }
    let mut nested = FieldTable::default();
    nested.insert("deep".into(), AMQPValue::FieldTable(table.clone()));
    table.insert("zeta".into(), AMQPValue::FieldTable(nested));
    (table, values.into_iter().map(|(name, _, text)| (name, text)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_every_type_go_through_and_come_out_as_text() {
    let Some(broker) = broker::shared() else { return };
    let (peer, from, to) = (Peer::at(&broker).await, broker.fresh("from"), broker.fresh("to"));
    peer.declare(&from, "quorum", &[]).await;
    let (table, wanted) = every_type();
    let properties = BasicProperties::default().with_headers(table).with_content_type("text/plain".into());
    let options = BasicPublishOptions::default();
    peer.channel
        .basic_publish("".into(), from.as_str().into(), options, b"p", properties)
        .await
        .unwrap()
        .await
        .unwrap();
    let message = read(&format!("{}?queue={from}", broker.url()), 1).await.remove(0);
    let mut writer = Writer::at(&broker, &format!("queue={to}")).await;
    writer.one(message).await.unwrap();
    let seen = peer.take_all(&to).await.remove(0);
    assert_eq!(seen.body, b"p");
    assert_eq!(seen.properties.content_type().as_ref().map(|of| of.as_str()), Some("text/plain"));
    let headers = seen.properties.headers().clone().unwrap();
    for (name, wanted) in wanted {
        assert_eq!(headers.inner().get(name), Some(&text(wanted)), "{name}");
    }
    let Some(AMQPValue::LongString(zeta)) = headers.inner().get("zeta") else { panic!("{headers:?}") };
    let zeta: serde_json::Value = serde_json::from_slice(zeta.as_bytes()).unwrap();
    assert_eq!(zeta["deep"]["array"], serde_json::json!([1, "two", null]));
    assert_eq!(zeta["deep"]["boolean"], true);
    // What came in order needs no list of its own.
    assert!(!headers.contains_key("longshore-headers"), "{headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_ours_comes_back_as_it_was_sent() {
    let Some(broker) = broker::shared() else { return };
    let queue = broker.fresh("back");
    let every: Vec<u8> = (0..=255).collect();
    let full = Message {
        timestamp_ms: Some(1_700_000_000_123),
        ..Message::new(every.clone())
            .with_key(every.clone())
            .with_header("b", "1")
            .with_header("a", &every)
            .with_header("b", "")
            .with_header("CC", "nobody")
            .with_header("amqp-message-id", "mine")
            .with_header("amqp-reply-to", "amq.rabbitmq.reply-to")
            .with_id("order-17")
    };
    let sent = [full, Message::tombstone("gone"), Message::new("").with_key(""), Message::new("bare")];
    let mut writer = Writer::at(&broker, &format!("queue={queue}")).await;
    writer.publish(sent.clone()).await;
    assert!(writer.failed().is_empty(), "{:?}", writer.became);
    assert_eq!(read(&format!("{}?queue={queue}", broker.url()), sent.len()).await, sent);
    assert_eq!((writer.connected, writer.disconnected.len()), (1, 0));
}
