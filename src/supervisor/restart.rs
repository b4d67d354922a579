//! Whether and when an actor that ended is started again: a pure policy, time is passed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Which ends of an actor are followed by a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// Every end, a proper one too: the actor is wanted as long as the process runs.
    #[default]
    Permanent,
    /// Only a failure.
    Transient,
    /// None.
    #[cfg_attr(not(test), expect(dead_code, reason = "no kind of actor has it by default"))]
    Temporary,
}

/// How an actor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, and properly.
    #[cfg_attr(not(test), expect(dead_code, reason = "the root asks only after a failure"))]
    Done,
    /// By an error or a panic.
    Failed,
}

/// The restart policy of one actor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Which ends it follows.
    pub when: When,
    /// At most so many restarts within [`Policy::window`]; one more escalates.
    pub restarts: usize,
    /// The time in which restarts are counted.
    pub window: Duration,
    /// Back-off before the first restart in a window; it doubles with each further one.
    pub min: Duration,
    /// The longest back-off.
    pub max: Duration,
}

impl Default for Policy {
    /// 5 restarts in 60 s, from 100 ms to 10 s.
    fn default() -> Self {
        Self {
            when: When::Permanent,
            restarts: 5,
            window: Duration::from_secs(60),
            min: Duration::from_millis(100),
            max: Duration::from_secs(10),
        }
    }
}

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again after this time.
    Restart {
        /// The back-off.
        after: Duration,
    },
    /// It is not wanted any more.
    LeaveGone,
    /// Too many restarts: drain everything, exit 70.
    Escalate,
}

/// The restarts of one actor so far.
#[derive(Debug, Clone)]
pub struct Restarts {
    policy: Policy,
    /// When each restart within the window was decided; never more than `policy.restarts` of them.
    recent: VecDeque<Instant>,
    total: u64,
}

impl Restarts {
    /// None so far.
    pub fn new(policy: Policy) -> Self {
        Self { policy, recent: VecDeque::new(), total: 0 }
    }

    /// What follows this end. `jitter`, from 0 up to but not including 1, takes up to half of the back-off away, so
    /// that actors that died together do not come back together.
    pub fn decide(&mut self, end: End, now: Instant, jitter: f64) -> Verdict {
        let wanted = match self.policy.when {
            When::Permanent => true,
            When::Transient => end == End::Failed,
            When::Temporary => false,
        };
        if !wanted {
            return Verdict::LeaveGone;
        }
        while self.recent.front().is_some_and(|&then| now.saturating_duration_since(then) >= self.policy.window) {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.policy.restarts {
            return Verdict::Escalate;
        }
        let doublings = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        self.recent.push_back(now);
        self.total += 1;
        let full = 2u32.checked_pow(doublings).and_then(|factor| self.policy.min.checked_mul(factor));
        let full = full.unwrap_or(self.policy.max).min(self.policy.max);
        Verdict::Restart { after: full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0) }
    }

    /// Restarts since the process began.
    #[cfg(test)]
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(restarts: &mut Restarts, at: Instant) -> Verdict {
        restarts.decide(End::Failed, at, 0.0)
    }

    fn after(millis: u64) -> Verdict {
        Verdict::Restart { after: Duration::from_millis(millis) }
    }

    #[test]
    fn the_sixth_failure_within_a_minute_escalates() {
        let (mut restarts, start) = (Restarts::new(Policy::default()), Instant::now());
        let found: Vec<_> = (0..6).map(|n| fail(&mut restarts, start + Duration::from_secs(n))).collect();
        assert_eq!(found, [after(100), after(200), after(400), after(800), after(1_600), Verdict::Escalate]);
        assert_eq!(restarts.total(), 5);
    }

    #[test]
    fn failures_that_are_far_apart_never_escalate_and_start_again_with_the_shortest_back_off() {
        let (mut restarts, start) = (Restarts::new(Policy::default()), Instant::now());
        for n in 0..100 {
            assert_eq!(fail(&mut restarts, start + Duration::from_secs(60 * n)), after(100));
        }
    }

    #[test]
    fn the_back_off_has_an_upper_end_however_many_restarts_are_allowed() {
        let policy = Policy { restarts: 200, ..Policy::default() };
        let (mut restarts, now) = (Restarts::new(policy), Instant::now());
        for _ in 0..100 {
            fail(&mut restarts, now);
        }
        assert_eq!(fail(&mut restarts, now), after(10_000));
    }

    #[test]
    fn jitter_takes_at_most_half_of_the_back_off() {
        for (jitter, millis) in [(0.0, 100), (0.5, 75), (1.0, 50)] {
            assert_eq!(Restarts::new(Policy::default()).decide(End::Failed, Instant::now(), jitter), after(millis));
        }
    }

    #[test]
    fn a_transient_actor_that_is_done_stays_gone_and_a_temporary_one_always() {
        let decide = |when, end| Restarts::new(Policy { when, ..Policy::default() }).decide(end, Instant::now(), 0.0);
        assert_eq!(decide(When::Permanent, End::Done), after(100));
        assert_eq!(decide(When::Transient, End::Done), Verdict::LeaveGone);
        assert_eq!(decide(When::Transient, End::Failed), after(100));
        assert_eq!(decide(When::Temporary, End::Failed), Verdict::LeaveGone);
    }
}
