//! The clock that all processes of a run share.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of the monotonic clock, the same in every process.
pub fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}
