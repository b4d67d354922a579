//! A source: a task that asks, and a thread that works.

use super::claim::{CLAIM_MESSAGES, Wanted};
use super::desk::{Desk, Errand, Found};
use super::neighbours::{Neighbourhoods, Ring};
use super::session::{Duty, Session};
use super::store::{Access, Store, declare, tidy};
use super::{Place, owner};
use crate::error::{Error, ErrorKind};
use crate::failure::Tally;
use crate::transport::{Ask, BoxFuture, Event, Source, SourceSpec};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Settlements wait so long for more, unless there are [`ENOUGH`].
const LINGER: Duration = Duration::from_millis(4);

/// So many settlements are written without that wait.
const ENOUGH: usize = 128;

/// Even those wait so long for the demand that mostly follows them: one commit then does both.
const BREATH: Duration = Duration::from_micros(300);

/// How often a waiting source looks whether another process has published: from the first, while there is much to
/// do, to the second.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// How often it looks whether another owner has ended.
const LOOK_AT_OWNERS: Duration = Duration::from_millis(100);

/// How often retention is looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// Between two tries of a commit that failed.
pub(super) const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How often a trouble that lasts is said.
pub(super) const REPEAT_TROUBLE: Duration = Duration::from_secs(60);

/// A source as its worker sees it.
pub(super) struct LocalSource {
    desk: Arc<Desk>,
    close_by: Option<Instant>,
}

impl LocalSource {
    /// Opens store, queue and group in a thread of its own, which then serves the source.
    pub(super) async fn open(place: Place, spec: SourceSpec, all: Arc<Neighbourhoods>) -> Result<Self, Error> {
        let (told, opened) = tokio::sync::oneshot::channel();
        let worker = spec.worker.clone();
        std::thread::Builder::new()
            .name(format!("local-{worker}"))
            .spawn(move || match Clerk::open(&place, &spec, &all) {
                Ok(clerk) => {
                    // A caller that went away drops the desk's other end, which is a drop of the source.
                    let source = Self { desk: clerk.desk.clone(), close_by: None };
                    let _ = told.send(Ok(source));
                    clerk.serve();
                }
                Err(error) => drop(told.send(Err(error))),
            })
            .map_err(|why| Error::new(ErrorKind::Start, format!("worker '{worker}': no thread")).caused_by(why))?;
        opened
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Start, format!("worker '{worker}': its store panicked"))))
    }
}

impl Source for LocalSource {
    fn tell(&mut self, ask: Ask) {
        match ask {
            Ask::Demand { messages, bytes } => self.desk.demand(messages, bytes),
            Ask::Settle(all) => self.desk.run(Errand::Settle(all)),
            Ask::Return(all) => self.desk.run(Errand::GiveBack(all)),
            Ask::Mark(at) => self.desk.run(Errand::Mark(at)),
            Ask::Flush { .. } => self.desk.run(Errand::Flush),
            Ask::StopIntake => self.desk.stop_intake(),
            Ask::Pause(_) => self.desk.pause(),
            Ask::Resume(_) => self.desk.resume(),
            // No ownership is taken away with notice here.
            Ask::Released(_) | Ask::Recalled(_) => {}
            Ask::Measure => self.desk.run(Errand::Measure),
            Ask::Close { by } => {
                self.close_by = Some(by);
                self.desk.run(Errand::Close { by });
            }
        }
    }

    fn next(&mut self) -> BoxFuture<'_, Event> {
        Box::pin(async move {
            loop {
                if let Some(event) = self.desk.take() {
                    return event;
                }
                match self.close_by {
                    None => self.desk.news().await,
                    Some(by) => {
                        if tokio::time::timeout_at(by.into(), self.desk.news()).await.is_err() {
                            return self.desk.take().unwrap_or_else(|| self.desk.close_now());
                        }
                    }
                }
            }
        })
    }
}

impl Drop for LocalSource {
    fn drop(&mut self) {
        self.desk.drop_source();
    }
}

/// The thread's side.
struct Clerk {
    session: Session,
    desk: Arc<Desk>,
    worker: Arc<str>,
    /// The largest demand that was open; small ones wait a little to become large.
    usual: u32,
    /// Nothing was found at the last look, and nothing has happened since.
    dry: bool,
    /// A neighbour says that something has.
    rung: bool,
    seen_version: i64,
    next_due_ms: Option<i64>,
    poll: Duration,
    poll_at: Instant,
    owners_at: Instant,
    sweep_at: Instant,
    /// Since when something waits to be written or claimed.
    waiting_since: Option<Instant>,
    urgent: bool,
    flushes: usize,
    trouble: Option<Trouble>,
    closing: Option<Closing>,
}

struct Trouble {
    again_at: Instant,
    pause: Duration,
    say_at: Instant,
}

struct Closing {
    by: Instant,
    returned: u64,
}

/// Says that the source failed, should the thread end without having said anything.
struct LastWord(Arc<Desk>, Arc<str>);

