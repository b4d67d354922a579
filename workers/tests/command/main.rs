//! The real binary on real files.

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(feature = "amqp")]
#[path = "../../../tests/support/broker.rs"]
mod broker;
mod check;
mod dead_letters;
mod ends;
mod exit_codes;
mod round_trip;
mod run;
