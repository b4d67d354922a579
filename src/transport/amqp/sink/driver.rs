//! What owns a sink's connection: it connects, publishes, connects again, says goodbye.

use super::Target;
use super::book::Book;
use super::press::{Press, Verdict, says_why};
use super::route::{Found, Route};
use crate::error::{Error, ErrorKind};
use crate::failure::Failure;
use crate::transport::amqp::backoff::Backoff;
use crate::transport::amqp::place::Place;
use crate::transport::amqp::properties::outbound::properties;
use crate::transport::amqp::refusal::{Refusal, explain, is_of_channel, is_of_topic, refusal, words};
use crate::transport::amqp::topology::{self, Tier};
use crate::transport::amqp::wire::{State, Wire};
use crate::transport::{SinkAsk, SinkEvent, SinkSpec};
use futures_util::FutureExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

/// Publishes between two looks at confirms, asks and the state of the connection.
const BURST: usize = 256;
/// Confirms that are worth an event of their own while more are in flight.
const WAVE: usize = 64;
/// How long an orderly close may take; nothing depends on it, as everything is confirmed by then.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

pub(super) struct Driver {
    place: Arc<Place>,
    target: Target,
    worker: Arc<str>,
    route: Route,
    asks: UnboundedReceiver<SinkAsk>,
    book: Book,
    backoff: Backoff,
    /// The largest payload that the server takes, once it has said so.
    largest: Option<usize>,
    /// So many of the next publishes go alone, because one of them may be what the channel before died of.
    alone: usize,
    /// The queue that is published to was seen to be absent.
    absent: bool,
    /// Retry queues that are known to be there.
    tiers: BTreeSet<Tier>,
}

/// What is to be done after a burst.
enum Next {
    Nothing,
    More,
    /// The next message waits for this queue.
    Declare(Tier),
}

/// Why a channel is no longer published on.
enum End {
    /// Everything that a close waits for is done, or its time is up.
    Closing,
    /// Nobody holds the handle any more.
    Left,
    /// The channel alone is gone.
    Channel(lapin::Error),
    /// The connection is gone, because the broker did not understand what was sent.
    Protocol(lapin::Error),
    /// The connection is gone.
    Connection(Error),
}

