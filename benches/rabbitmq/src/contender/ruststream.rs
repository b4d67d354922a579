//! RustStream with its RabbitMQ broker, as its own guide shows it.

use super::{Result, WINDOW};
use crate::lap::Meter;
use crate::payload::Order;
use crate::queue::QueueType;
use ruststream_lapin::prelude::*;
use std::hint::black_box;
use std::num::NonZeroU16;
use std::sync::OnceLock;

/// A subscriber is a function without a place for state of ours.
static METER: OnceLock<Meter> = OnceLock::new();

#[subscriber(RabbitQuorumQueue::new("set at the mount site"))]
async fn on_quorum(order: &Order) -> HandlerOutcome {
    black_box(order);
    METER.get().expect("set before it runs").one();
    HandlerOutcome::ack()
}

#[subscriber(RabbitQueue::new("set at the mount site"))]
async fn on_classic(order: &Order) -> HandlerOutcome {
    black_box(order);
    METER.get().expect("set before it runs").one();
    HandlerOutcome::ack()
}

pub async fn consume(url: &str, queue: &str, kind: QueueType, messages: u64) -> Result<&'static Meter> {
    let meter = METER.get_or_init(|| Meter::new(messages));
    let broker = LapinBroker::new(url).prefetch(NonZeroU16::new(WINDOW).expect("a window is not zero"));
    let app = RustStream::new(AppInfo::new("bench", "0.0.0")).with_broker(broker, |b| match kind {
        QueueType::Quorum => {
            b.include(on_quorum.map_source(|_| RabbitQuorumQueue::new(queue)));
        }
        QueueType::Classic => {
            b.include(on_classic.map_source(|_| RabbitQueue::new(queue).durable(true)));
        }
    });
    app.run_until(meter.complete()).await?;
    Ok(meter)
}
