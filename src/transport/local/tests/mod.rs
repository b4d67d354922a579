//! Tests against real files; several processes are this test program, started again.

mod behaviour;
mod faults;
mod model;
mod processes;

use super::*;
use crate::failure::Tally;
use crate::message::{At, Message, Slab, SlabBuilder};
use crate::transport::{Ask, Event, Settlement, SinkAsk, SinkEvent, Verdict};
use std::path::Path;
use std::time::Instant;

/// No wait in these tests is longer; it ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(20);

fn url(path: &Path, options: &str) -> Url {
    Url::parse(&format!("local:{}?{options}", path.display())).unwrap()
}

fn spec() -> SourceSpec {
    SourceSpec {
        worker: "test".into(),
        default_group: "app".into(),
        concurrency: 16,
        by_key: true,
        max_message: 1 << 20,
        patience: Duration::from_millis(200),
    }
}

fn sink_spec() -> SinkSpec {
    SinkSpec { worker: "test".into(), patience: Duration::from_millis(200) }
}

fn slab(messages: impl IntoIterator<Item = Message>) -> Arc<Slab> {
    let mut builder = SlabBuilder::new();
    for message in messages {
        builder.push_message(&message);
    }
    Arc::new(builder.finish("test".into()))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

/// A source with what it said so far.
struct Reader {
    source: Box<dyn Source>,
}

impl Reader {
    async fn open(local: &Local, url: &Url, spec: &SourceSpec) -> Self {
        Self { source: local.source(url, spec).unwrap().open(SourceHooks::default()).await.unwrap() }
    }

    async fn next(&mut self) -> Event {
        within(self.source.next()).await
    }

    /// Waits for an event of some kind; the others before it are dropped.
    async fn wait<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next().await) {
                return found;
            }
        }
    }

    /// Takes exactly so many messages.
    async fn take(&mut self, many: u32) -> Vec<(At, Message)> {
        let mut all = Vec::new();
        while (all.len() as u32) < many {
            self.source.tell(Ask::Demand { messages: many - all.len() as u32, bytes: 64 << 20 });
            let slab = self.wait(|event| if let Event::Batch(slab) = event { Some(slab) } else { None }).await;
            all.extend(slab.iter().map(|message| (message.head().at, message.to_message())));
        }
        self.source.tell(Ask::Demand { messages: 0, bytes: 0 });
        all
    }

    fn settle(&mut self, ats: impl IntoIterator<Item = At>, verdict: Verdict) {
        self.source.tell(Ask::Settle(ats.into_iter().map(|at| Settlement { at, verdict }).collect()));
    }

    /// Flushes; what was settled and what was stale on the way.
    async fn flush(&mut self) -> (Tally, Tally) {
        self.source.tell(Ask::Flush { by: std::time::Instant::now() + std::time::Duration::from_secs(5) });
        let (mut all, mut late) = (Tally::default(), Tally::default());
        loop {
            match self.next().await {
                Event::Settled { proven, stale, .. } => {
                    all += proven;
                    late += stale;
                }
                Event::Flushed => return (all, late),
                _ => {}
            }
        }
    }

    async fn close(mut self) -> (u64, Tally) {
        self.source.tell(Ask::Close { by: Instant::now() + PATIENCE });
        self.wait(
            |event| if let Event::Closed { returned, unknown } = event { Some((returned, unknown)) } else { None },
        )
        .await
    }
}

/// Publishes and waits for the confirm; how many failed.
async fn publish(local: &Local, url: &Url, messages: impl IntoIterator<Item = Message>) -> usize {
    let mut sink = local.sink(url, &sink_spec()).unwrap().open().await.unwrap();
    sink.tell(SinkAsk::Send { batch: 1, slab: slab(messages) });
    sink.tell(SinkAsk::Close { by: Instant::now() + PATIENCE });
    let mut failures = None;
    loop {
        match within(sink.next()).await {
            SinkEvent::Confirmed { failed, .. } => failures = Some(failed.len()),
            SinkEvent::Closed { unconfirmed } => {
                assert_eq!(unconfirmed, 0);
                return failures.expect("it was confirmed before it was closed");
            }
            SinkEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

fn texts(all: &[(At, Message)]) -> Vec<String> {
    all.iter()
        .map(|(_, message)| String::from_utf8(message.payload.clone().unwrap_or_default().to_vec()).unwrap())
        .collect()
}

fn ats(all: &[(At, Message)]) -> Vec<At> {
    all.iter().map(|(at, _)| *at).collect()
}

fn numbered(range: std::ops::Range<u32>) -> impl Iterator<Item = Message> {
    range.map(|number| Message::new(number.to_string()))
}

fn acked(many: u64) -> Tally {
    Tally { acked: many, ..Tally::default() }
}
