//! What lies in a topic, looked at and taken off.

use super::kafka::{self, Kafka};
use super::reader::{Reader, put, texts};
use longshore::message::{At, Slab};
use longshore::transport::{Shelf, Transports, Url};
use longshore::{Error, ErrorKind};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::time::{Duration, Instant};

/// What an answer of a client library may take that a standing broker does not give, and some for a busy machine.
const IN_TIME: Duration = Duration::from_secs(30);

async fn open(url: &str) -> Result<Box<dyn Shelf>, Error> {
    let url = Url::parse(url)?;
    Transports::built_in().of(&url)?.shelf(&url).await
}

async fn dead(kafka: &Kafka, topic: &str) -> u64 {
    let url = Url::parse(&format!("{}?topic={topic}", kafka.url())).unwrap();
    Transports::built_in().of(&url).unwrap().inspect(&url, "g").await.unwrap().dead.unwrap()
}

/// Everything that is still to be shown.
async fn rest(shelf: &mut Box<dyn Shelf>, at_once: u32) -> Vec<(String, At)> {
    let mut all = Vec::new();
    loop {
        let slab: Slab = shelf.read(at_once).await.unwrap();
        if slab.is_empty() {
            return all;
        }
        let text = |payload: Option<&[u8]>| String::from_utf8(payload.unwrap().to_vec()).unwrap();
        all.extend(slab.iter().map(|one| (text(one.payload()), one.head().at)));
    }
}

async fn shown(url: &str) -> Vec<String> {
    rest(&mut open(url).await.unwrap(), 1_000).await.into_iter().map(|(text, _)| text).collect()
}

