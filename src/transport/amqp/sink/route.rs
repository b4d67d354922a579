//! Where a message goes: its exchange and its routing key.

use crate::failure::Failure;
use crate::message::MessageRef;
use crate::transport::RETRY_AFTER_HEADER;
use crate::transport::amqp::place::{Place, RoutingKey};
use crate::transport::amqp::topology::Tier;
use lapin::types::ShortString;
use std::time::Duration;

/// Where the messages of a sink go.
pub(super) struct Route {
    exchange: ShortString,
    routing_key: Key,
    /// As failures name it.
    pub(super) shown: String,
    /// Whether it is one queue, which is known to be absent when it returns a message.
    pub(super) is_queue: bool,
}

/// Where one message goes.
pub(super) struct Found {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    /// The retry queue that has to be there.
    pub(super) tier: Option<Tier>,
}

enum Key {
    Fixed(ShortString),
    Header(String),
    Message,
    /// The retry queue of this work queue for the delay that the message names.
    Retry(String),
}

impl Route {
    pub(super) fn of(place: &Place) -> Self {
        let routing_key = match &place.routing_key {
            // Checked to be short enough where the URL is read.
            RoutingKey::Fixed(key) => Key::Fixed(ShortString::try_new(key.as_str()).unwrap_or_default()),
            RoutingKey::Header(name) => Key::Header(name.clone()),
            RoutingKey::Key => Key::Message,
        };
        let shown = match place.exchange.as_str() {
            "" => format!("queue '{}'", place.queue),
            exchange => format!("exchange '{exchange}'"),
        };
        let exchange = ShortString::try_new(place.exchange.as_str()).unwrap_or_default();
        let is_queue = place.exchange.is_empty();
        Self { exchange, routing_key, shown, is_queue }
    }

    /// To the queues in which retries of this work queue wait.
    pub(super) fn of_retries(work: &str) -> Self {
        let shown = format!("retry store of queue '{work}'");
        Self { exchange: ShortString::default(), routing_key: Key::Retry(work.to_owned()), shown, is_queue: true }
    }

    /// Where this message goes.
    ///
    /// # Errors
    /// Permanent: it has none, or one that AMQP cannot carry.
    pub(super) fn find(&self, message: MessageRef<'_>) -> Result<Found, Failure> {
        let to = |routing_key, tier| Found { exchange: self.exchange.clone(), routing_key, tier };
        let (what, found) = match &self.routing_key {
            Key::Fixed(key) => return Ok(to(key.clone(), None)),
            Key::Header(name) => (format!("header '{name}'"), message.headers().get(name)),
            Key::Message => ("key".to_owned(), message.key()),
            Key::Retry(work) => {
                let after = message.headers().text(RETRY_AFTER_HEADER).and_then(|ms| ms.parse().ok());
                let after = after.ok_or_else(|| {
                    Failure::reject(format!("a message for the {} says no delay in {RETRY_AFTER_HEADER}", self.shown))
                })?;
                let tier = Tier::of(Duration::from_millis(after));
                let queue = ShortString::try_new(tier.queue(work))
                    .map_err(|_| Failure::reject(format!("the name of the {} is too long", self.shown)))?;
                return Ok(to(queue, Some(tier)));
            }
        };
        let refused = |why: &str| Failure::reject(format!("the routing key for {} {why}", self.shown));
        let found = found.ok_or_else(|| refused(&format!("comes from its {what}, and the message has none")))?;
        let text = std::str::from_utf8(found).map_err(|_| refused(&format!("in its {what} is not UTF-8")))?;
        let key =
            ShortString::try_new(text).map_err(|_| refused(&format!("in its {what} is longer than 255 bytes")))?;
        Ok(to(key, None))
    }
}
