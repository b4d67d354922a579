//! Workers of one group that come and go.

use super::kafka::shared;
use longshore::Running;
use longshore::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::runtime::Handle;

const PARTITIONS: u32 = 6;
const EACH: usize = 1_500;
const KEYS: usize = 40;
/// Workers at a time.
const MOST: usize = 4;
/// Whoever waits longer has found a hang.
const PATIENCE: Duration = Duration::from_secs(150);

/// What was handled, in the order in which handlers ended.
#[derive(Default)]
struct Effects {
    times: Mutex<BTreeMap<String, u32>>,
    /// The last record of each key, by partition.
    last: Mutex<BTreeMap<String, usize>>,
    disorder: Mutex<Vec<String>>,
}

impl Effects {
    fn add(&self, text: &str) {
        *self.times.lock().unwrap().entry(text.to_owned()).or_default() += 1;
        let (partition, number) = text.split_once('-').unwrap();
        let number: usize = number.parse().unwrap();
        let key = format!("{partition}/{}", number % KEYS);
        let before = self.last.lock().unwrap().insert(key, number);
        if before.is_some_and(|before| before >= number) {
            self.disorder.lock().unwrap().push(format!("{text} after {before:?}"));
        }
    }

    fn handled(&self) -> usize {
        self.times.lock().unwrap().len()
    }
}

async fn worker(url: &str, effects: &Arc<Effects>) -> Running {
    let effects = effects.clone();
    let handler = move |Raw(bytes): Raw| {
        let effects = effects.clone();
        async move {
            let text = String::from_utf8(bytes.to_vec())?;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..50))).await;
            effects.add(&text);
            Ok::<_, BoxError>(())
        }
    };
    let consumer = Consumer::new("ship", url, handler).concurrency(16);
    let app = App::new("storm").admin("off".parse().unwrap()).consumer(consumer);
    let worker = app.start(&Handle::current()).await.unwrap();
    assert!(worker.ready().await);
    worker
}

async fn end(mut worker: Running) {
    worker.stop();
    let stopped = worker.wait().await;
    assert_eq!(stopped.exit_code(), 0, "{}", stopped.table());
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_come_and_go_in_order_do_everything_once_and_keep_the_order_of_each_key() {
    let Some(kafka) = shared() else { return };
    for protocol in ["protocol=classic", "protocol=consumer", "partition.assignment.strategy=range"] {
        let topic = kafka.fresh("storm");
        let made = topic.clone();
        kafka.aside(move |kafka| kafka.create(&made, PARTITIONS)).await;
        for partition in 0..PARTITIONS as i32 {
            put_keyed(&kafka, &topic, partition).await;
        }
        let url = format!("{}?topic={topic}&group={topic}&{protocol}", kafka.url());
        let effects = Arc::new(Effects::default());
        let (began, all) = (Instant::now(), PARTITIONS as usize * EACH);
        let mut workers = vec![worker(&url, &effects).await];
        while effects.handled() < all {
            assert!(began.elapsed() < PATIENCE, "{protocol}: {} of {all} after {PATIENCE:?}", effects.handled());
            if workers.len() < MOST && fastrand::bool() || workers.len() == 1 {
                workers.push(worker(&url, &effects).await);
            } else {
                let leaves = workers.swap_remove(fastrand::usize(..workers.len()));
                end(leaves).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        for worker in workers {
            end(worker).await;
        }
        let twice: Vec<_> = effects
            .times
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, times)| **times > 1)
            .map(|(text, _)| text.clone())
            .collect();
        assert_eq!(twice, Vec::<String>::new(), "{protocol}: done twice");
        assert_eq!(*effects.disorder.lock().unwrap(), Vec::<String>::new(), "{protocol}");
    }
}

async fn put_keyed(kafka: &super::kafka::Kafka, topic: &str, partition: i32) {
    let records =
        (0..EACH).map(|number| (Some(format!("{partition}/{}", number % KEYS)), Some(format!("{partition}-{number}"))));
    super::reader::put_records(kafka, topic, partition, records.collect()).await;
}
