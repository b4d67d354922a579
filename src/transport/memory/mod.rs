//! `memory:NAME`: queues inside the process.
//!
//! A queue behaves like a broker's: a publish is confirmed when the queue has the message; a message waits there
//! until it is settled; what was delivered and not settled comes again in its old order, when it is returned, when
//! its source is closed, and when its source is dropped, which counts as a crash.
//!
//! - **Groups**: every group (`group=`) sees every message, and the sources of one group share them. Sources without
//!   `group=` are one group, whatever their workers are called. The first group of a queue sees all that was published
//!   before it came; a later one what is published from then on. A group stays, and fills the queue, when its sources
//!   are gone.
//! - **Bounds**, for each group: `capacity=` messages ([`DEFAULT_CAPACITY`]) and `bytes=` ([`DEFAULT_BYTES`]), of what
//!   is not settled. A publish waits for room. Where several URLs name bounds for one queue, the one opened last holds.
//! - **Stopping**: a source cannot take back what would be lost with the process. Told to stop its intake it delivers
//!   what there is, and says [`Event::IntakeStopped`](super::Event::IntakeStopped) once nothing waits, at once when
//!   the queue is empty. Until it is gone [`Memory::publish`] is refused; sinks go on, because what they are given
//!   then was caused by a message.
//! - **The end**: a source ends only after [`Memory::close`], when everything is settled.
//!
//! Other options of a source: `key=/json/pointer` or `key=header:NAME`.

mod group;
mod queue;
mod reading;
mod shelf;
mod sink;
mod source;
#[cfg(test)]
mod tests;

pub use sink::SINK_WINDOW;

use super::{
    BoxFuture, Capabilities, DeadPlace, DeliveryCount, Inspection, KeyFrom, Options, Shelf, Sink, SinkPlan, SinkSpec,
    Source, SourceHooks, SourcePlan, SourceSpec, Transport, Url,
};
use crate::error::Error;
use crate::message::{Message, Slab, SlabBuilder};
use queue::{From, Limits, Queue, Refused};
use reading::Reading;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

/// Messages a queue holds for each group unless `capacity=` says otherwise.
pub const DEFAULT_CAPACITY: u64 = 65_536;
/// Bytes a queue holds for each group unless `bytes=` says otherwise; whole batches count until nearly all of one is
/// settled.
pub const DEFAULT_BYTES: u64 = 64 << 20;
/// Most messages and about the most bytes that [`Memory::publish`] puts in at a time.
const PUBLISH_BATCH: (u64, usize) = (256, 1 << 20);

/// Queues inside the process; clones share them.
#[derive(Clone, Default)]
pub struct Memory {
    queues: Arc<Mutex<HashMap<String, Arc<Queue>>>>,
}

impl Memory {
    /// No queue yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes into the queue of that name, in order, and returns when the queue has all of them. Waits for room.
    ///
    /// Not undone when it is dropped: what the queue has by then stays.
    ///
    /// # Errors
    /// The queue is closed, or a source or sink of it is being drained.
    pub fn publish<M: IntoIterator<Item = Message>>(
        &self,
        queue: &str,
        messages: M,
    ) -> impl Future<Output = Result<(), Error>> + use<M> {
        let queue = self.queue(queue, Bounds::default());
        let id = queue.lock().new_id();
        let waiter = Waiter { id, queue };
        let mut messages = messages.into_iter().peekable();
        async move {
            let mut size = 0;
            let most = PUBLISH_BATCH.0.min(waiter.queue.lock().limits.messages / 4).max(1) as usize;
            while messages.peek().is_some() {
                // As large as the one before: most batches are alike.
                let mut batch = SlabBuilder::with_capacity(most, size);
                while batch.len() < most && batch.bytes() < PUBLISH_BATCH.1 {
                    let Some(message) = messages.next() else { break };
                    batch.push_message(&message);
                }
                size = batch.bytes();
                waiter.push(Arc::new(batch.finish(waiter.queue.name.clone()))).await?;
            }
            Ok(())
        }
    }

