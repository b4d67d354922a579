//! RabbitMQ, on a real broker.

mod login;
mod node;
mod raw;
mod tls;
mod topology;

#[path = "../support/broker.rs"]
mod broker;
#[path = "../support/proxy.rs"]
mod proxy;
