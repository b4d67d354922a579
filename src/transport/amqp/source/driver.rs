//! The driver of a source: it connects, keeps a channel at work, and connects again, for ever.

use super::super::backoff::Backoff;
use super::super::place::QueueType;
use super::super::refusal::{explain, is_of_connection};
use super::super::topology::{self, Queue};
use super::super::wire::Wire;
use super::consume::Start;
use super::desk::Desk;
use super::session::{Closed, End, Session};
use super::{Setup, ghosts};
use crate::duration::short;
use crate::error::{Error, ErrorKind};
use crate::failure::Tally;
use crate::transport::{Ask, Backlog, Event};
use lapin::Channel;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// A channel that has lived for so long has worked, though nothing was settled on it: after it the delays begin anew.
const WORKED_FOR: Duration = Duration::from_secs(10);

/// The source was closed while something else was awaited.
struct WasClosed;

pub(super) struct Driver {
    setup: Setup,
    desk: Arc<Desk>,
    /// Of the last channel; rises with each.
    epoch: u32,
    /// Whether the engine knows that we are connected.
    connected: bool,
    /// Whether it ever was; until then an outage has an end.
    ever: bool,
    patience_ends: Instant,
    /// Why it was not reached, while it never was.
    last_failure: Option<String>,
    backoff: Backoff,
    /// The last thing that was said to the operator.
    trouble: Option<String>,
    /// Where a stream is read from next.
    start: Option<Start>,
}

impl Driver {
    pub(super) fn new(setup: Setup, desk: Arc<Desk>) -> Self {
        let patience_ends = Instant::now() + setup.spec.patience;
        let start = setup.start.clone();
        let (epoch, connected, ever, backoff, trouble) = (0, false, false, Backoff::default(), None);
        Self { setup, desk, epoch, connected, ever, patience_ends, last_failure: None, backoff, trouble, start }
    }

    /// Runs until the source is closed, has failed, or is dropped.
    pub(super) async fn run(mut self) {
        // Ends with the source closed or failed, which was said.
        let _ = self.drive().await;
        self.desk.connected(None);
    }

    async fn drive(&mut self) -> Result<(), WasClosed> {
        loop {
            let wire = match self.dial().await? {
                Ok(wire) => wire,
                Err(error) => {
                    if self.failed(error).is_break() {
                        return Ok(());
                    }
                    self.pause().await?;
                    continue;
                }
            };
            self.desk.connected(Some(wire.cutter()));
            match self.work(wire).await? {
                ControlFlow::Continue(error) => {
                    self.desk.connected(None);
                    if self.failed(error).is_break() {
                        return Ok(());
                    }
                    self.pause().await?;
                }
                ControlFlow::Break(()) => return Ok(()),
            }
        }
    }

