//! The topics of a place: whether the cluster answers, and which of them are there. An absent one is created.

use super::client;
use super::context::{Ear, Heard, cluster_name};
use super::place::{Place, Topics};
use super::refusal::{explain, refused};
use crate::error::{Error, ErrorKind};
use crate::transport::backoff::Backoff;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, Producer};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The first question waits so long for its answer, and each further one twice as long as the one before, up to
/// [`SLICES`]' end: a refused login is heard in between, and a slow network is answered in the end.
const SLICES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// What a request of administration may take.
const ADMIN_LIMIT: Duration = Duration::from_secs(10);
/// A topic that was created is known to every broker within this; else its creation has failed silently.
const SPREADS_WITHIN: Duration = Duration::from_secs(30);
/// Events that are taken in between two questions.
const EVENTS: usize = 64;
/// The default of `max.message.bytes`, where the cluster does not tell a topic's.
const DEFAULT_LARGEST: u32 = 1_048_588;

/// A topic of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) name: String,
    /// `None` where it does not exist.
    pub(super) partitions: Option<u32>,
}

/// Waits for the cluster of a place within `patience`, and creates those of its named topics that are absent, with the
/// broker's defaults. The topics that a pattern matches are not looked for: there may be none yet.
///
/// Not cancelled by being dropped, but it soon ends then, and leaves at most topics behind.
///
/// # Errors
/// At once for what no patience can mend: [`ErrorKind::Credentials`] for a login, a certificate or a permission,
/// [`ErrorKind::Configuration`] for an absent topic that may not be created. [`ErrorKind::Unreachable`] once patience is
/// over.
pub(super) async fn ready(place: &Place, worker: &Arc<str>, patience: Duration) -> Result<Vec<Topic>, Error> {
    ask(place, worker, patience, |asker| asker.ready()).await
}

/// The same without creating anything: those that are absent are told.
///
/// # Errors
/// As [`ready`], but for absent topics.
pub(super) async fn look(place: &Place, worker: &Arc<str>, patience: Duration) -> Result<Vec<Topic>, Error> {
    ask(place, worker, patience, |asker| asker.look()).await
}

/// As [`ready`], of a sink: also the largest batch that its topic takes, in bytes.
///
/// # Errors
/// As [`ready`].
pub(super) async fn ready_to_write(place: &Place, worker: &Arc<str>, patience: Duration) -> Result<u32, Error> {
    ask(place, worker, patience, |asker| {
        asker.ready()?;
        Ok(asker.largest(asker.place.topic()))
    })
    .await
}

/// Does it on a thread of its own, as the client library blocks.
///
/// # Errors
/// What it says, and what keeps a client from being made.
pub(super) async fn ask<T: Send + 'static>(
    place: &Place,
    worker: &Arc<str>,
    patience: Duration,
    what: impl FnOnce(&Asker) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (tell, answer) = oneshot::channel();
    // Gone with this future: then nobody waits any more.
    let wanted = Arc::new(());
    let (of, runtime, until) = (worker.clone(), Handle::current(), Instant::now() + patience);
    let (place, worker, wanted_still) = (place.clone(), worker.clone(), Arc::downgrade(&wanted));
    let asking = move || {
        // The answer is told before its client is dropped, which may take a moment.
        let _ = match Asker::new(place, worker, runtime, until, wanted_still) {
            Ok(asker) => tell.send(what(&asker)),
            Err(error) => tell.send(Err(error)),
        };
    };
    let no_thread = |why| Error::new(ErrorKind::Start, format!("worker '{of}': no thread")).caused_by(why);
    std::thread::Builder::new().name(format!("kafka-ask-{of}")).spawn(asking).map_err(no_thread)?;
    answer.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Start, format!("worker '{of}': asking panicked"))))
}

/// A client that asks. What it does blocks.
pub(super) struct Asker {
    pub(super) client: BaseProducer<Ear>,
    pub(super) place: Place,
    worker: Arc<str>,
    runtime: Handle,
    until: Instant,
    wanted: Weak<()>,
}

impl Asker {
    fn new(place: Place, worker: Arc<str>, runtime: Handle, until: Instant, wanted: Weak<()>) -> Result<Self, Error> {
        let ear = Ear::new(worker.clone(), &place);
        let client = client::create(&client::admin(&place, &worker), ear, &place)?;
        Ok(Self { client, place, worker, runtime, until, wanted })
    }

    /// The topics that are named, each with what the cluster says of it.
    pub(super) fn look(&self) -> Result<Vec<Topic>, Error> {
        match &self.place.topics {
            Topics::Named(names) => names.iter().map(|name| self.topic(name)).collect(),
            // Any answer will do.
            Topics::Pattern(_) => self.metadata(None, |_| Ok(())).map(|()| Vec::new()),
        }
    }

    fn ready(&self) -> Result<Vec<Topic>, Error> {
        let topics = self.look()?;
        let absent: Vec<&str> =
            topics.iter().filter(|topic| topic.partitions.is_none()).map(|topic| topic.name.as_str()).collect();
        if absent.is_empty() {
            return Ok(topics);
        }
        if !self.place.declare {
            let text = format!("topic '{}' does not exist in {}", absent.join("', '"), cluster_name(&self.place));
            return Err(Error::configuration(text));
        }
        self.create(&absent)?;
        self.look()
    }

