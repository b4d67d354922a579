//! Whether the cluster is there, as far as is known, and what is said of it.

use super::super::super::context::{Ear, Heard};
use super::super::Setup;
use crate::duration::short;
use crate::error::{Error, ErrorKind};
use crate::transport::Event;
use std::time::{Duration, Instant};

/// An answer that takes longer means that there is nobody who could give it.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// A commit that takes longer lets nothing more be handed over: it would come again.
const DOUBTS_AFTER: Duration = Duration::from_secs(1);
/// A cluster that was lost is asked this often whether it is back.
const PROBE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not yet a member of the group.
    Joining,
    Up,
    Down,
}

pub(super) struct Link {
    state: State,
    patience_ends: Instant,
    probe_at: Option<Instant>,
    /// It has answered, which is to be said.
    back: bool,
    /// Whether it was ever a member.
    ever: bool,
    /// The last thing that was said to the operator.
    said: Option<String>,
}

impl Link {
    pub(super) fn new(patience_ends: Instant) -> Self {
        Self { state: State::Joining, patience_ends, probe_at: None, back: false, ever: false, said: None }
    }

    /// The group has let us in. True when that is news.
    pub(super) fn joined(&mut self) -> bool {
        self.ever = true;
        std::mem::replace(&mut self.state, State::Up) != State::Up
    }

    /// The cluster has answered.
    pub(super) fn answered(&mut self) {
        if self.state == State::Down {
            self.state = State::Up;
            self.back = true;
            self.said = None;
        }
    }

    /// Whether it is back, which is told once.
    pub(super) fn is_back(&mut self) -> bool {
        std::mem::take(&mut self.back)
    }

    pub(super) fn probes(&self, now: Instant) -> bool {
        self.state == State::Down && self.probe_at.is_none_or(|at| at <= now)
    }

    pub(super) fn probed(&mut self, answered: bool, now: Instant) {
        self.probe_at = Some(now + PROBE_EVERY);
        if answered {
            self.answered();
        }
    }

    /// What to say of it, if anything.
    pub(super) fn heard(&mut self, heard: Heard) -> Option<Event> {
        match heard {
            Heard::Lost(error) => self.lost(error),
            Heard::Fatal(error) => Some(Event::Failed(error)),
            // It was good once, and may be made good again.
            Heard::Refused(error) if self.ever => self.trouble(error),
            Heard::Refused(error) => Some(Event::Failed(error)),
            Heard::Odd(error) => self.trouble(error),
        }
    }

    fn lost(&mut self, error: Error) -> Option<Event> {
        // Until it has joined, patience is what ends.
        (self.state == State::Up).then(|| {
            self.state = State::Down;
            self.probe_at = None;
            Event::Disconnected(error)
        })
    }

    /// Looks at the time; `silent` is how long an answer has been awaited.
    pub(super) fn watch(&mut self, silent: Option<Duration>, now: Instant, ear: &Ear, setup: &Setup) -> Option<Event> {
        if silent.is_some_and(|silent| silent > SILENT_AFTER) {
            return self.lost(ear.unreachable("no answer"));
        }
        if self.state == State::Joining && !self.ever && now >= self.patience_ends {
            let what = format!("not a member of group '{}' within {}", setup.group, short(setup.spec.patience));
            return Some(Event::Failed(Error::new(ErrorKind::Unreachable, ear.unreachable(&what).to_string())));
        }
        None
    }

    /// Whether what is handed over now would come again; `committing` is how long a commit has been under way.
    pub(super) fn doubts(&self, committing: Option<Duration>) -> bool {
        self.state == State::Down || committing.is_some_and(|since| since > DOUBTS_AFTER)
    }

    /// Says something to the operator, once.
    pub(super) fn trouble(&mut self, error: Error) -> Option<Event> {
        let text = error.to_string();
        let news = self.said.as_ref() != Some(&text);
        self.said = Some(text);
        news.then(|| Event::Trouble(error))
    }
}
