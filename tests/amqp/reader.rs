//! An open source, told and listened to the way the engine does it, and all that it said.

use super::broker::Broker;
use longshore::message::At;
use longshore::transport::amqp::Amqp;
use longshore::transport::{
    Ask, Event, Ownership, Settlement, Source, SourceHooks, SourceSpec, Transport, Url, Verdict,
};
use longshore::{Error, ErrorKind};
use std::time::{Duration, Instant};

/// Whoever waits longer has found a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One delivery.
#[derive(Debug, Clone)]
pub struct Got {
    pub body: String,
    pub at: At,
    pub unclean: u32,
}

pub struct Reader {
    source: Box<dyn Source>,
    pub got: Vec<Got>,
    taken: usize,
    pub proven: u64,
    pub stale: u64,
    pub unknown: u64,
    pub connected: u32,
    pub disconnected: Vec<String>,
    pub troubles: Vec<String>,
    pub lost: Vec<Ownership>,
    pub recalls: Vec<Ownership>,
    pub ageing: Vec<At>,
    pub flushed: u32,
    pub closed: Option<(u64, u64)>,
    pub failed: Option<Error>,
}

impl Reader {
    pub async fn open(url: &str, shape: impl FnOnce(&mut SourceSpec)) -> Self {
        let mut spec = SourceSpec::new("reader", "group", PATIENCE);
        shape(&mut spec);
        let plan = Amqp::default().source(&Url::parse(url).unwrap(), &spec).unwrap();
        let source = plan.open(SourceHooks::default()).await.unwrap();
        Self {
            source,
            got: Vec::new(),
            taken: 0,
            proven: 0,
            stale: 0,
            unknown: 0,
            connected: 0,
            disconnected: Vec::new(),
            troubles: Vec::new(),
            lost: Vec::new(),
            recalls: Vec::new(),
            ageing: Vec::new(),
            flushed: 0,
            closed: None,
            failed: None,
        }
    }

    /// From a place of that node: `queue=…`.
    pub async fn at(broker: &Broker, place: &str) -> Self {
        Self::open(&format!("{}?{place}", broker.url()), |_| ()).await
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

    pub fn give_back(&mut self, these: &[Got]) {
        self.tell(Ask::Return(these.iter().map(|got| got.at).collect()));
    }

    async fn step(&mut self) {
        match self.source.next().await {
            Event::Batch(slab) => self.got.extend(slab.iter().map(|message| Got {
                body: String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned(),
                at: message.head().at,
                unclean: message.head().unclean,
            })),
            Event::Settled { proven, stale, unknown } => {
                self.proven += proven.total();
                self.stale += stale.total();
                self.unknown += unknown.total();
            }
            Event::Lost(ownership) => self.lost.push(ownership),
            Event::Recall(ownership) => self.recalls.push(ownership),
            Event::Ageing { at, .. } => self.ageing.push(at),
            Event::Connected => self.connected += 1,
            Event::Disconnected(error) => self.disconnected.push(error.to_string()),
            Event::Trouble(error) => self.troubles.push(error.to_string()),
            Event::Flushed => self.flushed += 1,
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

    fn heard(&self) -> String {
        format!(
            "{} delivered, proven {}, stale {}, unknown {}, connected {}, disconnected {:?}, troubles {:?}, lost {:?}, \
             recalls {:?}",
            self.got.len(),
            self.proven,
            self.stale,
            self.unknown,
            self.connected,
            self.disconnected,
            self.troubles,
            self.lost,
            self.recalls
        )
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
        self.until_closed().await;
        let (returned, unknown) = self.closed.expect("was just waited for");
        (returned, unknown, began.elapsed())
    }

    async fn until_closed(&mut self) {
        let listening = async {
            while self.closed.is_none() {
                self.step().await;
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("a source closes");
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

/// Bodies in the order of delivery.
pub fn bodies(all: &[Got]) -> Vec<String> {
    all.iter().map(|got| got.body.clone()).collect()
}
