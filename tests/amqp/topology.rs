//! What exists is found out, used as it is, and never made by a look.

use crate::node::{check, inspect, node, refusal, shelf, warnings};
use crate::raw::{Life, Raw, number, text};
use lapin::types::AMQPValue;
use longshore::ErrorKind;
use longshore::message::At;
use longshore::transport::{Finding, Shelf, Side, Transports};
use std::time::Duration;

const YES: AMQPValue = AMQPValue::Boolean(true);

#[tokio::test]
async fn what_a_queue_really_is_is_explained_argument_by_argument() {
    let Some(node) = node() else { return };
    let raw = Raw::connect(node.url()).await;
    let (classic, quorum) = (node.fresh("classic"), node.fresh("quorum"));
    raw.declare(&classic, Life::Durable, &[]).await;
    raw.declare(&quorum, Life::Durable, &[("x-queue-type", text("quorum")), ("x-delivery-limit", number(3))]).await;
    let url = |queue: &str, options: &str| format!("{}?queue={queue}{options}", node.url());

    assert_eq!(warnings(&url(&classic, ""), Side::Source).await, "");
    assert_eq!(
        warnings(&url(&classic, "&type=quorum&overflow=reject-publish"), Side::Source).await,
        format!(
            "queue '{classic}' exists as classic; the URL says type=quorum; the URL says overflow=reject-publish and it \
             has none, so that a full one drops its head; it is used as it is"
        )
    );
    let said = warnings(&url(&quorum, "&type=classic&max-priority=5"), Side::Sink).await;
    assert!(said.contains("exists as quorum; the URL says type=classic; the URL says max-priority=5 and"), "{said}");
}

#[tokio::test]
async fn a_foreign_queue_that_may_lose_messages_is_warned_about() {
    let Some(node) = node() else { return };
    let raw = Raw::connect(node.url()).await;
    let quorum = || ("x-queue-type", text("quorum"));
    // Name, kind, arguments, and what is said of it.
    type Case<'a> = (&'a str, Life, Vec<(&'a str, AMQPValue)>, &'a [&'a str]);
    let cases: [Case<'_>; 6] = [
        ("low", Life::Durable, vec![quorum(), ("x-delivery-limit", number(3))], &["delivery limit of 3", "it is lost"]),
        (
            "low-kept",
            Life::Durable,
            vec![quorum(), ("x-delivery-limit", number(3)), ("x-dead-letter-exchange", text("amq.fanout"))],
            &["delivery limit of 3"],
        ),
        ("none", Life::Durable, vec![quorum()], &["RabbitMQ 4 then sets 20"]),
        ("transient", Life::Transient, vec![], &["is not durable"]),
        (
            "short",
            Life::Durable,
            vec![("x-max-length", number(5)), ("x-overflow", text("drop-head")), ("x-dead-letter-exchange", text(""))],
            &["x-max-length=5", "drop-head"],
        ),
        (
            "ttl",
            Life::Durable,
            vec![("x-message-ttl", number(1_000)), ("x-expires", number(60_000))],
            &["x-message-ttl=1000", "x-expires=60000"],
        ),
    ];
    for (stem, life, arguments, expected) in cases {
        let queue = node.fresh(stem);
        raw.declare(&queue, life, &arguments).await;
        for side in [Side::Source, Side::Sink] {
            let said = warnings(&format!("{}?queue={queue}", node.url()), side).await;
            assert!(said.contains(&queue) && expected.iter().all(|part| said.contains(part)), "{stem}: {said:?}");
            assert_eq!(said.contains("it is lost"), matches!(stem, "low" | "none"), "{stem}: {said}");
        }
    }
}

#[tokio::test]
async fn what_would_break_a_promise_is_refused_as_configuration() {
    let Some(node) = node() else { return };
    let raw = Raw::connect(node.url()).await;
    let (plain, single, stream, exclusive) =
        (node.fresh("plain"), node.fresh("single"), node.fresh("stream"), node.fresh("exclusive"));
    raw.declare(&plain, Life::Durable, &[]).await;
    raw.declare(&single, Life::Durable, &[("x-single-active-consumer", YES)]).await;
    raw.declare(&stream, Life::Durable, &[("x-queue-type", text("stream"))]).await;
    raw.declare(&exclusive, Life::Exclusive, &[]).await;
    for (queue, options, said) in [
        (&plain, "&single-active=true", "order by key over several processes would not hold"),
        (&plain, "&type=stream", "exists as classic; the URL says type=stream"),
        (&stream, "", "say type=stream"),
        (&exclusive, "", "is exclusive"),
    ] {
        let error = refusal(&format!("{}?queue={queue}{options}", node.url()), Side::Source).await;
        assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains(queue), "{error:?}");
        assert!(error.to_string().contains(said), "{error}");
    }
    assert_eq!(warnings(&format!("{}?queue={single}&single-active=true", node.url()), Side::Source).await, "");
    assert_eq!(warnings(&format!("{}?queue={stream}&type=stream", node.url()), Side::Source).await, "");
}

#[tokio::test]
async fn a_check_declares_nothing_whatever_it_asks() {
    let Some(node) = node() else { return };
    let raw = Raw::connect(node.url()).await;
    for options in ["", "&type=classic&max-priority=5", "&type=stream", "&type=quorum&single-active=true"] {
        let queue = node.fresh("absent");
        let url = format!("{}?queue={queue}{options}", node.url());
        for side in [Side::Source, Side::Sink] {
            let found = check(&url, side).await.unwrap();
            let absent =
                |finding: &Finding| matches!(finding, Finding::Note(text) if text.contains("is absent: it will be"));
            assert!(found.iter().any(absent), "{found:?}");
            let error = refusal(&format!("{url}&declare=false"), side).await;
            assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains(&queue), "{error:?}");
        }
        assert!(!raw.has(&queue).await, "{options}");
    }
    let error = refusal(&format!("{}?exchange=nowhere", node.url()), Side::Sink).await;
    assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains("'nowhere'"), "{error:?}");
}

