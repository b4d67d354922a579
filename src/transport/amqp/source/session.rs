//! One channel: from its opening to its end everything that is delivered on it, and every ack of it, has one owner.
//!
//! Nothing here waits for one thing alone. What was asked of the broker is polled side by side: one flight of acks, one
//! consumer that is opened or cancelled, one question that proves acks, one count of what waits.

use super::super::refusal::words;
use super::super::topology::Queue;
use super::super::wire::{ANSWER_LIMIT, State as Line, Wire};
use super::Setup;
use super::calm::Calm;
use super::consume::{Start, arguments};
use super::desk::{Desk, Seen};
use super::ending::{Ending, Recall};
use super::frames::{BoxedAnswer, acks, nacks};
use super::ledger::Ledger;
use super::offsets::Offsets;
use super::prefetch::Wish;
use super::proofs::{Answer, Proofs};
use super::witness;
use crate::failure::Tally;
use crate::message::At;
use crate::transport::{Ask, Backlog, Event, Ownership, Settlement};
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// A pause that is longer gives back what is buffered, so that others may have it and its age does not matter.
const LONG_PAUSE: Duration = Duration::from_secs(60);
/// At this part of what the broker allows, a delivery that has been started is told of.
const AGEING: f64 = 0.8;
/// So many deliveries at once are traffic: it is worth to let more of them come together before the next look, for
/// each look that finds nothing costs a wake-up by the next message.
const TRAFFIC: usize = 16;
/// How long that is let come together. The timer of the runtime is no finer.
const NAP: Duration = Duration::from_millis(1);
/// Deliveries taken off the client library in one turn, so that acks get theirs.
const A_TURN: usize = 1_024;
/// When nothing is due: the next look at the clock.
const IDLE: Duration = Duration::from_secs(3_600);

/// Why a channel ended.
#[derive(Debug)]
pub(super) enum End {
    /// The source is to be closed by then.
    Closing(Instant),
    /// To give back what was buffered; by our own will.
    Recalled,
    /// The broker ended the consumer: its queue was deleted, or it moved.
    Cancelled,
    /// The channel, or more than that.
    Broken(lapin::Error),
    /// The connection is gone.
    Gone(String),
    /// The broker has not answered that.
    Silent(&'static str),
}

/// What a close came to.
pub(super) struct Closed {
    pub(super) returned: u64,
    pub(super) unknown: Tally,
    /// The connection is to be dropped without a word.
    pub(super) cut: bool,
}

/// Something that the broker was asked.
struct Asked<T> {
    what: &'static str,
    since: Instant,
    answer: BoxedAnswer<T>,
}

impl<T> Asked<T> {
    fn now(what: &'static str, answer: impl Future<Output = Result<T, lapin::Error>> + Send + 'static) -> Self {
        Self { what, since: Instant::now(), answer: Box::pin(answer) }
    }

