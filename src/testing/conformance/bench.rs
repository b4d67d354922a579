//! The bench that a case works at: it makes places, stocks them, opens both ends, and looks at what is left.

use super::Subject;
use super::cases::{Stop, Tried, same};
use super::got::{Got, sorted_names};
use super::reader::Reader;
use super::subject::Place;
use super::writer::Writer;
use crate::error::Error;
use crate::message::Message;
use crate::transport::{Capabilities, SinkPlan, SinkSpec, SourceHooks, SourcePlan, SourceSpec};
use std::future::Future;
use std::time::Duration;

/// The group of a case that needs only one.
pub(super) const GROUP: &str = "crew";
/// The keys that a stock of messages goes round.
pub(super) const KEYS: [&str; 3] = ["a", "b", "c"];
/// The last message of a place: what has not come before it is looked for no longer than `quiet`.
const LAST: &str = "last";

/// Name of the n-th message of a stock; sorts as n does.
pub(super) fn name(n: usize) -> String {
    format!("m{n:03}")
}

/// Names of the messages of a stock from one number to before another.
pub(super) fn named(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(name).collect()
}

/// A message by its name, which its payload tells, and its key.
pub(super) fn message(name: &str, key: &str) -> Message {
    Message::new(format!(r#"{{"id":"{name}","key":"{key}"}}"#)).with_key(key.to_owned())
}

pub(super) struct Bench {
    pub subject: Subject,
    /// The case that runs.
    pub case: &'static str,
    /// What a source declares.
    pub source: Capabilities,
    /// What a sink declares.
    pub sink: Capabilities,
}

impl Bench {
    pub(super) fn new(mut subject: Subject) -> Result<Self, Error> {
        let place = subject.place("capabilities");
        let patience = subject.patience;
        let source = subject.transport.source(&place.source(GROUP)?, &spec(patience))?.capabilities();
        let sink = subject.transport.sink(&place.sink()?, &sink_spec(patience))?.capabilities();
        Ok(Self { subject, case: "", source, sink })
    }

    /// A place that nobody has used.
    pub(super) fn place(&mut self) -> Place {
        self.subject.place(self.case)
    }

    /// A fresh place with so many messages, their keys going round.
    pub(super) async fn stocked(&mut self, count: usize) -> Tried<Place> {
        let place = self.place();
        self.stock(&place, 0..count).await?;
        Ok(place)
    }

    /// Publishes messages of those numbers.
    pub(super) async fn stock(&self, place: &Place, range: std::ops::Range<usize>) -> Tried {
        self.publish(place, range.map(|n| message(&name(n), KEYS[n % KEYS.len()])).collect()).await
    }

    /// Makes a group known where a new one would see nothing of what was published before it.
    pub(super) async fn subscribe(&self, place: &Place, group: &str) -> Tried {
        if !self.source.replays {
            self.reader_as(place, group, &self.spec()).await?.close().await?;
        }
        Ok(())
    }

    /// Publishes these through a sink of their own, waits for every confirm, and closes it.
    pub(super) async fn publish(&self, place: &Place, messages: Vec<Message>) -> Tried {
        self.subscribe(place, GROUP).await?;
        let mut writer = self.writer(place).await?;
        writer.publish(messages).await?;
        writer.close().await?;
        Ok(())
    }

    pub(super) fn spec(&self) -> SourceSpec {
        spec(self.subject.patience)
    }

    pub(super) fn sink_spec(&self) -> SinkSpec {
        sink_spec(self.subject.patience)
    }

    /// A plan of the source, for one group.
    pub(super) fn plan(&self, place: &Place, group: &str, spec: &SourceSpec) -> Tried<Box<dyn SourcePlan>> {
        Ok(self.subject.transport.source(&place.source(group)?, spec)?)
    }

    pub(super) fn sink_plan(&self, place: &Place) -> Tried<Box<dyn SinkPlan>> {
        Ok(self.subject.transport.sink(&place.sink()?, &sink_spec(self.subject.patience))?)
    }

    /// Opens a source as the usual group.
    pub(super) async fn reader(&self, place: &Place) -> Tried<Reader> {
        self.reader_as(place, GROUP, &self.spec()).await
    }

    /// Opens a source as some group, for some worker.
    pub(super) async fn reader_as(&self, place: &Place, group: &str, spec: &SourceSpec) -> Tried<Reader> {
        let plan = self.plan(place, group, spec)?;
        self.open(&*plan).await
    }

    /// Opens what is planned.
    pub(super) async fn open(&self, plan: &dyn SourcePlan) -> Tried<Reader> {
        let source = self.within("the source to open", plan.open(SourceHooks::default())).await??;
        Ok(Reader::new(source, self.subject.patience, self.subject.quiet))
    }

    /// Opens a sink.
    pub(super) async fn writer(&self, place: &Place) -> Tried<Writer> {
        let plan = self.sink_plan(place)?;
        let sink = self.within("the sink to open", plan.open()).await??;
        Ok(Writer::new(sink, self.subject.patience))
    }

    /// The source ends as if its process had been killed.
    pub(super) async fn crash(&self, reader: Reader) -> Tried {
        let source = reader.into_source();
        self.within("a crash", (self.subject.crash)(source)).await
    }

    /// Waits no longer than the subject's patience.
    pub(super) async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> Tried<T> {
        let patience = self.subject.patience;
        tokio::time::timeout(patience, future)
            .await
            .map_err(|_| Stop::Fault(format!("waited {patience:?} for {what} in vain")))
    }

    /// Everything that the usual group has still to see, settled as it comes. Nobody else may consume meanwhile.
    pub(super) async fn rest(&self, place: &Place) -> Tried<Vec<Got>> {
        self.rest_of(place, GROUP).await
    }

    /// Everything that a group has still to see, settled as it comes.
    pub(super) async fn rest_of(&self, place: &Place, group: &str) -> Tried<Vec<Got>> {
        self.publish(place, vec![message(LAST, LAST)]).await?;
        let mut reader = self.reader_as(place, group, &self.spec()).await?;
        let mut all = Vec::new();
        loop {
            let got = reader.take(1).await?;
            reader.settle(&got);
            let last = got[0].name == LAST;
            all.extend(got);
            if last {
                break;
            }
        }
        reader.demand(u32::MAX);
        reader.quiet().await?;
        let late = reader.untaken();
        reader.settle(&late);
        all.extend(late);
        reader.flush().await?;
        reader.close().await?;
        all.retain(|got| got.name != LAST);
        Ok(all)
    }

    /// Stops the case unless exactly these are left, in whatever order.
    pub(super) async fn left(&self, place: &Place, names: &[String]) -> Tried {
        let left = sorted_names(&self.rest(place).await?);
        same("what is left", left, names.to_vec())
    }
}

fn spec(patience: Duration) -> SourceSpec {
    SourceSpec {
        worker: "conformance".into(),
        default_group: "longshore".into(),
        concurrency: 16,
        by_key: false,
        max_message: 16 << 20,
        patience,
    }
}

fn sink_spec(patience: Duration) -> SinkSpec {
    SinkSpec { worker: "conformance".into(), patience }
}