    /// Publishes one batch as it is, without a copy, and returns when the queue has it. Waits for room.
    ///
    /// # Errors
    /// As [`Memory::publish`].
    pub fn publish_batch(&self, queue: &str, batch: SlabBuilder) -> impl Future<Output = Result<(), Error>> + use<> {
        let queue = self.queue(queue, Bounds::default());
        let id = queue.lock().new_id();
        let waiter = Waiter { id, queue };
        async move {
            if batch.is_empty() {
                return Ok(());
            }
            waiter.push(Arc::new(batch.finish(waiter.queue.name.clone()))).await
        }
    }

    /// Messages in that queue that are not settled: waiting, delayed and delivered ones, in the group that has most.
    pub fn len(&self, queue: &str) -> u64 {
        self.known(queue).map_or(0, |queue| queue.lock().most(group::Group::messages))
    }

    /// Whether nothing in that queue is unsettled.
    pub fn is_empty(&self, queue: &str) -> bool {
        self.len(queue) == 0
    }

    /// Closes that queue for good: it takes nothing more, and its sources end when everything in it is settled.
    pub fn close(&self, queue: &str) {
        self.queue(queue, Bounds::default()).close();
    }

    fn known(&self, name: &str) -> Option<Arc<Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn queue(&self, name: &str, bounds: Bounds) -> Arc<Queue> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let defaults = Limits { messages: DEFAULT_CAPACITY, bytes: DEFAULT_BYTES };
        let queue = queues.entry(name.to_owned()).or_insert_with(|| Arc::new(Queue::new(name, defaults))).clone();
        drop(queues);
        let mut state = queue.lock();
        state.limits.messages = bounds.messages.unwrap_or(state.limits.messages);
        state.limits.bytes = bounds.bytes.unwrap_or(state.limits.bytes);
        drop(state);
        queue
    }
}

/// A handle that may wait for room; it is forgotten when it is dropped.
struct Waiter {
    id: u64,
    queue: Arc<Queue>,
}

impl Waiter {
    async fn push(&self, slab: Arc<Slab>) -> Result<(), Error> {
        poll_fn(|cx| match self.queue.push(&slab, From::Outside, Some((self.id, cx.waker()))) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Refused::Full) => Poll::Pending,
            Err(why) => Poll::Ready(Err(self.queue.refusal(why))),
        })
        .await
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.queue.lock().forget(self.id);
    }
}

/// Bounds that a URL names.
#[derive(Debug, Clone, Copy, Default)]
struct Bounds {
    messages: Option<u64>,
    bytes: Option<u64>,
}

impl Bounds {
    fn read(options: &Options<'_>) -> Self {
        let positive = |name: &'static str, expects: &str| -> Option<u64> {
            let value = options.parsed::<u64>(name, expects)?;
            if value == 0 {
                options.wrong(format!("option '{name}=0' leaves no room for a message"));
            }
            Some(value)
        };
        Self { messages: positive("capacity", "a number of messages"), bytes: positive("bytes", "a number of bytes") }
    }
}

fn name(url: &Url) -> Result<&str, Error> {
    if !url.hosts().is_empty() {
        return Err(Error::configuration(format!("'{url}': a memory queue has no host: write memory:NAME")));
    }
    match url.path() {
        "" => Err(Error::configuration(format!("'{url}' names no queue: write memory:NAME"))),
        name => Ok(name),
    }
}

const CAPABILITIES: Capabilities = Capabilities {
    durable: false,
    ordered_across_processes: false,
    partitions: false,
    keys: true,
    delivery_count: DeliveryCount::Exact,
    delayed_redelivery: true,
    settles_one_by_one: true,
    bytes_bounded: true,
    takes_back: false,
    poison_protection: true,
    groups: true,
    shared: true,
    // Only the first group of a queue sees what was there before it.
    replays: false,
    finite: false,
    transactions: false,
    recognises_ids: false,
    // Whole batches are shared without a copy; several of them keep publisher, source and lanes busy at once.
    batch: 8 * group::BATCH,
};

