//! Metrics: the recorder, and handles that are made once for each worker.
//!
//! A handle is an atomic. The macros of `metrics` look it up and allocate its labels, so the engine keeps handles and
//! never calls a macro for a message. Handles made before [`install`] count nothing for ever.

use super::histogram::BucketHistogram;
use crate::failure::Tally;
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Metadata, Recorder, SharedString, Unit, counter, describe_counter,
    describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

/// How often [`Scrape::upkeep`] is due: what a user's own histograms record is kept until then.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Classes of dead letters that have a series of their own; further ones share `other`.
const DEAD_LETTER_REASONS: usize = 64;

/// Classes that the runtime itself knows: their series are there from the start.
const KNOWN_REASONS: [&str; 6] = ["error", "rejected", "panic", "timeout", "undecodable", "oversized"];

const HANDLER_SECONDS: &str = "longshore_handler_seconds";
const HANDLER_SECONDS_TEXT: &str = "How long handlers took, in seconds";

/// Renders what the process has counted. All apps of a process share one recorder.
#[derive(Clone)]
pub struct Scrape {
    prometheus: PrometheusHandle,
    handler_seconds: Arc<HandlerSeconds>,
}

impl Scrape {
    /// All series in the text format of Prometheus.
    pub fn render(&self) -> String {
        let mut text = self.prometheus.render();
        self.handler_seconds.render(&mut text);
        text
    }

    /// Sums up what histograms of the user's own have recorded. Without it, and without scrapes, those grow without
    /// bound; ours never do.
    pub fn upkeep(&self) {
        self.prometheus.run_upkeep();
    }
}

/// Installs the recorder for this process and describes the metrics. The first call decides; every call returns the
/// same. `None`: the program has a recorder of its own, which then gets everything, and renders it its own way.
pub fn install() -> Option<Scrape> {
    static SCRAPE: OnceLock<Option<Scrape>> = OnceLock::new();
    let scrape = SCRAPE.get_or_init(|| {
        let (recorder, scrape) = recorder();
        let ours = metrics::set_global_recorder(recorder).is_ok();
        describe();
        ours.then_some(scrape)
    });
    scrape.clone()
}

fn recorder() -> (LongshoreRecorder, Scrape) {
    let prometheus = PrometheusBuilder::new().build_recorder();
    let handler_seconds = Arc::<HandlerSeconds>::default();
    let scrape = Scrape { prometheus: prometheus.handle(), handler_seconds: handler_seconds.clone() };
    (LongshoreRecorder { prometheus, handler_seconds }, scrape)
}

/// Prometheus' recorder for everything, except that handler times have a histogram that does not grow.
struct LongshoreRecorder {
    prometheus: PrometheusRecorder,
    handler_seconds: Arc<HandlerSeconds>,
}

/// The series of `longshore_handler_seconds`, by labels.
#[derive(Default)]
struct HandlerSeconds(Mutex<BTreeMap<String, Arc<BucketHistogram>>>);

impl HandlerSeconds {
    fn series(&self, key: &Key) -> Arc<BucketHistogram> {
        let labels: Vec<_> = key.labels().map(written).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(labels.join(",")).or_default().clone()
    }

    fn render(&self, text: &mut String) {
        let series = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if series.is_empty() {
            return;
        }
        writeln!(text, "# HELP {HANDLER_SECONDS} {HANDLER_SECONDS_TEXT}\n# TYPE {HANDLER_SECONDS} histogram")
            .expect("a string takes all");
        for (labels, histogram) in series {
            histogram.render(HANDLER_SECONDS, &labels, text);
        }
        text.push('\n');
    }
}

/// `worker="ship"`, with what Prometheus wants escaped.
fn written(label: &Label) -> String {
    let value = label.value().replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{}=\"{value}\"", label.key())
}

impl Recorder for LongshoreRecorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.prometheus.describe_counter(name, unit, text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.prometheus.describe_gauge(name, unit, text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.prometheus.describe_histogram(name, unit, text);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.prometheus.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.prometheus.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        if key.name() == HANDLER_SECONDS {
            Histogram::from_arc(self.handler_seconds.series(key))
        } else {
            self.prometheus.register_histogram(key, metadata)
        }
    }
}

