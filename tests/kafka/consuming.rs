//! A source at real nodes, in good days and bad.

use super::kafka::{Kafka, own, shared};
use super::reader::{Reader, put, put_records, texts};
use longshore::ErrorKind;
use longshore::transport::Ask;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Twice the time after which what was settled is committed, and some for a busy machine.
const TWO_INTERVALS: Duration = Duration::from_millis(400);

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// A topic of so many partitions that nobody knows.
async fn topic(kafka: &Kafka, stem: &str, partitions: u32) -> String {
    let topic = kafka.fresh(stem);
    let made = topic.clone();
    kafka.aside(move |kafka| kafka.create(&made, partitions)).await;
    topic
}

/// Writes a place of a group as another client might.
async fn commit(kafka: &Kafka, topic: &str, group: &str, offset: i64, metadata: &'static str) {
    let (topic, group) = (topic.to_owned(), group.to_owned());
    let work = move |kafka: &Kafka| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", kafka.bootstrap()).set("group.id", group);
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        let mut place = list.add_partition(&topic, 0);
        place.set_offset(Offset::Offset(offset)).unwrap();
        place.set_metadata(metadata);
        consumer.commit(&list, CommitMode::Sync).unwrap();
    };
    kafka.aside(work).await;
}

/// The place of a group as another client sees it.
async fn committed(kafka: &Kafka, topic: &str, group: &str) -> i64 {
    let (topic, group) = (topic.to_owned(), group.to_owned());
    let work = move |kafka: &Kafka| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", kafka.bootstrap()).set("group.id", group);
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, 0);
        let list = consumer.committed_offsets(list, Duration::from_secs(10)).unwrap();
        let offset = list.elements()[0].offset();
        offset.to_raw().unwrap()
    };
    kafka.aside(work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_record_holds_nobody_up_and_after_a_crash_only_what_is_unfinished_runs_again() {
    const FAST: usize = 20_000;
    const IN_FLIGHT: usize = 16;
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "slow", 1).await;
    put(&kafka, &topic, 0, numbers(0..FAST + IN_FLIGHT)).await;
    let place = format!("topic={topic}&group={topic}");
    let mut reader = Reader::at(&kafka, &place).await;
    reader.take(1).await;
    for _ in 0..FAST / 200 {
        let fast = reader.take(200).await;
        reader.ack(&fast);
    }
    // Some more are started and never end.
    reader.take(IN_FLIGHT - 1).await;
    reader.until("every settlement to be proven", |reader| reader.proven == FAST as u64).await;
    // A crash commits nothing. What was proven was so two commit intervals ago.
    let _ = tokio::time::timeout(TWO_INTERVALS, reader.until("nothing", |_| false)).await;
    drop(reader);
    let mut heir = Reader::at(&kafka, &place).await;
    let again = heir.take(IN_FLIGHT).await;
    let mut unfinished = numbers(FAST + 1..FAST + IN_FLIGHT);
    unfinished.insert(0, "0".to_owned());
    assert_eq!(texts(&again), unfinished);
    heir.ack(&again);
    heir.flush().await;
    assert_eq!(heir.close(Duration::from_secs(10)).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_redoes_nothing_that_was_finished() {
    const EACH: usize = 200;
    let Some(kafka) = shared() else { return };
    for protocol in ["protocol=classic", "protocol=consumer", "partition.assignment.strategy=range"] {
        let topic = topic(&kafka, "moves", 4).await;
        for partition in 0..4 {
            let of = |number| format!("{partition}-{number}");
            put(&kafka, &topic, partition, (0..EACH).map(of)).await;
        }
        let place = format!("topic={topic}&group={topic}&{protocol}");
        let mut first = Reader::at(&kafka, &place).await;
        let some = first.take(4 * EACH).await;
        // Every other one, so that no partition has finished from its beginning on.
        let finished: Vec<_> = some.iter().step_by(2).cloned().collect();
        first.ack(&finished);
        first.demand(0);
        let mut second = first.alongside(Reader::at(&kafka, &place)).await;
        second.demand(10_000);
        first.alongside(second.until("a part of the work", |second| second.got.len() >= EACH)).await;
        let second_owns: BTreeSet<u32> = second.got.iter().map(|got| got.at.partition).collect();
        let finished: BTreeSet<String> = finished.iter().map(|got| got.text()).collect();
        let redone: Vec<String> = texts(&second.got).into_iter().filter(|text| finished.contains(text)).collect();
        assert_eq!(redone, Vec::<String>::new(), "{protocol}");
        // What belongs to somebody else by now is stale.
        let late: Vec<_> = some.iter().skip(1).step_by(2).cloned().collect();
        let gone = late.iter().filter(|got| second_owns.contains(&got.at.partition)).count() as u64;
        first.ack(&late);
        first.alongside(second.flush()).await;
        second.alongside(first.flush()).await;
        assert!(first.stale >= gone && gone > 0, "{protocol}: {} stale of {gone}", first.stale);
        first.close(Duration::from_secs(10)).await;
        second.close(Duration::from_secs(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_stay_go_on_while_a_handler_of_one_that_goes_still_runs() {
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "stays", 2).await;
    for partition in 0..2 {
        put(&kafka, &topic, partition, (0..10).map(|number| format!("{partition}-{number}"))).await;
    }
    let place = format!("topic={topic}&group={topic}");
    let mut first = Reader::at(&kafka, &place).await;
    first.releases = false;
    let all = first.take(20).await;
    let mut second = first.alongside(Reader::at(&kafka, &place)).await;
    second.alongside(first.until("the revocation", |first| !first.revoking.is_empty())).await;
    let goes = first.revoking[0].clone();
    let stays = i32::from(goes.covers(all.iter().find(|got| got.at.partition == 0).unwrap().at));
    put(&kafka, &topic, stays, ["fresh".to_owned()]).await;
    first.demand(10);
    first
        .until("what is new in the partition that stays", |first| first.got.iter().any(|got| got.text() == "fresh"))
        .await;
    assert!(first.lost.is_empty(), "its handlers have not ended");
    let done: Vec<_> = all.iter().filter(|got| goes.covers(got.at)).cloned().collect();
    first.ack(&done);
    first.tell(Ask::Released(goes));
    first.until("the loss", |first| first.lost.len() == 1).await;
    assert_eq!((first.proven, first.stale, first.unknown), (done.len() as u64, 0, 0));
    first.close(Duration::from_secs(10)).await;
    second.close(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stands_still_holds_up_neither_a_flush_nor_a_stop() {
    let Some(kafka) = own(&[]) else { return };
    let topic = topic(&kafka, "frozen", 1).await;
    put(&kafka, &topic, 0, numbers(0..10)).await;
    let mut reader = Reader::at(&kafka, &format!("topic={topic}&group={topic}")).await;
    let all = reader.take(6).await;
    reader.ack(&all[..2]);
    reader.flush().await;
    kafka.aside(Kafka::freeze).await;
    reader.ack(&all[2..4]);
    let began = Instant::now();
    reader.tell(Ask::Flush { by: began + Duration::from_secs(2) });
    reader.until("the flush", |reader| reader.flushed == 2).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let (returned, unknown, took) = reader.close(Duration::from_secs(2)).await;
    assert_eq!((returned, unknown, reader.proven), (2, 2, 2));
    assert!(took < Duration::from_secs(4), "{took:?}");
    kafka.aside(Kafka::thaw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_out_of_the_log_is_said_and_what_is_there_is_read() {
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "range", 1).await;
    put(&kafka, &topic, 0, numbers(0..5)).await;
    commit(&kafka, &topic, &topic, 1_000, "").await;
    let mut reader = Reader::at(&kafka, &format!("topic={topic}&group={topic}")).await;
    assert_eq!(texts(&reader.take(5).await), numbers(0..5));
    assert!(
        reader.troubles.iter().any(|text| text.contains("1000") && text.contains("ends at 5")),
        "{:?}",
        reader.troubles
    );
    reader.close(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_is_foreign_or_damaged_is_ignored() {
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "foreign", 1).await;
    put(&kafka, &topic, 0, numbers(0..5)).await;
    for (group, metadata) in [("words", "written by hand"), ("damaged", "L1CAADFxxxxxx"), ("other", "L1é\u{fffd}")] {
        let group = &format!("{group}-{topic}");
        commit(&kafka, &topic, group, 2, metadata).await;
        let mut reader = Reader::at(&kafka, &format!("topic={topic}&group={group}")).await;
        let all = reader.take(3).await;
        assert_eq!((texts(&all), all[0].unclean), (numbers(2..5), 0), "{group}");
        reader.close(Duration::from_secs(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_key_and_one_without_payload_come_as_they_are() {
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "null", 1).await;
    let text = |text: &str| Some(text.to_owned());
    let records = vec![(None, text("no key")), (text("gone"), None), (None, None), (text(""), text(""))];
    put_records(&kafka, &topic, 0, records).await;
    let mut reader = Reader::at(&kafka, &format!("topic={topic}&group={topic}")).await;
    let all = reader.take(4).await;
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let parts: Vec<_> = all.iter().map(|got| (got.key.clone(), got.payload.clone())).collect();
    assert_eq!(parts, [(None, bytes("no key")), (bytes("gone"), None), (None, None), (bytes(""), bytes(""))]);
    reader.ack(&all);
    reader.flush().await;
    assert_eq!(reader.proven, 4);
    reader.close(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_gets_partitions_is_read_in_them_too() {
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "grows", 1).await;
    let mut reader =
        Reader::at(&kafka, &format!("topic={topic}&group={topic}&topic.metadata.refresh.interval.ms=500")).await;
    put(&kafka, &topic, 0, ["old".to_owned()]).await;
    assert_eq!(texts(&reader.take(1).await), ["old"]);
    let grown = topic.clone();
    let more = move |kafka: &Kafka| kafka.ctl(&["topics", "--alter", "--topic", &grown, "--partitions", "2"]);
    reader.alongside(kafka.aside(more)).await;
    reader.alongside(put(&kafka, &topic, 1, ["new".to_owned()])).await;
    let new = reader.take(1).await;
    assert_eq!((texts(&new), new[0].at.partition), (vec!["new".to_owned()], 1));
    reader.close(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_topics_and_those_of_a_pattern_are_read_and_their_partitions_told_apart() {
    let Some(kafka) = shared() else { return };
    let stem = kafka.fresh("many");
    for name in ["a", "b"] {
        let made = format!("{stem}-{name}");
        kafka.aside(move |kafka| kafka.create(&made, 1)).await;
        put(&kafka, &format!("{stem}-{name}"), 0, [name.to_owned()]).await;
    }
    for topics in [format!("{stem}-a,{stem}-b"), format!("^{stem}-.*")] {
        let group = kafka.fresh("group");
        let mut reader = Reader::at(&kafka, &format!("topic={topics}&group={group}")).await;
        let all = reader.take(2).await;
        assert_eq!(texts(&all).into_iter().collect::<BTreeSet<_>>(), ["a", "b"].map(str::to_owned).into());
        assert_ne!(all[0].at.partition, all[1].at.partition);
        reader.ack(&all);
        reader.flush().await;
        assert_eq!((reader.proven, reader.close(Duration::from_secs(10)).await.0), (2, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_group_starts_where_it_is_told_to() {
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "start", 1).await;
    put(&kafka, &topic, 0, numbers(0..5)).await;
    for (start, from) in [("earliest", 0), ("3", 3), ("2020-01-01T00:00:00Z", 0)] {
        let group = kafka.fresh("group");
        let mut reader = Reader::at(&kafka, &format!("topic={topic}&group={group}&start={start}")).await;
        assert_eq!(texts(&reader.take(5 - from).await), numbers(from..5), "{start}");
        reader.close(Duration::from_secs(10)).await;
    }
    let mut reader = Reader::at(&kafka, &format!("topic={topic}&group={topic}&start=latest")).await;
    reader.demand(10);
    // It reads from where the log ended when it was looked up, which is before it says where it stands.
    reader.until("its assignment", |reader| !reader.assigned.is_empty()).await;
    reader.tell(Ask::Flush { by: Instant::now() + Duration::from_secs(30) });
    let _ = tokio::time::timeout(Duration::from_secs(1), reader.until("nothing", |_| false)).await;
    put(&kafka, &topic, 0, ["next".to_owned()]).await;
    assert_eq!(texts(&reader.take(1).await), ["next"]);
    reader.close(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_counted_and_nothing_waits_once_all_is_delivered() {
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "lag", 2).await;
    put(&kafka, &topic, 0, numbers(0..5)).await;
    put(&kafka, &topic, 1, numbers(5..10)).await;
    let mut reader = Reader::at(&kafka, &format!("topic={topic}&group={topic}")).await;
    let some = reader.take(4).await;
    reader.tell(Ask::Measure);
    reader.until("the count", |reader| reader.measured.len() == 1).await;
    assert_eq!(reader.measured[0].waiting, Some(6));
    let others = reader.take(6).await;
    reader.ack(&[some, others].concat());
    reader.tell(Ask::Measure);
    reader.until("the count", |reader| reader.measured.len() == 2).await;
    assert_eq!(reader.measured[1].waiting, Some(0));
    reader.close(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_topic_that_may_not_be_created_ends_the_start() {
    let Some(kafka) = shared() else { return };
    let topic = kafka.fresh("absent");
    let mut reader = Reader::at(&kafka, &format!("topic={topic}&declare=false")).await;
    let (kind, text) = reader.failure().await;
    assert_eq!(kind, ErrorKind::Configuration);
    assert!(text.contains(&topic), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_waited_for_as_long_as_patience_goes() {
    let began = Instant::now();
    let mut reader = Reader::open("kafka://127.0.0.1:1?topic=t", |spec| spec.patience = Duration::from_secs(1)).await;
    let (kind, text) = reader.failure().await;
    assert_eq!(kind, ErrorKind::Unreachable, "{text}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_marked_is_known_to_the_heir() {
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "marks", 1).await;
    put(&kafka, &topic, 0, numbers(0..3)).await;
    let place = format!("topic={topic}&group={topic}");
    for runs in 0..3 {
        let mut reader = Reader::at(&kafka, &place).await;
        let all = reader.take(3).await;
        let said: Vec<(u32, u32)> = all.iter().map(|got| (got.unclean, got.marks)).collect();
        assert_eq!(said, [(runs, 0), (runs, runs), (runs, 0)]);
        reader.tell(Ask::Mark(all[1].at));
        reader.until("the mark", |reader| reader.marked == [all[1].at]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_is_an_outage_that_is_said_once_and_nothing_finished_is_redone() {
    let Some(kafka) = own(&[]) else { return };
    let topic = topic(&kafka, "killed", 2).await;
    put(&kafka, &topic, 0, numbers(0..100)).await;
    put(&kafka, &topic, 1, numbers(100..200)).await;
    let mut reader = Reader::at(&kafka, &format!("topic={topic}&group={topic}")).await;
    let some = reader.take(50).await;
    reader.ack(&some[..30]);
    reader.flush().await;
    kafka.aside(Kafka::kill).await;
    reader.until("the outage", |reader| !reader.disconnected.is_empty()).await;
    assert!(reader.disconnected[0].contains("no broker can be reached"), "{:?}", reader.disconnected);
    reader.alongside(kafka.aside(Kafka::restart)).await;
    reader.until("the return", |reader| reader.connected == 2).await;
    reader.ack(&some[30..]);
    let finished: BTreeSet<String> = texts(&some[..30]).into_iter().collect();
    let mut seen: BTreeSet<String> = texts(&some).into_iter().collect();
    while seen.len() < 200 {
        let one = reader.take(1).await;
        assert!(!finished.contains(&one[0].text()), "{} was finished", one[0].text());
        seen.insert(one[0].text());
        reader.ack(&one);
    }
    reader.flush().await;
    assert_eq!(reader.disconnected.len(), 1, "{}", reader.heard());
    assert_eq!(reader.close(Duration::from_secs(10)).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_deleted_under_a_reader_are_said_and_what_is_left_is_read() {
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "deleted", 1).await;
    put(&kafka, &topic, 0, numbers(0..10)).await;
    let mut reader = Reader::at(&kafka, &format!("topic={topic}&group={topic}")).await;
    let all = reader.take(10).await;
    let cut = topic.clone();
    let client = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .create::<AdminClient<DefaultClientContext>>()
        .unwrap();
    let mut below = TopicPartitionList::new();
    below.add_partition_offset(&cut, 0, Offset::Offset(6)).unwrap();
    client.delete_records(&below, &AdminOptions::new()).await.unwrap();
    // Reading has to go back to what is not there any more.
    reader.tell(Ask::Return(all.iter().map(|got| got.at).collect()));
    assert_eq!(texts(&reader.take(4).await), numbers(6..10));
    assert!(reader.lost.iter().any(|lost| lost.covers(all[9].at)), "{}", reader.heard());
    assert!(reader.troubles.iter().any(|text| text.contains("were deleted before")), "{:?}", reader.troubles);
    reader.close(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_no_long_metadata_still_gets_every_commit() {
    let Some(kafka) = own(&["--set", "offset.metadata.max.bytes=40"]) else { return };
    let topic = topic(&kafka, "short", 1).await;
    put(&kafka, &topic, 0, numbers(0..200)).await;
    let place = format!("topic={topic}&group={topic}");
    let mut reader = Reader::at(&kafka, &place).await;
    let all = reader.take(200).await;
    let every_other: Vec<_> = all.iter().skip(1).step_by(2).cloned().collect();
    reader.ack(&every_other);
    let evens: Vec<_> = all.iter().step_by(2).take(50).cloned().collect();
    reader.ack(&evens);
    reader.flush().await;
    assert_eq!(committed(&kafka, &topic, &topic).await, 100);
    let others: Vec<_> = all.iter().step_by(2).skip(50).cloned().collect();
    reader.ack(&others);
    reader.flush().await;
    assert_eq!((reader.proven, reader.unknown), (200, 0));
    assert_eq!(reader.close(Duration::from_secs(10)).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_takes_no_longer_than_a_few_answers_of_the_cluster() {
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "stop", 4).await;
    put(&kafka, &topic, 0, numbers(0..10)).await;
    let mut reader = Reader::at(&kafka, &format!("topic={topic}&group={topic}")).await;
    let all = reader.take(10).await;
    reader.ack(&all);
    let (returned, unknown, took) = reader.close(Duration::from_secs(20)).await;
    println!("closed in {took:?}");
    assert_eq!((returned, unknown, reader.proven), (0, 0, 10));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_owner_of_an_instance_fences_the_first() {
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "fenced", 1).await;
    put(&kafka, &topic, 0, numbers(0..3)).await;
    let place = format!("topic={topic}&group={topic}&instance=one");
    let mut first = Reader::at(&kafka, &place).await;
    first.take(3).await;
    let mut second = Reader::at(&kafka, &place).await;
    assert_eq!(texts(&second.take(3).await), numbers(0..3));
    let (kind, text) = first.failure().await;
    assert_eq!(kind, ErrorKind::GaveUp, "{text}");
    second.close(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_is_said() {
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "gone", 1).await;
    put(&kafka, &topic, 0, numbers(0..3)).await;
    let mut reader =
        Reader::at(&kafka, &format!("topic={topic}&group={topic}&topic.metadata.refresh.interval.ms=500")).await;
    let all = reader.take(3).await;
    reader.ack(&all);
    reader.flush().await;
    let gone = topic.clone();
    reader.alongside(kafka.aside(move |kafka| kafka.ctl(&["topics", "--delete", "--topic", &gone]))).await;
    reader.until("a word of it", |reader| reader.troubles.iter().any(|text| text.contains(&topic))).await;
    assert_eq!(reader.close(Duration::from_secs(10)).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_may_not_be_joined_ends_the_start() {
    let Some(kafka) = own(&["--sasl"]) else { return };
    let topic = topic(&kafka, "allowed", 1).await;
    let read = topic.clone();
    let allow = move |kafka: &Kafka| {
        let user = ["--allow-principal", "User:nobody", "--operation", "read", "--operation", "describe"];
        kafka.ctl(&[&["acls", "--add", "--topic", &read][..], &user].concat())
    };
    kafka.aside(allow).await;
    let url = format!("{}?topic={topic}&group=forbidden&declare=false", kafka.nobody_url());
    let mut reader = Reader::open(&url, |_| ()).await;
    let (kind, text) = reader.failure().await;
    assert_eq!(kind, ErrorKind::Credentials, "{text}");
    assert!(!text.contains("password"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_outlasts_the_poll_interval_costs_nobody_a_partition() {
    let Some(kafka) = shared() else { return };
    let topic = topic(&kafka, "slow-handler", 1).await;
    put(&kafka, &topic, 0, numbers(0..2)).await;
    let short = "max.poll.interval.ms=6000&session.timeout.ms=6000";
    let mut reader = Reader::at(&kafka, &format!("topic={topic}&group={topic}&{short}")).await;
    let slow = reader.take(1).await;
    // Nothing is asked for meanwhile, as when every handler is busy.
    let _ = tokio::time::timeout(Duration::from_secs(9), reader.until("nothing", |_| false)).await;
    reader.ack(&slow);
    reader.flush().await;
    assert_eq!((reader.proven, reader.stale, reader.lost.len()), (1, 0, 0), "{}", reader.heard());
    assert_eq!(texts(&reader.take(1).await), ["1"]);
    reader.close(Duration::from_secs(10)).await;
}
