//! What becomes of what is published.

use super::broker::{self, Broker};
use super::peer::Peer;
use super::proxy::Proxy;
use super::writer::Writer;
use lapin::types::AMQPValue;
use longshore::Fate;
use longshore::message::Message;
use longshore::transport::SinkAsk;
use std::time::{Duration, Instant};

/// As many as keep several waves of confirms in flight.
const MANY: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_confirmed_and_lies_in_the_queue_in_order() {
    let Some(broker) = broker::shared() else { return };
    for kind in ["quorum", "classic"] {
        let queue = broker.fresh("plain");
        let mut writer = Writer::at(&broker, &format!("queue={queue}&type={kind}")).await;
        writer.publish((0..MANY).map(|number| Message::new(number.to_string()))).await;
        assert!(writer.failed().is_empty(), "{kind}: {:?}", writer.failed());
        let (unconfirmed, took) = writer.close_within(Duration::from_secs(30)).await;
        assert!(unconfirmed == 0 && took < Duration::from_secs(5), "{kind}: {unconfirmed} in {took:?}");
        let bodies: Vec<String> = stored(&broker, &queue).await;
        let wanted: Vec<String> = (0..MANY).map(|number| number.to_string()).collect();
        assert!(bodies == wanted, "{kind}: {} of {MANY}", bodies.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_unroutable_messages_fail_however_many_are_in_flight() {
    let Some(broker) = broker::shared() else { return };
    let peer = Peer::at(&broker).await;
    let (exchange, quorum, classic) = (broker.fresh("x"), broker.fresh("bound"), broker.fresh("bound"));
    peer.declare(&quorum, "quorum", &[]).await;
    peer.declare(&classic, "classic", &[]).await;
    peer.exchange(&exchange, "direct", &[("q", &quorum), ("c", &classic)]).await;
    let mut writer = Writer::at(&broker, &format!("exchange={exchange}&routing-key-from=key")).await;
    let mut random = fastrand::Rng::with_seed(7);
    // In runs, so that confirms of many at once have returns among them.
    let keys: Vec<&str> = std::iter::repeat_with(|| (random.choice(["q", "c", "lost"]).unwrap(), random.usize(1..20)))
        .flat_map(|(key, times)| std::iter::repeat_n(key, times))
        .take(MANY)
        .collect();
    let messages = keys.iter().enumerate().map(|(number, key)| Message::new(number.to_string()).with_key(*key));
    writer.publish(messages).await;
    let lost = |key: &&str| *key == "lost";
    let wanted: Vec<u64> = (0..).zip(&keys).filter(|(_, key)| lost(key)).map(|(number, _)| number).collect();
    assert!(wanted.len() > MANY / 5);
    assert!(writer.failed() == wanted, "{} failed, {} were unroutable", writer.failed().len(), wanted.len());
    let failure = writer.became[&wanted[0]].as_ref().unwrap_err();
    assert!(failure.chain().contains(&format!("'{exchange}'")) && failure.chain().contains("'lost'"), "{failure:?}");
    assert_eq!(failure.class(), "unroutable");
    assert!(matches!(failure.fate(), Fate::Retry { .. }), "{failure:?}");
    for (queue, key) in [(&quorum, "q"), (&classic, "c")] {
        let of_key = (0..).zip(&keys).filter(|(_, of)| **of == key);
        let wanted: Vec<String> = of_key.map(|(number, _): (u64, _)| number.to_string()).collect();
        assert!(stored(&broker, queue).await == wanted, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_the_routing_key_that_is_asked_for_fails_for_good_and_says_which() {
    let Some(broker) = broker::shared() else { return };
    let peer = Peer::at(&broker).await;
    let (exchange, queue) = (broker.fresh("x"), broker.fresh("bound"));
    peer.declare(&queue, "quorum", &[]).await;
    peer.exchange(&exchange, "topic", &[("#", &queue)]).await;
    let mut writer = Writer::at(&broker, &format!("exchange={exchange}&routing-key-from=header:kind")).await;
    for (message, why) in [
        (Message::new("a"), "header 'kind', and the message has none"),
        (Message::new("b").with_header("kind", [0xff]), "not UTF-8"),
        (Message::new("c").with_header("kind", "k".repeat(256)), "longer than 255 bytes"),
    ] {
        let failure = writer.one(message).await.unwrap_err();
        assert!(failure.chain().contains(why) && failure.chain().contains(&exchange), "{failure:?}");
        assert_eq!(failure.fate(), &Fate::Reject, "{failure:?}");
    }
    writer.one(Message::new("d").with_header("kind", "shoes")).await.unwrap();
    let seen = peer.take_all(&queue).await;
    assert_eq!(seen.iter().map(|seen| (seen.text(), &*seen.routing_key)).collect::<Vec<_>>(), [("d".into(), "shoes")]);
    let mut writer = Writer::at(&broker, &format!("exchange={exchange}&routing-key-from=key")).await;
    let failure = writer.one(Message::new("e")).await.unwrap_err();
    assert!(failure.chain().contains("comes from its key, and the message has none"), "{failure:?}");
    // The connection was never in danger.
    assert_eq!((writer.connected, writer.disconnected.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_full_and_refuses_fails_what_it_does_not_keep_and_nothing_else() {
    let Some(broker) = broker::shared() else { return };
    let peer = Peer::at(&broker).await;
    for kind in ["quorum", "classic"] {
        let queue = broker.fresh("full");
        let limit = [
            ("x-max-length", AMQPValue::LongLongInt(5)),
            ("x-overflow", AMQPValue::LongString("reject-publish".into())),
        ];
        peer.declare(&queue, kind, &limit).await;
        let mut writer = Writer::at(&broker, &format!("queue={queue}")).await;
        // A quorum queue notices it late: how many it takes is its own affair, that each is told of rightly is ours.
        for part in [0..200, 200..400] {
            writer.publish(part.map(|number| Message::new(number.to_string()))).await;
        }
        let failed = writer.failed();
        let kept: Vec<String> = stored(&broker, &queue).await;
        assert!(failed.len() >= 100, "{kind}: {failed:?}");
        let confirmed = (0..400).filter(|number| !failed.contains(number)).map(|number: u64| number.to_string());
        assert_eq!(kept, confirmed.collect::<Vec<_>>(), "{kind}");
        let failure = writer.became[&failed[0]].as_ref().unwrap_err();
        assert!(failure.chain().contains(&format!("queue '{queue}'")) && failure.chain().contains("full"), "{kind}");
        assert!(matches!(failure.fate(), Fate::Retry { .. }), "{failure:?}");
        // Room again: the same sink goes on.
        writer.one(Message::new("later")).await.unwrap();
        assert_eq!((writer.connected, writer.disconnected.len()), (1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_servers_limit_fails_for_good_and_costs_no_other() {
    let Some(broker) = broker::own(&[]) else { return };
    // 128 MiB is the default; the way is the same with a limit that a test can afford.
    broker.aside(|node| node.ctl(&["eval", "application:set_env(rabbit, max_message_size, 100000)."])).await;
    let queue = broker.fresh("small");
    let mut writer = Writer::at(&broker, &format!("queue={queue}")).await;
    let body = |number: u64| match number % 50 {
        7 => "x".repeat(100_001),
        _ => format!("{number}"),
    };
    writer.publish((0..500).map(|number| Message::new(body(number)))).await;
    let over: Vec<u64> = (0..500).filter(|number| number % 50 == 7).collect();
    assert_eq!(writer.failed(), over);
    let failure = writer.became[&7].as_ref().unwrap_err();
    assert!(failure.chain().contains("100001 bytes") && failure.chain().contains("100000 bytes"), "{failure:?}");
    assert_eq!(failure.fate(), &Fate::Reject, "{failure:?}");
    // One channel was lost, and what was on it may be there twice; order holds among those seen first.
    let mut bodies = stored(&broker, &queue).await;
    let mut seen = std::collections::HashSet::new();
    bodies.retain(|body| seen.insert(body.clone()));
    let wanted: Vec<String> = (0..500).filter(|number| number % 50 != 7).map(body).collect();
    assert_eq!(bodies, wanted);
    assert_eq!((writer.connected, writer.disconnected.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_no_frame_holds_fail_their_message_before_they_cost_the_connection() {
    let Some(broker) = broker::shared() else { return };
    let queue = broker.fresh("headers");
    let mut writer = Writer::at(&broker, &format!("queue={queue}")).await;
    let failure = writer.one(Message::new("a").with_header("h", "x".repeat(131_072))).await.unwrap_err();
    assert!(failure.chain().contains("frame") && failure.fate() == &Fate::Reject, "{failure:?}");
    let failure = writer.one(Message::new("b").with_header("n".repeat(256), "")).await.unwrap_err();
    assert!(failure.chain().contains("longer than 255 bytes") && failure.fate() == &Fate::Reject, "{failure:?}");
    // The largest that is let through does pass.
    writer.one(Message::new("c").with_header("h", "x".repeat(130_900))).await.unwrap();
    assert_eq!(stored(&broker, &queue).await, ["c"]);
    assert_eq!((writer.connected, writer.disconnected.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_end_with_sends_open_lose_none_of_them_and_keep_their_order() {
    let Some(broker) = broker::shared() else { return };
    let proxy = Proxy::to(broker.port()).await;
    let queue = broker.fresh("cut");
    let mut writer = Writer::open(&format!("amqp://guest:guest@127.0.0.1:{}?queue={queue}", proxy.port())).await;
    const ROUNDS: usize = 20;
    for round in 0..ROUNDS {
        writer.until("the connection", |writer| writer.connected as usize > round).await;
        writer.send((round * 1_000..(round + 1) * 1_000).map(|number| Message::new(number.to_string()))).await;
        match round % 2 {
            0 => proxy.cut(),
            _ => proxy.reset(),
        }
        writer.until("the loss", |writer| writer.disconnected.len() > round).await;
    }
    let all = (ROUNDS * 1_000) as u64;
    writer.all_confirmed().await;
    assert!(writer.failed().is_empty());
    assert_eq!(writer.connected as usize, writer.disconnected.len() + 1);
    let (unconfirmed, _) = writer.close_within(Duration::from_secs(30)).await;
    assert_eq!(unconfirmed, 0);
    let bodies = stored(&broker, &queue).await;
    let twice = bodies.len() - all as usize;
    assert!(twice <= ROUNDS * 4_096, "{twice}");
    let mut seen = std::collections::HashSet::new();
    let first: Vec<String> = bodies.into_iter().filter(|body| seen.insert(body.clone())).collect();
    assert!(first == (0..all).map(|number| number.to_string()).collect::<Vec<_>>(), "{} of {all}", first.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_in_time_while_the_connection_is_down_and_says_what_is_not_confirmed() {
    let Some(broker) = broker::shared() else { return };
    let proxy = Proxy::to(broker.port()).await;
    let queue = broker.fresh("down");
    let url = format!("amqp://guest:guest@127.0.0.1:{}?queue={queue}", proxy.port());
    let mut writer = Writer::open(&url).await;
    writer.one(Message::new("before")).await.unwrap();
    proxy.refuse();
    proxy.cut();
    writer.until("the loss", |writer| !writer.disconnected.is_empty()).await;
    writer.send((0..10).map(|number| Message::new(number.to_string()))).await;
    let (unconfirmed, took) = writer.close_within(Duration::from_secs(1)).await;
    assert_eq!(unconfirmed, 10);
    assert!(took < Duration::from_millis(1_200), "{took:?}");
    // With nothing open there is nothing to wait for.
    proxy.heal();
    let mut writer = Writer::open(&url).await;
    proxy.refuse();
    proxy.cut();
    writer.until("the loss", |writer| !writer.disconnected.is_empty()).await;
    let (unconfirmed, took) = writer.close_within(Duration::from_secs(30)).await;
    assert!(unconfirmed == 0 && took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_holds_up_neither_a_flush_nor_a_stop() {
    let Some(broker) = broker::shared() else { return };
    let proxy = Proxy::to(broker.port()).await;
    let queue = broker.fresh("hole");
    let url = format!("amqp://guest:guest@127.0.0.1:{}?queue={queue}&heartbeat=1s", proxy.port());
    let mut writer = Writer::open(&url).await;
    writer.one(Message::new("before")).await.unwrap();
    proxy.black_hole();
    writer.send((0..10).map(|number| Message::new(number.to_string()))).await;
    let began = Instant::now();
    writer.tell(SinkAsk::Flush { by: began + Duration::from_millis(300) });
    writer.until("the flush", |writer| !writer.flushed.is_empty()).await;
    assert_eq!(writer.flushed, [10]);
    assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
    // Heartbeats find it out, and healing brings everything.
    writer.until("the heartbeat", |writer| !writer.disconnected.is_empty()).await;
    proxy.heal();
    writer.all_confirmed().await;
    proxy.black_hole();
    writer.send([Message::new("last")]).await;
    let (unconfirmed, took) = writer.close_within(Duration::from_millis(500)).await;
    assert_eq!(unconfirmed, 1);
    assert!(took < Duration::from_millis(700), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_blocks_publishers_holds_back_the_engine_and_never_a_stop() {
    let Some(broker) = broker::own(&[]) else { return };
    let queue = broker.fresh("blocked");
    let mut writer = Writer::at(&broker, &format!("queue={queue}")).await;
    writer.one(Message::new("before")).await.unwrap();
    broker.aside(|node| node.ctl(&["set_vm_memory_high_watermark", "0.00001"])).await;
    // The broker says so at the next publish, which it does not take any more.
    writer.send([Message::new("while")]).await;
    writer.until("the alarm", |writer| !writer.disconnected.is_empty()).await;
    assert!(writer.disconnected[0].contains("memory"), "{:?}", writer.disconnected);
    writer.until("no demand", |writer| writer.room() == 0).await;
    broker.aside(|node| node.ctl(&["set_vm_memory_high_watermark", "0.4"])).await;
    writer.all_confirmed().await;
    assert!(writer.failed().is_empty());
    assert_eq!(writer.connected, 2);
    writer.until("demand", |writer| writer.room() > 0).await;
    broker.aside(|node| node.ctl(&["set_vm_memory_high_watermark", "0.00001"])).await;
    writer.send((0..100).map(|number| Message::new(number.to_string()))).await;
    writer.until("the alarm", |writer| writer.disconnected.len() == 2).await;
    let (unconfirmed, took) = writer.close_within(Duration::from_secs(1)).await;
    assert_eq!(unconfirmed, 100);
    assert!(took < Duration::from_millis(1_200), "{took:?}");
    broker.aside(|node| node.ctl(&["set_vm_memory_high_watermark", "0.4"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_or_exchange_that_is_deleted_fails_what_was_in_flight_and_holds_back_the_rest() {
    let Some(broker) = broker::shared() else { return };
    let peer = Peer::at(&broker).await;
    // Ours: it is declared anew.
    let queue = broker.fresh("gone");
    let mut writer = Writer::at(&broker, &format!("queue={queue}")).await;
    writer.one(Message::new("before")).await.unwrap();
    peer.delete(&queue).await;
    let failure = writer.one(Message::new("unlucky")).await.unwrap_err();
    assert!(failure.class() == "unroutable" && failure.chain().contains(&queue), "{failure:?}");
    writer.one(Message::new("after")).await.unwrap();
    assert_eq!(stored(&broker, &queue).await, ["after"]);
    // Not ours: messages wait until it is back.
    let exchange = broker.fresh("x");
    peer.exchange(&exchange, "fanout", &[("", &queue)]).await;
    let mut writer = Writer::at(&broker, &format!("exchange={exchange}")).await;
    writer.one(Message::new("before")).await.unwrap();
    peer.delete_exchange(&exchange).await;
    writer.send((0..100).map(|number| Message::new(number.to_string()))).await;
    writer.until("the loss", |writer| !writer.disconnected.is_empty()).await;
    assert!(writer.disconnected[0].contains(&exchange), "{:?}", writer.disconnected);
    peer.exchange(&exchange, "fanout", &[("", &queue)]).await;
    writer.all_confirmed().await;
    assert!(writer.failed().is_empty());
    assert_eq!(stored(&broker, &queue).await.len(), 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_broker_closes_the_channel_for_is_found_out_among_others() {
    let Some(broker) = broker::shared() else { return };
    let peer = Peer::at(&broker).await;
    let (exchange, queue) = (broker.fresh("x"), broker.fresh("bound"));
    peer.declare(&queue, "quorum", &[]).await;
    peer.exchange(&exchange, "topic", &[("#", &queue)]).await;
    let of = exchange.clone();
    broker.aside(move |node| node.ctl(&["set_topic_permissions", "guest", &of, "^open", ".*"])).await;
    let mut writer = Writer::at(&broker, &format!("exchange={exchange}&routing-key-from=key")).await;
    let secret = |number: &u64| [17, 18, 150].contains(number);
    let key = |number| if secret(&number) { "secret" } else { "open" };
    writer.publish((0..300).map(|number| Message::new(number.to_string()).with_key(key(number)))).await;
    assert_eq!(writer.failed(), [17, 18, 150]);
    let failure = writer.became[&17].as_ref().unwrap_err();
    assert!(failure.chain().contains("'secret'") && failure.chain().contains(&exchange), "{failure:?}");
    assert_eq!(failure.fate(), &Fate::Reject, "{failure:?}");
    // Four channels at most were lost with what was on them; nothing of it is lost, and order holds.
    let mut seen = std::collections::HashSet::new();
    let bodies = stored(&broker, &queue).await;
    let first: Vec<String> = bodies.into_iter().filter(|body| seen.insert(body.clone())).collect();
    assert_eq!(first, (0..300).filter(|number| !secret(number)).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!((writer.connected, writer.disconnected.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_is_taken_away_holds_messages_back_until_it_is_given_again() {
    let Some(broker) = broker::own(&[]) else { return };
    let queue = broker.fresh("mine");
    broker
        .aside(|node| {
            node.ctl(&["add_user", "ann", "secret"]);
            node.ctl(&["set_permissions", "ann", ".*", ".*", ".*"]);
        })
        .await;
    let url = format!("amqp://ann:secret@127.0.0.1:{}?queue={queue}", broker.port());
    let mut writer = Writer::open(&url).await;
    writer.one(Message::new("before")).await.unwrap();
    broker
        .aside(|node| {
            node.ctl(&["set_permissions", "ann", ".*", "nothing", ".*"]);
            // Permissions are remembered by a channel for a while.
            node.ctl(&["close_all_connections", "test"]);
        })
        .await;
    writer.send((0..10).map(|number| Message::new(number.to_string()))).await;
    writer.until("the refusal", |writer| writer.troubles.iter().any(|text| text.contains("ACCESS_REFUSED"))).await;
    // Said with the user, and with back-off: a second has room for few tries.
    assert!(writer.troubles.iter().any(|text| text.contains("'ann'")), "{:?}", writer.troubles);
    let error = super::writer::try_open(&url, Duration::from_secs(5)).await.map(|_| ()).unwrap_err();
    assert_eq!(error.exit_code(), 77, "{error}");
    broker.aside(|node| node.ctl(&["set_permissions", "ann", ".*", ".*", ".*"])).await;
    writer.all_confirmed().await;
    assert!(writer.failed().is_empty());
    assert_eq!(stored(&broker, &queue).await.len(), 11);
}

async fn stored(broker: &Broker, queue: &str) -> Vec<String> {
    Peer::at(broker).await.take_all(queue).await.iter().map(|seen| seen.text()).collect()
}