fn describe() {
    use Unit::{Bytes, Count, Seconds};
    describe_counter!("longshore_messages_received_total", Count, "Messages received; a redelivery is received anew");
    describe_counter!("longshore_messages_settled_total", Count, "Messages settled, by what became of them");
    describe_histogram!(HANDLER_SECONDS, Seconds, HANDLER_SECONDS_TEXT);
    describe_gauge!("longshore_in_flight", Count, "Messages received and not yet settled");
    describe_gauge!("longshore_in_flight_bytes", Bytes, "Bytes that messages in flight keep in memory");
    describe_gauge!("longshore_oldest_in_flight_seconds", Seconds, "Age of the oldest message in flight");
    describe_gauge!("longshore_lag", Count, "Messages that wait at the source");
    describe_gauge!("longshore_connected", Count, "1 while source and sink are connected, else 0");
    describe_counter!("longshore_reconnects_total", Count, "Connections made again after one was lost");
    describe_counter!("longshore_restarts_total", Count, "Restarts by the supervisor");
    describe_counter!(
        "longshore_dead_letters_total",
        Count,
        "Messages stored as dead letters, by the class of failure"
    );
    describe_gauge!("longshore_stalled", Count, "1 while messages are in flight and none is settled for too long");
    describe_counter!("longshore_redelivered_total", Count, "Messages received that had been delivered before");
    describe_counter!("longshore_stale_settlements_total", Count, "Settlements dropped: their ownership was lost");
    describe_counter!("longshore_unkeyed_total", Count, "Messages without a key at a worker that orders by key");
    describe_gauge!("longshore_resources_open", Count, "Resources that are open");
    describe_gauge!("longshore_stop_phase_seconds", Seconds, "How long each phase of the stop took");
}

/// The handles of one worker: a named consumer, producer or bridge. Cheap to clone; one made again for the same name
/// counts on in the same series.
#[derive(Clone)]
pub struct WorkerMetrics {
    /// Messages received.
    pub received: Counter,
    /// Messages settled, by what became of them.
    pub settled: Settled,
    /// How long handlers took, in seconds; lanes write it through [`super::handler_times::HandlerTimes`].
    pub handler_seconds: Histogram,
    /// Messages in flight.
    pub in_flight: Gauge,
    /// Bytes in flight.
    pub in_flight_bytes: Gauge,
    /// Age of the oldest message in flight, in seconds.
    pub oldest_in_flight_seconds: Gauge,
    /// 1 or 0.
    pub connected: Gauge,
    /// Connections made again.
    pub reconnects: Counter,
    /// Restarts by the supervisor.
    pub restarts: Counter,
    /// 1 or 0.
    pub stalled: Gauge,
    /// Messages that had been delivered before.
    pub redelivered: Counter,
    /// Settlements that came after their ownership was lost.
    pub stale_settlements: Counter,
    /// Messages without a key where order is by key.
    pub unkeyed: Counter,
    shared: Arc<Shared>,
}

/// One counter for each word of the counts.
#[derive(Clone)]
#[allow(missing_docs, reason = "the names are the words")]
pub struct Settled {
    pub acked: Counter,
    pub retried: Counter,
    pub dead_lettered: Counter,
    pub discarded: Counter,
    pub returned: Counter,
    pub abandoned: Counter,
    pub unknown: Counter,
}

impl Settled {
    /// Adds what a batch of settlements came to.
    pub fn add(&self, tally: &Tally) {
        let Tally { acked, retried, dead_lettered, discarded } = *tally;
        for (counter, count) in [
            (&self.acked, acked),
            (&self.retried, retried),
            (&self.dead_lettered, dead_lettered),
            (&self.discarded, discarded),
        ] {
            if count > 0 {
                counter.increment(count);
            }
        }
    }
}

struct Shared {
    worker: String,
    dead_letters: RwLock<Vec<(&'static str, Counter)>>,
    lag: OnceLock<Gauge>,
}

impl WorkerMetrics {
    /// Registers every series of that worker, at 0. To be called after [`install`].
    pub fn new(worker: &str) -> Self {
        let worker = worker.to_owned();
        let count = |name: &'static str| counter!(name, "worker" => worker.clone());
        let level = |name: &'static str| gauge!(name, "worker" => worker.clone());
        let settled = |outcome: &'static str| counter!("longshore_messages_settled_total", "worker" => worker.clone(), "outcome" => outcome);
        Self {
            received: count("longshore_messages_received_total"),
            settled: Settled {
                acked: settled("acked"),
                retried: settled("retried"),
                dead_lettered: settled("dead_lettered"),
                discarded: settled("discarded"),
                returned: settled("returned"),
                abandoned: settled("abandoned"),
                unknown: settled("unknown"),
            },
            handler_seconds: histogram!(HANDLER_SECONDS, "worker" => worker.clone()),
            in_flight: level("longshore_in_flight"),
            in_flight_bytes: level("longshore_in_flight_bytes"),
            oldest_in_flight_seconds: level("longshore_oldest_in_flight_seconds"),
            connected: level("longshore_connected"),
            reconnects: count("longshore_reconnects_total"),
            restarts: count("longshore_restarts_total"),
            stalled: level("longshore_stalled"),
            redelivered: count("longshore_redelivered_total"),
            stale_settlements: count("longshore_stale_settlements_total"),
            unkeyed: count("longshore_unkeyed_total"),
            shared: Arc::new(Shared {
                dead_letters: RwLock::new(
                    KNOWN_REASONS.iter().map(|reason| (*reason, dead_letters(&worker, reason))).collect(),
                ),
                worker,
                lag: OnceLock::new(),
            }),
        }
    }

