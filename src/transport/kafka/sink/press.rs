//! The thread that owns a producer: hands records over, polls, and tells what became of them.
//!
//! librdkafka has no call that waits for a send and for a report alike. While something is in flight the thread waits
//! for reports, a turn at a time, and looks for sends in between; while nothing is, it waits for sends.

use super::Told;
use super::link::{Change, Link};
use super::record::hand_over;
use super::verdict::Reports;
use super::window::Window;
use crate::error::{Error, ErrorKind};
use crate::message::Slab;
use crate::transport::backoff::Backoff;
use crate::transport::kafka::client;
use crate::transport::kafka::context::{Ear, Heard};
use crate::transport::kafka::place::Place;
use crate::transport::kafka::refusal::kind;
use crate::transport::{SinkEvent, SinkSpec};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::{BaseProducer, Producer, PurgeConfig};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// Records between two looks at reports.
const BURST: usize = 512;
/// Reports are waited for so long at a time while they come …
const TURN: Duration = Duration::from_millis(1);
/// … and so long when none has come for [`QUIET`]: an outage does not keep a core awake.
const QUIET_TURN: Duration = Duration::from_millis(20);
const QUIET: Duration = Duration::from_secs(1);
/// How long a send is waited for before librdkafka's log lines and errors are looked for.
const IDLE_TURN: Duration = Duration::from_millis(100);
/// Events that are taken in after such a wait.
const IDLE_EVENTS: usize = 16;
/// A record that is not stored after so long is spoken of; and then again after each minute.
const OVERDUE: Duration = Duration::from_secs(30);
/// A producer that has come to its end is polled so long for what it still knows.
const LAST_REPORTS: Duration = Duration::from_secs(1);
/// A producer that is refused knows it so long after it has connected.
const REFUSED_WITHIN: Duration = Duration::from_millis(100);
/// How long it may take to connect until that is waited for; the cluster has answered just before.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// Producers in a row that came to their end without storing anything: then nothing helps but somebody who looks.
const GIVES_UP_AFTER: u32 = 5;

/// A batch on its way to the thread.
pub(super) struct Send {
    pub(super) batch: u64,
    pub(super) slab: Arc<Slab>,
}

pub(super) struct Press {
    place: Place,
    worker: Arc<str>,
    topic: Arc<str>,
    /// The largest batch that the topic takes, in bytes.
    largest: u32,
    sends: Receiver<Send>,
    told: UnboundedSender<Told>,
    producer: Arc<BaseProducer<Reports>>,
    window: Window,
    link: Link,
    /// When something was stored or failed last.
    heard: Instant,
    /// When an overdue record was spoken of last.
    spoke: Option<Instant>,
    /// Producers that came to their end since something was stored.
    ended: u32,
    backoff: Backoff,
    /// How often is said what has no answer of its own.
    oddities: Backoff,
}

/// Why the thread ends.
enum End {
    /// Nobody sends any more.
    Left,
    Failed(Error),
}

impl Press {
    /// Makes the producer, which connects by itself; returns once it has, or will not soon.
    ///
    /// # Errors
    /// As [`client::create`], and [`ErrorKind::Credentials`] where it may not write.
    pub(super) fn new(
        place: Place,
        spec: &SinkSpec,
        largest: u32,
        sends: Receiver<Send>,
        told: UnboundedSender<Told>,
    ) -> Result<Self, Error> {
        let (now, topic) = (Instant::now(), Arc::<str>::from(place.topic()));
        let window = Window::new(now);
        let producer = produce(&place, &spec.worker, &topic, largest, &window)?;
        if let Some(refused) = admit(&producer, &topic) {
            return Err(refused);
        }
        let (link, worker) = (Link::new(topic.clone(), spec.worker.clone()), spec.worker.clone());
        Ok(Self {
            place,
            worker,
            topic,
            largest,
            sends,
            told,
            producer,
            window,
            link,
            heard: now,
            spoke: None,
            ended: 0,
            backoff: Backoff::default(),
            oddities: Backoff::default(),
        })
    }

    /// Runs until nobody sends any more. What is not stored then is given up.
    pub(super) fn run(mut self) {
        self.say(SinkEvent::Connected);
        match self.serve() {
            End::Left => {}
            End::Failed(error) => self.say(SinkEvent::Failed(error)),
        }
        self.tell(true);
        let Self { producer, told, .. } = self;
        // What lies in it is not stored behind our back from here on.
        producer.purge(PurgeConfig::default().queue().inflight());
        let _ = told.send(Told::Released);
        // Its threads end within a tenth of a second, which nobody has to wait for.
        drop(producer);
    }

