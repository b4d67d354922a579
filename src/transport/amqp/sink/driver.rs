//! The task that owns a sink's connection: connects, publishes, connects again, says goodbye.

use super::book::Book;
use super::press::Press;
use super::route::Route;
use crate::error::{Error, ErrorKind};
use crate::failure::Failure;
use crate::transport::amqp::backoff::Backoff;
use crate::transport::amqp::place::Place;
use crate::transport::amqp::properties::outbound::properties;
use crate::transport::amqp::refusal::{Refusal, explain, refusal, words};
use crate::transport::amqp::topology;
use crate::transport::amqp::wire::{State, Wire};
use crate::transport::{SinkAsk, SinkEvent, SinkSpec};
use futures_util::FutureExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

/// Publishes between two looks at confirms, asks and the state of the connection.
const BURST: usize = 256;
/// How long an orderly close may take; nothing depends on it, as everything is confirmed by then.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

pub(super) struct Driver {
    place: Arc<Place>,
    worker: Arc<str>,
    route: Route,
    asks: UnboundedReceiver<SinkAsk>,
    book: Book,
    backoff: Backoff,
    /// The largest payload that the server takes, once it has said so.
    largest: Option<usize>,
    /// So many of the next publishes go alone, because one of them may be what the channel before died of.
    alone: usize,
}

/// Why a channel is no longer published on.
enum End {
    /// Everything that a close waits for is done, or its time is up.
    Closing,
    /// Nobody holds the handle any more.
    Left,
    /// The channel alone is gone.
    Channel(lapin::Error),
    /// The connection is gone.
    Connection(Error),
}

impl Driver {
    /// Connects for the first time, with patience.
    pub(super) async fn connect(
        place: Place,
        spec: &SinkSpec,
        asks: UnboundedReceiver<SinkAsk>,
        events: UnboundedSender<SinkEvent>,
    ) -> Result<(Self, Wire), Error> {
        let until = Instant::now() + spec.patience;
        let (place, mut backoff) = (Arc::new(place), Backoff::default());
        let wire = loop {
            let tried = tokio::time::timeout_at(until.into(), dial(&place, &spec.worker)).await;
            let error = match tried {
                Ok(Ok(wire)) => break wire,
                Ok(Err(error)) => error,
                Err(_) => return Err(Error::new(ErrorKind::Unreachable, format!("{}: no answer", place.shown))),
            };
            let delay = backoff.next(fastrand::f64());
            if !error.is_retryable() || Instant::now() + delay >= until {
                return Err(error);
            }
            if backoff.speaks(Instant::now()) {
                tracing::warn!(worker = &*spec.worker, "not connected yet: {error}");
            }
            tokio::time::sleep(delay).await;
        };
        let route = Route::of(&place);
        let (worker, book) = (spec.worker.clone(), Book::new(events));
        let driver = Self { place, worker, route, asks, book, backoff: Backoff::default(), largest: None, alone: 0 };
        Ok((driver, wire))
    }

    /// Runs until the sink is closed or dropped.
    pub(super) async fn run(mut self, wire: Wire) {
        let mut wire = Some(wire);
        loop {
            let error = match wire {
                Some(wire) => {
                    self.book.say(SinkEvent::Connected);
                    match self.serve(&wire).await {
                        End::Closing => {
                            let within = self.book.goodbye(Instant::now()).min(GOODBYE_LIMIT);
                            wire.close(within).await;
                            self.book.closed();
                            return;
                        }
                        End::Left => return,
                        End::Channel(error) => explain(&self.route.shown, &error),
                        End::Connection(error) => error,
                    }
                }
                None => return,
            };
            self.book.say(SinkEvent::Disconnected(error));
            wire = match self.reconnect().await {
                Ok(wire) => Some(wire),
                Err(End::Closing) => {
                    self.book.closed();
                    return;
                }
                Err(_) => return,
            };
        }
    }

    /// Publishes on one connection until it is gone, or the sink is closed.
    async fn serve(&mut self, wire: &Wire) -> End {
        loop {
            let mut press = match self.meanwhile(Press::open(wire)).await {
                Ok(Ok(press)) => press,
                Ok(Err(error)) => return End::Connection(error),
                Err(end) => return end,
            };
            let end = self.publish(wire, &mut press).await;
            let unproven: Vec<_> = press.unproven().collect();
            let open = unproven.len();
            self.book.again(unproven.into_iter());
            match end {
                End::Channel(error) => {
                    if let Some(end) = self.judge(&error, open) {
                        return end;
                    }
                }
                end => return end,
            }
        }
    }

