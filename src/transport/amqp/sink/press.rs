//! A confirm channel: publishes in, verdicts out.
//!
//! The client library hands a returned message to whichever confirm it resolves next, not to the one of that message.
//! So each publish carries a number of its own, which comes back with what is returned, and a verdict follows from the
//! *set* of returned numbers. What makes that safe, in the order of the client library's one thread:
//!
//! 1. The broker returns a message before it confirms it, and a return waits in a queue.
//! 2. Each confirm takes one return from that queue, if there is one, and is resolved with it; a confirm that is
//!    resolved *without* one says that the queue was empty: everything returned before it sits on confirms that were
//!    resolved earlier.
//! 3. [`Press::turn`] takes in all that was resolved earlier before it decides about one that came without.
//! 4. One that came with somebody else's return is decided once a later turn saw one without, or none is open.

use super::book::Piece;
use crate::error::Error;
use crate::failure::Failure;
use crate::transport::amqp::properties::outbound::publish_number;
use crate::transport::amqp::wire::{Wire, answered};
use futures_util::stream::{FuturesUnordered, Stream};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

type Handing = Pin<Box<dyn Future<Output = Result<PublisherConfirm, lapin::Error>> + Send>>;

/// A publish on its way to the socket.
enum Sending {
    Going(Handing),
    Gone(Result<PublisherConfirm, lapin::Error>),
}

/// What became of a publish.
pub(super) enum Verdict {
    Stored,
    /// No queue took it: the broker's words, the exchange and the routing key.
    Unroutable(String),
    /// The queue said no.
    Refused,
}

pub(super) struct Press {
    /// Shared by every publish: a clone of a channel is a dozen counters, which its thread counts by, too.
    channel: Arc<Channel>,
    /// Published and not decided, from number `first` on.
    flights: VecDeque<Option<Piece>>,
    first: u64,
    undecided: usize,
    sending: VecDeque<(u64, Sending)>,
    confirms: FuturesUnordered<Confirm>,
    /// Numbers that came back and whose confirm has not been seen.
    returned: BTreeMap<u64, String>,
    /// Confirmed with somebody else's return.
    shadowed: Vec<u64>,
    /// Confirmed in this turn, without a return.
    acked: Vec<u64>,
    shadowed_now: Vec<u64>,
    refused: Vec<u64>,
    decided: Vec<(Piece, Verdict)>,
    /// What the channel died of.
    died: Option<lapin::Error>,
}

/// The confirm of one publish, with its number.
struct Confirm(u64, PublisherConfirm);

impl Future for Confirm {
    type Output = (u64, Result<Confirmation, lapin::Error>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let number = self.0;
        Poll::Ready((number, ready!(Pin::new(&mut self.1).poll(cx))))
    }
}

impl Press {
    pub(super) async fn open(wire: &Wire) -> Result<Self, Error> {
        let channel = wire.channel().await?;
        answered("asking for confirms".to_owned(), channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self {
            channel: Arc::new(channel),
            flights: VecDeque::new(),
            first: 0,
            undecided: 0,
            sending: VecDeque::new(),
            confirms: FuturesUnordered::new(),
            returned: BTreeMap::new(),
            shadowed: Vec::new(),
            acked: Vec::new(),
            shadowed_now: Vec::new(),
            refused: Vec::new(),
            decided: Vec::new(),
            died: None,
        })
    }

