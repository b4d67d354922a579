//! Consumers that a queue still has from before the broker went down.
//!
//! A quorum queue whose node comes back knows the consumers it had, and takes back what they held once it has found out
//! that they are gone: 0.1 to 0.5 s after the node answers (RabbitMQ 3.10.8). Who consumes before that is given what was
//! never delivered first, and what comes before it in the order of its key behind it. The two happen in one step of the
//! queue: as long as it counts a consumer it may hold something, and when it counts none it holds nothing.

use super::super::place::QueueType;
use super::super::topology::Queue;
use super::super::wire::answered;
use super::Setup;
use crate::error::Error;
use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use std::time::{Duration, Instant};

/// A queue that counts consumers for longer has living ones, of other processes; order holds within a process then. It
/// takes one write to its disk to forget one, which on a busy disk is more than a second.
const LIMIT: Duration = Duration::from_secs(3);
/// A queue whose leader is not elected yet is said to have neither messages nor consumers: believed after so long.
const SURE_AFTER: Duration = Duration::from_millis(300);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until a queue has no consumer, where the order by key depends on that.
///
/// # Errors
/// Of the channel or the connection.
pub(super) async fn gone(channel: &Channel, queue: &Queue, setup: &Setup) -> Result<(), Error> {
    let (place, until) = (&setup.place, Instant::now() + LIMIT);
    let quorum = queue.queue_type.unwrap_or(place.declared_type()) == QueueType::Quorum;
    // With a single active consumer the broker keeps the order, and others in line are no ghosts.
    let in_line = queue.single_active.unwrap_or(place.single_active);
    if !quorum || !setup.spec.by_key || in_line || queue.declared {
        return Ok(());
    }
    let mut nothing_since = None;
    while Instant::now() < until {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = channel.queue_declare(place.queue.as_str().into(), passive, FieldTable::default());
        let found = answered(format!("queue '{}'", place.queue), asked).await?;
        match (found.consumer_count(), found.message_count()) {
            (0, 0) if nothing_since.get_or_insert_with(Instant::now).elapsed() < SURE_AFTER => {}
            (0, _) => break,
            _ => nothing_since = None,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
