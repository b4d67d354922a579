//! The real binary on real files.

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(any(feature = "amqp", feature = "kafka"))]
#[path = "../../../tests/support/broker.rs"]
mod broker;
mod check;
mod dead_letters;
mod ends;
mod exit_codes;
#[cfg(feature = "kafka")]
#[path = "../../../tests/support/kafka.rs"]
mod kafka;
#[cfg(feature = "kafka")]
#[path = "kafka.rs"]
mod on_kafka;
mod round_trip;
mod run;
