//! The places that messages of a lane leave their queue for: written, confirmed, and only then is the message settled.

use super::jobs::{Parting, State};
use super::slots::Members;
use super::{Lane, LaneNews, LaneView, Mode};
use crate::engine::attempt::Sends;
use crate::engine::outlet::{Outlet, Receipt};
use crate::failure::{BoxError, Failure};
use crate::handler::Unit;
use crate::message::{Headers, KEY_HEADER, MessageRef};
use crate::transport::{ATTEMPTS_HEADER, RETRY_AFTER_HEADER, Verdict};
use std::sync::Arc;
use std::time::Duration;
use tower_service::Service;

/// A place that refuses is tried again after this, then twice this, up to [`AGAIN_LAST`].
const AGAIN_FIRST: Duration = Duration::from_millis(200);
const AGAIN_LAST: Duration = Duration::from_secs(10);

/// Where a message goes that does not stay in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    DeadLetters,
    /// From which it comes back after this.
    RetryStore {
        after: Duration,
    },
}

impl Place {
    /// How many there are.
    pub(crate) const COUNT: usize = 2;

    /// Its own among so many.
    pub(crate) fn index(self) -> usize {
        match self {
            Place::DeadLetters => 0,
            Place::RetryStore { .. } => 1,
        }
    }

    /// As health and log name it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Place::DeadLetters => "dead-letter place",
            Place::RetryStore { .. } => "retry store",
        }
    }

    fn verdict(self) -> Verdict {
        match self {
            Place::DeadLetters => Verdict::DeadLettered,
            Place::RetryStore { .. } => Verdict::Retried,
        }
    }
}

/// Where the messages of a worker go that do not stay in its queue.
#[derive(Clone, Default)]
pub(crate) struct Places {
    /// `None`: there is none, and a message that needs one ends the worker.
    pub(crate) dead_letters: Option<Arc<Outlet>>,
    /// `None`: there is none, or the source delays redeliveries by itself.
    pub(crate) retry_store: Option<Arc<Outlet>>,
    /// The worker's source, as dead letters name it.
    pub(crate) source: Arc<str>,
}

impl Places {
    fn outlet(&self, place: Place) -> &Arc<Outlet> {
        let outlet = match place {
            Place::DeadLetters => &self.dead_letters,
            Place::RetryStore { .. } => &self.retry_store,
        };
        outlet.as_ref().expect("a message parts for a place that there is")
    }
}

/// What a lane has on its way to one place.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    jobs: u32,
    /// Whether the intake was told that the place refuses.
    refuses: bool,
}

/// The headers of a dead letter: those of the message, and why it is one.
fn dead_headers(message: MessageRef<'_>, failure: &Failure, attempts: u32, worker: &str, source: &str) -> Headers {
    let mut headers = message.headers().to_headers();
    let at = message.head().at;
    let position =
        if at.partition == 0 { at.position.to_string() } else { format!("{}/{}", at.partition, at.position) };
    let now = jiff::Timestamp::now().to_string();
    if headers.get("longshore-first-seen").is_none() {
        let seen = message.timestamp_ms().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        headers.set("longshore-first-seen", seen.map_or_else(|| now.clone(), |seen| seen.to_string()));
    }
    headers.set("longshore-reason", failure.class());
    headers.set("longshore-error", failure.chain());
    headers.set(ATTEMPTS_HEADER, attempts.to_string());
    headers.set("longshore-worker", worker);
    headers.set("longshore-source", source);
    headers.set("longshore-position", position);
    headers.set("longshore-dead-at", now);
    if let Some(key) = message.key() {
        // For a place that carries no key of its own.
        headers.set(KEY_HEADER, key);
    }
    headers
}

/// The headers of a message that comes again after a delay: its own, and what the source takes off again.
fn retry_headers(message: MessageRef<'_>, after: Duration, attempts: u32) -> Headers {
    let mut headers = message.headers().to_headers();
    headers.set(RETRY_AFTER_HEADER, after.as_millis().to_string());
    headers.set(ATTEMPTS_HEADER, attempts.to_string());
    headers
}

