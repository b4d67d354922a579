//! Dead letters of a lane: written, confirmed, and only then is the message settled.

use super::jobs::State;
use super::slots::Members;
use super::{Lane, LaneNews, LaneView};
use crate::engine::attempt::Sends;
use crate::engine::outlet::{Outlet, Receipt};
use crate::failure::{BoxError, Failure};
use crate::handler::Unit;
use crate::message::{Headers, KEY_HEADER, MessageRef};
use crate::transport::Verdict;
use std::sync::Arc;
use std::time::Duration;
use tower_service::Service;

/// The dead-letter place is tried again after this, then twice this, up to [`AGAIN_LAST`].
const AGAIN_FIRST: Duration = Duration::from_millis(200);
const AGAIN_LAST: Duration = Duration::from_secs(10);

/// Where the dead letters of a worker go.
#[derive(Clone, Default)]
pub(crate) struct DeadLetters {
    /// `None`: there is no place, and a message that needs one ends the worker.
    pub(crate) outlet: Option<Arc<Outlet>>,
    /// The worker's source, as dead letters name it.
    pub(crate) source: Arc<str>,
}

/// The headers of a dead letter: those of the message, and why it is one.
pub(crate) fn headers(
    message: MessageRef<'_>,
    failure: &Failure,
    attempts: u32,
    worker: &str,
    source: &str,
) -> Headers {
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
    headers.set("longshore-attempts", attempts.to_string());
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

impl<S, U, V> Lane<S, U, V>
where
    U: Unit,
    V: LaneView,
    S: Service<U, Response = U::Done, Error: Into<BoxError>, Future: Send + 'static> + Send + 'static,
{
    /// A message that no further attempt can help.
    pub(super) fn dead_letter(&mut self, job: u32, failure: Failure) {
        self.jobs.copy_out(job);
        if self.config.dead.outlet.is_none() {
            let at = self.jobs.at(job);
            let text = format!("message at {} has no dead-letter place to go to: {failure}", at.position);
            let _ = self.news.send(LaneNews::NoDeadPlace(text));
            match self.mode {
                super::Mode::Running => self.jobs.set_state(job, State::Stuck),
                // The stop that it asks for has begun: it must not wait for this message.
                _ => self.give_back(job),
            }
            return;
        }
        self.jobs.get_mut(job).dead = Some((Box::new(failure), 0));
        self.dead_letters += 1;
        self.send_dead_letter(job);
    }

    /// Hands the dead letter of a job to its place.
    pub(super) fn send_dead_letter(&mut self, job: u32) {
        let attempt = self.attempt();
        let cause = self.attempts[attempt as usize].open();
        let config = &self.config;
        let outlet = config.dead.outlet.as_ref().expect("a job with a dead letter has a place for it");
        let held = self.jobs.get(job);
        let (failure, _) = held.dead.as_ref().expect("the job's failure was kept");
        let message = held.pick.slab.get(held.pick.index);
        let headers = headers(message, failure, held.pick.attempts, &config.worker, &config.dead.source);
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
            self.dead_letter_refused(job, &failure);
            return;
        }
        self.jobs.set_state(job, State::Confirming { attempt, then: Verdict::DeadLettered });
        self.confirming[attempt as usize] = Members::One(job);
        if !matches!(self.attempts[attempt as usize].close(), Sends::Pending) {
            // Confirmed between the send and the close: nobody rings for it.
            let generation = self.attempts[attempt as usize].generation();
            self.confirmed(attempt, generation);
        }
    }

    /// The place did not take it: again later, and the worker takes nothing new meanwhile.
    pub(super) fn dead_letter_refused(&mut self, job: u32, failure: &Failure) {
        let let_go = self.is_let_go(self.jobs.at(job));
        if let_go || matches!(self.mode, super::Mode::Draining | super::Mode::Cancelled) {
            return self.give_back(job);
        }
        let tries = match &mut self.jobs.get_mut(job).dead {
            Some((_, tries)) => {
                *tries += 1;
                *tries
            }
            None => 1,
        };
        let delay = AGAIN_FIRST.saturating_mul(1 << tries.min(10)).min(AGAIN_LAST);
        self.at(self.now + delay, job, State::DeadWaiting { until: self.now + delay });
        // Said once, and taken back once: the intake counts the lanes that wait for the place.
        if !std::mem::replace(&mut self.dead_refuses, true) {
            let _ = self.news.send(LaneNews::DeadPlaceRefuses(failure.chain()));
        }
    }

    /// A dead letter is confirmed.
    pub(super) fn dead_lettered(&mut self, job: u32) {
        let class = self.jobs.get(job).dead.as_ref().map_or("error", |(failure, _)| failure.class());
        if let Some((failure, _)) = &self.jobs.get(job).dead {
            tracing::warn!(worker = %self.config.worker, position = self.jobs.at(job).position,
                attempts = self.jobs.get(job).pick.attempts, reason = failure.class(), "dead letter: {failure}");
        }
        let _ = self.news.send(LaneNews::DeadLettered(class));
        if std::mem::take(&mut self.dead_refuses) {
            let _ = self.news.send(LaneNews::DeadPlaceTakes);
        }
    }
}
