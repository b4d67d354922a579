//! One ractor actor for each consumer, producer, bridge, resource and service.
//!
//! Actors carry control, batches carry data: the loop that moves messages is a task *beside* its actor, so that the
//! actor's mailbox never waits for a broker. The actor holds the loop by a guard that aborts it, tells it what the
//! root orders, and fails when it fails.

mod blueprint;
mod connections;
mod producer;
mod resource;
mod service;
mod taker;
mod tasks;
mod watch;

pub(crate) use blueprint::{Blueprint, Link, Order};
pub(crate) use producer::ProducerPlan;
pub(crate) use resource::ResourcePlan;
pub(crate) use service::ServicePlan;
pub(crate) use taker::{LanesOf, MakeLanes, Publishing, TakerPlan};
