//! A sink: a handle, and a driver that owns the connection.
//!
//! The driver is polled by whoever awaits the handle, and is no task of its own: between a confirm and the publish that
//! takes its place every change of tasks is a wait, on a machine whose cores are busy for long.
//!
//! What was sent and is not proven to be stored when a connection is lost *waits* and is published again on the next
//! one, before everything else and in its old order. Failing it as retryable would run handlers anew, count attempts
//! for an outage, and send again what they had sent besides. So a lost connection duplicates at most what was in
//! flight on it, and loses nothing.

mod book;
mod driver;
mod press;
mod route;

use super::place::Place;
use crate::error::{Error, ErrorKind};
use crate::transport::{BoxFuture, Sink, SinkAsk, SinkEvent, SinkSpec};
use driver::Driver;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::mpsc;

/// What a sink publishes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The queue or exchange of its place.
    Place,
    /// The queues in which retries of the queue of its place wait.
    Retries,
}

/// The handle. What it is told lies in an unbounded queue, which the demand bounds: see [`book::WINDOW`].
pub(super) struct AmqpSink {
    asks: mpsc::UnboundedSender<SinkAsk>,
    events: mpsc::UnboundedReceiver<SinkEvent>,
    worker: Arc<str>,
    /// With it goes the connection. None once it has said its last word.
    driving: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl AmqpSink {
    /// Connects, within the patience of `spec`, and finds or declares what is published to.
    ///
    /// # Errors
    /// At once for what no patience can mend; [`ErrorKind::Unreachable`] once patience is over.
    pub(super) async fn open(place: Place, spec: SinkSpec, target: Target) -> Result<Self, Error> {
        let (asks, told) = mpsc::unbounded_channel();
        let (say, events) = mpsc::unbounded_channel();
        let (driver, wire) = Driver::connect(place, target, &spec, told, say).await?;
        let driving = Some(Box::pin(driver.run(wire)) as Pin<Box<dyn Future<Output = ()> + Send>>);
        Ok(Self { asks, events, worker: spec.worker, driving })
    }
}

impl Sink for AmqpSink {
    fn tell(&mut self, ask: SinkAsk) {
        // A driver that is gone has said its last word.
        let _ = self.asks.send(ask);
    }

    fn next(&mut self) -> BoxFuture<'_, SinkEvent> {
        Box::pin(poll_fn(|cx| {
            if let Poll::Ready(Some(event)) = self.events.poll_recv(cx) {
                return Poll::Ready(event);
            }
            if let Some(driving) = &mut self.driving
                && driving.as_mut().poll(cx).is_ready()
            {
                self.driving = None;
            }
            self.events.poll_recv(cx).map(|event| {
                event.unwrap_or_else(|| {
                    let text = format!("worker '{}': its publisher has ended", self.worker);
                    SinkEvent::Failed(Error::new(ErrorKind::Start, text))
                })
            })
        }))
    }
}
