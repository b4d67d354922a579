//! The histogram behind `longshore_handler_seconds`: a count for each bucket and a sum, in atomics.
//!
//! The exporter's own keeps every sample until its upkeep (16 bytes each, and its `record_many` is a loop): at
//! millions of messages a second that is some hundred megabytes between two upkeeps. This one never grows, and
//! recording a thousand equal values costs what recording one does.

use super::handler_times::{BOUNDS_NS, BUCKETS, NS_PER_SECOND};
use metrics::HistogramFn;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts by bucket and the sum of all, exact to the nanosecond.
#[derive(Debug, Default)]
pub(super) struct BucketHistogram {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl HistogramFn for BucketHistogram {
    fn record(&self, seconds: f64) {
        self.record_many(seconds, 1);
    }

    fn record_many(&self, seconds: f64, count: usize) {
        // Compared in seconds: turned back into nanoseconds, a value on a bound could land a hair above it.
        let at = bounds().position(|bound| seconds <= bound).unwrap_or(BUCKETS - 1);
        self.counts[at].fetch_add(count as u64, Ordering::Relaxed);
        // `as` saturates, and makes 0 of what is no number.
        let ns = (seconds * count as f64 * NS_PER_SECOND).round() as u64;
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

/// The upper bounds in seconds.
fn bounds() -> impl Iterator<Item = f64> {
    BOUNDS_NS.iter().map(|ns| *ns as f64 / NS_PER_SECOND)
}

impl BucketHistogram {
    /// Counts, bucket by bucket, not cumulative.
    pub(super) fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed))
    }

    /// The sum of all, in nanoseconds.
    pub(super) fn sum_ns(&self) -> u64 {
        self.sum_ns.load(Ordering::Relaxed)
    }

    /// Writes its lines as Prometheus reads them; `labels` is `worker="ship"`, escaped.
    pub(super) fn render(&self, name: &str, labels: &str, text: &mut String) {
        let counts = self.counts();
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (bound, count) in bounds().zip(counts) {
            below += count;
            writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}").expect("a string takes all");
        }
        // The total is the sum of what was just read: read anew it could be more, and the buckets would not add up.
        let total = below + counts[BUCKETS - 1];
        let sum = self.sum_ns() as f64 / NS_PER_SECOND;
        writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}").expect("a string takes all");
        writeln!(text, "{name}_sum{{{labels}}} {sum}").expect("a string takes all");
        writeln!(text, "{name}_count{{{labels}}} {total}").expect("a string takes all");
    }
}
