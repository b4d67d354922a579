//! Contracts between the engine and what brings messages.
//!
//! A [`Transport`] turns a [`Url`] into a plan without opening anything ([`Transport::source`], [`Transport::sink`]);
//! a plan opens as often as it is asked to, so that an actor that restarts opens the same again. What is opened is a
//! [`Source`] or a [`Sink`]: told things that never wait, and asked for what happens next.
//!
//! Each transport declares its [`Capabilities`]; the conformance suite in [`crate::testing`] tests what is declared.

#[cfg(feature = "amqp")]
pub mod amqp;
#[cfg(any(feature = "amqp", feature = "kafka"))]
mod backoff;
mod capabilities;
mod check;
#[cfg(feature = "file")]
pub mod file;
#[cfg(feature = "kafka")]
pub mod kafka;
mod key;
#[cfg(feature = "local")]
pub mod local;
pub mod memory;
mod options;
mod registry;
mod sink;
mod source;
mod store;
mod url;

pub use capabilities::{Capabilities, DeliveryCount};
pub use check::{Finding, Side};
pub use key::KeyFrom;
pub use options::{Options, did_you_mean};
pub use registry::Transports;
pub use sink::{Sink, SinkAsk, SinkEvent, SinkPlan, SinkSpec};
pub use source::{
    ATTEMPTS_HEADER, Ask, Backlog, Event, OVERSIZED_HEADER, Ownership, RETRY_AFTER_HEADER, Settlement, Source,
    SourceHooks, SourcePlan, SourceSpec, UNDECODABLE_HEADER, Verdict, attempts_of,
};
pub use store::{DeadPlace, Inspection, Shelf};
pub use url::{Secret, Url};

use crate::error::Error;
use std::future::Future;
use std::pin::Pin;

/// A boxed future, one for a batch or a call, never for a message.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that brings messages and takes them: the rooms below, or one of a user's own.
pub trait Transport: Send + Sync + 'static {
    /// The URL schemes it answers to, such as `["amqp", "amqps"]`.
    fn schemes(&self) -> &'static [&'static str];

    /// Plans a source. Opens nothing; every wrong option is in the one error, by name.
    fn source(&self, url: &Url, spec: &SourceSpec) -> Result<Box<dyn SourcePlan>, Error>;

    /// Plans a sink. Opens nothing; every wrong option is in the one error, by name.
    fn sink(&self, url: &Url, spec: &SinkSpec) -> Result<Box<dyn SinkPlan>, Error>;

    /// Where dead letters of that source go by default; [`DeadPlace::None`] where there is no place.
    fn dead_letters(&self, url: &Url, group: &str) -> DeadPlace;

    /// Where messages of that source wait for their next attempt outside of the worker, for a source that does not
    /// declare `delayed_redelivery`: a sink that holds each message for the delay that its [`RETRY_AFTER_HEADER`]
    /// says, which it may round up, and then puts it back into the queue that `url` reads, for this group alone.
    ///
    /// A message is confirmed once it is stored as durably as the queue stores it: its delivery is settled as
    /// [`Verdict::Retried`] then. Where it turns out at [`SinkPlan::open`] that the server cannot do it, that fails
    /// with the reason: the start of a worker that asked for durable retries fails by it, and any other worker waits
    /// in place. `None` where there is no such store.
    fn retry_store(&self, url: &Url, spec: &SinkSpec) -> Result<Option<Box<dyn SinkPlan>>, Error> {
        let _ = (url, spec);
        Ok(None)
    }

    /// Counts what is in the store of that source for `group`. Changes nothing.
    fn inspect<'a>(&'a self, url: &'a Url, group: &'a str) -> BoxFuture<'a, Result<Inspection, Error>> {
        let _ = group;
        Box::pin(async move { Err(Error::configuration(format!("'{}' cannot be inspected", url.scheme()))) })
    }

    /// Tries what a source or a sink of that URL needs where it is: broker, TLS, login, permissions, queues. Changes
    /// nothing, and takes as long as the transport waits for one answer.
    ///
    /// # Errors
    /// What would keep it from starting.
    fn check<'a>(&'a self, url: &'a Url, side: Side) -> BoxFuture<'a, Result<Vec<Finding>, Error>> {
        let _ = (url, side);
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Opens stored messages to be looked at without being taken: a dead-letter place, or a queue to peek into.
    fn shelf<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<Box<dyn Shelf>, Error>> {
        Box::pin(async move { Err(Error::configuration(format!("'{}' cannot be looked into", url.scheme()))) })
    }
}