impl Drop for LastWord {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.0.is_over() {
            let text = format!("worker '{}': its store panicked", self.1);
            self.0.say(Event::Failed(Error::new(ErrorKind::Start, text)));
        }
    }
}

impl Clerk {
    fn open(place: &Place, spec: &SourceSpec, all: &Neighbourhoods) -> Result<Self, Error> {
        let access = if place.declare { Access::Declare } else { Access::Write };
        let store = Store::open(&place.path, access, all, spec.patience)?;
        let group = place.group.as_deref().unwrap_or(&spec.default_group);
        let found = declare(&store, &place.queue, Some(group), place.retain, place.declare)?;
        tidy(&store)?;
        let duty = Duty {
            queue_name: place.queue.as_str().into(),
            queue: found.queue,
            group: found.group.expect("a group was asked for"),
            key: place.key.clone(),
            by_key: spec.by_key,
            max_message: spec.max_message,
            claim: place.claim,
        };
        let desk = Arc::new(Desk::of(found.queue));
        let bell: Arc<dyn Ring> = desk.clone();
        store.neighbours().listen(Arc::downgrade(&bell) as Weak<dyn Ring>);
        let mut session = Session::begin(store, duty)?;
        // What a crash left is free before the first claim, so that it comes in its old order.
        session.free_ended_owners()?;
        let now = Instant::now();
        desk.say(Event::Connected);
        Ok(Self {
            session,
            desk,
            worker: spec.worker.clone(),
            usual: 1,
            dry: false,
            rung: false,
            seen_version: 0,
            next_due_ms: None,
            poll: POLL.0,
            poll_at: now,
            owners_at: now + LOOK_AT_OWNERS,
            sweep_at: now,
            waiting_since: None,
            urgent: false,
            flushes: 0,
            trouble: None,
            closing: None,
        })
    }

    /// Works until the source is closed or dropped, or cannot go on.
    fn serve(mut self) {
        let _last_word = LastWord(self.desk.clone(), self.worker.clone());
        let mut wanted = 0;
        loop {
            let found = self.desk.find(self.wake_at(wanted));
            if found.dropped {
                // A crash as far as the store can tell: the lock is freed, the row stays, somebody frees the claims.
                return;
            }
            wanted = found.messages;
            if let Err(error) = self.work(found) {
                if error.is_retryable() {
                    self.suffer(error);
                } else {
                    self.desk.say(Event::Failed(error));
                    return;
                }
            }
            if self.closing.is_some() && !self.session.has_changes() && self.trouble.is_none() {
                return self.finish();
            }
        }
    }

    /// When to wake without being told to; `None` for never.
    fn wake_at(&self, wanted: u32) -> Option<Instant> {
        let now = Instant::now();
        let mut at = now + Duration::from_millis(self.session.renewal_ms() as u64);
        if self.session.renewal_is_due() {
            at = now;
        }
        if let Some(since) = self.waiting_since {
            at = at.min(since + if self.session.unwritten() >= ENOUGH { BREATH } else { LINGER });
        }
        if wanted > 0 {
            at = at.min(if self.dry { self.poll_at } else { now + LINGER });
        }
        if self.urgent {
            at = now;
        }
        match &self.trouble {
            Some(trouble) => Some(trouble.again_at),
            None => Some(at),
        }
    }

    fn work(&mut self, found: Found) -> Result<(), Error> {
        let now = Instant::now();
        for errand in found.errands {
            self.run(errand)?;
        }
        if self.trouble.as_ref().is_some_and(|trouble| now < trouble.again_at) {
            return Ok(());
        }
        self.rung |= found.rung;
        let messages = if self.closing.is_some() { 0 } else { found.messages };
        self.usual = self.usual.max(messages);
        if messages > 0 {
            self.look_around(now)?;
        }
        let wants = messages > 0 && !self.dry;
        if wants || self.session.has_changes() {
            self.waiting_since.get_or_insert(now);
        }
        let waited = self.waiting_since.map_or(Duration::ZERO, |since| now - since);
        let lingered = waited >= LINGER || (self.session.unwritten() >= ENOUGH && waited >= BREATH);
        // A claim of a few messages costs as much as one of many; the first of an idle source does not wait.
        let worth_it =
            wants && (messages.min(CLAIM_MESSAGES) >= self.usual.min(CLAIM_MESSAGES) / 4 || found.nothing_out);
        let due = self.urgent || lingered || worth_it || self.session.renewal_is_due() || self.trouble.is_some();
        if due {
            let wanted = wants.then_some(Wanted { messages, bytes: found.bytes, at_least_one: found.nothing_out });
            self.commit(wanted)?;
        }
        Ok(())
    }

