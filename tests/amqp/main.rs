//! RabbitMQ, on real nodes.

#[path = "../support/broker.rs"]
mod broker;
mod peer;
#[path = "../support/proxy.rs"]
mod proxy;
mod publishing;
mod writer;
