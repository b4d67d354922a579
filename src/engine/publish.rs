//! The data loop of a producer: from its outlet to its sink, and confirms back to whom they concern.

use super::outlet::{Outlet, Parcel, Receipt};
use crate::error::Error;
use crate::failure::Failure;
use crate::message::Slab;
use crate::transport::{Sink, SinkAsk, SinkEvent};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// What the actor tells the loop.
#[derive(Debug)]
pub(crate) enum PublishAsk {
    /// The drain has begun: refuse work from outside.
    StopIntake,
    /// Send what is buffered, wait for confirms, close by then.
    Close { by: Instant },
}

/// What the loop tells the actor.
#[derive(Debug)]
pub(crate) enum PublishNews {
    Connected,
    Disconnected(Error),
    Trouble(Error),
    Failed(Error),
    Closed { unconfirmed: u64 },
}

/// One batch at the sink.
struct Sent {
    receipts: Vec<Option<Receipt>>,
    sizes: Arc<Slab>,
    open: usize,
}

struct Publish<'a> {
    outlet: &'a Outlet,
    sink: Box<dyn Sink>,
    /// What the sink has not confirmed, from batch number `first` on.
    sent: VecDeque<Sent>,
    first: u64,
    /// Taken from the outlet and waiting for demand.
    held: Option<(Arc<Slab>, Vec<Receipt>)>,
    messages: u32,
    bytes: u64,
    topic: Arc<str>,
}

