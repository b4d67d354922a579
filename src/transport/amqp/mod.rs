//! `amqp://user@host/vhost?queue=orders`: RabbitMQ over AMQP 0.9.1.
//!
//! A source and a sink each have a connection of their own, which they rebuild by themselves; so a blocked publisher
//! never keeps acks from going out. What the broker really promises, and what follows from it, is said where the code
//! relies on it.
//!
//! The rooms: `place` reads a URL; `dial`, `tls` and `login` connect; `wire` is a connection and the way to end it;
//! `topology` finds and declares; `source` and `sink` are one owner at work each; `properties` turns messages over.
//! `inspect` and `shelf` look without taking; `management` asks what AMQP does not tell.

mod dial;
mod inspect;
mod management;
mod place;
mod properties;
mod refusal;
mod shelf;
mod sink;
mod source;
mod tls;
mod topology;
mod wire;

use super::backoff;
use super::{
    BoxFuture, Capabilities, DeadPlace, DeliveryCount, Finding, Inspection, Shelf, Sink, SinkPlan, SinkSpec, Source,
    SourceHooks, SourcePlan, SourceSpec, Transport, Url,
};
use crate::error::Error;
use place::{Place, Side};

/// RabbitMQ.
#[derive(Debug, Clone, Default)]
pub struct Amqp {
    /// Shelves that were dropped and are still giving back what they held.
    looks: shelf::Looks,
}

/// What a place beside a queue has in common with it: how it is connected to, and whether it may be declared.
const KEPT_OPTIONS: [&str; 8] =
    ["ca", "cert", "cert-key", "auth", "heartbeat", "management", "declare", "count-as-delivery"];

/// Names of queues have 255 bytes; those of retry queues are longer by this much at most.
const LONGEST_RETRIED: usize = 255 - ".retry.probe-00000000".len();

/// The queue of dead letters of a queue.
fn dead_queue(queue: &str) -> String {
    format!("{queue}.dead")
}

fn capabilities(place: &Place) -> Capabilities {
    let stream = place.queue_type == Some(place::QueueType::Stream);
    Capabilities {
        durable: !stream,
        ordered_across_processes: place.single_active,
        partitions: false,
        // In the header `longshore-key`, which a sink of ours writes.
        keys: true,
        // The broker counts deliveries, and those of orderly ends too: they are no handler starts, and classic queues count
        // none. They are told as `Head::unclean`.
        delivery_count: DeliveryCount::None,
        delayed_redelivery: false,
        settles_one_by_one: true,
        bytes_bounded: false,
        takes_back: true,
        poison_protection: false,
        groups: false,
        shared: !place.single_active,
        replays: stream,
        finite: false,
        transactions: false,
        recognises_ids: false,
        batch: 256,
    }
}

impl Transport for Amqp {
    fn schemes(&self) -> &'static [&'static str] {
        &["amqp", "amqps"]
    }

    fn source(&self, url: &Url, spec: &SourceSpec) -> Result<Box<dyn SourcePlan>, Error> {
        Ok(Box::new(AmqpSourcePlan { place: Place::read(url, Side::Source)?, spec: spec.clone() }))
    }

    fn sink(&self, url: &Url, spec: &SinkSpec) -> Result<Box<dyn SinkPlan>, Error> {
        let (place, spec, target) = (Place::read(url, Side::Sink)?, spec.clone(), sink::Target::Place);
        Ok(Box::new(AmqpSinkPlan { place, spec, target }))
    }

    fn retry_store(&self, url: &Url, spec: &SinkSpec) -> Result<Option<Box<dyn SinkPlan>>, Error> {
        let (place, spec, target) = (Place::read(url, Side::Source)?, spec.clone(), sink::Target::Retries);
        // A message put back into a stream would be read by everybody anew.
        let can = place.queue_type != Some(place::QueueType::Stream) && place.queue.len() <= LONGEST_RETRIED;
        Ok(can.then(|| Box::new(AmqpSinkPlan { place, spec, target }) as Box<dyn SinkPlan>))
    }

    fn dead_letters(&self, url: &Url, _group: &str) -> DeadPlace {
        let Some(queue) = url.option("queue") else { return DeadPlace::None };
        let queue = dead_queue(queue);
        let kept = KEPT_OPTIONS.iter().filter_map(|name| Some((*name, url.option(name)?)));
        // Full, it says no: a dead letter that is dropped at the head would be lost after it was confirmed.
        let options: Vec<_> =
            [("queue", queue.as_str()), ("overflow", "reject-publish")].into_iter().chain(kept).collect();
        DeadPlace::At(url.with(url.path(), &options))
    }

    fn check<'a>(&'a self, url: &'a Url, side: Side) -> BoxFuture<'a, Result<Vec<Finding>, Error>> {
        Box::pin(async move { inspect::check(&Place::read(url, side)?, side).await })
    }

    fn inspect<'a>(&'a self, url: &'a Url, _group: &'a str) -> BoxFuture<'a, Result<Inspection, Error>> {
        Box::pin(async move {
            self.looks.ended().await;
            inspect::inspect(&Place::read(url, Side::Source)?).await
        })
    }

    fn shelf<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<Box<dyn Shelf>, Error>> {
        Box::pin(async move {
            self.looks.ended().await;
            let shelf = shelf::AmqpShelf::open(Place::read(url, Side::Source)?, self.looks.clone()).await?;
            Ok(Box::new(shelf) as Box<dyn Shelf>)
        })
    }
}

struct AmqpSourcePlan {
    place: Place,
    spec: SourceSpec,
}

impl SourcePlan for AmqpSourcePlan {
    fn capabilities(&self) -> Capabilities {
        capabilities(&self.place)
    }

    fn group(&self) -> Option<&str> {
        None
    }

    fn holds_for(&self) -> Option<std::time::Duration> {
        Some(self.place.consumer_timeout)
    }

    fn open(&self, _hooks: SourceHooks) -> BoxFuture<'_, Result<Box<dyn Source>, Error>> {
        let (place, spec) = (self.place.clone(), self.spec.clone());
        Box::pin(async move { Ok(Box::new(source::AmqpSource::open(place, spec).await?) as Box<dyn Source>) })
    }
}

struct AmqpSinkPlan {
    place: Place,
    spec: SinkSpec,
    target: sink::Target,
}

impl SinkPlan for AmqpSinkPlan {
    fn capabilities(&self) -> Capabilities {
        capabilities(&self.place)
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Sink>, Error>> {
        let (place, spec, target) = (self.place.clone(), self.spec.clone(), self.target);
        Box::pin(async move { Ok(Box::new(sink::AmqpSink::open(place, spec, target).await?) as Box<dyn Sink>) })
    }
}