    /// What the cluster says of a topic.
    pub(super) fn topic(&self, name: &str) -> Result<Topic, Error> {
        self.metadata(Some(name), |topics| {
            let found = topics.iter().find(|topic| topic.name() == name);
            match found.map(|topic| (topic, topic.error().map(Code::from))) {
                Some((topic, None | Some(Code::NoError | Code::LeaderNotAvailable))) => {
                    let partitions = u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX);
                    Ok(Topic { name: name.to_owned(), partitions: Some(partitions) })
                }
                None | Some((_, Some(Code::UnknownTopicOrPartition))) => {
                    Ok(Topic { name: name.to_owned(), partitions: None })
                }
                Some((_, Some(code))) => Err(refused(format_args!("topic '{name}'"), code)),
            }
        })
    }

    /// Asks until there is an answer.
    fn metadata<T>(
        &self,
        topic: Option<&str>,
        read: impl Fn(&[MetadataTopic]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (mut slice, longest) = SLICES;
        let mut voice = Backoff::default();
        // The first silence is not spoken of: most answers come with the next question.
        let mut patient = false;
        loop {
            let began = Instant::now();
            let left = self.until.saturating_duration_since(began);
            let answer = self.client.client().fetch_metadata(topic, slice.min(left).max(SLICES.0));
            match answer {
                Ok(metadata) => match read(metadata.topics()) {
                    Err(error) if error.is_retryable() && began < self.until => {
                        self.worth_waiting(&mut voice, &error)?
                    }
                    read => return read,
                },
                Err(error) => {
                    self.refused()?;
                    let error = self.client.context().unreachable(match error.rdkafka_error_code() {
                        Some(Code::BrokerTransportFailure | Code::OperationTimedOut) | None => "no answer",
                        Some(_) => "an answer that is none",
                    });
                    if Instant::now() >= self.until {
                        return Err(error);
                    }
                    if patient {
                        self.worth_waiting(&mut voice, &error)?;
                    }
                }
            }
            patient = true;
            // What comes at once is not asked for again at once.
            std::thread::sleep(slice.min(self.until.saturating_duration_since(began)).saturating_sub(began.elapsed()));
            slice = (slice * 2).min(longest);
        }
    }

    /// Whether a login, a certificate or a permission was refused meanwhile.
    fn refused(&self) -> Result<(), Error> {
        self.client.poll(Duration::ZERO);
        let context = self.client.context();
        // Log lines and errors come one by one, and there are few.
        for _ in 0..EVENTS {
            self.client.poll(Duration::ZERO);
        }
        for heard in context.take() {
            match heard {
                Heard::Refused(error) | Heard::Fatal(error) => return Err(error),
                Heard::Lost(_) | Heard::Odd(_) => {}
            }
        }
        Ok(())
    }

    /// Says once a minute that it is waited for.
    fn worth_waiting(&self, voice: &mut Backoff, error: &Error) -> Result<(), Error> {
        if self.wanted.strong_count() == 0 {
            return Err(Error::new(ErrorKind::Unreachable, "nobody waits any more"));
        }
        if voice.speaks(Instant::now()) {
            tracing::warn!(worker = &*self.worker, "not connected yet: {error}");
        }
        Ok(())
    }

    fn administer(&self) -> Result<AdminClient<Ear>, Error> {
        let ear = Ear::new(self.worker.clone(), &self.place);
        client::create(&client::admin(&self.place, &self.worker), ear, &self.place)
    }

    /// Creates topics and waits until the cluster knows them.
    fn create(&self, names: &[&str]) -> Result<(), Error> {
        let admin = self.administer()?;
        let wanted: Vec<NewTopic<'_>> =
            names.iter().map(|name| NewTopic::new(name, -1, TopicReplication::Fixed(-1))).collect();
        let options = AdminOptions::new().request_timeout(Some(ADMIN_LIMIT)).operation_timeout(Some(ADMIN_LIMIT));
        let created = self.runtime.block_on(admin.create_topics(&wanted, &options));
        let what = || format!("topic '{}' cannot be created", names.join("', '"));
        for topic in created.map_err(|error| explain(what(), &error))? {
            match topic {
                Ok(name) => tracing::info!(worker = &*self.worker, topic = name, "created the topic"),
                // Somebody else was faster.
                Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(refused(format_args!("topic '{name}' cannot be created"), code)),
            }
        }
        let (began, mut wait) = (Instant::now(), SLICES.0);
        for name in names {
            while self.topic(name)?.partitions.unwrap_or(0) == 0 {
                if began.elapsed() > SPREADS_WITHIN {
                    return Err(refused(format_args!("topic '{name}' was created"), Code::UnknownTopicOrPartition));
                }
                std::thread::sleep(wait);
                wait = (wait * 2).min(SLICES.1);
            }
        }
        Ok(())
    }

    /// The largest batch that a topic takes: its `max.message.bytes`, or the broker's default where it does not tell.
    fn largest(&self, name: &str) -> u32 {
        let options = AdminOptions::new().request_timeout(Some(ADMIN_LIMIT));
        let told = self.administer().and_then(|admin| {
            let topic = [ResourceSpecifier::Topic(name)];
            let told = self.runtime.block_on(admin.describe_configs(&topic, &options));
            told.map_err(|error| explain(format_args!("topic '{name}'"), &error))
        });
        let largest = told.map(|mut all| {
            let settings = all.pop()?.ok()?;
            settings.get("max.message.bytes")?.value.as_ref()?.parse().ok()
        });
        match largest {
            Ok(Some(largest)) => largest,
            _ => {
                let (worker, topic) = (&*self.worker, name);
                tracing::debug!(worker, topic, "the topic's max.message.bytes is not told: the default is supposed");
                DEFAULT_LARGEST
            }
        }
    }
}
