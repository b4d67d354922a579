//! When a failed message is tried again: pure.

use std::time::Duration;

/// How often and after which delays a message is tried before it goes to the dead letters.
///
/// Without one a worker tries 3 times, with delays from 1 s to 30 s. The delay before attempt `n + 1` is
/// `min × 2ⁿ⁻¹`, at most `max`, times a random factor from ½ to 1 ("equal jitter").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    attempts: u32,
    min: Duration,
    max: Duration,
    durable: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1), Duration::from_secs(30))
    }
}

/// Delays up to this wait in place when a worker has no order; longer ones may be durable without giving any up.
pub(crate) const IN_PLACE_WITHOUT_ORDER: Duration = Duration::from_secs(10);

impl Retry {
    /// Delays that double from `min` up to `max`, 3 attempts in all.
    pub const fn exponential(min: Duration, max: Duration) -> Self {
        Self { attempts: 3, min, max, durable: false }
    }

    /// The same delay each time, 3 attempts in all.
    pub const fn fixed(delay: Duration) -> Self {
        Self::exponential(delay, delay)
    }

    /// One attempt: what fails goes to the dead letters.
    pub const fn never() -> Self {
        Self { attempts: 1, min: Duration::ZERO, max: Duration::ZERO, durable: false }
    }

    /// So many attempts in all, the first one included; at least 1.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = if attempts == 0 { 1 } else { attempts };
        self
    }

    /// Waits in the broker instead of in the worker. **Gives up the order of the key** of what is retried: later
    /// messages of it overtake. A worker whose broker can neither delay a redelivery nor keep messages for later does
    /// not start.
    #[must_use]
    pub const fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Whether delays are waited out in the broker.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Attempts in all.
    pub fn max_attempts(&self) -> u32 {
        self.attempts
    }

    /// The longest delay.
    pub fn max_delay(&self) -> Duration {
        self.max
    }

    /// How long a message can be held by attempts that each take `timeout`, and by the longest delays between them,
    /// where those that `leaves` covers are waited out elsewhere. What a handler asks for by itself is not in it.
    pub(crate) fn held_at_most(&self, timeout: Duration, leaves: impl Fn(Duration) -> bool) -> Duration {
        // After so many the delay has stopped growing, so that the rest is one product.
        let grows = self.attempts.min(u32::BITS + 1);
        let (mut held, mut most) = (timeout, timeout);
        for attempts in 1..grows {
            let Some(delay) = self.delay_after(attempts, 1.0) else { break };
            held = if leaves(delay) { timeout } else { held.saturating_add(delay).saturating_add(timeout) };
            most = most.max(held);
        }
        if !leaves(self.max) {
            most =
                most.max(held.saturating_add(self.max.saturating_add(timeout).saturating_mul(self.attempts - grows)));
        }
        most
    }

    /// The delay before the next attempt after `attempts` failed ones; `None` when there shall be none.
    /// `jitter` is from 0 to 1.
    pub fn delay_after(&self, attempts: u32, jitter: f64) -> Option<Duration> {
        if attempts >= self.attempts {
            return None;
        }
        let doublings = attempts.saturating_sub(1).min(63);
        let full = self.min.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(self.max);
        let factor = 0.5 + jitter.clamp(0.0, 1.0) / 2.0;
        // The longest delay that there is gets longer by rounding.
        Some(Duration::try_from_secs_f64(full.as_secs_f64() * factor).unwrap_or(full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let retry = Retry::exponential(Duration::from_secs(1), Duration::from_secs(5)).attempts(6);
        let delays: Vec<_> = (1..=6).map(|attempts| retry.delay_after(attempts, 1.0).map(|d| d.as_secs())).collect();
        assert_eq!(delays, [Some(1), Some(2), Some(4), Some(5), Some(5), None]);
    }

    #[test]
    fn a_message_is_held_by_every_attempt_in_place_and_by_the_delays_between_them() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let stays = |_: Duration| false;
        // The defaults: 5 minutes three times, 1 s and 2 s.
        assert_eq!(Retry::default().held_at_most(minutes(5), stays), Duration::from_secs(903));
        assert_eq!(Retry::never().held_at_most(minutes(5), stays), minutes(5));
        let retry = Retry::fixed(minutes(1)).attempts(4);
        assert_eq!(retry.held_at_most(minutes(2), stays), minutes(11));
        assert_eq!(retry.held_at_most(minutes(2), |_| true), minutes(2), "each attempt is a delivery of its own");
        let grows = Retry::exponential(minutes(1), minutes(8)).attempts(5);
        // 1, 2 and then 4 minutes, which leave: three attempts before, two after.
        assert_eq!(grows.held_at_most(minutes(1), |delay| delay == minutes(4)), minutes(10));
        let many = Retry::fixed(Duration::from_secs(1)).attempts(1_000);
        assert_eq!(many.held_at_most(Duration::from_secs(1), stays), Duration::from_secs(1_999));
        let absurd = Retry::fixed(Duration::MAX).attempts(u32::MAX);
        assert_eq!(absurd.held_at_most(minutes(5), stays), Duration::MAX);
    }

    proptest! {
        #[test]
        fn a_delay_is_never_over_the_longest_and_never_less_than_half(
            min in 0u64..10_000, max in 0u64..100_000, attempts in 1u32..200, jitter in 0.0f64..=1.0
        ) {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
            let delay = Retry::exponential(min, max).attempts(300).delay_after(attempts, jitter).unwrap();
            prop_assert!(delay <= max && delay >= min.min(max) / 2);
        }
    }
}
