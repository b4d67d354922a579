//! The one deadline of a stop, counted from the first request, whoever made it.

use super::phases::PhaseEnds;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// When the stop was first requested. Shared by the root, the admin server and the thread that owns the deadline.
#[derive(Debug)]
pub(crate) struct StopClock {
    requested: OnceLock<(Instant, jiff::Timestamp)>,
    ends: PhaseEnds,
}

impl StopClock {
    pub(crate) fn new(ends: PhaseEnds) -> Self {
        Self { requested: OnceLock::new(), ends }
    }

    pub(crate) fn ends(&self) -> PhaseEnds {
        self.ends
    }

    /// The time of the first request, which this is if none came before.
    pub(crate) fn request(&self) -> Instant {
        self.requested.get_or_init(|| (Instant::now(), jiff::Timestamp::now())).0
    }

    /// The moment by which the process has ended; the same for every request.
    pub(crate) fn deadline(&self) -> Instant {
        self.request() + self.ends.deadline()
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