fn numbers(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

/// A topic of that many partitions and its place of dead letters, of as many.
async fn topics(kafka: &Kafka, partitions: u32) -> (String, String) {
    let topic = kafka.fresh("shelf");
    let dead = format!("{topic}.g.dead");
    let made = [topic.clone(), dead.clone()];
    kafka.aside(move |kafka| made.iter().for_each(|topic| kafka.create(topic, partitions))).await;
    (topic, dead)
}

/// The first offset of a topic's first partition and the one behind the last.
async fn ends(kafka: &Kafka, topic: &str) -> (i64, i64) {
    let topic = topic.to_owned();
    kafka
        .aside(move |kafka| {
            let consumer: BaseConsumer =
                ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
            consumer.fetch_watermarks(&topic, 0, Duration::from_secs(10)).unwrap()
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_are_taken_off_are_gone_for_every_later_look_and_for_inspect() {
    let Some(kafka) = kafka::shared() else { return };
    let (topic, letters) = topics(&kafka, 3).await;
    for partition in 0..3 {
        put(&kafka, &letters, partition, (0..100).map(|number| format!("{partition}-{number}"))).await;
    }
    let url = format!("{}?topic={letters}", kafka.url());
    let mut first = open(&url).await.unwrap();
    // What comes meanwhile is for the next look.
    put(&kafka, &letters, 1, ["late".to_owned()]).await;
    let all = rest(&mut first, 7).await;
    let expected: Vec<String> =
        (0..3).flat_map(|partition| (0..100).map(move |number| format!("{partition}-{number}"))).collect();
    assert_eq!(all.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>(), expected);
    let mut second = open(&url).await.unwrap();
    rest(&mut second, 1_000).await;
    let third: Vec<At> = all.iter().step_by(3).map(|(_, at)| *at).collect();
    assert_eq!(first.remove(third.clone()).await.unwrap(), 100);
    assert_eq!(dead(&kafka, &topic).await, 201);
    // Another process is told how many were still there.
    assert_eq!(second.remove(all[..9].iter().map(|(_, at)| *at).collect()).await.unwrap(), 6);
    assert_eq!(first.remove(third).await.unwrap(), 0);
    let mut left: Vec<String> =
        expected.iter().enumerate().filter(|(n, _)| n % 3 != 0 && *n >= 9).map(|(_, text)| text.clone()).collect();
    left.insert(left.iter().position(|text| text.starts_with("2-")).unwrap(), "late".to_owned());
    assert_eq!(shown(&url).await, left);
    assert_eq!(dead(&kafka, &topic).await, 195);
    drop((first, second));
    // All that is left, read and taken off in parts.
    let mut last = open(&url).await.unwrap();
    loop {
        let some = last.read(40).await.unwrap();
        if some.is_empty() {
            break;
        }
        assert_eq!(last.remove(some.iter().map(|one| one.head().at).collect()).await.unwrap(), some.len() as u64);
    }
    assert_eq!((shown(&url).await.len(), dead(&kafka, &topic).await), (0, 0));
    // A broker forgets the place of a group that nobody uses: what was taken off must not be back then.
    assert_eq!(ends(&kafka, &letters).await, (100, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_leaves_in_the_log_is_no_letter_and_does_not_hold_up_a_look() {
    let Some(kafka) = kafka::shared() else { return };
    let (topic, letters) = topics(&kafka, 1).await;
    let put_in = |texts: Vec<String>, commit: Option<bool>| {
        let letters = letters.clone();
        kafka.aside(move |kafka| {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", kafka.bootstrap()).set("transactional.id", kafka.fresh("tx"));
            let producer: BaseProducer = config.create().unwrap();
            producer.init_transactions(IN_TIME).unwrap();
            producer.begin_transaction().unwrap();
            for text in &texts {
                producer
                    .send(BaseRecord::<(), str>::to(&letters).partition(0).payload(text))
                    .map_err(|(why, _)| why)
                    .unwrap();
            }
            producer.flush(IN_TIME).unwrap();
            match commit {
                Some(true) => producer.commit_transaction(IN_TIME).unwrap(),
                Some(false) => producer.abort_transaction(IN_TIME).unwrap(),
                None => {}
            }
            producer
        })
    };
    drop(put_in(numbers(0..3).collect(), Some(true)).await);
    drop(put_in(vec!["never".to_owned()], Some(false)).await);
    drop(put_in(numbers(3..5).collect(), Some(true)).await);
    let url = format!("{}?topic={letters}", kafka.url());
    assert_eq!(shown(&url).await, numbers(0..5).collect::<Vec<_>>());
    // One that is open ends the look before it.
    let open_one = put_in(vec!["open".to_owned()], None).await;
    let mut shelf = open(&url).await.unwrap();
    let all = rest(&mut shelf, 2).await;
    assert_eq!(all.len(), 5);
    assert_eq!(shelf.remove(all.into_iter().map(|(_, at)| at).collect()).await.unwrap(), 5);
    assert_eq!((shown(&url).await.len(), dead(&kafka, &topic).await), (0, 0));
    kafka.aside(move |_| open_one.commit_transaction(IN_TIME).unwrap()).await;
    assert_eq!(shown(&url).await, ["open"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_for_a_group_shows_what_it_has_not_settled_and_takes_nothing_from_its_members() {
    let Some(kafka) = kafka::shared() else { return };
    let (topic, _) = topics(&kafka, 1).await;
    put(&kafka, &topic, 0, numbers(0..6)).await;
    let place = format!("topic={topic}&group={topic}");
    let url = format!("{}?{place}", kafka.url());
    let mut reader = Reader::at(&kafka, &place).await;
    let all = reader.take(6).await;
    reader.ack(&[all[0].clone(), all[3].clone()]);
    reader.flush().await;
    let mut shelf = open(&url).await.unwrap();
    let seen = rest(&mut shelf, 100).await;
    let waiting = ["1", "2", "4", "5"];
    assert_eq!(seen.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>(), waiting);
    let error = shelf.remove(vec![seen[0].1]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains("at work"), "{error:?}");
    reader.close(Duration::from_secs(10)).await;
    // Nobody is at work: what is taken off is settled for the next owner, and stays in the log for others.
    assert_eq!(shelf.remove(vec![seen[0].1, seen[2].1]).await.unwrap(), 2);
    assert_eq!(ends(&kafka, &topic).await, (0, 6));
    let mut heir = Reader::at(&kafka, &place).await;
    assert_eq!(texts(&heir.take(2).await), ["2", "5"]);
    heir.close(Duration::from_secs(10)).await;
    // Nor from where an option says that it begins.
    let mut part = open(&format!("{}?topic={topic}&start=4", kafka.url())).await.unwrap();
    let seen = rest(&mut part, 100).await;
    assert_eq!(seen.len(), 2);
    assert_eq!(part.remove(vec![seen[0].1]).await.unwrap_err().kind(), ErrorKind::Configuration);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_topic_is_told_and_not_made() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = kafka.fresh("absent");
    for declare in ["true", "false"] {
        let error = open(&format!("{}?topic={topic}&declare={declare}", kafka.url())).await.err().unwrap();
        assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains(&topic), "{error:?}");
    }
    let error = open(&format!("{}?topic=a,b", kafka.url())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stands_still_ends_a_look_in_time() {
    let Some(kafka) = kafka::own(&[]) else { return };
    let (_, letters) = topics(&kafka, 1).await;
    put(&kafka, &letters, 0, numbers(0..3)).await;
    let url = format!("{}?topic={letters}", kafka.url());
    let mut unread = open(&url).await.unwrap();
    let mut read = open(&url).await.unwrap();
    let seen = rest(&mut read, 10).await;
    kafka.aside(|kafka| kafka.freeze()).await;
    let began = Instant::now();
    let (opened, shown, removed) = tokio::join!(open(&url), unread.read(10), read.remove(vec![seen[0].1]));
    for error in [opened.err(), shown.err(), removed.err()] {
        assert_eq!(error.as_ref().map(Error::kind), Some(ErrorKind::Unreachable), "{error:?}");
    }
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    kafka.aside(|kafka| kafka.thaw()).await;
    assert_eq!(rest(&mut unread, 10).await.len(), 3);
    assert_eq!(read.remove(vec![seen[0].1]).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_delete_records_takes_letters_off_and_who_may_not_commit_is_told() {
    let Some(kafka) = kafka::own(&["--sasl"]) else { return };
    let (topic, letters) = topics(&kafka, 1).await;
    put(&kafka, &letters, 0, numbers(0..3)).await;
    let allow = |what: [&'static str; 2]| {
        let of = letters.clone();
        kafka.aside(move |kafka| {
            let [what, operation] = what;
            let who = ["--allow-principal", "User:nobody", "--operation", operation];
            kafka.ctl(&[&["acls", "--add", what, &of][..], &who].concat())
        })
    };
    allow(["--topic", "read"]).await;
    allow(["--group", "describe"]).await;
    let url = format!("{}?topic={letters}", kafka.nobody_url());
    let mut shelf = open(&url).await.unwrap();
    let all = rest(&mut shelf, 10).await;
    let error = shelf.remove(vec![all[0].1]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Credentials && error.to_string().contains(&letters), "{error:?}");
    allow(["--group", "read"]).await;
    assert_eq!(shelf.remove(all[..2].iter().map(|(_, at)| *at).collect()).await.unwrap(), 2);
    assert_eq!((shown(&url).await, dead(&kafka, &topic).await), (vec!["2".to_owned()], 1));
    assert_eq!(ends(&kafka, &letters).await, (0, 3));
}