/// Runs until the sink is closed or has failed. Dropping it is a crash: what is unconfirmed is failed by the drop.
pub(crate) async fn publish(
    outlet: Arc<Outlet>,
    sink: Box<dyn Sink>,
    asks: &mut mpsc::Receiver<PublishAsk>,
    mut news: impl FnMut(PublishNews),
) {
    let mut this = Publish {
        outlet: &outlet,
        sink,
        sent: VecDeque::new(),
        first: 0,
        held: None,
        messages: 0,
        bytes: 0,
        topic: outlet.name().clone(),
    };
    let mut closing: Option<Instant> = None;
    let mut close_told = false;
    loop {
        this.send_on_demand();
        if let Some(by) = closing
            && !close_told
            && ((this.held.is_none() && outlet.is_taken()) || Instant::now() >= by)
        {
            // Everything that was accepted is with the sink, or time is up.
            this.sink.tell(SinkAsk::Close { by });
            close_told = true;
        }
        let late = closing.map(tokio::time::Instant::from_std);
        tokio::select! {
            biased;
            ask = asks.recv(), if closing.is_none() => match ask {
                Some(PublishAsk::StopIntake) => {
                    outlet.refuse_outside();
                    this.sink.tell(SinkAsk::StopIntake);
                }
                Some(PublishAsk::Close { by }) => {
                    outlet.close();
                    closing = Some(by);
                }
                // The actor is gone: nobody waits for a clean end.
                None => return,
            },
            event = this.sink.next() => match event {
                SinkEvent::Demand { messages, bytes } => (this.messages, this.bytes) = (messages, bytes),
                SinkEvent::Confirmed { batch, range, failed } => this.confirmed(batch, range, failed),
                SinkEvent::Flushed { .. } => {}
                SinkEvent::Connected => news(PublishNews::Connected),
                SinkEvent::Disconnected(error) => news(PublishNews::Disconnected(error)),
                SinkEvent::Trouble(error) => news(PublishNews::Trouble(error)),
                SinkEvent::Failed(error) => {
                    this.fail_sent(&error.to_string());
                    news(PublishNews::Failed(error));
                    return;
                }
                SinkEvent::Closed { unconfirmed } => {
                    this.fail_sent("its producer was closed before the send was confirmed");
                    outlet.fail_buffered("its producer was closed before the send was confirmed");
                    news(PublishNews::Closed { unconfirmed });
                    return;
                }
            },
            () = outlet.work.notified(), if this.held.is_none() && this.messages > 0 => {
                // Whoever sends is in the middle of a turn: one round later the batch is larger and costs less.
                tokio::task::yield_now().await;
            }
            () = sleep_until(late), if closing.is_some() && !close_told => {}
        }
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Publish<'_> {
    /// Hands over what the sink asks for.
    fn send_on_demand(&mut self) {
        while self.messages > 0 {
            let Some((slab, receipts)) =
                self.held.take().or_else(|| self.outlet.take().map(|parcel| self.sealed(parcel)))
            else {
                return;
            };
            let fits = slab.len().min(self.messages as usize);
            let (now, later) = if fits < slab.len() {
                let (head, tail) = (self.part(&slab, 0..fits), self.part(&slab, fits..slab.len()));
                let mut receipts = receipts;
                let rest = receipts.split_off(fits);
                ((Arc::new(head), receipts), Some((Arc::new(tail), rest)))
            } else {
                ((slab, receipts), None)
            };
            self.held = later;
            let (slab, receipts) = now;
            self.messages -= fits as u32;
            self.bytes = self.bytes.saturating_sub(slab.size());
            let batch = self.first + self.sent.len() as u64;
            self.sink.tell(SinkAsk::Send { batch, slab: slab.clone() });
            let open = receipts.len();
            self.sent.push_back(Sent { receipts: receipts.into_iter().map(Some).collect(), sizes: slab, open });
            if self.bytes == 0 {
                self.messages = 0;
            }
        }
    }

    fn part(&self, slab: &Slab, range: std::ops::Range<usize>) -> Slab {
        slab.share(range.start as u32..range.end as u32, self.topic.clone(), |_, _| {})
    }

    fn sealed(&self, parcel: Parcel) -> (Arc<Slab>, Vec<Receipt>) {
        (Arc::new(parcel.messages.finish(self.topic.clone())), parcel.receipts)
    }

    fn confirmed(&mut self, batch: u64, range: std::ops::Range<u32>, failed: Vec<(u32, Failure)>) {
        let Some(sent) = batch.checked_sub(self.first).and_then(|at| self.sent.get_mut(at as usize)) else {
            tracing::warn!(producer = %self.outlet.name(), batch, "a sink confirmed a batch that is not open");
            return;
        };
        let (mut messages, mut bytes) = (0, 0);
        let mut settle = |sent: &mut Sent, index: u32, failure: Option<Failure>| {
            let Some(receipt) = sent.receipts.get_mut(index as usize).and_then(Option::take) else { return };
            sent.open -= 1;
            messages += 1;
            bytes += sent.sizes.get(index).size();
            match failure {
                Some(failure) => receipt.failed(failure),
                None => receipt.confirmed(),
            }
        };
        for (index, failure) in failed {
            settle(sent, index, Some(failure));
        }
        for index in range {
            settle(sent, index, None);
        }
        while self.sent.front().is_some_and(|sent| sent.open == 0) {
            self.sent.pop_front();
            self.first += 1;
        }
        self.outlet.release(messages, bytes);
    }

    fn fail_sent(&mut self, why: &str) {
        let (mut messages, mut bytes) = (0, 0);
        for sent in self.sent.drain(..) {
            for (index, receipt) in sent.receipts.into_iter().enumerate() {
                if let Some(receipt) = receipt {
                    messages += 1;
                    bytes += sent.sizes.get(index as u32).size();
                    receipt.failed(Failure::retry(why.to_owned()).classed("send"));
                }
            }
        }
        if let Some((slab, receipts)) = self.held.take() {
            messages += receipts.len();
            bytes += slab.iter().map(|message| message.size()).sum::<usize>();
            for receipt in receipts {
                receipt.failed(Failure::retry(why.to_owned()).classed("send"));
            }
        }
        self.outlet.release(messages, bytes);
    }
}

impl Drop for Publish<'_> {
    fn drop(&mut self) {
        self.fail_sent("its producer ended before the send was confirmed");
    }
}