    /// Counts one dead letter under the class of its failure. A class is a literal of the program, so there are few;
    /// past 64 of them they count as `other`.
    pub fn dead_letter(&self, class: &'static str) {
        let find = |known: &[(&'static str, Counter)]| {
            known.iter().find(|(reason, _)| *reason == class).map(|(_, counter)| counter.clone())
        };
        let known = self.shared.dead_letters.read().unwrap_or_else(PoisonError::into_inner);
        let found = find(&known);
        drop(known);
        let counter = found.unwrap_or_else(|| {
            let mut known = self.shared.dead_letters.write().unwrap_or_else(PoisonError::into_inner);
            // Another lane may have come first.
            if let Some(counter) = find(&known) {
                return counter;
            }
            if known.len() >= DEAD_LETTER_REASONS {
                return dead_letters(&self.shared.worker, "other");
            }
            let counter = dead_letters(&self.shared.worker, class);
            known.push((class, counter.clone()));
            counter
        });
        counter.increment(1);
    }

    /// Messages that wait at the source. The series appears with the first call: a source that cannot tell has none.
    pub fn lag(&self, messages: u64) {
        let gauge = self.shared.lag.get_or_init(|| gauge!("longshore_lag", "worker" => self.shared.worker.clone()));
        gauge.set(messages as f64);
    }

    /// The lag of one partition, for a source that has some; to be kept by the caller.
    pub fn partition_lag(&self, partition: u32) -> Gauge {
        gauge!("longshore_lag", "worker" => self.shared.worker.clone(), "partition" => partition.to_string())
    }
}

fn dead_letters(worker: &str, reason: &'static str) -> Counter {
    counter!("longshore_dead_letters_total", "worker" => worker.to_owned(), "reason" => reason)
}

/// The handles of the app itself.
#[derive(Clone)]
pub struct AppMetrics {
    /// Resources that are open.
    pub resources_open: Gauge,
}

impl AppMetrics {
    /// To be called after [`install`].
    pub fn new() -> Self {
        Self { resources_open: gauge!("longshore_resources_open") }
    }

    /// How long a phase of the stop took; `phase` is one of the seven words, such as `draining`.
    pub fn stop_phase(&self, phase: &'static str, took: Duration) {
        gauge!("longshore_stop_phase_seconds", "phase" => phase).set(took.as_secs_f64());
    }
}

impl Default for AppMetrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::handler_times::HandlerTimes;
    use super::*;