    fn serve(&mut self) -> End {
        loop {
            if let Err(end) = self.take() {
                return end;
            }
            let full = self.hand_over();
            let busy = self.window.waits() && !full;
            self.poll(if busy { Duration::ZERO } else { self.turn() });
            self.tell(false);
            self.speak();
            self.recover();
            if let Err(end) = self.hear() {
                return end;
            }
        }
    }

    /// Takes in what is sent; waits for it while nothing is in flight.
    fn take(&mut self) -> Result<(), End> {
        if self.window.is_empty() {
            match self.sends.recv_timeout(IDLE_TURN) {
                Ok(send) => self.window.push(send.batch, send.slab, Instant::now()),
                Err(RecvTimeoutError::Timeout) => (0..IDLE_EVENTS).for_each(|_| self.poll(Duration::ZERO)),
                Err(RecvTimeoutError::Disconnected) => return Err(End::Left),
            }
        }
        // One that does not fit stays in its channel, and so does everything behind it.
        while !self.window.waits() && self.window.has_room(super::book::WINDOW.0 as usize) {
            match self.sends.try_recv() {
                Ok(send) => self.window.push(send.batch, send.slab, Instant::now()),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(End::Left),
            }
        }
        Ok(())
    }

    /// Hands some records over; whether the producer's queue is full.
    fn hand_over(&mut self) -> bool {
        let (producer, topic, mut full) = (&self.producer, &*self.topic, false);
        self.window.hand_over(BURST, |number, message| {
            let Err(error) = hand_over(producer, topic, number, message) else { return true };
            match error.rdkafka_error_code().unwrap_or(Code::Fail) {
                // It comes again; a producer that is over is replaced by then.
                Code::QueueFull | Code::Fatal | Code::Fenced => {
                    full = true;
                    false
                }
                code => {
                    producer.context().refuse(number, code, message.size());
                    true
                }
            }
        });
        full
    }

    fn turn(&self) -> Duration {
        match self.window.is_empty() {
            true => Duration::ZERO,
            false if self.heard.elapsed() < QUIET => TURN,
            false => QUIET_TURN,
        }
    }

    fn poll(&self, time: Duration) {
        self.producer.poll(time);
    }

    /// Tells what was answered.
    fn tell(&mut self, all: bool) {
        let (now, told) = (Instant::now(), &self.told);
        let (mut any, mut stored) = (false, false);
        self.window.tell(now, all, &mut |answer| {
            any = true;
            if let Told::Confirmed { range, failed, .. } = &answer {
                stored |= failed.len() < range.len();
            }
            let _ = told.send(answer);
        });
        if any {
            self.heard = now;
        }
        if stored {
            self.ended = 0;
            self.backoff.worked();
            let change = self.link.proven();
            self.say_change(change);
        }
    }

    /// Says of a record that waits for long that it does.
    fn speak(&mut self) {
        let Some(since) = self.window.waits_since() else { return };
        let now = Instant::now();
        let waited = now.saturating_duration_since(since);
        let due = self.spoke.is_none_or(|spoke| now.saturating_duration_since(spoke) >= 2 * OVERDUE);
        if waited >= OVERDUE && due {
            self.spoke = Some(now);
            let what =
                format!("{} records for topic '{}' wait for {} s", self.window.open(), self.topic, waited.as_secs());
            self.say(SinkEvent::Trouble(self.producer.context().ear.unreachable(&what)));
        }
    }

    /// A record that the producer has given up without an answer is handed to it again. It has none in flight then, so that
    /// nothing else is stored twice by that.
    fn recover(&mut self) {
        let quiet = !self.window.is_empty() && !self.window.waits() && self.heard.elapsed() >= QUIET;
        if quiet && self.producer.in_flight_count() == 0 {
            self.tell(true);
            self.window.rewind();
        }
    }

