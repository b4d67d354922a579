//! A source at a real broker, in good days and bad.

use super::broker::{own, shared};
use super::peer::Peer;
use super::proxy::Proxy;
use super::raw::{Life, Raw, text};
use super::reader::{Reader, bodies};
use longshore::ErrorKind;
use longshore::transport::Ask;
use std::time::{Duration, Instant};

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_message_does_not_stall_what_is_behind_it() {
    let Some(broker) = shared() else { return };
    for kind in ["quorum", "classic"] {
        let queue = broker.fresh("slow-head");
        let mut reader = Reader::at(&broker, &format!("queue={queue}&type={kind}&prefetch=20")).await;
        reader.until("the connection", |reader| reader.connected == 1).await;
        Raw::connect(broker.url()).await.publish(&queue, 200).await;
        let slow = reader.take(1).await;
        for _ in 0..199 {
            let one = reader.take(1).await;
            reader.ack(&one);
        }
        reader.ack(&slow);
        reader.flush().await;
        assert_eq!((reader.proven, reader.stale, reader.unknown), (200, 0, 0), "{kind}");
        assert_eq!(bodies(&reader.got), numbers(0..200), "{kind}");
        assert_eq!(reader.close(Duration::from_secs(10)).await.0, 0);
        assert!(Peer::at(&broker).await.take_all(&queue).await.is_empty());
    }
}

