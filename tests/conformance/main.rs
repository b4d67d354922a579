//! The conformance suite: an honest transport passes it, a broken one fails the cases that name its fault, and the
//! transports of this crate pass it.

mod broken;
mod reference;
mod rooms;

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(any(feature = "amqp", feature = "kafka"))]
#[path = "../support/broker.rs"]
mod broker;
#[cfg(feature = "kafka")]
#[path = "../support/kafka.rs"]
mod kafka;
#[cfg(feature = "kafka")]
#[path = "kafka.rs"]
mod on_kafka;
#[cfg(feature = "kafka")]
#[path = "../support/proxy.rs"]
mod proxy;
