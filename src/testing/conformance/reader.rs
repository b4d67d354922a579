//! One end of a case: an open source, asked and listened to the way the engine does it.

use super::cases::{Stop, Tried, check, same};
use super::got::{Got, names_of};
use crate::failure::Tally;
use crate::message::At;
use crate::transport::{Ask, Backlog, Event, Ownership, Settlement, Source, Verdict};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Bytes that a case asks for where it does not care about bytes.
const PLENTY: u64 = 64 << 20;

/// An open source, and everything that it has said.
pub(super) struct Reader {
    source: Box<dyn Source>,
    patience: Duration,
    quiet: Duration,
    /// Every delivery in order.
    pub got: Vec<Got>,
    /// How many of them a case has taken.
    taken: usize,
    pub proven: Tally,
    pub stale: Tally,
    pub marked: Vec<At>,
    pub measured: Vec<Backlog>,
    pub lost: Vec<Ownership>,
    flushes: u32,
    pub intake_stopped: bool,
    pub ended: u32,
    pub closed: Option<(u64, Tally)>,
}

impl Reader {
    pub(super) fn new(source: Box<dyn Source>, patience: Duration, quiet: Duration) -> Self {
        Self {
            source,
            patience,
            quiet,
            got: Vec::new(),
            taken: 0,
            proven: Tally::default(),
            stale: Tally::default(),
            marked: Vec::new(),
            measured: Vec::new(),
            lost: Vec::new(),
            flushes: 0,
            intake_stopped: false,
            ended: 0,
            closed: None,
        }
    }

    pub(super) fn into_source(self) -> Box<dyn Source> {
        self.source
    }

    pub(super) fn tell(&mut self, ask: Ask) {
        self.source.tell(ask);
    }

    pub(super) fn demand(&mut self, messages: u32) {
        self.tell(Ask::Demand { messages, bytes: PLENTY });
    }

    pub(super) fn settle(&mut self, these: &[Got]) {
        self.settle_as(these, Verdict::Acked);
    }

    pub(super) fn settle_as(&mut self, these: &[Got], verdict: Verdict) {
        if !these.is_empty() {
            self.tell(Ask::Settle(these.iter().map(|got| Settlement { at: got.at, verdict }).collect()));
        }
    }

    pub(super) fn give_back(&mut self, these: &[Got]) {
        self.tell(Ask::Return(these.iter().map(|got| got.at).collect()));
    }

    /// Awaits one event and takes it in.
    pub(super) async fn step(&mut self) -> Tried {
        let event = self.source.next().await;
        self.take_in(event)
    }

    fn take_in(&mut self, event: Event) -> Tried {
        match event {
            Event::Batch(slab) => self.got.extend(slab.iter().map(Got::of)),
            Event::Marked(at) => self.marked.push(at),
            Event::Settled { proven, stale, .. } => {
                self.proven += proven;
                self.stale += stale;
            }
            Event::Flushed => self.flushes += 1,
            Event::IntakeStopped => self.intake_stopped = true,
            Event::Ended => self.ended += 1,
            Event::Measured(backlog) => self.measured.push(backlog),
            // No handler of a case runs on: what is revoked can go at once.
            Event::Revoking { ownership, .. } => self.tell(Ask::Released(ownership)),
            // A case may settle all that it was delivered, as if each had been started.
            Event::Recall(ownership) => self.tell(Ask::Recalled(ownership)),
            Event::Lost(ownership) => self.lost.push(ownership),
            Event::Closed { returned, unknown } => self.closed = Some((returned, unknown)),
            Event::Failed(error) => return Err(Stop::Fault(format!("the source failed: {error}"))),
            Event::Assigned(_)
            | Event::Ageing { .. }
            | Event::Connected
            | Event::Disconnected(_)
            | Event::Trouble(_) => {}
        }
        Ok(())
    }