struct MemorySourcePlan {
    memory: Memory,
    name: String,
    group: Option<String>,
    bounds: Bounds,
    reading: Reading,
}

impl SourcePlan for MemorySourcePlan {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    fn open(&self, hooks: SourceHooks) -> BoxFuture<'_, Result<Box<dyn Source>, Error>> {
        Box::pin(async move {
            let queue = self.memory.queue(&self.name, self.bounds);
            let group = self.group().unwrap_or_default();
            let source = source::MemorySource::open(queue, group, self.reading.clone(), hooks);
            Ok(Box::new(source) as Box<dyn Source>)
        })
    }
}

struct MemorySinkPlan {
    memory: Memory,
    name: String,
    bounds: Bounds,
}

impl SinkPlan for MemorySinkPlan {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Sink>, Error>> {
        Box::pin(async move {
            let queue = self.memory.queue(&self.name, self.bounds);
            Ok(Box::new(sink::MemorySink::open(queue)) as Box<dyn Sink>)
        })
    }
}

impl Transport for Memory {
    fn schemes(&self) -> &'static [&'static str] {
        &["memory"]
    }

    fn source(&self, url: &Url, spec: &SourceSpec) -> Result<Box<dyn SourcePlan>, Error> {
        let name = name(url)?.to_owned();
        let options = url.options();
        let group = options.text("group").map(str::to_owned);
        if group.as_deref() == Some("") {
            options.wrong("option 'group' is empty".into());
        }
        let bounds = Bounds::read(&options);
        let key = KeyFrom::parse(options.text("key")).unwrap_or_else(|error| {
            options.wrong(error.to_string());
            KeyFrom::Message
        });
        if key == KeyFrom::RoutingKey {
            options.wrong("option 'key=routing-key': a memory queue has no routing keys".into());
        }
        options.finish().map_err(|error| error.of(format_args!("'{url}'")))?;
        let reading = Reading { key, max_message: spec.max_message };
        Ok(Box::new(MemorySourcePlan { memory: self.clone(), name, group, bounds, reading }))
    }

    fn sink(&self, url: &Url, _spec: &SinkSpec) -> Result<Box<dyn SinkPlan>, Error> {
        let name = name(url)?.to_owned();
        let options = url.options();
        let bounds = Bounds::read(&options);
        options.finish().map_err(|error| error.of(format_args!("'{url}'")))?;
        Ok(Box::new(MemorySinkPlan { memory: self.clone(), name, bounds }))
    }

    fn dead_letters(&self, _url: &Url, _group: &str) -> DeadPlace {
        DeadPlace::None
    }

    fn inspect<'a>(&'a self, url: &'a Url, _group: &'a str) -> BoxFuture<'a, Result<Inspection, Error>> {
        Box::pin(async move {
            let name = name(url)?;
            let group = url.option("group");
            let mut seen = Inspection {
                queue: name.to_owned(),
                group: group.map(str::to_owned),
                waiting: Some(0),
                delayed: Some(0),
                in_flight: Some(0),
                ..Inspection::default()
            };
            if let Some(queue) = self.known(name) {
                let state = queue.lock();
                let wanted = group.unwrap_or_default();
                let found = state.groups.iter().find(|at| at.name.as_deref().is_none_or(|known| known == wanted));
                if let Some(at) = found {
                    seen.waiting = Some(at.waiting());
                    seen.delayed = Some(at.delayed());
                    seen.in_flight = Some(at.messages() - at.waiting() - at.delayed());
                }
            }
            Ok(seen)
        })
    }

    fn shelf<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<Box<dyn Shelf>, Error>> {
        Box::pin(async move {
            let queue = self.queue(name(url)?, Bounds::default());
            Ok(Box::new(shelf::MemoryShelf::new(queue)) as Box<dyn Shelf>)
        })
    }
}