    async fn publish(&mut self, wire: &Wire, press: &mut Press) -> End {
        let mut state = wire.state();
        let frame_max = wire.frame_max();
        loop {
            while let Ok(ask) = self.asks.try_recv() {
                self.book.take(ask);
            }
            let now = Instant::now();
            let blocked = match &*state.borrow_and_update() {
                State::Open => false,
                State::Blocked(_) => true,
                State::Gone(why) => {
                    // What was confirmed before is not published again.
                    let _ = press.turn().now_or_never();
                    self.take_decided(press);
                    return End::Connection(gone(wire, why));
                }
            };
            self.book.block(blocked);
            let more = !blocked && self.publish_some(press, frame_max);
            self.book.say_all(now);
            if self.book.may_close(now) {
                return End::Closing;
            }
            tokio::select! {
                biased;
                turned = press.turn() => {
                    self.take_decided(press);
                    match turned {
                        Ok(()) => {}
                        Err(error) if is_of_channel(&error) => return End::Channel(error),
                        Err(error) => return End::Connection(gone(wire, &words(&error))),
                    }
                }
                changed = state.changed() => if changed.is_err() {
                    return End::Connection(gone(wire, "the connection was closed"));
                },
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.book.take(ask),
                    None => return End::Left,
                },
                () = sleep_until(self.book.due()) => {}
                () = std::future::ready(()), if more => {}
            }
        }
    }

    fn take_decided(&mut self, press: &mut Press) {
        for (piece, verdict) in press.decided() {
            // An answer, not a connection alone, is what shows that things work again.
            self.backoff.worked();
            self.alone = self.alone.saturating_sub(1);
            self.book.decide(piece, verdict.failure(&self.route.shown));
        }
    }

    /// Publishes what waits, up to a burst; whether there is more that may go now.
    fn publish_some(&mut self, press: &mut Press, frame_max: usize) -> bool {
        for _ in 0..BURST {
            if self.alone > 0 && !press.is_idle() {
                return false;
            }
            let Some(piece) = self.book.next() else { return false };
            let message = piece.message();
            let readied = self.largest_allows(message.payload().map_or(0, <[u8]>::len)).and_then(|()| {
                let (exchange, key) = self.route.find(message)?;
                Ok((exchange, key, properties(message, press.next_number(), frame_max)?))
            });
            match readied {
                Ok((exchange, key, properties)) => press.publish(piece, exchange, key, properties),
                Err(failure) => {
                    self.alone = self.alone.saturating_sub(1);
                    self.book.decide(piece, Some(failure));
                }
            }
        }
        self.book.has_waiting()
    }

    fn largest_allows(&self, size: usize) -> Result<(), Failure> {
        match self.largest {
            Some(largest) if size > largest => Err(Failure::reject(format!(
                "a payload of {size} bytes is larger than the server takes for {}: {largest} bytes",
                self.route.shown
            ))),
            _ => Ok(()),
        }
    }

    /// Finds what a channel died of, with so many publishes open; they wait again, in order. `None`: go on with a new
    /// channel.
    fn judge(&mut self, error: &lapin::Error, open: usize) -> Option<End> {
        let text = words(error);
        if let Some(largest) = largest_in(&text) {
            // Said of one message, and true of others: none of them costs a channel again.
            self.largest = Some(largest);
            self.alone = 0;
            return None;
        }
        let of_message = refusal(error) == Refusal::Precondition || text.contains("access to topic");
        match refusal(error) {
            // Not the fault of any message: all of them wait until somebody has mended it.
            Refusal::Access | Refusal::Absent if !of_message => {
                return Some(End::Connection(explain(&self.route.shown, error)));
            }
            _ => {}
        }
        if open == 1 {
            let failure = if of_message { Failure::reject } else { Failure::retry };
            let text = format!("{} refused the message: {text}", self.route.shown);
            if let Some(piece) = self.book.next() {
                self.alone = self.alone.saturating_sub(1);
                self.book.decide(piece, Some(failure(text)));
            }
        } else {
            self.alone = open;
        }
        None
    }

    /// Tries to connect again, with back-off, for as long as the sink is wanted.
    async fn reconnect(&mut self) -> Result<Wire, End> {
        loop {
            let delay = self.backoff.next(fastrand::f64());
            self.meanwhile(tokio::time::sleep(delay)).await?;
            let (place, worker) = (self.place.clone(), self.worker.clone());
            match self.meanwhile(dial(&place, &worker)).await? {
                Ok(wire) => return Ok(wire),
                Err(error) => {
                    if self.backoff.speaks(Instant::now()) {
                        self.book.say(SinkEvent::Trouble(error));
                    }
                }
            }
        }
    }

    /// Awaits something, and goes on listening to the engine meanwhile. `Err` where that came to an end first.
    async fn meanwhile<T>(&mut self, doing: impl Future<Output = T>) -> Result<T, End> {
        tokio::pin!(doing);
        loop {
            let now = Instant::now();
            self.book.say_all(now);
            if self.book.may_close(now) {
                return Err(End::Closing);
            }
            tokio::select! {
                biased;
                done = &mut doing => return Ok(done),
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.book.take(ask),
                    None => return Err(End::Left),
                },
                () = sleep_until(self.book.due()) => {}
            }
        }
    }
}

/// Connects, and finds or declares what is published to.
async fn dial(place: &Place, worker: &str) -> Result<Wire, Error> {
    let wire = place.server.dial(worker).await?;
    topology::for_sink(&wire, place).await.map_err(|error| error.of(format_args!("broker {}", wire.host)))?;
    Ok(wire)
}

fn gone(wire: &Wire, why: &str) -> Error {
    Error::new(ErrorKind::Unreachable, format!("broker {}: {why}", wire.host))
}

/// Whether the connection is still there: the broker closes a channel for what it calls a soft error.
fn is_of_channel(error: &lapin::Error) -> bool {
    use lapin::protocol::AMQPErrorKind;
    matches!(error.kind(), lapin::ErrorKind::ProtocolError(reply) if matches!(reply.kind(), AMQPErrorKind::Soft(_)))
}

/// The limit in the broker's words on a message that is over it.
fn largest_in(text: &str) -> Option<usize> {
    let (_, rest) = text.split_once("larger than")?;
    let digits = rest.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    digits.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