#[tokio::test]
async fn a_policy_is_seen_where_the_management_plugin_is_named() {
    let Some(node) = node() else { return };
    let raw = Raw::connect(node.url()).await;
    let queue = node.fresh("policy");
    raw.declare(&queue, Life::Durable, &[("x-queue-type", text("quorum"))]).await;
    node.ctl(&[
        "set_policy",
        &queue,
        &format!("^{queue}$"),
        r#"{"delivery-limit":4,"max-length":7}"#,
        "--apply-to",
        "queues",
    ]);
    let url = format!("{}?queue={queue}", node.url());
    let without = check(&url, Side::Source).await.unwrap();
    assert!(without.iter().any(|finding| matches!(finding, Finding::Note(text) if text.contains("management=URL"))));
    let named = format!("{url}&management={}", node.management_url());
    // The plugin takes its time to see a policy: what it says is waited for.
    let said =
        until(async || Some(warnings(&named, Side::Source).await).filter(|said| said.contains("limit of 4"))).await;
    assert!(said.contains("delivery limit of 4") && said.contains("x-max-length=7"), "{said}");
    // One that is not there holds nothing up.
    let found = check(&format!("{url}&management=http://127.0.0.1:1"), Side::Source).await.unwrap();
    assert!(found.iter().any(|finding| matches!(finding, Finding::Note(text) if text.contains("option 'management'"))));
}

#[tokio::test]
async fn inspecting_counts_and_says_what_the_broker_does_not_tell() {
    let Some(node) = node() else { return };
    let raw = Raw::connect(node.url()).await;
    let queue = node.fresh("inspected");
    let dead = format!("{queue}.dead");
    raw.declare(&queue, Life::Durable, &[]).await;
    raw.publish(&queue, 3).await;
    let url = format!("{}?queue={queue}", node.url());
    let seen = inspect(&url).await.unwrap();
    assert_eq!((seen.waiting, seen.in_flight, seen.dead, seen.oldest_age_ms), (Some(3), None, Some(0), None));
    raw.declare(&dead, Life::Durable, &[]).await;
    raw.publish(&dead, 2).await;
    // The plugin tells what is in flight once it has looked, some seconds after a queue is made.
    let named = format!("{url}&management={}", node.management_url());
    let seen = until(async || inspect(&named).await.ok().filter(|seen| seen.in_flight.is_some())).await;
    assert_eq!((seen.waiting, seen.in_flight, seen.dead), (Some(3), Some(0), Some(2)));
    let error = inspect(&format!("{}?queue={queue}.nothing", node.url())).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains("nothing"), "{error:?}");
}

