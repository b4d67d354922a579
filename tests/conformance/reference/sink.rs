//! The sink of the reference transport.

use super::{Fault, Shared};
use bytes::Bytes;
use longshore::Error;
use longshore::message::{Message, Slab};
use longshore::transport::*;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Messages that may be sent at a time; small, so that the suite has to wait for it.
const ROOM: u32 = 8;

pub struct Plan {
    pub shared: Arc<Shared>,
    pub queue: Arc<str>,
}

impl SinkPlan for Plan {
    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities()
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Sink>, Error>> {
        let events = VecDeque::from([SinkEvent::Connected, demand()]);
        let (shared, queue) = (self.shared.clone(), self.queue.clone());
        let sink = Writing { shared, queue, events, sent: VecDeque::new() };
        Box::pin(async move { Ok(Box::new(sink) as Box<dyn Sink>) })
    }
}

fn demand() -> SinkEvent {
    SinkEvent::Demand { messages: ROOM, bytes: 1 << 20 }
}

struct Writing {
    shared: Arc<Shared>,
    queue: Arc<str>,
    events: VecDeque<SinkEvent>,
    /// What is not stored yet.
    sent: VecDeque<(u64, Arc<Slab>)>,
}

impl Writing {
    fn store(&mut self) {
        while let Some((batch, slab)) = self.sent.pop_front() {
            let mut world = self.shared.world();
            // The queue is there from now on, whatever happens.
            world.queue(&self.queue);
            for message in slab.iter() {
                let mut message = message.to_message();
                if let Some(fault) = self.shared.fault {
                    mangle(&mut message, fault);
                }
                if self.shared.has(Fault::MixesQueues) {
                    world.every_queue().for_each(|queue| queue.store(message.clone()));
                    continue;
                }
                let queue = world.queue(&self.queue);
                if self.shared.has(Fault::ForgetsIds) || !queue.knows(&message) {
                    queue.store(message);
                }
            }
            drop(world);
            if !self.shared.has(Fault::MissesNews) {
                self.shared.changed.notify_waiters();
            }
            if !self.shared.has(Fault::ConfirmsEarly) {
                self.confirm(batch, &slab);
            }
        }
    }

    fn confirm(&mut self, batch: u64, slab: &Slab) {
        let times = if self.shared.has(Fault::ConfirmsTwice) { 2 } else { 1 };
        for _ in 0..times {
            self.events.push_back(SinkEvent::Confirmed { batch, range: 0..slab.len() as u32, failed: Vec::new() });
        }
        self.events.push_back(demand());
    }
}

/// What some faults do to a message on its way.
fn mangle(message: &mut Message, fault: Fault) {
    match fault {
        Fault::MergesHeaders => {
            let all = message.headers.iter().map(|(name, value)| (name.to_owned(), value.to_vec()));
            let merged: BTreeMap<String, Vec<u8>> = all.collect();
            message.headers = merged.into_iter().collect();
        }
        Fault::CutsPayloads => message.payload.iter_mut().for_each(|payload| payload.truncate(100_000)),
        Fault::MakesText => {
            let text = |bytes: &Bytes| Bytes::from(String::from_utf8_lossy(bytes).into_owned());
            message.payload = message.payload.as_ref().map(text);
        }
        Fault::DropsKeys => message.key = None,
        Fault::FillsTombstones => message.payload = Some(message.payload.take().unwrap_or_default()),
        Fault::ForgetsTime => message.timestamp_ms = None,
        _ => {}
    }
}

impl Sink for Writing {
    fn tell(&mut self, ask: SinkAsk) {
        match ask {
            SinkAsk::Send { batch, slab } => {
                if self.shared.has(Fault::ConfirmsEarly) {
                    self.confirm(batch, &slab);
                }
                self.sent.push_back((batch, slab));
            }
            SinkAsk::Flush { .. } => {
                if !self.shared.has(Fault::FlushesBeforeStoring) {
                    self.store();
                }
                self.events.push_back(SinkEvent::Flushed { unconfirmed: 0 });
            }
            SinkAsk::StopIntake if self.shared.has(Fault::DropsWhenDraining) => self.sent.clear(),
            SinkAsk::StopIntake => {}
            SinkAsk::Close { .. } => {
                let mut unconfirmed = 0;
                if self.shared.has(Fault::ForgetsAtClose) {
                    unconfirmed = self.sent.drain(..).map(|(_, slab)| slab.len() as u64).sum();
                }
                self.store();
                self.events.push_back(SinkEvent::Closed { unconfirmed });
            }
            // Asks that are added later belong to capabilities that are not declared here.
            _ => {}
        }
    }

    fn next(&mut self) -> BoxFuture<'_, SinkEvent> {
        Box::pin(async move {
            if self.events.is_empty() {
                self.store();
            }
            match self.events.pop_front() {
                Some(event) => {
                    if self.shared.has(Fault::LosesConfirmOnCancel) && matches!(event, SinkEvent::Confirmed { .. }) {
                        tokio::task::yield_now().await;
                    }
                    event
                }
                None => std::future::pending().await,
            }
        })
    }
}
