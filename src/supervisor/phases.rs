//! The phases of a process's life, and when each phase of a stop ends at the latest.

use std::fmt;
use std::time::Duration;

/// Where a process is between its start and its exit. Later phases are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing has been started.
    Built,
    /// Actors start, one by one.
    Starting,
    /// Everything has been ready once.
    Running,
    /// A stop was requested; said to be not ready, perhaps for a delay before anything else happens.
    NotReady,
    /// Sources are told to take nothing more.
    IntakeStopped,
    /// Handlers that started may finish.
    Draining,
    /// Handlers that still run are dropped.
    Cancelling,
    /// What is unsettled goes back.
    Returning,
    /// Actors other than resources stop, in reverse start order.
    Stopping,
    /// Resources close, in reverse start order.
    Releasing,
    /// Over.
    Reported,
}

impl Phase {
    /// The phases of a stop, in order.
    #[cfg(test)]
    pub const STOP: [Phase; 7] = [
        Phase::NotReady,
        Phase::IntakeStopped,
        Phase::Draining,
        Phase::Cancelling,
        Phase::Returning,
        Phase::Stopping,
        Phase::Releasing,
    ];

    /// Its name in logs, metrics and the report.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Built => "built",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::NotReady => "not_ready",
            Phase::IntakeStopped => "intake_stopped",
            Phase::Draining => "draining",
            Phase::Cancelling => "cancelling",
            Phase::Returning => "returning",
            Phase::Stopping => "stopping",
            Phase::Releasing => "releasing",
            Phase::Reported => "reported",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How long a single actor or resource may take to stop, at most.
pub const ACTOR_BOUND: Duration = Duration::from_secs(5);

/// The reserve is a fifth of the deadline, at most this.
const RESERVE_MAX: Duration = Duration::from_secs(5);

/// What a second SIGINT leaves for everything that is still to do; 130 follows within a second.
const HURRY: Duration = Duration::from_millis(900);

/// When the phases of a stop end at the latest, as time since the first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhaseEnds {
    delay: Duration,
    deadline: Duration,
    /// Draining ends so long before the deadline.
    reserve: Duration,
}

impl PhaseEnds {
    /// `deadline` is the whole time of a stop and includes `delay`.
    pub fn new(deadline: Duration, delay: Duration) -> Self {
        Self { delay, deadline, reserve: RESERVE_MAX.min(deadline / 5) }
    }

    /// The whole time of the stop.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// What is kept for everything after draining.
    #[cfg(test)]
    pub fn reserve(&self) -> Duration {
        self.reserve
    }

    /// The latest end of a phase; `None` for one that may last for ever, or is over at once.
    ///
    /// Stopping the intake may take half of the time until then: handlers finish meanwhile, and a source that does not
    /// answer leaves the other half to those that have to say that they are idle.
    pub fn end(&self, phase: Phase) -> Option<Duration> {
        let before = |quarters: u32| self.deadline - self.reserve * quarters / 4;
        match phase {
            Phase::Built | Phase::Starting | Phase::Running | Phase::Reported => None,
            Phase::NotReady => Some(self.delay.min(before(4))),
            Phase::IntakeStopped => {
                let delay = self.delay.min(before(4));
                Some(delay + (before(4) - delay) / 2)
            }
            Phase::Draining => Some(before(4)),
            Phase::Cancelling => Some(before(3)),
            Phase::Returning => Some(before(2)),
            Phase::Stopping => Some(before(1)),
            Phase::Releasing => Some(self.deadline),
        }
    }

    /// How long the next of `left` actors may take to stop in this phase, `elapsed` after the first request: so that
    /// one that hangs leaves time for the others.
    pub fn bound(&self, phase: Phase, elapsed: Duration, left: usize) -> Duration {
        let end = self.end(phase).unwrap_or(self.deadline);
        let share = end.saturating_sub(elapsed) / u32::try_from(left.max(1)).unwrap_or(u32::MAX);
        ACTOR_BOUND.min(share)
    }

    /// The same after a second SIGINT that came `elapsed` after the first request: never later than before.
    #[must_use]
    pub fn hurried(self, elapsed: Duration) -> Self {
        let deadline = self.deadline.min(elapsed + HURRY);
        // Nothing drains any more: all that is left of the time is reserve.
        Self { delay: Duration::ZERO, deadline, reserve: deadline.saturating_sub(elapsed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: f64) -> Duration {
        Duration::from_secs_f64(text)
    }

    #[test]
    fn the_default_deadline_keeps_five_seconds_for_what_follows_the_drain() {
        let ends = PhaseEnds::new(seconds(25.0), Duration::ZERO);
        let found: Vec<_> = Phase::STOP.into_iter().map(|phase| ends.end(phase).unwrap().as_secs_f64()).collect();
        assert_eq!(found, [0.0, 10.0, 20.0, 21.25, 22.5, 23.75, 25.0]);
    }

    #[test]
    fn a_short_deadline_keeps_a_fifth() {
        let ends = PhaseEnds::new(seconds(3.0), Duration::ZERO);
        assert_eq!(ends.reserve(), seconds(0.6));
        assert_eq!(ends.end(Phase::Draining), Some(seconds(2.4)));
    }

    #[test]
    fn a_delay_never_eats_the_reserve() {
        let ends = PhaseEnds::new(seconds(10.0), seconds(60.0));
        assert_eq!(ends.end(Phase::NotReady), Some(seconds(8.0)));
    }

    #[test]
    fn one_that_hangs_leaves_time_for_the_next() {
        let ends = PhaseEnds::new(seconds(25.0), Duration::ZERO);
        assert_eq!(ends.bound(Phase::Releasing, seconds(0.0), 2), ACTOR_BOUND);
        assert_eq!(ends.bound(Phase::Releasing, seconds(23.0), 2), seconds(1.0));
        assert_eq!(ends.bound(Phase::Releasing, seconds(26.0), 2), Duration::ZERO);
    }

    #[test]
    fn a_second_sigint_ends_all_within_a_second_and_prolongs_nothing() {
        let ends = PhaseEnds::new(seconds(25.0), Duration::ZERO);
        let hurried = ends.hurried(seconds(4.0));
        assert_eq!(hurried.deadline(), seconds(4.9));
        assert!(hurried.end(Phase::Returning).unwrap() > seconds(4.0));
        assert_eq!(ends.hurried(seconds(24.9)).deadline(), seconds(25.0));
        let late = ends.hurried(seconds(30.0));
        assert_eq!(late.end(Phase::Returning), Some(seconds(25.0)));
    }
}
