//! The one deadline of a stop, counted from the first request, whoever made it.

use super::phases::PhaseEnds;
use crate::process::guard::Deadline;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// When the stop was first requested. Shared by the root, the admin server and the thread that owns the deadline.
#[derive(Debug)]
pub(crate) struct StopClock {
    requested: OnceLock<(Instant, jiff::Timestamp)>,
    ends: PhaseEnds,
    guarded: Option<Deadline>,
}

impl StopClock {
    /// `guarded`: the thread that enforces the deadline, told of every request.
    pub(crate) fn new(ends: PhaseEnds, guarded: Option<Deadline>) -> Self {
        Self { requested: OnceLock::new(), ends, guarded }
    }

    pub(crate) fn ends(&self) -> PhaseEnds {
        self.ends
    }

    /// The time of the first request, which this is if none came before.
    pub(crate) fn request(&self) -> Instant {
        let (at, _) = *self.requested.get_or_init(|| {
            let now = Instant::now();
            // A signal has armed it already, a moment ago; then that deadline is the one.
            let before = self.guarded.as_ref().and_then(Deadline::left);
            let spent = before.map_or(Duration::ZERO, |left| self.ends.deadline().saturating_sub(left));
            if let Some(guarded) = &self.guarded {
                guarded.arm(now + self.ends.deadline(), 0);
            }
            (now - spent, jiff::Timestamp::now())
        });
        at
    }

    /// The code that the process ends with if it has to be ended at the deadline; 0 leaves that to the guard.
    pub(crate) fn ends_with(&self, code: u8) {
        if let Some(guarded) = &self.guarded {
            guarded.arm(self.request() + self.ends.deadline(), code);
        }
    }

    /// The same by the calendar.
    pub(crate) fn deadline_by_calendar(&self) -> jiff::Timestamp {
        self.request();
        let (_, at) = self.requested.get().expect("requested just now");
        at.saturating_add(jiff::SignedDuration::try_from(self.ends.deadline()).unwrap_or(jiff::SignedDuration::MAX))
            .unwrap_or(jiff::Timestamp::MAX)
    }

    /// Time since the first request; none before it.
    pub(crate) fn elapsed(&self) -> Duration {
        self.requested.get().map_or(Duration::ZERO, |(at, _)| at.elapsed())
    }
}
