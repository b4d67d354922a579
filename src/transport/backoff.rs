//! When a lost connection is tried again, and how often that is said: pure.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
/// No delay is longer, as the contract says of every reconnect.
const LONGEST: Duration = Duration::from_secs(10);
/// An outage is spoken of once in so long.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Delays between tries: doubling from 100 ms to 10 s, each times a random factor from ½ to 1 ("equal jitter"), so
/// that a fleet does not come back all at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
    said: Option<Instant>,
}

impl Backoff {
    /// The delay before the next try. `jitter` is from 0 to 1.
    pub(super) fn next(&mut self, jitter: f64) -> Duration {
        let full = FIRST.saturating_mul(1 << self.tries.min(16)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// It worked: the next outage starts anew. Whether it has been spoken of is kept, so that a connection that comes
    /// and goes does not fill the log.
    pub(super) fn worked(&mut self) {
        self.tries = 0;
    }

    /// Whether this failure is to be said.
    pub(super) fn speaks(&mut self, now: Instant) -> bool {
        let due = self.said.is_none_or(|said| now.saturating_duration_since(said) >= SAID_EVERY);
        if due {
            self.said = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_ten_seconds_and_start_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let delays: Vec<u128> = (0..9).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        backoff.worked();
        assert_eq!(backoff.next(0.0), Duration::from_millis(50));
    }

    #[test]
    fn an_outage_is_spoken_of_once_a_minute() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        assert!(backoff.speaks(now));
        assert!(!backoff.speaks(now + Duration::from_secs(59)));
        assert!(backoff.speaks(now + Duration::from_secs(60)));
    }
}