    /// One try at connecting; at the start no longer than patience.
    async fn dial(&mut self) -> Result<Result<Wire, Error>, WasClosed> {
        let server = self.setup.place.server.clone();
        let worker = self.setup.spec.worker.clone();
        let until = if self.ever { Instant::now() + Duration::from_secs(86_400) } else { self.patience_ends };
        // A try that time cuts short says less than the one before it.
        let why = self.last_failure.clone().unwrap_or_else(|| {
            let hosts: Vec<String> = server.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
            format!("broker {}: no answer", hosts.join(", "))
        });
        let dialing = async move {
            let tried = tokio::time::timeout_at(until.into(), server.dial(&worker)).await;
            tried.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unreachable, why)))
        };
        self.attend(dialing).await
    }

    /// Channel after channel on one connection, until it is gone (and why) or the source has ended.
    async fn work(&mut self, wire: Wire) -> Result<ControlFlow<(), Error>, WasClosed> {
        loop {
            let (channel, queue) = match self.attend(open(&wire, &self.setup)).await? {
                Ok(opened) => opened,
                Err(error) => return Ok(ControlFlow::Continue(error)),
            };
            self.note(&queue);
            self.epoch += 1;
            let began = Instant::now();
            let mut session = Session::new(
                &self.setup,
                &self.desk,
                &wire,
                channel,
                &queue,
                self.epoch,
                self.start.take(),
                &mut self.connected,
            );
            let end = session.run().await;
            if let End::Closing(by) = end {
                let closed = session.close(by).await;
                self.close(wire, closed, by).await;
                return Ok(ControlFlow::Break(()));
            }
            let worked = session.worked();
            self.start = session.lost();
            tracing::debug!(worker = &*self.setup.spec.worker, epoch = self.epoch, "channel ended: {}", end.why());
            self.ever |= self.connected;
            if worked || began.elapsed() >= WORKED_FOR {
                self.backoff.worked();
            }
            if began.elapsed() >= WORKED_FOR {
                // What ends this channel is news, though it ended an earlier one as well.
                self.trouble = None;
            }
            let queue = format!("queue '{}'", self.setup.place.queue);
            let error = match &end {
                End::Recalled => continue,
                End::Gone(why) => return Ok(ControlFlow::Continue(lost(&wire, why))),
                End::Silent(_) => return Ok(ControlFlow::Continue(lost(&wire, &end.why()))),
                End::Broken(error) if is_of_connection(error) => {
                    return Ok(ControlFlow::Continue(lost(&wire, &end.why())));
                }
                End::Broken(error) => explain(&queue, error),
                End::Cancelled | End::Closing(_) => Error::new(ErrorKind::Unreachable, self.cancelled(&wire).await?),
            };
            if !self.ever {
                return Ok(ControlFlow::Continue(error));
            }
            self.say_trouble(error);
            self.pause().await?;
        }
    }

    /// What the broker's cancel means: asked, because it says nothing.
    async fn cancelled(&mut self, wire: &Wire) -> Result<String, WasClosed> {
        let what = match self.attend(topology::existing(wire, &self.setup.place)).await? {
            Ok(None) if self.setup.place.declare => return Ok(self.declared_anew()),
            Ok(None) => "was deleted, and 'declare=false'",
            Ok(Some(_)) => "is there, but the broker cancelled its consumer",
            Err(_) => "has lost its consumer",
        };
        Ok(format!("queue '{}' {what}", self.setup.place.queue))
    }

    fn declared_anew(&self) -> String {
        format!("queue '{}' was deleted, and is declared anew", self.setup.place.queue)
    }

    /// What an operator should know of the queue, once.
    fn note(&mut self, queue: &Queue) {
        if self.ever || self.epoch > 0 {
            // Also where that happened while nothing was connected, or the broker forgot it: what lay in it is lost.
            if queue.declared {
                self.say_trouble(Error::new(ErrorKind::Unreachable, self.declared_anew()));
            }
            return;
        }
        let worker = &*self.setup.spec.worker;
        for warning in &queue.warnings {
            tracing::warn!(worker, "{warning}");
        }
        if queue.queue_type.unwrap_or(self.setup.place.declared_type()) == QueueType::Stream {
            tracing::warn!(
                worker,
                "a stream keeps no place for its readers: it is not durable, and is read from start="
            );
        } else if self.setup.spec.by_key && !queue.single_active.unwrap_or(self.setup.place.single_active) {
            tracing::info!(
                worker,
                "order by key holds for one process only: single-active=true makes it hold for several"
            );
        }
    }

    async fn close(&mut self, wire: Wire, closed: Closed, by: Instant) {
        if closed.cut {
            drop(wire);
        } else {
            wire.close(by.saturating_duration_since(Instant::now())).await;
        }
        self.desk.connected(None);
        self.desk.say(Event::Closed { returned: closed.returned, unknown: closed.unknown });
    }

    /// Takes in that there is no connection, or that it does not let us work. Breaks when the source has failed.
    fn failed(&mut self, error: Error) -> ControlFlow<()> {
        if !self.ever {
            self.last_failure = Some(error.to_string());
            let unreachable = error.kind() == ErrorKind::Unreachable;
            if !unreachable || Instant::now() >= self.patience_ends {
                let error = match unreachable {
                    true => Error::new(
                        ErrorKind::Unreachable,
                        format!("not reached within {}: {error}", short(self.setup.spec.patience)),
                    ),
                    false => error,
                };
                self.desk.say(Event::Failed(error));
                return ControlFlow::Break(());
            }
        }
        // A login that is refused later is an outage as well: it was good once, and may be made good again.
        let worker = &*self.setup.spec.worker;
        if self.backoff.speaks(Instant::now()) {
            tracing::warn!(worker, "not connected, tried again: {error}");
        }
        if std::mem::take(&mut self.connected) {
            self.desk.say(Event::Disconnected(error));
        }
        ControlFlow::Continue(())
    }

    fn say_trouble(&mut self, error: Error) {
        let text = error.to_string();
        if self.trouble.as_ref() != Some(&text) {
            self.trouble = Some(text);
            self.desk.say(Event::Trouble(error));
        }
    }

    async fn pause(&mut self) -> Result<(), WasClosed> {
        let mut delay = self.backoff.next(fastrand::f64());
        if !self.ever {
            delay = delay.min(self.patience_ends.saturating_duration_since(Instant::now()));
        }
        self.attend(tokio::time::sleep(delay)).await
    }

    /// Awaits something while there is no channel, and does what is told meanwhile.
    async fn attend<T>(&self, future: impl Future<Output = T>) -> Result<T, WasClosed> {
        let mut future = pin!(future);
        let mut asks = Vec::new();
        poll_fn(|cx| {
            let _ = self.desk.poll_asks(cx, &mut asks);
            for ask in asks.drain(..) {
                if let Err(closed) = self.told_without_a_channel(ask) {
                    return Poll::Ready(Err(closed));
                }
            }
            future.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    fn told_without_a_channel(&self, ask: Ask) -> Result<(), WasClosed> {
        match ask {
            Ask::Settle(these) => {
                let mut stale = Tally::default();
                these.iter().for_each(|settlement| settlement.verdict.count(&mut stale));
                let (proven, unknown) = (Tally::default(), Tally::default());
                self.desk.say(Event::Settled { proven, stale, unknown });
            }
            Ask::Flush { .. } => self.desk.say(Event::Flushed),
            Ask::Mark(at) => self.desk.say(Event::Marked(at)),
            Ask::Measure => self.desk.say(Event::Measured(Backlog::default())),
            Ask::Close { .. } => {
                self.desk.say(Event::Closed { returned: 0, unknown: Tally::default() });
                return Err(WasClosed);
            }
            _ => {}
        }
        Ok(())
    }
}

async fn open(wire: &Wire, setup: &Setup) -> Result<(Channel, Queue), Error> {
    let queue = topology::for_source(wire, &setup.place).await?;
    let channel = wire.channel().await?;
    ghosts::gone(&channel, &queue, setup).await?;
    Ok((channel, queue))
}

fn lost(wire: &Wire, why: &str) -> Error {
    Error::new(ErrorKind::Unreachable, format!("broker {}: {why}", wire.host))
}
