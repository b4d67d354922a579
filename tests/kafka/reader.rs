//! An open source, told and listened to the way the engine does it, and all that it said. Records for it to read, put
//! there by another client.

use super::kafka::Kafka;
use longshore::message::At;
use longshore::transport::{
    Ask, Backlog, Event, Ownership, Settlement, Source, SourceHooks, SourceSpec, Transport, Url, Verdict,
};
use longshore::{Error, ErrorKind};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::time::{Duration, Instant};

/// Whoever waits longer has found a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One delivery.
#[derive(Debug, Clone)]
pub struct Got {
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub at: At,
    pub unclean: u32,
    pub marks: u32,
}

impl Got {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.payload.as_deref().unwrap_or_default()).into_owned()
    }
}

pub struct Reader {
    source: Box<dyn Source>,
    pub got: Vec<Got>,
    taken: usize,
    /// Says at once that what goes runs no more.
    pub releases: bool,
    pub proven: u64,
    pub stale: u64,
    pub unknown: u64,
    pub connected: u32,
    pub disconnected: Vec<String>,
    pub troubles: Vec<String>,
    pub assigned: Vec<Ownership>,
    pub revoking: Vec<Ownership>,
    pub lost: Vec<Ownership>,
    pub marked: Vec<At>,
    pub measured: Vec<Backlog>,
    pub flushed: u32,
    pub intake_stopped: bool,
    pub closed: Option<(u64, u64)>,
    pub failed: Option<Error>,
}

impl Reader {
    pub async fn open(url: &str, shape: impl FnOnce(&mut SourceSpec)) -> Self {
        let mut spec = SourceSpec::new("reader", "group", PATIENCE);
        shape(&mut spec);
        let plan = longshore::transport::kafka::Kafka::default().source(&Url::parse(url).unwrap(), &spec).unwrap();
        let source = plan.open(SourceHooks::default()).await.unwrap();
        Self {
            source,
            got: Vec::new(),
            taken: 0,
            releases: true,
            proven: 0,
            stale: 0,
            unknown: 0,
            connected: 0,
            disconnected: Vec::new(),
            troubles: Vec::new(),
            assigned: Vec::new(),
            revoking: Vec::new(),
            lost: Vec::new(),
            marked: Vec::new(),
            measured: Vec::new(),
            flushed: 0,
            intake_stopped: false,
            closed: None,
            failed: None,
        }
    }

    /// From a place of those nodes: `topic=…`.
    pub async fn at(kafka: &Kafka, place: &str) -> Self {
        Self::open(&format!("{}?{place}", kafka.url()), |_| ()).await
    }

    pub fn tell(&mut self, ask: Ask) {
        self.source.tell(ask);
    }

    pub fn demand(&mut self, messages: u32) {
        self.tell(Ask::Demand { messages, bytes: 64 << 20 });
    }

    pub fn ack(&mut self, these: &[Got]) {
        let settled = these.iter().map(|got| Settlement { at: got.at, verdict: Verdict::Acked });
        self.tell(Ask::Settle(settled.collect()));
    }

    async fn step(&mut self) {
        match self.source.next().await {
            Event::Batch(slab) => self.got.extend(slab.iter().map(|message| Got {
                key: message.key().map(<[u8]>::to_vec),
                payload: message.payload().map(<[u8]>::to_vec),
                at: message.head().at,
                unclean: message.head().unclean,
                marks: message.head().marks,
            })),
            Event::Settled { proven, stale, unknown } => {
                self.proven += proven.total();
                self.stale += stale.total();
                self.unknown += unknown.total();
            }
            Event::Assigned(ownership) => self.assigned.push(ownership),
            Event::Revoking { ownership, .. } => {
                if self.releases {
                    self.tell(Ask::Released(ownership.clone()));
                }
                self.revoking.push(ownership);
            }
            Event::Lost(ownership) => self.lost.push(ownership),
            Event::Marked(at) => self.marked.push(at),
            Event::Measured(backlog) => self.measured.push(backlog),
            Event::Connected => self.connected += 1,
            Event::Disconnected(error) => self.disconnected.push(error.to_string()),
            Event::Trouble(error) => self.troubles.push(error.to_string()),
            Event::Flushed => self.flushed += 1,
            Event::IntakeStopped => self.intake_stopped = true,
            Event::Closed { returned, unknown } => self.closed = Some((returned, unknown.total())),
            Event::Failed(error) => self.failed = Some(error),
            _ => {}
        }
    }

