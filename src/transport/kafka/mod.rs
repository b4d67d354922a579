//! `kafka://h1:9092,h2:9092?topic=orders&group=ship`: Apache Kafka.
//!
//! librdkafka has threads and clocks of its own and calls that block: each of its clients is polled by one thread of
//! ours, which may be left behind, and nothing of it is called from a task. What the broker really promises, and what
//! follows from it, is said where the code relies on it.
//!
//! The rooms: `place` and `settings` read a URL; `client` sets up clients and `context` hears what they say; `topics` asks
//! the cluster for its topics and creates absent ones; `refusal` turns errors over; `inspect` and `shelf` look
//! without taking; `sink`
//! is a producer at work, and `source` a member of a group and a reader beside it.

mod client;
mod context;
mod inspect;
mod place;
mod refusal;
mod settings;
mod shelf;
mod sink;
mod source;
mod topics;

use super::{
    BoxFuture, Capabilities, DeadPlace, DeliveryCount, Finding, Inspection, Shelf, Side, Sink, SinkPlan, SinkSpec,
    Source, SourceHooks, SourcePlan, SourceSpec, Transport, Url,
};
use crate::error::Error;
use place::{Place, Topics};

/// Kafka.
#[derive(Debug, Clone, Default)]
pub struct Kafka {}

/// What a place beside a topic has in common with it: how it is connected to, and whether it may be created.
const KEPT_OPTIONS: [&str; 5] = ["ca", "cert", "cert-key", "auth", "declare"];
/// Settings of the client library that say how to connect begin with one of these.
const KEPT_SETTINGS: [&str; 6] = ["ssl.", "sasl.", "socket.", "broker.", "client.", "reconnect."];

/// The topic of dead letters of a topic, for a group.
fn dead_topic(topic: &str, group: &str) -> String {
    format!("{topic}.{group}.dead")
}

fn capabilities() -> Capabilities {
    Capabilities {
        durable: true,
        ordered_across_processes: true,
        partitions: true,
        keys: true,
        delivery_count: DeliveryCount::None,
        delayed_redelivery: false,
        settles_one_by_one: true,
        bytes_bounded: true,
        takes_back: true,
        poison_protection: true,
        groups: true,
        shared: true,
        replays: true,
        finite: false,
        transactions: false,
        recognises_ids: false,
        batch: 1_024,
    }
}

impl Transport for Kafka {
    fn schemes(&self) -> &'static [&'static str] {
        &["kafka", "kafkas"]
    }

    fn source(&self, url: &Url, spec: &SourceSpec) -> Result<Box<dyn SourcePlan>, Error> {
        let place = Place::read(url, Side::Source)?;
        let group = place.group.clone().unwrap_or_else(|| spec.default_group.to_string());
        Ok(Box::new(KafkaSourcePlan { place, group, spec: spec.clone() }))
    }

    fn sink(&self, url: &Url, spec: &SinkSpec) -> Result<Box<dyn SinkPlan>, Error> {
        let place = Place::read(url, Side::Sink)?;
        Ok(Box::new(KafkaSinkPlan { place, spec: spec.clone() }))
    }

    fn dead_letters(&self, url: &Url, group: &str) -> DeadPlace {
        let Ok(place) = Place::read(url, Side::Source) else { return DeadPlace::None };
        // Of several topics there is no one place: each of their letters says where it came from, so one is named.
        let Topics::Named(topics) = &place.topics else { return DeadPlace::None };
        let [topic] = &topics[..] else { return DeadPlace::None };
        let topic = dead_topic(topic, group);
        let kept = KEPT_OPTIONS.iter().filter_map(|name| Some((*name, url.option(name)?)));
        let connects = |name: &str| KEPT_SETTINGS.iter().any(|start| name.starts_with(start));
        let settings = place.settings.iter().filter(|(name, _)| connects(name));
        let settings = settings.map(|(name, value)| (name.as_str(), value.reveal()));
        let options: Vec<_> = [("topic", topic.as_str())].into_iter().chain(kept).chain(settings).collect();
        DeadPlace::At(url.with("", &options))
    }

    fn check<'a>(&'a self, url: &'a Url, side: Side) -> BoxFuture<'a, Result<Vec<Finding>, Error>> {
        Box::pin(async move { inspect::check(&Place::read(url, side)?).await })
    }

    fn inspect<'a>(&'a self, url: &'a Url, group: &'a str) -> BoxFuture<'a, Result<Inspection, Error>> {
        Box::pin(async move { inspect::inspect(&Place::read(url, Side::Source)?, group).await })
    }

    fn shelf<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<Box<dyn Shelf>, Error>> {
        Box::pin(async move {
            let shelf = shelf::KafkaShelf::open(Place::read(url, Side::Source)?).await?;
            Ok(Box::new(shelf) as Box<dyn Shelf>)
        })
    }
}

struct KafkaSourcePlan {
    place: Place,
    group: String,
    spec: SourceSpec,
}

impl SourcePlan for KafkaSourcePlan {
    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn group(&self) -> Option<&str> {
        Some(&self.group)
    }

    fn open(&self, _hooks: SourceHooks) -> BoxFuture<'_, Result<Box<dyn Source>, Error>> {
        let (place, spec) = (self.place.clone(), self.spec.clone());
        Box::pin(async move { Ok(Box::new(source::KafkaSource::open(place, spec).await?) as Box<dyn Source>) })
    }
}

struct KafkaSinkPlan {
    place: Place,
    spec: SinkSpec,
}

impl SinkPlan for KafkaSinkPlan {
    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Sink>, Error>> {
        let (place, spec) = (self.place.clone(), self.spec.clone());
        Box::pin(async move { Ok(Box::new(sink::KafkaSink::open(place, spec).await?) as Box<dyn Sink>) })
    }
}