impl Driver {
    /// Connects for the first time, with patience.
    pub(super) async fn connect(
        place: Place,
        target: Target,
        spec: &SinkSpec,
        asks: UnboundedReceiver<SinkAsk>,
        events: UnboundedSender<SinkEvent>,
    ) -> Result<(Self, Wire), Error> {
        let until = Instant::now() + spec.patience;
        let (place, mut backoff) = (Arc::new(place), Backoff::default());
        let wire = loop {
            let tried = tokio::time::timeout_at(until.into(), dial(&place, target, &spec.worker)).await;
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
        let route = match target {
            Target::Place => Route::of(&place),
            Target::Retries => Route::of_retries(&place.queue),
        };
        let (worker, book) = (spec.worker.clone(), Book::new(events));
        let driver = Self {
            place,
            target,
            worker,
            route,
            asks,
            book,
            backoff: Backoff::default(),
            largest: None,
            alone: 0,
            absent: false,
            tiers: BTreeSet::new(),
        };
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
                        End::Protocol(error) => gone(&wire, &words(&error)),
                        End::Connection(error) => error,
                    }
                }
                None => return,
            };
            self.book.block(false);
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
                End::Protocol(error) => {
                    self.suspect(open, Failure::reject, &words(&error));
                    return End::Protocol(error);
                }
                end => return end,
            }
        }
    }

    async fn publish(&mut self, wire: &Wire, press: &mut Press) -> End {
        let (mut state, mut closed) = (wire.state(), wire.closed_channels());
        let frame_max = wire.frame_max();
        loop {
            while let Ok(ask) = self.asks.try_recv() {
                self.book.take(ask);
            }
            let now = Instant::now();
            let blocked = match &*state.borrow_and_update() {
                State::Open => None,
                State::Blocked(why) => Some(why.clone()),
                State::Gone(why) => {
                    // What was confirmed before is not published again.
                    let turned = press.turn().now_or_never();
                    self.take_decided(press);
                    return match turned {
                        Some(Err(error)) if is_of_protocol(&error) => End::Protocol(error),
                        _ => End::Connection(gone(wire, why)),
                    };
                }
            };
            if self.book.block(blocked.is_some()) {
                self.book.say(match &blocked {
                    Some(why) => SinkEvent::Disconnected(gone(wire, &format!("it takes no publishes: {why}"))),
                    None => SinkEvent::Connected,
                });
            }
            // A queue that is gone is declared anew, where it may be, before more is sent into the void.
            if std::mem::take(&mut self.absent) && self.forget_tiers() {
                let place = self.place.clone();
                match self.meanwhile(topology::for_sink(wire, &place)).await {
                    Ok(Ok(_)) => self.book.say(SinkEvent::Trouble(Error::new(
                        ErrorKind::Configuration,
                        format!("{} had vanished with all that was in it, and is there again", self.route.shown),
                    ))),
                    Ok(Err(error)) => return End::Connection(error),
                    Err(end) => return end,
                }
            }
            let more = match blocked {
                Some(_) => false,
                None => match self.publish_some(press, frame_max) {
                    Next::Nothing => false,
                    Next::More => true,
                    Next::Declare(tier) => {
                        let place = self.place.clone();
                        match self.meanwhile(topology::declare_tier(wire, &place, tier)).await {
                            Ok(Ok(())) => _ = self.tiers.insert(tier),
                            Ok(Err(error)) if error.is_retryable() => return End::Connection(error),
                            // The engine tries again with back-off of its own, and says that the store refuses.
                            Ok(Err(error)) => self.fail_next(&error),
                            Err(end) => return end,
                        }
                        true
                    }
                },
            };
            self.book.say_all(now);
            if self.book.may_close(now) {
                return End::Closing;
            }
            tokio::select! {
                biased;
                turned = press.turn() => {
                    let decided = self.take_decided(press);
                    match turned {
                        // Confirms come in waves, and this is the start of one: a moment later there are more of them,
                        // which cost the engine one event and not many.
                        Ok(()) if decided < WAVE && press.in_flight() >= WAVE => tokio::task::yield_now().await,
                        Ok(()) => {}
                        Err(error) if is_of_channel(&error) => return End::Channel(error),
                        Err(error) if !says_why(&error) => match closed.why().await {
                            Some(error) => return End::Channel(error),
                            None => return End::Connection(gone(wire, &words(&error))),
                        },
                        Err(error) if is_of_protocol(&error) => return End::Protocol(error),
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

    /// Retry queues are declared when they are needed next; whether there is another place to look for.
    fn forget_tiers(&mut self) -> bool {
        self.tiers.clear();
        self.target == Target::Place
    }

    /// Takes in verdicts; how many.
    fn take_decided(&mut self, press: &mut Press) -> usize {
        let mut count = 0;
        for (piece, verdict) in press.decided() {
            // An answer, not a connection alone, is what shows that things work again.
            self.backoff.worked();
            self.alone = self.alone.saturating_sub(1);
            self.absent |= self.route.is_queue && matches!(verdict, Verdict::Unroutable(_));
            self.book.decide(piece, verdict.failure(&self.route.shown));
            count += 1;
        }
        count
    }

    fn fail_next(&mut self, error: &Error) {
        if let Some(piece) = self.book.next() {
            self.alone = self.alone.saturating_sub(1);
            self.book.decide(piece, Some(Failure::retry(error.to_string()).classed("send")));
        }
    }

    /// Publishes what waits, up to a burst.
    fn publish_some(&mut self, press: &mut Press, frame_max: usize) -> Next {
        for _ in 0..BURST {
            if self.alone > 0 && !press.is_idle() {
                return Next::Nothing;
            }
            let Some(piece) = self.book.next() else { return Next::Nothing };
            let message = piece.message();
            let readied = self.largest_allows(message.payload().map_or(0, <[u8]>::len)).and_then(|()| {
                let found = self.route.find(message)?;
                Ok((found, properties(message, press.next_number(), frame_max)?))
            });
            match readied {
                Ok((Found { tier: Some(tier), .. }, _)) if !self.tiers.contains(&tier) => {
                    self.book.again(std::iter::once(piece));
                    return Next::Declare(tier);
                }
                Ok((found, properties)) => press.publish(piece, found.exchange, found.routing_key, properties),
                Err(failure) => {
                    self.alone = self.alone.saturating_sub(1);
                    self.book.decide(piece, Some(failure));
                }
            }
        }
        if self.book.has_waiting() { Next::More } else { Next::Nothing }
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
        let largest = largest_in(&text).filter(|largest| self.largest != Some(*largest));
        if let Some(largest) = largest {
            // Said of one message, and true of others: none of them costs a channel again.
            self.largest = Some(largest);
            self.alone = 0;
            return None;
        }
        let of_message = refusal(error) == Refusal::Precondition || is_of_topic(error);
        match refusal(error) {
            // Not the fault of any message: all of them wait until somebody has mended it.
            Refusal::Access | Refusal::Absent if !of_message => {
                return Some(End::Connection(explain(&self.route.shown, error)));
            }
            _ => {}
        }
        self.suspect(open, if of_message { Failure::reject } else { Failure::retry }, &text);
        None
    }

    /// One of so many publishes, which wait again, was what the broker could not bear: the one that was alone, else
    /// each goes alone next.
    fn suspect(&mut self, open: usize, failure: fn(String) -> Failure, text: &str) {
        if open != 1 {
            self.alone = open;
        } else if let Some(piece) = self.book.next() {
            self.alone = 0;
            self.book.decide(piece, Some(failure(format!("{} refused the message: {text}", self.route.shown))));
        }
    }

    /// Tries to connect again, with back-off, for as long as the sink is wanted.
    async fn reconnect(&mut self) -> Result<Wire, End> {
        loop {
            let delay = self.backoff.next(fastrand::f64());
            self.meanwhile(tokio::time::sleep(delay)).await?;
            let (place, worker) = (self.place.clone(), self.worker.clone());
            match self.meanwhile(dial(&place, self.target, &worker)).await? {
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
async fn dial(place: &Place, target: Target, worker: &str) -> Result<Wire, Error> {
    let wire = place.server.dial(worker).await?;
    let said = |error: Error| error.of(format_args!("broker {}", wire.host));
    match target {
        Target::Place => {
            let queue = topology::for_sink(&wire, place).await.map_err(said)?;
            for warning in queue.iter().flat_map(|queue| &queue.warnings) {
                tracing::warn!(worker, "{warning}");
            }
        }
        Target::Retries => topology::tiers_supported(&wire, place).await.map_err(said)?,
    }
    Ok(wire)
}

/// Whether the broker closed the connection for what it was sent, and not because it was told to.
fn is_of_protocol(error: &lapin::Error) -> bool {
    /// Reply code of AMQP 0.9.1: an operator closed the connection, or the broker stops.
    const CONNECTION_FORCED: u16 = 320;
    matches!(error.kind(), lapin::ErrorKind::ProtocolError(reply) if reply.get_id() != CONNECTION_FORCED)
}

fn gone(wire: &Wire, why: &str) -> Error {
    Error::new(ErrorKind::Unreachable, format!("broker {}: {why}", wire.host))
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
