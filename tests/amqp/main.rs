//! RabbitMQ, on real nodes.

#[path = "../support/broker.rs"]
mod broker;
mod consuming;
mod contents;
mod login;
mod node;
mod peer;
#[path = "../support/proxy.rs"]
mod proxy;
mod publishing;
mod raw;
mod reader;
mod retries;
mod tls;
mod topology;
#[path = "../support/writer.rs"]
mod writer;