    fn limit(&self) -> Instant {
        self.since + ANSWER_LIMIT
    }
}

/// Takes the answer out of its place once it is there.
fn poll_answer<T>(asked: &mut Option<Asked<T>>, cx: &mut Context<'_>) -> Poll<Result<T, End>> {
    let Some(waiting) = asked else { return Poll::Pending };
    let answer = match waiting.answer.as_mut().poll(cx) {
        Poll::Ready(answer) => answer.map_err(End::Broken),
        Poll::Pending if Instant::now() >= waiting.limit() => Err(End::Silent(waiting.what)),
        Poll::Pending => return Poll::Pending,
    };
    *asked = None;
    Poll::Ready(answer)
}

/// The consumer of a channel; there is one at most.
enum Flow {
    None,
    Opening(Asked<Consumer>),
    Open(Consumer),
    /// Cancelled by us: what is under way still comes, then its stream ends.
    Cancelling {
        consumer: Consumer,
        answer: Option<Asked<()>>,
        ended: bool,
    },
}

/// Acks or nacks on their way to the socket.
struct Flight {
    asked: Option<Asked<()>>,
    /// What they settle; nothing where they give back.
    tally: Tally,
    /// They give back: before that is done nothing new is consumed, or it would overtake what comes again.
    gives_back: bool,
}

pub(super) struct Session<'a> {
    setup: &'a Setup,
    desk: &'a Desk,
    channel: Channel,
    epoch: u32,
    single_active: bool,
    ending: Ending,
    recall: Recall,
    ledger: Ledger,
    proofs: Proofs,
    offsets: Option<Offsets>,
    flow: Flow,
    consumers: u32,
    /// The first tag that the present consumer may have been sent.
    sent_from: u64,
    calm: Calm,
    prefetch: u16,
    largest: u64,
    flight: Flight,
    question: Option<Asked<()>>,
    /// Asked for behind the last ack: until it answers none follows.
    witness: Option<Asked<Consumer>>,
    witnesses: Vec<Consumer>,
    count: Option<Asked<u64>>,
    counts_owed: u32,
    flushes: Vec<Instant>,
    closing: Option<Instant>,
    /// What nobody has started is to go back, and the engine has given back its part.
    recalling: bool,
    /// The engine was asked to give back its part.
    recall_asked: bool,
    /// What is open up to this tag has been started: asking for it again is of no use.
    recalled_to: u64,
    /// Up to this tag whatever is old was told of.
    told_of_age_to: u64,
    paused_since: Option<Instant>,
    /// Until then deliveries come together unlooked at.
    nap_until: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    gone: Pin<Box<dyn Future<Output = String> + Send>>,
    asks: Vec<Ask>,
    arrived: Vec<Delivery>,
    /// Whether the engine knows that we are connected.
    connected: &'a mut bool,
    /// Whether the broker has taken in anything that was settled.
    worked: bool,
}

impl<'a> Session<'a> {
    #[expect(clippy::too_many_arguments, reason = "what a driver wires together, named one by one")]
    pub(super) fn new(
        setup: &'a Setup,
        desk: &'a Desk,
        wire: &Wire,
        channel: Channel,
        queue: &Queue,
        epoch: u32,
        start: Option<Start>,
        connected: &'a mut bool,
    ) -> Self {
        let single_active = queue.single_active.unwrap_or(setup.place.single_active);
        let mut line = wire.state();
        let gone = async move {
            loop {
                if let Line::Gone(why) = &*line.borrow_and_update() {
                    return why.clone();
                }
                if line.changed().await.is_err() {
                    return "the connection was closed".to_owned();
                }
            }
        };
        desk.begin(epoch);
        Self {
            setup,
            desk,
            channel,
            epoch,
            single_active,
            ending: Ending::of(queue, setup.place.single_active),
            recall: Recall::of(queue, setup.spec.by_key),
            ledger: Ledger::new(),
            proofs: Proofs::new(Answer::of(queue.queue_type)),
            offsets: start.map(Offsets::new),
            flow: Flow::None,
            consumers: 0,
            sent_from: 1,
            calm: Calm::of(queue.queue_type, Instant::now()),
            prefetch: 0,
            largest: 0,
            flight: Flight { asked: None, tally: Tally::default(), gives_back: false },
            question: None,
            witness: None,
            witnesses: Vec::new(),
            count: None,
            counts_owed: 0,
            flushes: Vec::new(),
            closing: None,
            recalling: false,
            recall_asked: false,
            recalled_to: 0,
            told_of_age_to: 0,
            paused_since: None,
            nap_until: None,
            timer: Box::pin(tokio::time::sleep(IDLE)),
            gone: Box::pin(gone),
            asks: Vec::new(),
            arrived: Vec::new(),
            connected,
            worked: false,
        }
    }

    /// Whether the broker has taken in anything that was settled: more than a connection that came about.
    pub(super) fn worked(&self) -> bool {
        self.worked
    }

    /// Works until the channel ends or is to be ended.
    pub(super) async fn run(&mut self) -> End {
        loop {
            let now = Instant::now();
            self.arrive(now);
            let seen = self.desk.see();
            for ask in std::mem::take(&mut self.asks) {
                self.asked(ask, seen, now);
            }
            if let Some(by) = self.closing {
                return End::Closing(by);
            }
            if let Some(end) = self.act(seen, now) {
                return end;
            }
            self.answer_flushes(now);
            let wake = self.next_look(seen, now);
            self.look_again(wake);
            if let Err(end) = poll_fn(|cx| self.poll_any(cx)).await {
                return end;
            }
        }
    }