    fn run(&mut self, errand: Errand) -> Result<(), Error> {
        match errand {
            Errand::Settle(all) => self.session.settle(all),
            Errand::GiveBack(all) => {
                self.session.give_back(all);
                self.urgent = true;
            }
            Errand::Mark(at) => {
                self.session.mark(at);
                self.urgent = true;
            }
            Errand::Flush => {
                self.flushes += 1;
                self.urgent = true;
            }
            Errand::IntakeStopped => self.desk.say(Event::IntakeStopped),
            Errand::Measure => match self.session.backlog() {
                Ok(backlog) => self.desk.say(Event::Measured(backlog)),
                Err(error) if error.is_retryable() => {
                    self.desk.say(Event::Measured(crate::transport::Backlog::default()));
                }
                Err(error) => return Err(error),
            },
            Errand::Close { by } => {
                let returned = self.session.give_back_all();
                self.closing = Some(Closing { by, returned });
                self.urgent = true;
            }
        }
        Ok(())
    }

    /// Has somebody published, has a delay ended, has an owner?
    fn look_around(&mut self, now: Instant) -> Result<(), Error> {
        if now >= self.owners_at {
            self.owners_at = now + LOOK_AT_OWNERS;
            if self.session.free_ended_owners()? > 0 {
                self.dry = false;
                self.ring(None);
            }
        }
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP;
            self.session.sweep()?;
        }
        let rung = std::mem::take(&mut self.rung);
        if !self.dry || (now < self.poll_at && !rung) {
            return Ok(());
        }
        let version = self.session.store.data_version()?;
        let is_due = self.next_due_ms.is_some_and(|due| due <= owner::wall_ms());
        let mut found = false;
        if rung || version != self.seen_version || is_due {
            let look = self.session.look()?;
            found = look.any;
            self.next_due_ms = look.next_due_ms;
        }
        if found {
            self.dry = false;
        } else {
            self.poll = (self.poll * 2).min(POLL.1);
            self.poll_at = now + self.poll;
        }
        self.seen_version = version;
        Ok(())
    }

    fn commit(&mut self, wanted: Option<Wanted>) -> Result<(), Error> {
        // Read before the claim: what is committed after this is seen by the next look.
        if wanted.is_some() {
            self.seen_version = self.session.store.data_version()?;
        }
        let report = self.session.commit(wanted)?;
        self.urgent = false;
        self.waiting_since = None;
        self.trouble = None;
        if report.proven != Tally::default() || report.stale != Tally::default() {
            self.desk.say(Event::Settled { proven: report.proven, stale: report.stale, unknown: Tally::default() });
        }
        if let Some(epoch) = report.lost {
            self.desk.lose(epoch);
            tracing::warn!(event = "claims_lost", worker = %self.worker, epoch);
            self.desk.say(Event::Lost(crate::transport::Ownership { epoch, partitions: None }));
            self.dry = false;
        }
        for at in report.marked {
            self.desk.say(Event::Marked(at));
        }
        for _ in 0..std::mem::take(&mut self.flushes) {
            self.desk.say(Event::Flushed);
        }
        if wanted.is_some() && report.lost.is_none() {
            self.next_due_ms = report.next_due_ms;
            self.dry = !report.filled;
            if !report.slabs.is_empty() {
                self.poll = POLL.0;
                self.desk.put_slabs(report.slabs);
            }
            self.poll_at = Instant::now() + self.poll;
        }
        if report.freed {
            // Also for this source itself: what it gave back may be what it wants next.
            self.ring(None);
        } else if report.let_go {
            let own: Arc<dyn Ring> = self.desk.clone();
            self.ring(Some(&own));
        }
        Ok(())
    }

    /// Wakes the neighbours. Other processes see it in the version of the data.
    fn ring(&self, but: Option<&Arc<dyn Ring>>) {
        self.session.store.neighbours().ring(self.session.duty.queue, but);
    }

    /// Something that is tried again: said once, and once a minute while it lasts.
    fn suffer(&mut self, error: Error) {
        let now = Instant::now();
        let (pause, say_at) = match &self.trouble {
            None => (BACK_OFF.0, now),
            Some(trouble) => ((trouble.pause * 2).min(BACK_OFF.1), trouble.say_at),
        };
        let say = now >= say_at;
        self.trouble =
            Some(Trouble { again_at: now + pause, pause, say_at: if say { now + REPEAT_TROUBLE } else { say_at } });
        if say {
            self.desk.say(Event::Trouble(error));
        }
    }

    /// Everything is written and given back: leaves, and says so.
    fn finish(self) {
        let Self { session, desk, closing, .. } = self;
        let Closing { by, returned } = closing.expect("it is closing");
        let queue = session.duty.queue;
        let neighbours = session.store.neighbours().clone();
        // An owner that cannot be forgotten now is freed by somebody else: it holds nothing.
        if let Err(error) = session.end() {
            tracing::debug!(event = "owner_left_behind", %error, late = Instant::now() > by);
        }
        neighbours.ring(queue, None);
        // Closed means that the file is closed, too, if nobody else here has it open.
        drop(neighbours);
        desk.say(Event::Closed { returned, unknown: desk.unknown() });
    }
}