    /// What librdkafka said unasked.
    fn hear(&mut self) -> Result<(), End> {
        for heard in self.producer.context().ear.take() {
            match heard {
                Heard::Lost(error) | Heard::Refused(error) => self.link.doubt(error, &self.producer),
                Heard::Odd(error) if self.oddities.speaks(Instant::now()) => self.say(SinkEvent::Trouble(error)),
                Heard::Odd(_) => {}
                // It is asked for below: the event of it has the code of whatever it came from.
                Heard::Fatal(_) => {}
            }
        }
        if let Some(error) = fatal(&self.producer) {
            return self.replace(error);
        }
        let change = self.link.look();
        self.say_change(change);
        Ok(())
    }

    /// The producer has come to its end: another one takes what it has not answered. What it had stored without an answer
    /// is stored again, which is what "at least once" means.
    fn replace(&mut self, why: Error) -> Result<(), End> {
        let until = Instant::now() + LAST_REPORTS;
        while self.producer.in_flight_count() > 0 && Instant::now() < until {
            self.poll(TURN);
        }
        self.tell(true);
        if why.kind() == ErrorKind::Credentials {
            // Somebody may be about to mend it, and a restart would only ask again.
            let change = self.link.refuse(why);
            self.say_change(change);
        } else {
            self.ended += 1;
            if self.ended >= GIVES_UP_AFTER {
                return Err(End::Failed(why));
            }
            self.say(SinkEvent::Trouble(why));
        }
        let delay = self.backoff.next(fastrand::f64());
        self.wait(delay)?;
        self.window.start_again();
        let next = produce(&self.place, &self.worker, &self.topic, self.largest, &self.window).map_err(End::Failed)?;
        let old = std::mem::replace(&mut self.producer, next);
        self.link.moved(&self.producer);
        // Its end may take a while.
        let ending = std::thread::Builder::new().name(format!("kafka-end-{}", self.worker));
        let _ = ending.spawn(move || drop(old));
        Ok(())
    }

    /// Waits for so long, unless nobody sends any more.
    fn wait(&mut self, time: Duration) -> Result<(), End> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if !self.window.has_room(super::book::WINDOW.0 as usize) {
                std::thread::sleep(left);
                return Ok(());
            }
            match self.sends.recv_timeout(left) {
                Ok(send) => self.window.push(send.batch, send.slab, Instant::now()),
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(End::Left),
            }
        }
    }

    fn say_change(&self, change: Option<Change>) {
        match change {
            None => {}
            Some(Change::Lost(error)) => self.say(SinkEvent::Disconnected(error)),
            Some(Change::Back) => self.say(SinkEvent::Connected),
        }
    }

    /// A handle that is gone hears nothing, and ends the thread by that elsewhere.
    fn say(&self, event: SinkEvent) {
        let _ = self.told.send(Told::Event(event));
    }
}

/// Makes a producer whose reports mark that window.
fn produce(
    place: &Place,
    worker: &Arc<str>,
    topic: &Arc<str>,
    largest: u32,
    window: &Window,
) -> Result<Arc<BaseProducer<Reports>>, Error> {
    let reports = Reports::new(Ear::new(worker.clone(), place), window.marks(), topic.clone());
    let config = client::producer(place, worker, largest);
    client::create(&config, reports, place).map(Arc::new)
}

/// Waits until a new producer has connected and is let in, for a moment; why it is not, where that is known.
fn admit(producer: &BaseProducer<Reports>, topic: &str) -> Option<Error> {
    // It asks for the number of an idempotent producer as soon as it has connected.
    let connected = producer.client().fetch_metadata(Some(topic), CONNECTS_WITHIN).is_ok();
    let until = Instant::now() + REFUSED_WITHIN;
    while connected && Instant::now() < until {
        if let Some(error) = fatal(producer) {
            return Some(error);
        }
        std::thread::sleep(TURN);
    }
    None
}

/// Why a producer has come to its end, where it has.
fn fatal(producer: &BaseProducer<Reports>) -> Option<Error> {
    let (code, why) = producer.client().fatal_error()?;
    let kind = match kind(code) {
        kind @ (ErrorKind::Credentials | ErrorKind::Configuration) => kind,
        _ => ErrorKind::GaveUp,
    };
    Some(producer.context().ear.error_of(kind, &why))
}

/// Says that the sink failed, should the thread panic.
pub(super) struct LastWord(pub(super) UnboundedSender<Told>, pub(super) Arc<str>);

impl Drop for LastWord {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = format!("worker '{}': its producer panicked", self.1);
            let _ = self.0.send(Told::Event(SinkEvent::Failed(Error::new(ErrorKind::Start, text))));
        }
    }
}