    /// Listens until something is so, no longer than patience.
    pub(super) async fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) -> Tried {
        let patience = self.patience;
        let listening = async {
            while !so(self) {
                check(self.closed.is_none(), format_args!("the source closed before {what}"))?;
                self.step().await?;
            }
            Ok(())
        };
        match timeout(patience, listening).await {
            Ok(done) => done,
            Err(_) => Err(Stop::Fault(format!("waited {patience:?} for {what} in vain; {}", self.summary()))),
        }
    }

    fn summary(&self) -> String {
        let names = names_of(&self.got);
        format!("delivered {names:?}, proven {}, stale {}", self.proven.total(), self.stale.total())
    }

    /// Asks for so many and waits for them. What is delivered beyond is kept for the next call.
    pub(super) async fn take(&mut self, count: usize) -> Tried<Vec<Got>> {
        let missing = count.saturating_sub(self.got.len() - self.taken);
        if missing > 0 {
            self.demand(missing as u32);
        }
        let until = self.taken + count;
        self.until(&format!("{count} more messages"), |reader| reader.got.len() >= until).await?;
        self.taken = until;
        Ok(self.got[until - count..until].to_vec())
    }

    /// What was delivered and no case has taken.
    pub(super) fn untaken(&mut self) -> Vec<Got> {
        let fresh = self.got[self.taken..].to_vec();
        self.taken = self.got.len();
        fresh
    }

    /// Listens for a while, for what must not come.
    pub(super) async fn quiet(&mut self) -> Tried {
        let quiet = self.quiet;
        let listening = async {
            while self.closed.is_none() {
                self.step().await?;
            }
            Ok(())
        };
        timeout(quiet, listening).await.unwrap_or(Ok(()))
    }

    /// Goes on listening while something else is done.
    pub(super) async fn alongside<T>(&mut self, work: impl Future<Output = Tried<T>>) -> Tried<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                stepped = self.step(), if self.closed.is_none() => stepped?,
            }
        }
    }

    /// Waits until everything told so far is carried out.
    pub(super) async fn flush(&mut self) -> Tried {
        let before = self.flushes;
        self.tell(Ask::Flush { by: std::time::Instant::now() + std::time::Duration::from_secs(5) });
        self.until("the flush", |reader| reader.flushes > before).await
    }

    /// Closes in an orderly way; how many were returned, and how many settlements are unknown.
    pub(super) async fn close(&mut self) -> Tried<(u64, Tally)> {
        self.close_by(self.patience).await
    }

    /// Closes with so much time.
    pub(super) async fn close_by(&mut self, time: Duration) -> Tried<(u64, Tally)> {
        self.tell(Ask::Close { by: (Instant::now() + time).into_std() });
        let patience = self.patience;
        let listening = async {
            loop {
                self.step().await?;
                if let Some(closed) = self.closed {
                    return Ok(closed);
                }
            }
        };
        match timeout(patience, listening).await {
            Ok(closed) => closed,
            Err(_) => Err(Stop::Fault(format!("waited {patience:?} for the source to close in vain"))),
        }
    }

    /// Polls the wait for an event so often and then drops it; whether there was an event.
    pub(super) async fn glance(&mut self, polls: u32) -> Tried<bool> {
        let event = polled(self.source.next(), polls).await;
        event.map_or(Ok(false), |event| self.take_in(event).map(|()| true))
    }

    /// Waits for the count of so many settlements, and stops the case unless so many are proven and so many stale.
    pub(super) async fn counted(&mut self, proven: u64, stale: u64) -> Tried {
        let sum = proven + stale;
        self.until(&format!("{proven} proven and {stale} stale settlements"), |reader| reader.counts() >= sum).await?;
        self.counts_are(proven, stale)
    }

    fn counts(&self) -> u64 {
        self.proven.total() + self.stale.total()
    }

    /// Stops the case unless so many settlements are proven by now, and so many stale.
    pub(super) fn counts_are(&self, proven: u64, stale: u64) -> Tried {
        same("(proven, stale)", (self.proven.total(), self.stale.total()), (proven, stale))
    }
}

/// Listens to both until so many untaken messages came to the two together.
///
/// No wait is dropped before that, so this shows sharing and nothing else.
pub(super) async fn share(one: &mut Reader, other: &mut Reader, count: usize) -> Tried {
    let patience = one.patience;
    let (sum, done) = (AtomicUsize::new(0), Notify::new());
    let listen = async |reader: &mut Reader| -> Tried {
        let mut seen = reader.taken;
        loop {
            tokio::select! {
                biased;
                () = done.notified() => return Ok(()),
                stepped = reader.step() => stepped?,
            }
            let fresh = reader.got.len() - std::mem::replace(&mut seen, reader.got.len());
            if sum.fetch_add(fresh, Ordering::Relaxed) + fresh >= count {
                // The other one is told even if it does not listen yet: a permit is kept.
                done.notify_one();
                return Ok(());
            }
        }
    };
    match timeout(patience, async { tokio::join!(listen(one), listen(other)) }).await {
        Ok((one, other)) => one.and(other),
        Err(_) => Err(Stop::Fault(format!(
            "waited {patience:?} for {count} messages at two consumers in vain; one: {}; other: {}",
            one.summary(),
            other.summary()
        ))),
    }
}

/// Polls a future up to so many times, letting others run in between, then drops it.
pub(super) async fn polled<T>(future: impl Future<Output = T>, polls: u32) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let turn = std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await;
        if let std::task::Poll::Ready(value) = turn {
            return Some(value);
        }
        tokio::task::yield_now().await;
    }
    None
}
