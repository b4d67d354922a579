//! RabbitMQ, on real nodes.

#[path = "../support/broker.rs"]
mod broker;
mod login;
mod node;
mod peer;
#[path = "../support/proxy.rs"]
mod proxy;
mod publishing;
mod raw;
mod retries;
mod tls;
mod topology;
mod writer;