    /// Sets the timer, unless it ends before: a turn too many, every few milliseconds, costs less than a timer that is
    /// set earlier and later with every batch.
    fn look_again(&mut self, at: Instant) {
        if self.timer.is_elapsed() || at < self.timer.deadline().into_std() {
            self.timer.as_mut().reset(at.into());
        }
    }

    // What comes in.

    /// Ready once anything has happened that is worth a turn.
    fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let mut any = self.desk.poll_asks(cx, &mut self.asks).is_ready();
        match poll_answer(&mut self.flight.asked, cx) {
            Poll::Ready(Ok(())) => {
                any = true;
                self.landed();
            }
            Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
            Poll::Pending => {}
        }
        match poll_answer(&mut self.question, cx) {
            Poll::Ready(Ok(())) => {
                any = true;
                self.proofs.answered(Instant::now());
            }
            Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
            Poll::Pending => {}
        }
        match poll_answer(&mut self.witness, cx) {
            Poll::Ready(Ok(witness)) => {
                any = true;
                self.witnesses.push(witness);
                self.proven_by_the_queue();
            }
            Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
            Poll::Pending => {}
        }
        match poll_answer(&mut self.count, cx) {
            Poll::Ready(Ok(waiting)) => {
                any = true;
                self.counted(Some(waiting));
            }
            Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
            Poll::Pending => {}
        }
        match self.poll_flow(cx) {
            Poll::Ready(Ok(())) => any = true,
            Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
            Poll::Pending => {}
        }
        if let Poll::Ready(why) = self.gone.as_mut().poll(cx) {
            return Poll::Ready(Err(End::Gone(why)));
        }
        if any || self.timer.as_mut().poll(cx).is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_flow(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let mut any = false;
        if let Flow::Opening(asked) = &mut self.flow {
            let limit = asked.limit();
            match asked.answer.as_mut().poll(cx) {
                Poll::Ready(Ok(consumer)) => {
                    any = true;
                    self.calm.acked(Instant::now());
                    self.flow = Flow::Open(consumer);
                    self.say_connected();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(End::Broken(error))),
                Poll::Pending if Instant::now() >= limit => return Poll::Ready(Err(End::Silent("basic.consume"))),
                Poll::Pending => {}
            }
        }
        let mut cancelled = false;
        if self.nap_until.is_some_and(|until| Instant::now() >= until) {
            self.nap_until = None;
        }
        match &mut self.flow {
            Flow::Open(_) if self.nap_until.is_some() => {}
            Flow::Open(consumer) => {
                for _ in 0..A_TURN {
                    match consumer.poll_next_unpin(cx) {
                        Poll::Ready(Some(Ok(delivery))) => self.arrived.push(delivery),
                        // The first of either ends the channel: the stream is not to be polled again.
                        Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(End::Broken(error))),
                        Poll::Ready(None) => return Poll::Ready(Err(End::Cancelled)),
                        Poll::Pending => break,
                    }
                }
            }
            Flow::Cancelling { consumer, answer, ended } => {
                match poll_answer(answer, cx) {
                    Poll::Ready(Ok(())) => any = true,
                    Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                    Poll::Pending => {}
                }
                while !*ended && self.arrived.len() < A_TURN {
                    match consumer.poll_next_unpin(cx) {
                        Poll::Ready(Some(Ok(delivery))) => self.arrived.push(delivery),
                        Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(End::Broken(error))),
                        Poll::Ready(None) => (*ended, any) = (true, true),
                        Poll::Pending => break,
                    }
                }
                cancelled = *ended && answer.is_none();
            }
            Flow::None | Flow::Opening(_) => {}
        }
        // While the broker still has room to send: napping at its end would starve us.
        if self.arrived.len() >= TRAFFIC && self.ledger.held() + self.arrived.len() < usize::from(self.prefetch / 2) {
            self.nap_until = Some(Instant::now() + NAP);
        }
        if cancelled {
            self.proven_by_the_queue();
            self.flow = Flow::None;
        }
        if any || !self.arrived.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// The queue has answered, and no ack was sent since it was asked: it has them all.
    fn proven_by_the_queue(&mut self) {
        let proven = self.proofs.take_all();
        self.say_settled(proven, Tally::default());
    }

    /// Takes in what the broker has delivered.
    fn arrive(&mut self, now: Instant) {
        if self.arrived.is_empty() {
            return;
        }
        self.calm.came(now);
        for delivery in &self.arrived {
            let next = self.ledger.delivered(delivery.delivery_tag, now);
            debug_assert!(next, "delivery tags of a channel rise one by one");
            self.largest = self.largest.max(delivery.data.len() as u64);
            if let Some(offsets) = &mut self.offsets {
                offsets.delivered(delivery.delivery_tag, &delivery.properties);
            }
        }
        self.desk.deliver(self.arrived.drain(..));
    }

    fn asked(&mut self, ask: Ask, seen: Seen, now: Instant) {
        match ask {
            Ask::Settle(these) => self.settle(&these, seen.handed_to, now),
            Ask::Return(these) => {
                let mut any = false;
                for at in these {
                    let ours = at.epoch == self.epoch && at.position <= seen.handed_to;
                    any |= ours && self.ledger.give_back(at.position);
                }
                // At a stop only the end of the channel gives back: nacks would reorder, or count. In a recall the
                // rest is waited for.
                self.recalling |= any && !seen.intake_stopped && !self.recall_asked;
            }
            Ask::Recalled(of) if of.epoch == self.epoch && self.recall_asked => {
                (self.recall_asked, self.recalling, self.recalled_to) = (false, true, seen.handed_to);
            }
            Ask::Mark(at) => self.desk.say(Event::Marked(at)),
            Ask::Flush { by } => self.flushes.push(by),
            Ask::Pause(_) => drop(self.paused_since.get_or_insert(now)),
            Ask::Resume(_) => self.paused_since = None,
            Ask::Measure => {
                self.counts_owed += 1;
                if self.count.is_none() {
                    self.count = Some(Asked::now(
                        "queue.declare",
                        waiting(self.channel.clone(), self.setup.place.queue.clone()),
                    ));
                }
            }
            Ask::Close { by } => self.closing = Some(by),
            // Demand and the stop of the intake are read off the desk.
            _ => {}
        }
    }

    fn settle(&mut self, these: &[Settlement], handed_to: u64, now: Instant) {
        let mut stale = Tally::default();
        for Settlement { at, verdict } in these {
            let ours = at.epoch == self.epoch && at.position <= handed_to;
            if !(ours && self.ledger.settle(at.position, *verdict, now)) {
                verdict.count(&mut stale);
            } else if let Some(offsets) = &mut self.offsets {
                offsets.settled(at.position);
            }
        }
        self.say_settled(Tally::default(), stale);
    }

    // What is done about it.

    /// Begins what is due.
    fn act(&mut self, seen: Seen, now: Instant) -> Option<End> {
        let proven = self.proofs.proven(now);
        self.say_settled(proven, Tally::default());
        self.desk.doubt(self.proofs.doubtful_at().is_some_and(|at| at <= now));
        self.look_at_ages(seen, now);
        if seen.holds && !self.recalling && !self.recall_asked && !self.flight.gives_back {
            self.desk.go_on();
        }
        if self.flight.asked.is_none() {
            match &self.flow {
                // Behind every ack, and no further one until it is answered: so it proves them all, and the prefetch
                // is soon used up.
                Flow::Open(_) if self.cancels(seen) => {
                    if self.calm_at(now) <= now {
                        self.cancel_consumer();
                    }
                }
                Flow::Cancelling { .. } => {}
                Flow::None if self.recalling => {
                    if let Some(end) = self.give_back() {
                        return Some(end);
                    }
                    self.send_acks(now);
                }
                _ if self.calls_witness(seen) => self.call_witness(),
                _ => self.send_acks(now),
            }
        }
        if matches!(self.flow, Flow::None) {
            if self.consumes(seen) {
                self.open_consumer(seen);
            } else {
                self.say_connected();
            }
        }
        // Not while a consumer is opened: its prefetch is set by the same method.
        let asks = matches!(self.flow, Flow::None | Flow::Open(_)) && self.question.is_none();
        let urgent = !self.flushes.is_empty() || self.recalling;
        if asks
            && self.witness.is_none()
            && !self.cancels(seen)
            && self.proofs.ask_at(now, urgent).is_some_and(|at| at <= now)
        {
            self.ask(now);
        }
        None
    }

    /// The question whose answer proves what was sent before it.
    fn ask(&mut self, now: Instant) {
        self.proofs.asked(now);
        self.question = Some(Asked::now("basic.qos", qos(self.channel.clone(), self.prefetch.max(1))));
    }

    fn send_acks(&mut self, now: Instant) {
        self.send_due(now, !self.flushes.is_empty() || self.recalling);
    }

    /// Sends the acks that are due, or all of them, unless some are under way.
    fn send_due(&mut self, now: Instant, all: bool) {
        if self.flight.asked.is_some() || self.witness.is_some() {
            return;
        }
        if let Some(due) = self.ledger.due(self.prefetch, now, all) {
            let asked = Some(Asked::now("basic.ack", acks(&self.channel, due.frames)));
            self.flight = Flight { asked, tally: due.tally, gives_back: false };
        }
    }

    /// Whether there is to be another consumer, or none: to give back, to let out more or less.
    fn changes(&self, seen: Seen) -> bool {
        // Counted with what is about to be handed over.
        let starved = seen.room as usize > seen.ready && self.ledger.held() >= usize::from(self.prefetch);
        let another = !seen.intake_stopped && !seen.paused;
        let changes = self.recalling || (another && self.wish(seen).instead_of(self.prefetch, starved).is_some());
        changes && matches!(self.flow, Flow::Open(_))
    }

    /// Whether the last acks are to be proven by the queue, in that way.
    fn proves_by(&self, ending: Ending, seen: Seen) -> bool {
        let unproven = !self.proofs.is_empty() || self.flight.asked.is_some() || self.ledger.unsent().total() > 0;
        let consuming = matches!(self.flow, Flow::Open(_));
        consuming && unproven && seen.intake_stopped && !self.flushes.is_empty() && self.ending == ending
    }

    /// Whether a witness is to be called now: behind every ack, and with nothing under way that could be acked later.
    fn calls_witness(&self, seen: Seen) -> bool {
        self.proves_by(Ending::WitnessAndClose, seen)
            && self.witness.is_none()
            && self.witnesses.len() < witness::MOST
            && self.ledger.unsent().total() == 0
            && !self.ledger.open_up_to(0, seen.handed_to)
    }

    fn call_witness(&mut self) {
        let (channel, queue) = (self.channel.clone(), self.setup.place.queue.clone());
        let tag = format!("{}~{}", self.consumer_tag(), self.witnesses.len());
        self.witness = Some(Asked::now("basic.consume", witness::witness(channel, queue, tag)));
    }

    /// Of the present consumer, or the last.
    fn consumer_tag(&self) -> String {
        format!("{}-{}-{}", self.setup.tag, self.epoch, self.consumers)
    }

    /// Whether the consumer is to be cancelled, as soon as that is harmless; until then no ack is sent.
    fn cancels(&self, seen: Seen) -> bool {
        self.changes(seen) || (self.proves_by(Ending::CancelAndClose, seen) && self.ledger.unsent().total() == 0)
    }

    fn calm_at(&self, now: Instant) -> Instant {
        self.calm.at(self.ledger.unacked(self.sent_from), self.prefetch, now)
    }

    fn consumes(&self, seen: Seen) -> bool {
        !self.recalling && !self.flight.gives_back && !seen.intake_stopped && !seen.paused && seen.room > 0
    }

    fn wish(&self, seen: Seen) -> Wish {
        Wish {
            explicit: self.setup.place.prefetch,
            fixed: self.single_active,
            concurrency: self.setup.spec.concurrency,
            window: seen.window,
            budget: seen.budget,
            largest: self.largest,
        }
    }

    fn open_consumer(&mut self, seen: Seen) {
        self.prefetch = self.wish(seen).prefetch();
        self.consumers += 1;
        self.sent_from = self.ledger.next_tag();
        let (channel, prefetch) = (self.channel.clone(), self.prefetch);
        let queue = self.setup.place.queue.clone();
        let tag = self.consumer_tag();
        let start = self.offsets.as_ref().map(Offsets::resume);
        let arguments = arguments(&self.setup.place, start.as_ref());
        self.flow = Flow::Opening(Asked::now("basic.consume", async move {
            qos(channel.clone(), prefetch).await?;
            let options = BasicConsumeOptions::default();
            channel.basic_consume(queue.as_str().into(), tag.as_str().into(), options, arguments).await
        }));
    }

    fn cancel_consumer(&mut self) {
        let Flow::Open(consumer) = std::mem::replace(&mut self.flow, Flow::None) else { return };
        let (channel, tag) = (self.channel.clone(), consumer.tag());
        let answer =
            Asked::now("basic.cancel", async move { channel.basic_cancel(tag, BasicCancelOptions::default()).await });
        self.flow = Flow::Cancelling { consumer, answer: Some(answer), ended: false };
    }

    /// Gives back what no handler has started, the consumer being cancelled.
    fn give_back(&mut self) -> Option<End> {
        for tag in self.desk.take_ready() {
            self.ledger.give_back(tag);
        }
        match self.recall {
            Recall::Nack => {
                self.recalling = false;
                let tags = self.ledger.take_returned();
                if !tags.is_empty() {
                    let (channel, prefetch) = (self.channel.clone(), self.prefetch.max(1));
                    let settles = self.proofs.settles_in();
                    let nacks = nacks(&self.channel, tags);
                    let asked = Asked::now("basic.nack", async move {
                        nacks.await?;
                        // As acks, so nacks are held back for a moment by some queues; a new consumer is not.
                        qos(channel, prefetch).await?;
                        tokio::time::sleep(settles).await;
                        Ok(())
                    });
                    self.flight = Flight { asked: Some(asked), tally: Tally::default(), gives_back: true };
                }
                None
            }
            Recall::CloseChannel => {
                let settled = self.ledger.open() == 0 && self.ledger.unsent().total() == 0;
                (settled && self.proofs.is_empty()).then_some(End::Recalled)
            }
        }
    }

    /// When what nobody has started has to go back, unless it is settled before: the broker counts the age of what is
    /// buffered, too.
    fn recall_at(&self, seen: Seen) -> Option<Instant> {
        if self.recalling || self.recall_asked || seen.intake_stopped {
            return None;
        }
        let consuming = matches!(self.flow, Flow::Open(_)) || seen.ready > 0;
        let paused = self.paused_since.filter(|_| consuming).map(|since| since + LONG_PAUSE);
        let half = self.setup.place.consumer_timeout / 2;
        let aged = self.ledger.oldest_open(self.recalled_to + 1).map(|since| since + half);
        [paused, aged].into_iter().flatten().min()
    }

    /// When something that was started is old enough to be told of.
    fn ageing_at(&self, seen: Seen) -> Option<Instant> {
        let oldest = self.ledger.oldest_open(self.told_of_age_to + 1)?;
        (self.told_of_age_to < seen.handed_to).then(|| oldest + self.setup.place.consumer_timeout.mul_f64(AGEING))
    }

    fn look_at_ages(&mut self, seen: Seen, now: Instant) {
        if self.recall_at(seen).is_some_and(|at| at <= now) {
            if self.ledger.open_up_to(self.recalled_to, seen.handed_to) {
                // What the engine has of it comes first, and nothing new meanwhile.
                self.recall_asked = true;
                self.desk.hold();
                self.desk.say(Event::Recall(Ownership { epoch: self.epoch, partitions: None }));
            } else {
                self.recalling = true;
            }
        }
        if self.ageing_at(seen).is_some_and(|at| at <= now) {
            let limit = self.setup.place.consumer_timeout;
            let Some(before) = now.checked_sub(limit.mul_f64(AGEING)) else { return };
            for (tag, delivered) in self.ledger.open_since(self.told_of_age_to + 1, seen.handed_to + 1, before) {
                self.told_of_age_to = tag;
                let at = At { position: tag, epoch: self.epoch, partition: 0 };
                let age = now.saturating_duration_since(delivered);
                self.desk.say(Event::Ageing { at, age, limit });
            }
        }
    }

    /// The acks are on the socket.
    fn landed(&mut self) {
        let tally = std::mem::take(&mut self.flight.tally);
        self.flight.gives_back = false;
        let now = Instant::now();
        self.calm.acked(now);
        self.proofs.sent(tally, now);
    }

    fn answer_flushes(&mut self, now: Instant) {
        if self.flushes.is_empty() {
            return;
        }
        let done = self.ledger.unsent().total() == 0 && self.flight.asked.is_none() && self.proofs.is_empty();
        let desk = self.desk;
        self.flushes.retain(|by| {
            let ends = done || *by <= now;
            if ends {
                desk.say(Event::Flushed);
            }
            !ends
        });
    }

    fn next_look(&self, seen: Seen, now: Instant) -> Instant {
        let flying = self.flight.asked.as_ref();
        let flow = match &self.flow {
            Flow::Opening(asked) => Some(asked.limit()),
            Flow::Cancelling { answer, .. } => answer.as_ref().map(Asked::limit),
            Flow::None | Flow::Open(_) => None,
        };
        let cancelling = matches!(self.flow, Flow::Cancelling { .. });
        let urgent = !self.flushes.is_empty();
        let cancels = self.cancels(seen);
        let asks = self.question.is_none()
            && flow.is_none()
            && self.witness.is_none()
            && !self.changes(seen)
            && !self.proves_by(Ending::CancelAndClose, seen);
        [
            flying.map(Asked::limit),
            cancels.then(|| self.calm_at(now)).filter(|_| flying.is_none()),
            flow,
            self.question.as_ref().map(Asked::limit),
            self.witness.as_ref().map(Asked::limit),
            self.count.as_ref().map(Asked::limit),
            self.ledger.due_at().filter(|_| flying.is_none() && self.witness.is_none() && !cancelling && !cancels),
            self.proofs.ask_at(now, urgent).filter(|_| asks),
            self.proofs.proven_at(),
            self.proofs.doubtful_at().filter(|at| *at > now),
            self.flushes.iter().min().copied(),
            self.recall_at(seen),
            self.ageing_at(seen),
            self.nap_until,
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(now + IDLE)
    }

    // What is said.

    fn say_connected(&mut self) {
        if !std::mem::replace(self.connected, true) {
            self.desk.say(Event::Connected);
        }
    }

    fn say_settled(&mut self, proven: Tally, stale: Tally) {
        self.worked |= proven.total() > 0;
        if proven.total() + stale.total() > 0 {
            self.desk.say(Event::Settled { proven, stale, unknown: Tally::default() });
        }
    }

    fn counted(&mut self, waiting: Option<u64>) {
        // What is buffered here waits as well, though the broker counts it as delivered.
        let waiting = waiting.map(|waiting| waiting + self.desk.see().ready as u64);
        for _ in 0..std::mem::take(&mut self.counts_owed) {
            self.desk.say(Event::Measured(Backlog { waiting, delayed: None }));
        }
    }

    // The end.

    /// The channel is over, not by a close: says what became of what was told, and where a stream is to go on.
    pub(super) fn lost(mut self) -> Option<Start> {
        // Settlements that came in the meantime are answered as those of an epoch that is over, by whoever is next.
        self.desk.end(std::mem::take(&mut self.asks));
        let stale = self.ledger.unsent();
        let mut unknown = self.proofs.take_all();
        unknown += self.flight.tally;
        if stale.total() + unknown.total() > 0 {
            self.desk.say(Event::Settled { proven: Tally::default(), stale, unknown });
        }
        self.desk.say(Event::Lost(Ownership { epoch: self.epoch, partitions: None }));
        self.flushes.drain(..).for_each(|_| self.desk.say(Event::Flushed));
        self.counted(None);
        self.offsets.as_ref().map(Offsets::resume)
    }

    /// Sends every ack, proves what can be proven, and says what became of them; ends by then, whatever the broker does.
    pub(super) async fn close(mut self, by: Instant) -> Closed {
        self.desk.take_ready();
        // An answer that does not come is not waited for longer than the whole.
        let ended = tokio::time::timeout_at(by.into(), self.settle_all(by)).await;
        let mut unknown = self.proofs.take_all();
        unknown += self.flight.tally;
        unknown += self.ledger.unsent();
        self.flushes.drain(..).for_each(|_| self.desk.say(Event::Flushed));
        self.counted(None);
        let cut = self.ending == Ending::WaitAndCut || !matches!(ended, Ok(Ok(())));
        Closed { returned: self.desk.see().in_hand, unknown, cut }
    }

    async fn settle_all(&mut self, by: Instant) -> Result<(), End> {
        // Whatever is under way comes first; its answers mean what they meant.
        while self.flight.asked.is_some()
            || self.witness.is_some()
            || matches!(self.flow, Flow::Opening(_) | Flow::Cancelling { .. })
        {
            self.step().await?;
        }
        self.send_due(Instant::now(), true);
        while self.flight.asked.is_some() {
            self.step().await?;
        }
        // Where nothing is left to be proven, or it cannot be in time without harm, a close alone keeps the order.
        while self.ending == Ending::CancelAndClose
            && matches!(self.flow, Flow::Open(_))
            && !self.proofs.is_empty()
            && self.calm_at(Instant::now()) < by
        {
            if self.calm_at(Instant::now()) <= Instant::now() {
                self.cancel_consumer();
            } else {
                self.step().await?;
            }
        }
        if self.ending == Ending::WitnessAndClose && matches!(self.flow, Flow::Open(_)) && !self.proofs.is_empty() {
            self.call_witness();
        }
        while self.witness.is_some() || matches!(self.flow, Flow::Cancelling { .. }) {
            self.step().await?;
        }
        while !self.proofs.is_empty() {
            let now = Instant::now();
            if self.question.is_none() && self.proofs.ask_at(now, true).is_some() {
                self.ask(now);
            }
            self.step().await?;
            let proven = self.proofs.proven(Instant::now());
            self.say_settled(proven, Tally::default());
        }
        Ok(())
    }

    /// One turn of the end: what is delivered now goes back with the channel.
    async fn step(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let calm = Some(self.calm_at(now)).filter(|_| matches!(self.flow, Flow::Open(_)));
        let wake = [self.proofs.proven_at(), calm.filter(|at| *at > now), self.nap_until].into_iter().flatten().min();
        self.timer.as_mut().reset(wake.unwrap_or(now + ANSWER_LIMIT).into());
        poll_fn(|cx| self.poll_any(cx)).await?;
        // Counted, and handed to nobody: the desk is closed.
        self.arrive(Instant::now());
        Ok(())
    }
}

impl End {
    /// In words, for the operator.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Closing(_) | Self::Recalled => String::new(),
            Self::Cancelled => "the broker cancelled the consumer".to_owned(),
            Self::Broken(error) => words(error),
            Self::Gone(why) => why.clone(),
            Self::Silent(what) => format!("no answer to {what} within {} s", ANSWER_LIMIT.as_secs()),
        }
    }
}

/// How many messages are ready at the broker.
async fn waiting(channel: Channel, queue: String) -> Result<u64, lapin::Error> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(queue.as_str().into(), passive, FieldTable::default()).await?;
    Ok(u64::from(queue.message_count()))
}

pub(super) async fn qos(channel: Channel, prefetch: u16) -> Result<(), lapin::Error> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await
}
