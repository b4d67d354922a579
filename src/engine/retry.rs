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

    /// The delay before the next attempt after `attempts` failed ones; `None` when there shall be none.
    /// `jitter` is from 0 to 1.
    pub fn delay_after(&self, attempts: u32, jitter: f64) -> Option<Duration> {
        if attempts >= self.attempts {
            return None;
        }
        let doublings = attempts.saturating_sub(1).min(63);
        let full = self.min.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(self.max);
        Some(full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0))
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
