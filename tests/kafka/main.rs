//! Kafka, on real nodes.

#[path = "../support/broker.rs"]
mod broker;
mod consuming;
#[path = "../support/kafka.rs"]
mod kafka;
mod login;
mod looks;
mod outages;
mod poison;
mod producers;
mod publishing;
mod reader;
mod rebalances;
mod records;
mod shelves;
#[path = "../support/writer.rs"]
mod writer;