/// Asks again until there is an answer.
async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asking).await.expect("it never says so")
}

async fn payloads(shelf: &mut Box<dyn Shelf>, at_a_time: u32) -> (Vec<String>, Vec<At>) {
    let (mut all, mut places) = (Vec::new(), Vec::new());
    loop {
        let slab = shelf.read(at_a_time).await.unwrap();
        if slab.is_empty() {
            return (all, places);
        }
        assert!(slab.len() as u32 <= at_a_time);
        all.extend(slab.iter().map(|message| String::from_utf8(message.payload().unwrap().to_vec()).unwrap()));
        places.extend(slab.heads().iter().map(|head| head.at));
    }
}

fn numbers(all: impl IntoIterator<Item = usize>) -> Vec<String> {
    all.into_iter().map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn a_look_gives_back_in_order_and_takes_off_what_it_is_told() {
    let Some(node) = node() else { return };
    let raw = Raw::connect(node.url()).await;
    let transports = Transports::built_in();
    for kind in ["classic", "quorum"] {
        let queue = node.fresh("shelf");
        raw.declare(&queue, Life::Durable, &[("x-queue-type", text(kind))]).await;
        raw.publish(&queue, 200).await;
        let url = format!("{}?queue={queue}", node.url());
        for _ in 0..2 {
            let mut look = shelf(&transports, &url).await.unwrap();
            assert_eq!(payloads(&mut look, 64).await.0, numbers(0..200), "{kind}");
        }
        let mut look = shelf(&transports, &url).await.unwrap();
        let (_, places) = payloads(&mut look, 64).await;
        let odd: Vec<At> = places.into_iter().skip(1).step_by(2).collect();
        assert_eq!(look.remove(odd.clone()).await.unwrap(), 100, "{kind}");
        assert_eq!(look.remove(odd).await.unwrap(), 0, "{kind}");
        // What was removed is removed for certain, also when the look ends right behind it.
        drop(look);
        let mut look = shelf(&transports, &url).await.unwrap();
        assert_eq!(payloads(&mut look, 64).await.0, numbers((0..200).step_by(2)), "{kind}");
    }
}

#[tokio::test]
async fn a_look_that_costs_a_delivery_has_to_be_meant() {
    let Some(node) = node() else { return };
    let raw = Raw::connect(node.url()).await;
    let transports = Transports::built_in();
    let (queue, stream) = (node.fresh("limited"), node.fresh("stream"));
    raw.declare(&queue, Life::Durable, &[("x-queue-type", text("quorum")), ("x-delivery-limit", number(3))]).await;
    raw.declare(&stream, Life::Durable, &[("x-queue-type", text("stream"))]).await;
    raw.publish(&queue, 2).await;
    let url = format!("{}?queue={queue}", node.url());
    for _ in 0..10 {
        let error = shelf(&transports, &url).await.err().unwrap();
        assert!(
            error.kind() == ErrorKind::Configuration && error.to_string().contains("--count-as-delivery"),
            "{error:?}"
        );
    }
    let mut look = shelf(&transports, &format!("{url}&count-as-delivery=true")).await.unwrap();
    assert_eq!(payloads(&mut look, 9).await.0, numbers(0..2));
    let error = shelf(&transports, &format!("{}?queue={stream}&type=stream", node.url())).await.err().unwrap();
    assert!(error.to_string().contains("is a stream"), "{error}");
    drop(look);
    assert_eq!(shelf(&transports, &url).await.err().map(|error| error.kind()), Some(ErrorKind::Configuration));
    assert_eq!(raw.take(&queue).await, numbers(0..2));
}