impl<S, U, V> Lane<S, U, V>
where
    U: Unit,
    V: LaneView,
    S: Service<U, Response = U::Done, Error: Into<BoxError>, Future: Send + 'static> + Send + 'static,
{
    /// A message that no further attempt can help.
    pub(super) fn dead_letter(&mut self, job: u32, failure: Failure) {
        if self.config.places.dead_letters.is_some() {
            return self.part(job, Place::DeadLetters, failure);
        }
        self.jobs.copy_out(job);
        let at = self.jobs.at(job);
        let text = format!("message at {} has no dead-letter place to go to: {failure}", at.position);
        let _ = self.news.send(LaneNews::NoDeadPlace(text));
        match self.mode {
            Mode::Running => self.jobs.set_state(job, State::Stuck),
            // The stop that it asks for has begun: it must not wait for this message.
            _ => self.give_back(job),
        }
    }

    /// A message leaves for a place that there is.
    pub(super) fn part(&mut self, job: u32, to: Place, failure: Failure) {
        self.jobs.copy_out(job);
        self.jobs.get_mut(job).parting = Some(Box::new(Parting { to, failure, tries: 0 }));
        self.traffic[to.index()].jobs += 1;
        self.send_to_place(job);
    }

    /// Hands a parting message to its place.
    pub(super) fn send_to_place(&mut self, job: u32) {
        let attempt = self.attempt();
        let cause = self.attempts[attempt as usize].open();
        let config = &self.config;
        let held = self.jobs.get(job);
        let parting = held.parting.as_ref().expect("a message that is sent to a place parts for it");
        let to = parting.to;
        let outlet = config.places.outlet(to);
        let message = held.pick.slab.get(held.pick.index);
        let attempts = held.pick.attempts;
        let headers = match to {
            Place::DeadLetters => {
                dead_headers(message, &parting.failure, attempts, &config.worker, &config.places.source)
            }
            Place::RetryStore { after } => retry_headers(message, after, attempts),
        };
        let size = message.key().map_or(0, <[u8]>::len)
            + message.payload().map_or(0, <[u8]>::len)
            + headers.as_ref().encoded().len();
        let sent = outlet.try_send(
            size,
            |slab| {
                slab.push(message.key(), message.payload(), headers.as_ref(), message.timestamp_ms());
            },
            || {
                cause.register()?;
                Ok(Receipt::Cause(cause.clone()))
            },
            true,
        );
        if let Err(refused) = sent {
            self.attempts[attempt as usize].retire();
            self.free_attempts.push(attempt);
            let failure = refused.failure(outlet.name());
            self.place_refused(job, &failure);
            return;
        }
        self.jobs.set_state(job, State::Confirming { attempt, then: to.verdict() });
        self.confirming[attempt as usize] = Members::One(job);
        if !matches!(self.attempts[attempt as usize].close(), Sends::Pending) {
            // Confirmed between the send and the close: nobody rings for it.
            let generation = self.attempts[attempt as usize].generation();
            self.confirmed(attempt, generation);
        }
    }

    /// The place did not take it: again later, and the worker takes nothing new meanwhile.
    pub(super) fn place_refused(&mut self, job: u32, failure: &Failure) {
        let let_go = self.is_let_go(self.jobs.at(job));
        if let_go || matches!(self.mode, Mode::Draining | Mode::Cancelled) {
            return self.give_back(job);
        }
        let parting = self.jobs.get_mut(job).parting.as_mut().expect("a message that was refused parts for a place");
        parting.tries += 1;
        let (to, tries) = (parting.to, parting.tries);
        if let Place::RetryStore { after } = to
            && !self.config.retry.is_durable()
        {
            // Nobody asked for the store, so that a server that has none hinders nobody: it waits here.
            self.parts_no_more(job);
            self.at(self.now + after, job, State::Waiting { until: self.now + after });
            return;
        }
        let delay = AGAIN_FIRST.saturating_mul(1 << tries.min(10)).min(AGAIN_LAST);
        self.at(self.now + delay, job, State::PlaceWaiting { until: self.now + delay });
        // Said once, and taken back once: the intake counts the lanes that wait for the place.
        if !std::mem::replace(&mut self.traffic[to.index()].refuses, true) {
            let _ = self.news.send(LaneNews::PlaceRefuses(to, failure.chain()));
        }
    }

    /// A place has a message for certain.
    pub(super) fn parted(&mut self, job: u32) {
        let Some(parting) = &self.jobs.get(job).parting else { return };
        let (to, failure) = (parting.to, &parting.failure);
        if to == Place::DeadLetters {
            tracing::warn!(worker = %self.config.worker, position = self.jobs.at(job).position,
                attempts = self.jobs.get(job).pick.attempts, reason = failure.class(), "dead letter: {failure}");
            let _ = self.news.send(LaneNews::DeadLettered(failure.class()));
        }
        self.place_takes(to);
    }

    /// A message that was on its way to a place is so no more: it has arrived, or goes back, or waits here.
    pub(super) fn parts_no_more(&mut self, job: u32) {
        let Some(parting) = self.jobs.get_mut(job).parting.take() else { return };
        self.left(&parting);
    }

    /// As [`Lane::parts_no_more`], of a message that is gone.
    pub(super) fn left(&mut self, parting: &Parting) {
        let traffic = &mut self.traffic[parting.to.index()];
        traffic.jobs -= 1;
        if traffic.jobs == 0 {
            // None is left that the place could refuse.
            self.place_takes(parting.to);
        }
    }

    fn place_takes(&mut self, place: Place) {
        if std::mem::take(&mut self.traffic[place.index()].refuses) {
            let _ = self.news.send(LaneNews::PlaceTakes(place));
        }
    }
}
