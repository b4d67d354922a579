//! An open sink, sent to within its demand, and all that it said.

#![allow(dead_code, reason = "each test file uses its part of it")]

use super::broker::Broker;
use longshore::message::{Message, SlabBuilder};
use longshore::transport::{Sink, SinkAsk, SinkEvent, SinkSpec, Transports, Url};
use longshore::{Error, Failure};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whoever waits longer has found a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Writer {
    sink: Box<dyn Sink>,
    room: u32,
    sent: u64,
    confirmed: u64,
    /// What became of each message, by the number it was sent as; said more than once, it is a fault.
    pub became: BTreeMap<u64, Result<(), Failure>>,
    /// Which messages a batch has.
    batches: BTreeMap<u64, u64>,
    pub connected: u32,
    pub disconnected: Vec<String>,
    pub troubles: Vec<String>,
    pub flushed: Vec<u64>,
    pub closed: Option<u64>,
    /// Why it cannot go on; whoever does not wait for that panics by it.
    failure: Option<Error>,
    awaits_failure: bool,
}

pub async fn try_open(url: &str, patience: Duration) -> Result<Writer, Error> {
    let url = Url::parse(url)?;
    let plan = Transports::built_in().of(&url)?.sink(&url, &SinkSpec::new("publisher", patience))?;
    Ok(Writer::on(plan.open().await?))
}

impl Writer {
    pub fn on(sink: Box<dyn Sink>) -> Self {
        Self {
            sink,
            room: 0,
            sent: 0,
            confirmed: 0,
            became: BTreeMap::new(),
            batches: BTreeMap::new(),
            connected: 0,
            disconnected: Vec::new(),
            troubles: Vec::new(),
            flushed: Vec::new(),
            closed: None,
            failure: None,
            awaits_failure: false,
        }
    }

    pub async fn open(url: &str) -> Self {
        try_open(url, PATIENCE).await.unwrap()
    }

    /// To a place of that node of RabbitMQ: `queue=…`.
    pub async fn at(broker: &Broker, place: &str) -> Self {
        Self::open(&format!("{}?{place}", broker.url())).await
    }

    /// Sends these as the sink asks for them; waits for no confirm, but takes in those that come.
    pub async fn send(&mut self, messages: impl IntoIterator<Item = Message>) {
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            self.until("demand", |writer| writer.room > 0).await;
            let mut builder = SlabBuilder::new();
            let first = self.sent;
            while self.room > 0 && builder.len() < 256 {
                let Some(message) = messages.next() else { break };
                builder.push_message(&message);
                self.room -= 1;
                self.sent += 1;
            }
            // Some number that rises, so that a batch taken for another one is noticed.
            let batch = first * 7 + 1;
            self.batches.insert(batch, first);
            self.sink.tell(SinkAsk::Send { batch, slab: Arc::new(builder.finish("test".into())) });
        }
    }

    /// Sends these and waits for what becomes of them.
    pub async fn publish(&mut self, messages: impl IntoIterator<Item = Message>) {
        self.send(messages).await;
        self.all_confirmed().await;
    }

    /// Publishes one message; what became of it.
    pub async fn one(&mut self, message: Message) -> Result<(), Failure> {
        let number = self.sent;
        self.publish([message]).await;
        self.became.remove(&number).unwrap_or_else(|| panic!("message {number} was not confirmed"))
    }

    /// Waits for what becomes of all that was sent.
    pub async fn all_confirmed(&mut self) {
        self.until("every confirm", |writer| writer.confirmed == writer.sent).await;
    }

    /// What the sink asks for now.
    pub fn room(&self) -> u32 {
        self.room
    }

    /// Those that failed, by number.
    pub fn failed(&self) -> Vec<u64> {
        self.became.iter().filter(|(_, became)| became.is_err()).map(|(number, _)| *number).collect()
    }

    pub fn tell(&mut self, ask: SinkAsk) {
        self.sink.tell(ask);
    }

    /// Closes; how many were not confirmed, and how long it took.
    pub async fn close_within(mut self, within: Duration) -> (u64, Duration) {
        let began = Instant::now();
        self.sink.tell(SinkAsk::Close { by: began + within });
        self.until("the close", |writer| writer.closed.is_some()).await;
        (self.closed.unwrap(), began.elapsed())
    }

    /// Listens until it fails; why.
    pub async fn until_it_fails(&mut self) -> Error {
        self.awaits_failure = true;
        self.until("the end", |writer| writer.failure.is_some()).await;
        self.failure.take().expect("it was waited for")
    }

    /// Listens until something is so.
    pub async fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let listening = async {
            while !so(self) {
                let event = self.sink.next().await;
                self.hear(event);
            }
        };
        if tokio::time::timeout(PATIENCE, listening).await.is_err() {
            panic!(
                "waited in vain for {what}: sent {}, confirmed {}, disconnected {:?}, troubles {:?}",
                self.sent, self.confirmed, self.disconnected, self.troubles
            );
        }
    }

    fn hear(&mut self, event: SinkEvent) {
        match event {
            SinkEvent::Demand { messages, .. } => self.room = messages,
            SinkEvent::Confirmed { batch, range, failed } => {
                let first = self.batches[&batch];
                let mut failed: BTreeMap<u32, Failure> = failed.into_iter().collect();
                for index in range {
                    self.confirmed += 1;
                    let became = failed.remove(&index).map_or(Ok(()), Err);
                    let again = self.became.insert(first + u64::from(index), became);
                    assert!(again.is_none(), "message {index} of batch {batch} was confirmed twice");
                }
                assert!(failed.is_empty(), "failures outside of their range: {failed:?}");
            }
            SinkEvent::Connected => self.connected += 1,
            SinkEvent::Disconnected(error) => self.disconnected.push(error.to_string()),
            SinkEvent::Trouble(error) => self.troubles.push(error.to_string()),
            SinkEvent::Flushed { unconfirmed } => self.flushed.push(unconfirmed),
            SinkEvent::Closed { unconfirmed } => self.closed = Some(unconfirmed),
            SinkEvent::Failed(error) if self.awaits_failure => self.failure = Some(error),
            SinkEvent::Failed(error) => panic!("the sink failed: {error}"),
            other => panic!("unknown: {other:?}"),
        }
    }
}
