//! Rate limit of a worker, shared by its lanes.
//!
//! The generic cell rate algorithm (ITU-T I.371): one number, the theoretical arrival time of the next start. A burst
//! of [`BURST`] is let through, so that a limit of 1,000/s need not wake a thousand times a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How far starts may come before their time.
const BURST: Duration = Duration::from_millis(20);

/// At most so many starts a second.
#[derive(Debug)]
pub(crate) struct RateLimit {
    began: Instant,
    interval_ns: u64,
    next_ns: AtomicU64,
}

impl RateLimit {
    /// `per_second` is over 0.
    pub(crate) fn new(per_second: f64, now: Instant) -> Self {
        Self { began: now, interval_ns: (1e9 / per_second).max(1.0) as u64, next_ns: AtomicU64::new(0) }
    }

    /// Takes one start, or says when to ask again.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Instant> {
        let now_ns = now.saturating_duration_since(self.began).as_nanos() as u64;
        let burst_ns = BURST.as_nanos() as u64;
        self.next_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                (next <= now_ns + burst_ns).then(|| next.max(now_ns) + self.interval_ns)
            })
            .map(|_| ())
            .map_err(|next| self.began + Duration::from_nanos(next - burst_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lets_its_rate_through_and_a_burst_at_most() {
        let began = Instant::now();
        let rate = RateLimit::new(1_000.0, began);
        let mut taken = 0;
        let mut now = began;
        while now < began + Duration::from_secs(1) {
            match rate.take(now) {
                Ok(()) => taken += 1,
                Err(again) => now = again.max(now + Duration::from_nanos(1)),
            }
        }
        assert!((1_000..=1_022).contains(&taken), "{taken}");
    }
}