/// RabbitMQ 3.10 may leave a quorum queue that is killed soon after its declaration without a leader for good
/// (rabbitmq-server#10070), and then answers no consume: so a quorum queue goes down in order here.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_down_is_an_outage_that_is_said_once_and_everything_unsettled_comes_again() {
    let Some(broker) = own(&[]) else { return };
    for kind in ["classic", "quorum"] {
        let queue = broker.fresh("down");
        let mut reader = Reader::at(&broker, &format!("queue={queue}&type={kind}")).await;
        reader.until("the connection", |reader| reader.connected == 1).await;
        Raw::connect(broker.url()).await.publish(&queue, 10).await;
        let all = reader.take(10).await;
        reader.ack(&all[..4]);
        reader.flush().await;
        if kind == "classic" {
            broker.aside(|broker| broker.write_down()).await;
            broker.aside(|broker| broker.kill()).await;
            reader.until("the outage", |reader| !reader.disconnected.is_empty()).await;
        }
        broker.aside(|broker| broker.restart()).await;
        reader.until("the loss", |reader| reader.lost.iter().any(|lost| lost.covers(all[9].at))).await;
        // Told of an ownership that is over.
        reader.ack(&all[4..5]);
        reader.flush().await;
        assert_eq!((reader.proven, reader.stale), (4, 1), "{kind}");
        reader.demand(10);
        reader.until("the last one again", |reader| reader.got[10..].iter().any(|got| got.body == "9")).await;
        let again = reader.got[10..].to_vec();
        // An ack that reached a broker is not on its disk yet: one that is killed may forget it.
        let forgot = if kind == "classic" { 4 } else { 0 };
        assert!(again.len() >= 6 && again.len() <= 6 + forgot, "{kind}: {:?}", bodies(&again));
        assert_eq!(bodies(&again), numbers(10 - again.len()..10), "{kind}");
        assert_eq!((reader.connected, reader.disconnected.len(), reader.troubles.len()), (2, 1, 0), "{kind}");
        reader.ack(&again);
        reader.flush().await;
        assert_eq!(reader.close(Duration::from_secs(10)).await.0, 0);
        assert!(Peer::at(&broker).await.take_all(&queue).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_broker_takes_back_comes_before_what_was_never_delivered() {
    let Some(broker) = own(&[]) else { return };
    for kind in ["quorum", "classic"] {
        let queue = broker.fresh("fresh-behind");
        let mut reader = Reader::at(&broker, &format!("queue={queue}&type={kind}&prefetch=10")).await;
        reader.demand(30);
        reader.until("the connection", |reader| reader.connected == 1).await;
        Raw::connect(broker.url()).await.publish(&queue, 30).await;
        reader.until("a window full", |reader| reader.got.len() == 10).await;
        broker.aside(|broker| broker.write_down()).await;
        broker.aside(|broker| broker.kill()).await;
        drop(reader);
        broker.aside(|broker| broker.restart()).await;
        // At once, as somebody does who has tried all the time.
        let mut reader = Reader::at(&broker, &format!("queue={queue}&prefetch=10")).await;
        reader.demand(10);
        reader.until("another window full", |reader| reader.got.len() == 10).await;
        assert_eq!(bodies(&reader.got), numbers(0..10), "{kind}");
        assert_eq!(reader.close(Duration::from_secs(10)).await.0, 10);
    }
}

/// What is under way to a consumer when it is stopped may not overtake what it holds, and every ack has to count.
#[tokio::test(flavor = "multi_thread")]
async fn stops_amid_traffic_repeat_nothing_and_keep_the_order() {
    let Some(broker) = shared() else { return };
    const STOPS: usize = 20;
    const BATCHES: usize = 12;
    const BATCH: usize = 7;
    for kind in ["quorum", "classic"] {
        let queue = broker.fresh("amid-traffic");
        let place = format!("queue={queue}&type={kind}&prefetch=50");
        let mut reader = Reader::at(&broker, &place).await;
        reader.until("the connection", |reader| reader.connected == 1).await;
        let (raw, into) = (Raw::connect(broker.url()).await, queue.clone());
        let publishing = tokio::spawn(async move { raw.publish_numbers(&into, 0..STOPS * BATCHES * BATCH).await });
        for stop in 0..STOPS {
            for _ in 0..BATCHES {
                let some = reader.take(BATCH).await;
                reader.ack(&some);
            }
            reader.tell(Ask::StopIntake);
            reader.flush().await;
            let done = BATCHES * BATCH;
            assert_eq!(bodies(&reader.got), numbers(stop * done..(stop + 1) * done), "{kind}, stop {stop}");
            assert_eq!((reader.proven, reader.stale, reader.unknown), (done as u64, 0, 0), "{kind}, stop {stop}");
            assert_eq!(reader.close(Duration::from_secs(10)).await.1, 0, "{kind}, stop {stop}");
            reader = Reader::at(&broker, &place).await;
        }
        publishing.await.unwrap();
        assert_eq!(reader.close(Duration::from_secs(10)).await.0, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_holds_up_neither_a_flush_nor_a_stop() {
    let Some(broker) = own(&[]) else { return };
    let queue = broker.fresh("frozen");
    let mut reader = Reader::at(&broker, &format!("queue={queue}")).await;
    reader.until("the connection", |reader| reader.connected == 1).await;
    Raw::connect(broker.url()).await.publish(&queue, 5).await;
    let all = reader.take(5).await;
    broker.aside(|broker| broker.freeze()).await;
    reader.ack(&all[..3]);
    let began = Instant::now();
    reader.tell(Ask::Flush { by: began + Duration::from_secs(1) });
    reader.until("the flush", |reader| reader.flushed == 1).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let (returned, unknown, took) = reader.close(Duration::from_secs(1)).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!((returned, unknown, reader.proven), (2, 3, 0));
    broker.aside(|broker| broker.thaw()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_at_once_while_nothing_is_connected() {
    let Some(broker) = own(&[]) else { return };
    let mut reader = Reader::at(&broker, "queue=q").await;
    reader.until("the connection", |reader| reader.connected == 1).await;
    broker.aside(|broker| broker.kill()).await;
    reader.until("the outage", |reader| !reader.disconnected.is_empty()).await;
    let (returned, unknown, took) = reader.close(Duration::from_secs(10)).await;
    assert_eq!((returned, unknown), (0, 0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_gone_after_an_outage_is_named_and_declared_anew() {
    let Some(broker) = shared() else { return };
    let proxy = Proxy::to(broker.port()).await;
    let queue = broker.fresh("gone");
    let mut reader =
        Reader::open(&format!("amqp://guest:guest@127.0.0.1:{}?queue={queue}", proxy.port()), |_| ()).await;
    reader.demand(10);
    reader.until("the connection", |reader| reader.connected == 1).await;
    proxy.refuse();
    proxy.cut();
    reader.until("the outage", |reader| !reader.disconnected.is_empty()).await;
    Peer::at(&broker).await.delete(&queue).await;
    proxy.heal();
    reader.until("the connection anew", |reader| reader.connected == 2).await;
    assert_eq!(reader.troubles, [format!("queue '{queue}' was deleted, and is declared anew")]);
    assert_eq!(reader.close(Duration::from_secs(10)).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_named_and_declared_anew_without_a_new_connection() {
    let Some(broker) = shared() else { return };
    for kind in ["quorum", "classic"] {
        let queue = broker.fresh("deleted");
        let mut reader = Reader::at(&broker, &format!("queue={queue}&type={kind}")).await;
        reader.demand(10);
        reader.until("the connection", |reader| reader.connected == 1).await;
        let peer = Peer::at(&broker).await;
        // A consumer is there before its queue goes: the connection was said after the consume.
        peer.delete(&queue).await;
        reader.until("the word of it", |reader| !reader.troubles.is_empty()).await;
        let told = &reader.troubles[0];
        assert!(told.contains(&format!("queue '{queue}' was deleted, and is declared anew")), "{told}");
        reader.until("the loss", |reader| !reader.lost.is_empty()).await;
        let raw = Raw::connect(broker.url()).await;
        // Declared anew by then: a publish before that would go nowhere.
        while broker
            .aside({
                let queue = queue.clone();
                move |broker| broker.depth(&queue)
            })
            .await
            .is_none()
        {}
        raw.publish(&queue, 3).await;
        let all = reader.take(3).await;
        assert_eq!(bodies(&all), numbers(0..3));
        assert_eq!((reader.connected, reader.disconnected.len()), (1, 0));
        reader.ack(&all);
        reader.close(Duration::from_secs(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_broker_takes_back_what_is_too_old_only_the_channel_is_rebuilt() {
    let Some(broker) = own(&[]) else { return };
    for (name, value) in [("consumer_timeout", "1000"), ("channel_tick_interval", "200")] {
        let set = format!("application:set_env(rabbit, {name}, {value}).");
        broker.aside(move |broker| broker.ctl(&["eval", &set])).await;
    }
    let mut reader = Reader::at(&broker, "queue=old").await;
    reader.until("the connection", |reader| reader.connected == 1).await;
    Raw::connect(broker.url()).await.publish("old", 2).await;
    let all = reader.take(2).await;
    reader.until("the loss", |reader| !reader.lost.is_empty() && !reader.troubles.is_empty()).await;
    assert!(reader.troubles[0].contains("delivery acknowledgement"), "{:?}", reader.troubles);
    reader.ack(&all);
    reader.flush().await;
    let again = reader.take(2).await;
    assert_eq!((reader.stale, bodies(&again)), (2, numbers(0..2)));
    assert!(again.iter().all(|got| got.unclean > 0));
    reader.ack(&again);
    reader.flush().await;
    assert_eq!((reader.proven, reader.connected, reader.disconnected.len()), (2, 1, 0));
    reader.close(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_handler_has_started_goes_back_at_half_the_limit_and_comes_again_in_order() {
    let Some(broker) = shared() else { return };
    let raw = Raw::connect(broker.url()).await;
    for (kind, limit) in [("classic", false), ("quorum", true), ("quorum", false)] {
        let queue = broker.fresh("recall");
        if kind == "quorum" && !limit {
            raw.declare(&queue, Life::Durable, &[("x-queue-type", text("quorum"))]).await;
        }
        let mut reader =
            Reader::at(&broker, &format!("queue={queue}&type={kind}&consumer_timeout=4s&prefetch=8")).await;
        reader.until("the connection", |reader| reader.connected == 1).await;
        raw.publish(&queue, 8).await;
        let all = reader.take(5).await;
        reader.until("the recall", |reader| reader.recalls.len() == 1).await;
        assert!(reader.recalls[0].covers(all[0].at));
        // The first two run; three wait in the engine and three in the source.
        let of = reader.recalls[0].clone();
        reader.give_back(&all[2..]);
        reader.tell(Ask::Recalled(of));
        reader.demand(6);
        reader.until("the warning", |reader| reader.ageing.len() == 2).await;
        assert_eq!(reader.ageing, [all[0].at, all[1].at]);
        reader.ack(&all[..2]);
        let again = reader.take(6).await;
        assert_eq!(bodies(&again), numbers(2..8), "{kind}, limit {limit}");
        reader.ack(&again);
        reader.flush().await;
        assert_eq!((reader.proven, reader.unknown, reader.disconnected.len()), (8, 0, 0), "{kind}, limit {limit}");
        reader.close(Duration::from_secs(10)).await;
        assert!(Peer::at(&broker).await.take_all(&queue).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_in_line_gets_what_a_stopped_one_had_not_started_in_order() {
    let Some(broker) = shared() else { return };
    for kind in ["quorum", "classic"] {
        let place = format!("queue={}&type={kind}&single-active=true", broker.fresh("in-line"));
        let mut active = Reader::at(&broker, &place).await;
        active.demand(1);
        active.until("the connection", |reader| reader.connected == 1).await;
        let mut standby = Reader::at(&broker, &place).await;
        standby.demand(100);
        standby.until("the connection", |reader| reader.connected == 1).await;
        let queue = place.strip_prefix("queue=").and_then(|rest| rest.split('&').next()).unwrap().to_owned();
        Raw::connect(broker.url()).await.publish(&queue, 60).await;
        let all = active.take(20).await;
        active.ack(&all[..10]);
        active.tell(Ask::StopIntake);
        active.flush().await;
        let (returned, unknown, _) = active.close(Duration::from_secs(10)).await;
        assert_eq!((returned, unknown, active.proven), (10, 0, 10), "{kind}");
        standby.until("the rest", |reader| reader.got.len() >= 50).await;
        assert_eq!(bodies(&standby.got), numbers(10..60), "{kind}");
        standby.close(Duration::from_secs(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_from_where_its_url_says() {
    let Some(broker) = shared() else { return };
    let queue = broker.fresh("stream");
    let raw = Raw::connect(broker.url()).await;
    raw.declare(&queue, Life::Durable, &[("x-queue-type", text("stream"))]).await;
    raw.publish(&queue, 10).await;
    for (start, first) in [("", 0), ("&start=first", 0), ("&start=7", 7)] {
        let mut reader = Reader::at(&broker, &format!("queue={queue}&type=stream&prefetch=4{start}")).await;
        for number in first..10 {
            let one = reader.take(1).await;
            assert_eq!(bodies(&one), numbers(number..number + 1));
            reader.ack(&one);
        }
        reader.close(Duration::from_secs(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_no_patience_mends_fails_at_once_and_one_that_waiting_may_mend_after_it() {
    let Some(broker) = shared() else { return };
    let refused = broker.url().replace("guest:guest", "guest:wrong");
    let mut reader = Reader::open(&format!("{refused}?queue=q"), |_| ()).await;
    let (kind, text) = reader.failure().await;
    assert_eq!(kind, ErrorKind::Credentials);
    assert!(text.contains("'guest'") && !text.contains("wrong"), "{text}");

    let absent = broker.fresh("absent");
    let mut reader = Reader::at(&broker, &format!("queue={absent}&declare=false")).await;
    let (kind, text) = reader.failure().await;
    assert_eq!(kind, ErrorKind::Configuration);
    assert!(text.contains(&absent), "{text}");

    // Nobody listens there: the port was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let began = Instant::now();
    let patience = Duration::from_secs(1);
    let mut reader = Reader::open(&format!("amqp://127.0.0.1:{port}?queue=q"), |spec| spec.patience = patience).await;
    let (kind, text) = reader.failure().await;
    assert_eq!(kind, ErrorKind::Unreachable);
    assert!(text.contains(&port.to_string()), "{text}");
    assert!(began.elapsed() >= patience && began.elapsed() < 5 * patience, "{:?}", began.elapsed());
}
