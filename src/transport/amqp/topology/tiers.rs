//! Queues in which retries wait: one for each delay, whose messages go back to the work queue when their time is over.
//!
//! The broker publishes what expires with confirms of its own and keeps it until the work queue has it
//! (`x-dead-letter-strategy=at-least-once`), which it does for quorum queues alone, and only where a full one refuses
//! instead of dropping (`x-overflow=reject-publish`). One whose work queue is absent or full at that moment is tried again
//! after 3 min (`dead_letter_worker_publisher_confirm_timeout` of the broker). With the default strategy 20 of 20 messages were lost whose work
//! queue was absent for the moment. All messages of a queue wait equally long, because only its head expires.

use super::super::place::Place;
use super::super::refusal::{Refusal, explain, refusal, words};
use super::super::wire::{Wire, answered, answered_or_refused};
use super::arguments::{
    Arguments, DEAD_LETTER_EXCHANGE, DELIVERY_LIMIT, EXPIRES, LIMIT, OVERFLOW, TTL, TYPE, Value, table,
};
use crate::error::Error;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use std::time::Duration;

const SECOND: u64 = 1;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Delays up to a day, in seconds.
const DELAYS: [u64; 15] = [
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
];
/// Longer ones are whole days, up to what the broker can count: 2³² ms are 49 days and some hours.
const MOST_DAYS: u64 = 49;
/// A probe that nobody could take away goes by itself.
const PROBE_EXPIRES_MS: i64 = 60_000;
const STRATEGY: &str = "x-dead-letter-strategy";
const ROUTING_KEY: &str = "x-dead-letter-routing-key";

/// One of the delays that there are queues for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Tier {
    seconds: u64,
}

impl Tier {
    /// The shortest that is not shorter than that; the longest where there is none.
    pub(in super::super) fn of(after: Duration) -> Self {
        let seconds = after.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX);
        let found = DELAYS.into_iter().find(|delay| *delay >= seconds);
        Self { seconds: found.unwrap_or_else(|| seconds.div_ceil(DAY).min(MOST_DAYS) * DAY) }
    }

    /// The queue of that tier.
    pub(in super::super) fn queue(self, work: &str) -> String {
        let (count, unit) = match self.seconds {
            seconds if seconds > DAY => (seconds / DAY, "d"),
            seconds if seconds.is_multiple_of(HOUR) => (seconds / HOUR, "h"),
            seconds if seconds.is_multiple_of(MINUTE) => (seconds / MINUTE, "m"),
            seconds => (seconds, "s"),
        };
        format!("{work}.retry.{count}{unit}")
    }

    fn arguments(self, work: &str) -> Arguments {
        [
            (TYPE, Value::text("quorum")),
            (LIMIT, Value::Number(DELIVERY_LIMIT)),
            (OVERFLOW, Value::text("reject-publish")),
            (TTL, Value::Number((self.seconds * 1_000) as i64)),
            (DEAD_LETTER_EXCHANGE, Value::text("")),
            (ROUTING_KEY, Value::text(work)),
            (STRATEGY, Value::text("at-least-once")),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }
}

/// Declares the queue of a tier; where the URL says `declare=false`, makes sure that it is there.
///
/// # Errors
/// It is otherwise than a retry needs it, or absent and may not be declared; the connection.
pub(in super::super) async fn declare(wire: &Wire, place: &Place, tier: Tier) -> Result<(), Error> {
    let queue = tier.queue(&place.queue);
    let what = format!("retry queue '{queue}'");
    let channel = wire.channel().await?;
    let options = QueueDeclareOptions { durable: true, passive: !place.declare, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(queue.as_str().into(), options, table(&tier.arguments(&place.queue)));
    match answered_or_refused(&what, asked).await? {
        Ok(_) => Ok(()),
        Err(error) if refusal(&error) == Refusal::Precondition => Err(Error::configuration(format!(
            "{what} exists and is otherwise than a retry needs it, so that messages could be lost in it: {}",
            words(&error)
        ))),
        Err(error) if refusal(&error) == Refusal::Absent => {
            Err(Error::configuration(format!("{what} is absent, and the URL says declare=false")))
        }
        Err(error) => Err(explain(what, &error)),
    }
}

/// Fails with the reason where this server cannot keep retries without losing any.
///
/// It is tried: a queue like those of the tiers is made and taken away again. That alone does not show whether the
/// broker does what the arguments say: with the feature flag `stream_queue` off it declares such a queue, and loses.
/// The flag shows by a stream, which is asked for in a way that makes none.
pub(in super::super) async fn supported(wire: &Wire, place: &Place) -> Result<(), Error> {
    let cannot = |why: &str| {
        Error::configuration(format!(
            "this server cannot keep retries of queue '{}' without losing any: {why}",
            place.queue
        ))
    };
    if !place.declare {
        return Ok(());
    }
    let queue = format!("{}.retry.probe-{:08x}", place.queue, fastrand::u32(..));
    let what = format!("retry queue '{queue}'");
    let mut stream = FieldTable::default();
    stream.insert(TYPE.into(), AMQPValue::LongString("stream".into()));
    let channel = wire.channel().await?;
    // The broker looks at the flag first, and then refuses a stream that is not durable.
    let asked = channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::default(), stream);
    match answered_or_refused(&what, asked).await {
        Ok(Err(error)) if refusal(&error) == Refusal::Precondition => {}
        Ok(Err(error)) => return Err(explain(what, &error)),
        // It closes the connection, as it takes the question for an error of its own.
        Err(error) if error.to_string().contains("feature flag") => {
            return Err(cannot("at-least-once dead-lettering needs its feature flag stream_queue, which is disabled"));
        }
        Err(error) => return Err(error),
        Ok(Ok(_)) => return Err(cannot("it makes streams that are not durable, so that it is not known")),
    }
    let mut arguments = Tier::of(Duration::ZERO).arguments(&place.queue);
    arguments.insert(EXPIRES.to_owned(), Value::Number(PROBE_EXPIRES_MS));
    let channel = wire.channel().await?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(queue.as_str().into(), options, table(&arguments));
    match answered_or_refused(&what, asked).await? {
        Ok(_) => {
            answered(what, channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default())).await.map(drop)
        }
        Err(error) if refusal(&error) == Refusal::Access => Err(explain(what, &error)),
        Err(error) => Err(cannot(&words(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_waits_in_the_nearest_tier_that_is_not_shorter() {
        for (ms, queue) in [
            (0, "q.retry.1s"),
            (1_000, "q.retry.1s"),
            (1_001, "q.retry.2s"),
            (4_000, "q.retry.5s"),
            (31_000, "q.retry.1m"),
            (60_000, "q.retry.1m"),
            (1_800_001, "q.retry.1h"),
            (86_400_000, "q.retry.24h"),
            (86_400_001, "q.retry.2d"),
            (u64::MAX, "q.retry.49d"),
        ] {
            assert_eq!(Tier::of(Duration::from_millis(ms)).queue("q"), queue, "{ms}");
        }
    }

    #[test]
    fn the_longest_tier_is_one_that_the_broker_can_count() {
        assert!(Tier::of(Duration::MAX).seconds * 1_000 <= u64::from(u32::MAX));
    }
}
