//! How long handlers took, gathered in a lane without sharing anything.

use super::metrics::WorkerMetrics;
use std::time::Duration;

/// Upper bounds of the buckets of `longshore_handler_seconds`, in nanoseconds, each inclusive. What took longer than
/// the last is in one more.
pub(super) const BOUNDS_NS: [u64; 17] = [
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    120_000_000_000,
    300_000_000_000,
];

/// Buckets, with the one above the last bound.
pub(super) const BUCKETS: usize = BOUNDS_NS.len() + 1;

pub(super) const NS_PER_SECOND: f64 = 1e9;

/// The bucket of a duration.
pub(super) const fn bucket_of(ns: u64) -> usize {
    let mut at = 0;
    while at < BOUNDS_NS.len() && ns > BOUNDS_NS[at] {
        at += 1;
    }
    at
}

/// What the handlers of one lane took since the last flush: a count and a sum for each bucket.
///
/// Plain numbers of one owner: recording is a comparison or a few and two additions. That nothing is allocated is
/// shown by [`HandlerTimes::record`] being a `const fn`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerTimes {
    count: [u64; BUCKETS],
    sum_ns: [u64; BUCKETS],
}

impl Default for HandlerTimes {
    fn default() -> Self {
        Self::new()
    }
}

impl HandlerTimes {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { count: [0; BUCKETS], sum_ns: [0; BUCKETS] }
    }

    /// Adds what one handler took.
    #[inline]
    pub const fn record(&mut self, took: Duration) {
        // 584 years fit.
        let ns = took.as_secs().saturating_mul(1_000_000_000).saturating_add(took.subsec_nanos() as u64);
        let at = bucket_of(ns);
        self.count[at] += 1;
        self.sum_ns[at] = self.sum_ns[at].saturating_add(ns);
    }

    /// Whether there is nothing to flush.
    pub fn is_empty(&self) -> bool {
        self.count == [0; BUCKETS]
    }

    /// Hands everything to the worker's histogram and starts afresh.
    ///
    /// Each bucket is told as its mean, as often as it counts. The mean lies in its own bucket, since division rounds
    /// monotonously and each bound divided by 10⁹ is the bound in seconds; and mean × count is the sum to within the
    /// rounding of a double. So the counts stay exact, and the sum to the nanosecond for up to 11 days in one bucket.
    pub fn flush(&mut self, to: &WorkerMetrics) {
        self.flush_into(&to.handler_seconds);
    }

    pub(super) fn flush_into(&mut self, histogram: &metrics::Histogram) {
        for (count, sum_ns) in self.count.iter_mut().zip(&mut self.sum_ns).filter(|(count, _)| **count > 0) {
            let mean_ns = *sum_ns as f64 / *count as f64;
            histogram.record_many(mean_ns / NS_PER_SECOND, *count as usize);
            (*count, *sum_ns) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::histogram::BucketHistogram;
    use super::*;
    use metrics::{Histogram, HistogramFn};
    use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
    use proptest::prelude::*;
    use std::sync::Arc;

    /// The compiler runs this. It could not if `record` allocated, shared anything or called out.
    #[test]
    fn recording_needs_neither_heap_nor_sharing() {
        const RECORDED: HandlerTimes = {
            let mut times = HandlerTimes::new();
            times.record(Duration::from_micros(700));
            times.record(Duration::from_millis(1));
            times.record(Duration::from_secs(301));
            times
        };
        assert_eq!((RECORDED.count[0], RECORDED.sum_ns[0]), (2, 1_700_000));
        assert_eq!((RECORDED.count[BUCKETS - 1], RECORDED.sum_ns[BUCKETS - 1]), (1, 301_000_000_000));
    }

    /// Any duration, and often one that lies on a bound or a nanosecond beside it.
    fn durations() -> impl Strategy<Value = Vec<u64>> {
        let beside = (0..BOUNDS_NS.len(), 0..3_u64).prop_map(|(at, shift)| BOUNDS_NS[at] - 1 + shift);
        prop::collection::vec(prop_oneof![0..2_000_000_u64, 0..400_000_000_000_u64, beside], 0..200)
    }

    proptest! {
        #[test]
        fn a_flush_says_exactly_what_direct_records_say(ns in durations(), flush_every in 1..50_usize) {
            let (direct, flushed) = (Arc::new(BucketHistogram::default()), Arc::new(BucketHistogram::default()));
            let handle = Histogram::from_arc(flushed.clone());
            let mut times = HandlerTimes::new();
            for (at, ns) in ns.iter().enumerate() {
                direct.record(Duration::from_nanos(*ns).as_secs_f64());
                times.record(Duration::from_nanos(*ns));
                if at % flush_every == 0 {
                    times.flush_into(&handle);
                    prop_assert!(times.is_empty());
                }
            }
            times.flush_into(&handle);
            prop_assert_eq!(flushed.counts(), direct.counts());
            prop_assert_eq!(flushed.sum_ns(), ns.iter().sum::<u64>());
            prop_assert_eq!(direct.sum_ns(), ns.iter().sum::<u64>());
        }

        /// The same against the exporter's own histogram, whose code is not ours.
        #[test]
        fn a_flush_says_what_the_exporter_makes_of_direct_records(ns in durations()) {
            let bounds: Vec<f64> = BOUNDS_NS.iter().map(|ns| *ns as f64 / NS_PER_SECOND).collect();
            let builder = PrometheusBuilder::new();
            let builder = builder.set_buckets_for_metric(Matcher::Full("t".into()), &bounds).unwrap();
            let recorder = builder.build_recorder();
            metrics::with_local_recorder(&recorder, || {
                let (direct, flushed) = (metrics::histogram!("t", "by" => "direct"), metrics::histogram!("t", "by" => "flush"));
                let mut times = HandlerTimes::new();
                for ns in &ns {
                    direct.record(Duration::from_nanos(*ns).as_secs_f64());
                    times.record(Duration::from_nanos(*ns));
                }
                times.flush_into(&flushed);
            });
            let text = recorder.handle().render();
            let of = |by: &str| {
                let label = format!("by=\"{by}\"");
                let lines = text.lines().filter(|line| line.contains(&label));
                lines.map(|line| line.replace(&label, "")).collect::<Vec<_>>()
            };
            let (direct, flushed) = (of("direct"), of("flush"));
            prop_assert_eq!(direct.len(), BUCKETS + 2);
            let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
            for (direct, flushed) in direct.iter().zip(&flushed) {
                if direct.contains("_sum") {
                    // The exporter adds doubles, which rounds at every record.
                    prop_assert!((value(direct) - value(flushed)).abs() <= value(direct) * 1e-12);
                } else {
                    prop_assert_eq!(direct, flushed);
                }
            }
        }
    }
}
