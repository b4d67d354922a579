//! What librdkafka says besides answers: log lines, and errors that belong to no call. Each client has one [`Ear`].

use super::place::Place;
use super::refusal;
use crate::error::{Error, ErrorKind};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel as Level;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is kept until somebody asks; older is forgotten. All that matters of an outage fits, again and again.
const KEPT: usize = 64;

/// For so long what the way to a broker failed by is named as the reason of what does not work; librdkafka repeats what
/// goes on.
const REASON_HOLDS: Duration = Duration::from_secs(60);

/// Something that librdkafka said unasked.
#[derive(Debug)]
pub(super) enum Heard {
    /// No broker of the cluster can be reached; it tries again by itself.
    Lost(Error),
    /// A login, a certificate or a permission was refused; it tries again by itself, which seldom helps.
    Refused(Error),
    /// This client can never go on. Not every end is heard, as the event of it may have the code of whatever it came from:
    /// `Client::fatal_error` knows.
    Fatal(Error),
    /// Anything else that an operator should see.
    Odd(Error),
}

/// Hears what librdkafka says of one client, and says the log lines of it. What it says comes while the client is
/// polled, on the thread that polls.
///
/// A context with callbacks of its own holds one and hands [`log`](ClientContext::log), `error` and `stats_raw` on.
pub(super) struct Ear {
    worker: Arc<str>,
    /// `cluster h1:9092,h2:9092`: what errors are said of.
    cluster: String,
    heard: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    news: VecDeque<Heard>,
    /// What the way to one broker failed by last: said as the reason when all are gone.
    reason: Option<(Instant, String)>,
}

impl Ear {
    pub(super) fn new(worker: Arc<str>, place: &Place) -> Self {
        Self { worker, cluster: cluster_name(place), heard: Mutex::default() }
    }

    /// What was heard since the last call, the oldest first.
    pub(super) fn take(&self) -> VecDeque<Heard> {
        std::mem::take(&mut self.memory().news)
    }

    /// That the cluster cannot be reached, and what is known of the reason.
    pub(super) fn unreachable(&self, what: &str) -> Error {
        let reason = self.memory().reason.clone();
        let text = match reason.filter(|(heard, _)| heard.elapsed() < REASON_HOLDS) {
            Some((_, reason)) => format!("{}: {what}: {reason}", self.cluster),
            None => format!("{}: {what}", self.cluster),
        };
        Error::new(ErrorKind::Unreachable, text)
    }

    /// An error of the cluster.
    pub(super) fn error_of(&self, kind: ErrorKind, why: &str) -> Error {
        Error::new(kind, format!("{}: {why}", self.cluster))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing is half done in it.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, heard: Heard) {
        let mut memory = self.memory();
        if memory.news.len() == KEPT {
            memory.news.pop_front();
        }
        memory.news.push_back(heard);
    }
}

/// What errors call a cluster: its hosts as the URL names them.
pub(super) fn cluster_name(place: &Place) -> String {
    format!("cluster {}", place.cluster.hosts.join(","))
}

impl ClientContext for Ear {
    fn log(&self, level: Level, facility: &str, text: &str) {
        let worker = &*self.worker;
        match (level, facility) {
            (Level::Emerg | Level::Alert | Level::Critical, _) => {
                tracing::error!(target: "longshore::kafka", worker, facility, "{text}");
            }
            // A setting that is out of date; one of the other side of the same URL means nothing to this client.
            (_, "CONFWARN") if !text.contains("will be ignored by this") => {
                tracing::warn!(target: "longshore::kafka", worker, facility, "{text}")
            }
            // Each failed try to connect is an error to librdkafka; an outage is told by events, once a minute.
            (Level::Debug, _) => tracing::trace!(target: "longshore::kafka", worker, facility, "{text}"),
            _ => tracing::debug!(target: "longshore::kafka", worker, facility, "{text}"),
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    /// A producer tells of each twice.
    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let reason = told(reason);
        match code {
            Code::AllBrokersDown => self.hear(Heard::Lost(self.unreachable("no broker can be reached"))),
            code => match refusal::kind(code) {
                ErrorKind::Credentials => {
                    let why = format!("{}: {reason}", refusal::words(code));
                    self.hear(Heard::Refused(self.error_of(ErrorKind::Credentials, &why)));
                }
                ErrorKind::GaveUp => self.hear(Heard::Fatal(self.error_of(ErrorKind::GaveUp, reason))),
                ErrorKind::Unreachable => self.memory().reason = Some((Instant::now(), reason.to_owned())),
                kind => self.hear(Heard::Odd(self.error_of(kind, reason))),
            },
        }
    }
}

impl ConsumerContext for Ear {}

/// For a producer that sends nothing: one that asks for metadata.
impl ProducerContext for Ear {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, _opaque: ()) {}
}

/// Without librdkafka's name for its own thread, `[thrd:127.0.0.1:9092/bootstrap]: `, which repeats what follows.
fn told(reason: &str) -> &str {
    match reason.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")) {
        Some((_, rest)) => rest,
        None => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Side, Url};

    fn ear() -> Ear {
        let url = Url::parse("kafka://me:canary@h:1?topic=t").unwrap();
        Ear::new("ship".into(), &Place::read(&url, Side::Source).unwrap())
    }

    fn say(ear: &Ear, code: Code, reason: &str) {
        ear.error(KafkaError::Global(code), reason);
    }

    #[test]
    fn an_outage_is_told_once_all_brokers_are_gone_with_what_is_known_of_the_reason() {
        let ear = ear();
        say(&ear, Code::BrokerTransportFailure, "[thrd:h:1/bootstrap]: h:1/bootstrap: Connect to h:1 failed");
        assert!(ear.take().is_empty());
        say(&ear, Code::AllBrokersDown, "1/1 brokers are down");
        let heard = ear.take();
        let [Heard::Lost(error)] = heard.iter().collect::<Vec<_>>()[..] else { panic!("{heard:?}") };
        let text = "cluster h:1: no broker can be reached: h:1/bootstrap: Connect to h:1 failed";
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unreachable, text));
    }

    #[test]
    fn a_refused_login_and_a_fatal_error_are_told_apart_and_nothing_grows_without_end() {
        let ear = ear();
        say(&ear, Code::Authentication, "sasl: no");
        say(&ear, Code::Fatal, "over");
        let heard = ear.take();
        assert!(matches!(&heard[0], Heard::Refused(error) if error.exit_code() == 77), "{heard:?}");
        assert!(matches!(&heard[1], Heard::Fatal(error) if error.exit_code() == 70), "{heard:?}");
        for _ in 0..10 * KEPT {
            say(&ear, Code::AllBrokersDown, "");
        }
        assert_eq!(ear.take().len(), KEPT);
    }
}