    /// Listens until something is so; what it heard otherwise is in the panic.
    pub async fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let listening = async {
            while !so(self) {
                assert!(self.closed.is_none() && self.failed.is_none(), "ended before {what}: {:?}", self.failed);
                self.step().await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, listening).await;
        assert!(waited.is_ok(), "waited for {what} in vain: {}", self.heard());
    }

    pub fn heard(&self) -> String {
        format!(
            "{} delivered, proven {}, stale {}, unknown {}, connected {}, disconnected {:?}, troubles {:?}, assigned {:?}, \
             revoking {:?}, lost {:?}",
            self.got.len(),
            self.proven,
            self.stale,
            self.unknown,
            self.connected,
            self.disconnected,
            self.troubles,
            self.assigned,
            self.revoking,
            self.lost
        )
    }

    /// Goes on listening while something else is done.
    pub async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.step() => {}
            }
        }
    }

    /// Asks for so many and waits for them.
    pub async fn take(&mut self, count: usize) -> Vec<Got> {
        let until = self.taken + count;
        self.demand((until - self.got.len().min(until)) as u32);
        self.until(&format!("{count} messages"), |reader| reader.got.len() >= until).await;
        self.taken = until;
        self.got[until - count..until].to_vec()
    }

    pub async fn flush(&mut self) {
        let before = self.flushed;
        self.tell(Ask::Flush { by: Instant::now() + PATIENCE });
        self.until("the flush", |reader| reader.flushed > before).await;
    }

    /// Closes within that time; what was returned, what is unknown, and how long it took.
    pub async fn close(&mut self, within: Duration) -> (u64, u64, Duration) {
        let began = Instant::now();
        self.tell(Ask::Close { by: began + within });
        let listening = async {
            while self.closed.is_none() {
                self.step().await;
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("a source closes");
        let (returned, unknown) = self.closed.expect("was just waited for");
        (returned, unknown, began.elapsed())
    }

    /// Listens until it has failed.
    pub async fn failure(&mut self) -> (ErrorKind, String) {
        let listening = async {
            while self.failed.is_none() {
                self.step().await;
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("it fails");
        let error = self.failed.as_ref().expect("was just waited for");
        (error.kind(), error.to_string())
    }
}

/// Payloads in the order of delivery.
pub fn texts(all: &[Got]) -> Vec<String> {
    all.iter().map(Got::text).collect()
}

/// Puts records there, and waits until they are stored.
pub async fn put(kafka: &Kafka, topic: &str, partition: i32, texts: impl IntoIterator<Item = String>) {
    let records: Vec<_> = texts.into_iter().map(|text| (Some(text.clone()), Some(text))).collect();
    put_records(kafka, topic, partition, records).await;
}

/// The same with keys and payloads that may be absent.
pub async fn put_records(kafka: &Kafka, topic: &str, partition: i32, records: Vec<(Option<String>, Option<String>)>) {
    let topic = topic.to_owned();
    let stored = kafka.aside(move |kafka| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", kafka.bootstrap()).set("acks", "all").set("linger.ms", "1");
        config.set("queue.buffering.max.messages", "1000000");
        let producer: BaseProducer = config.create().unwrap();
        for (key, payload) in &records {
            let mut record: BaseRecord<'_, String, String> = BaseRecord::to(&topic).partition(partition);
            (record.key, record.payload) = (key.as_ref(), payload.as_ref());
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE)
    });
    stored.await.unwrap();
}
