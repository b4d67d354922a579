//! Kafka, on real nodes.

#[path = "../support/broker.rs"]
mod broker;
mod consuming;
#[path = "../support/kafka.rs"]
mod kafka;
mod login;
mod looks;
mod outages;
mod producers;
mod poison;
mod publishing;
mod reader;
mod records;
#[path = "../support/writer.rs"]
mod writer;
