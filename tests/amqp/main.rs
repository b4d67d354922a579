//! RabbitMQ, on real nodes.

#[path = "../support/broker.rs"]
mod broker;
mod contents;
mod peer;
#[path = "../support/proxy.rs"]
mod proxy;
mod publishing;
mod retries;
mod writer;