    /// What a scrape reads after `act`, in this thread alone.
    pub(crate) fn rendered(act: impl FnOnce()) -> String {
        let (recorder, scrape) = recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            act();
        });
        scrape.render()
    }

    /// Whether a scrape has that line.
    pub(crate) fn has(text: &str, line: &str) -> bool {
        text.lines().any(|each| each == line)
    }

    #[test]
    fn every_series_of_a_worker_is_there_from_the_start_at_zero() {
        let text = rendered(|| drop(WorkerMetrics::new("ship")));
        for outcome in ["acked", "retried", "dead_lettered", "discarded", "returned", "abandoned", "unknown"] {
            let line = format!("longshore_messages_settled_total{{worker=\"ship\",outcome=\"{outcome}\"}} 0");
            assert!(has(&text, &line), "{line}\n{text}");
        }
        for name in [
            "messages_received_total",
            "in_flight",
            "in_flight_bytes",
            "oldest_in_flight_seconds",
            "connected",
            "reconnects_total",
            "restarts_total",
            "stalled",
            "redelivered_total",
            "stale_settlements_total",
            "unkeyed_total",
            "handler_seconds_count",
        ] {
            assert!(has(&text, &format!("longshore_{name}{{worker=\"ship\"}} 0")), "{name}\n{text}");
        }
        for name in ["error", "panic", "timeout", "undecodable", "rejected"] {
            let line = format!("longshore_dead_letters_total{{worker=\"ship\",reason=\"{name}\"}} 0");
            assert!(has(&text, &line), "{line}\n{text}");
        }
        assert!(!text.contains("longshore_lag{"), "a source that cannot tell its lag claims none");
    }

    #[test]
    fn every_metric_has_a_help_text_and_a_type() {
        let text = rendered(|| {
            let (worker, app) = (WorkerMetrics::new("ship"), AppMetrics::new());
            worker.lag(3);
            worker.partition_lag(2).set(1);
            app.resources_open.set(2);
            app.stop_phase("draining", Duration::from_millis(1500));
        });
        for kind in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = kind.split_once(' ').unwrap();
            let of_name = if name.ends_with("_total") {
                "counter"
            } else if name == HANDLER_SECONDS {
                "histogram"
            } else {
                "gauge"
            };
            assert_eq!(kind, of_name, "{name}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
        assert_eq!(text.matches("# TYPE longshore_").count(), 17, "{text}");
        assert!(has(&text, "longshore_lag{worker=\"ship\"} 3"));
        assert!(has(&text, "longshore_lag{worker=\"ship\",partition=\"2\"} 1"));
        assert!(has(&text, "longshore_stop_phase_seconds{phase=\"draining\"} 1.5"));
    }

    #[test]
    fn handler_times_show_as_a_histogram_from_1_ms_to_300_s() {
        let text = rendered(|| {
            let worker = WorkerMetrics::new("ship");
            let mut times = HandlerTimes::new();
            for _ in 0..1_000_000 {
                times.record(Duration::from_micros(500));
            }
            times.record(Duration::from_millis(20));
            times.record(Duration::from_secs(301));
            times.flush(&worker);
        });
        assert!(has(&text, "longshore_handler_seconds_bucket{worker=\"ship\",le=\"0.001\"} 1000000"), "{text}");
        assert!(has(&text, "longshore_handler_seconds_bucket{worker=\"ship\",le=\"0.01\"} 1000000"), "{text}");
        assert!(has(&text, "longshore_handler_seconds_bucket{worker=\"ship\",le=\"0.025\"} 1000001"), "{text}");
        assert!(has(&text, "longshore_handler_seconds_bucket{worker=\"ship\",le=\"300\"} 1000001"), "{text}");
        assert!(has(&text, "longshore_handler_seconds_bucket{worker=\"ship\",le=\"+Inf\"} 1000002"), "{text}");
        assert!(has(&text, "longshore_handler_seconds_sum{worker=\"ship\"} 801.02"), "{text}");
        assert!(has(&text, "longshore_handler_seconds_count{worker=\"ship\"} 1000002"), "{text}");
    }

    #[test]
    fn a_worker_that_is_made_again_counts_on() {
        let text = rendered(|| {
            for _ in 0..2 {
                let worker = WorkerMetrics::new("ship");
                worker.settled.add(&Tally { acked: 2, discarded: 1, ..Tally::default() });
                let mut times = HandlerTimes::new();
                times.record(Duration::from_millis(1));
                times.flush(&worker);
            }
        });
        assert!(has(&text, "longshore_messages_settled_total{worker=\"ship\",outcome=\"acked\"} 4"), "{text}");
        assert!(has(&text, "longshore_messages_settled_total{worker=\"ship\",outcome=\"discarded\"} 2"), "{text}");
        assert!(has(&text, "longshore_handler_seconds_count{worker=\"ship\"} 2"), "{text}");
    }

    #[test]
    fn dead_letters_count_by_class_and_classes_are_bounded() {
        let text = rendered(|| {
            let worker = WorkerMetrics::new("ship");
            worker.dead_letter("panic");
            worker.dead_letter("panic");
            for at in 0..DEAD_LETTER_REASONS {
                worker.dead_letter(format!("class-{at}").leak());
            }
        });
        assert!(has(&text, "longshore_dead_letters_total{worker=\"ship\",reason=\"panic\"} 2"), "{text}");
        assert!(has(&text, "longshore_dead_letters_total{worker=\"ship\",reason=\"class-0\"} 1"), "{text}");
        let others =
            format!("longshore_dead_letters_total{{worker=\"ship\",reason=\"other\"}} {}", KNOWN_REASONS.len());
        assert!(has(&text, &others), "{text}");
    }

    #[test]
    fn a_workers_name_cannot_break_the_page() {
        let text = rendered(|| drop(WorkerMetrics::new("a\"b\\c\nd")));
        assert!(has(&text, r#"longshore_handler_seconds_count{worker="a\"b\\c\nd"} 0"#), "{text}");
        assert!(has(&text, r#"longshore_in_flight{worker="a\"b\\c\nd"} 0"#), "{text}");
    }

    #[test]
    fn a_users_own_histogram_goes_through_the_exporter() {
        let text = rendered(|| metrics::histogram!("orders_seconds").record(0.5));
        assert!(has(&text, "orders_seconds_count 1"), "{text}");
    }

    #[test]
    fn installing_twice_gives_the_same_page() {
        let (first, second) = (install().expect("no other recorder here"), install().expect("the same"));
        counter!("installing_twice_total").increment(3);
        assert!(has(&first.render(), "installing_twice_total 3"));
        assert!(has(&second.render(), "installing_twice_total 3"));
        first.upkeep();
    }
}