    /// How many are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.undecided
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.undecided == 0
    }

    /// The number of the next publish, unique on this channel.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.flights.len() as u64
    }

    /// Publishes, without waiting. `properties` carry [`Press::next_number`].
    pub(super) fn publish(
        &mut self,
        piece: Piece,
        exchange: ShortString,
        routing_key: ShortString,
        properties: BasicProperties,
    ) {
        let number = self.next_number();
        let (channel, slab, index) = (self.channel.clone(), piece.slab(), piece.index());
        let mut going: Handing = Box::pin(async move {
            let payload = slab.get(index).payload().unwrap_or_default();
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            channel.basic_publish(exchange, routing_key, options, payload, properties).await
        });
        // The first poll puts the frames into the client library's queue, so that their order is that of these calls.
        // The rest is polled in order, and the front alone wakes anybody.
        let sending = match going.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Sending::Going(going),
            Poll::Ready(gone) => Sending::Gone(gone),
        };
        self.sending.push_back((number, sending));
        self.flights.push_back(Some(piece));
        self.undecided += 1;
    }

    /// Waits until something is decided, which [`Press::decided`] tells then. An error says that the channel has died;
    /// what came before it may be decided still, and [`Press::unproven`] is the rest. Cancel-safe.
    pub(super) async fn turn(&mut self) -> Result<(), lapin::Error> {
        std::future::poll_fn(|cx| self.poll_turn(cx)).await
    }

    /// What the last turns decided, in the order of publishing within each turn.
    pub(super) fn decided(&mut self) -> impl Iterator<Item = (Piece, Verdict)> {
        self.decided.drain(..)
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), lapin::Error>> {
        loop {
            let sent = self.poll_sending(cx);
            let confirmed = self.poll_confirms(cx);
            // A confirm seen just now may owe its return to one that was on its way to the socket a moment before.
            if !confirmed && !sent {
                break;
            }
        }
        self.conclude();
        match self.died.take_if(|error| says_why(error) || self.confirms.is_empty()) {
            Some(error) => Poll::Ready(Err(error)),
            None if !self.decided.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }

    fn poll_sending(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some((number, sending)) = self.sending.front_mut() {
            let (number, gone) = match sending {
                Sending::Going(going) => match going.as_mut().poll(cx) {
                    Poll::Pending => break,
                    Poll::Ready(gone) => (*number, gone),
                },
                Sending::Gone(_) => match self.sending.pop_front() {
                    Some((number, Sending::Gone(gone))) => {
                        self.sending.push_front((number, Sending::Gone(Err(lapin::ErrorKind::FutureCompleted.into()))));
                        (number, gone)
                    }
                    _ => unreachable!("the front was just looked at"),
                },
            };
            self.sending.pop_front();
            moved = true;
            match gone {
                Ok(confirm) => self.confirms.push(Confirm(number, confirm)),
                Err(error) => self.die(error),
            }
        }
        moved
    }

    fn poll_confirms(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some((number, confirmation))) = Pin::new(&mut self.confirms).poll_next(cx) {
            moved = true;
            match confirmation {
                Ok(Confirmation::Ack(None)) => self.acked.push(number),
                Ok(Confirmation::Ack(Some(back))) => {
                    self.note(&back);
                    self.shadowed_now.push(number);
                }
                Ok(Confirmation::Nack(back)) => {
                    if let Some(back) = back {
                        self.note(&back);
                    }
                    self.refused.push(number);
                }
                // The channel was asked for confirms, so that this is none.
                Ok(Confirmation::NotRequested) => {}
                Err(error) => self.die(error),
            }
        }
        moved
    }

    fn die(&mut self, error: lapin::Error) {
        if self.died.as_ref().is_none_or(|died| !says_why(died)) {
            self.died = Some(error);
        }
    }

    fn note(&mut self, back: &lapin::message::BasicReturnMessage) {
        if let Some(number) = publish_number(&back.delivery.properties) {
            let (exchange, key) = (&back.delivery.exchange, &back.delivery.routing_key);
            let text = match exchange.as_str() {
                "" => format!("queue '{key}' is absent: {}", back.reply_text),
                exchange => {
                    format!("no queue is bound to exchange '{exchange}' for routing key '{key}': {}", back.reply_text)
                }
            };
            self.returned.insert(number, text);
        }
    }

    /// Decides what can be decided: see the head of this file.
    fn conclude(&mut self) {
        let mut proven = std::mem::take(&mut self.acked);
        if !proven.is_empty() {
            // Of earlier turns, so resolved before what this turn saw without a return.
            proven.append(&mut self.shadowed);
        }
        self.shadowed.append(&mut self.shadowed_now);
        if self.confirms.is_empty() && self.sending.is_empty() {
            proven.append(&mut self.shadowed);
        } else {
            let returned = &self.returned;
            proven.extend(self.shadowed.extract_if(.., |number| returned.contains_key(number)));
        }
        let mut verdicts: Vec<(u64, Verdict)> = proven
            .into_iter()
            .map(|number| match self.returned.remove(&number) {
                Some(text) => (number, Verdict::Unroutable(text)),
                None => (number, Verdict::Stored),
            })
            .collect();
        for number in self.refused.drain(..) {
            self.returned.remove(&number);
            verdicts.push((number, Verdict::Refused));
        }
        // In the order of publishing, so that confirms are said as long ranges.
        verdicts.sort_unstable_by_key(|(number, _)| *number);
        for (number, verdict) in verdicts {
            let flight = (number.checked_sub(self.first)).and_then(|at| self.flights.get_mut(at as usize));
            if let Some(piece) = flight.and_then(Option::take) {
                self.undecided -= 1;
                self.decided.push((piece, verdict));
            }
        }
        while self.flights.front().is_some_and(Option::is_none) {
            self.flights.pop_front();
            self.first += 1;
        }
    }

    /// What was published and never proven to be stored, in order.
    pub(super) fn unproven(self) -> impl DoubleEndedIterator<Item = Piece> {
        self.flights.into_iter().flatten()
    }
}

/// A publish on a channel that is closed already hears that and no more; every open confirm hears why.
pub(super) fn says_why(error: &lapin::Error) -> bool {
    !matches!(error.kind(), lapin::ErrorKind::InvalidChannelState(..))
}

impl Verdict {
    /// As a failure of the message; `None` where it is stored. `place` is the queue or exchange.
    pub(super) fn failure(self, place: &str) -> Option<Failure> {
        match self {
            Verdict::Stored => None,
            // Retryable: a queue may be bound in a moment.
            Verdict::Unroutable(text) => Some(Failure::retry(text).classed("unroutable")),
            Verdict::Refused => {
                let text = format!("{place} refused the message: it is full, or could not store it");
                Some(Failure::retry(text).classed("send"))
            }
        }
    }
}
