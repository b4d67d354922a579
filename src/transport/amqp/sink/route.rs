//! Where a message goes: its exchange and its routing key.

use crate::failure::Failure;
use crate::message::MessageRef;
use crate::transport::amqp::place::{Place, RoutingKey};
use lapin::types::ShortString;

/// Where the messages of a sink go.
pub(super) struct Route {
    exchange: ShortString,
    routing_key: Key,
    /// As failures name it.
    pub(super) shown: String,
}

enum Key {
    Fixed(ShortString),
    Header(String),
    Message,
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
        Self { exchange: ShortString::try_new(place.exchange.as_str()).unwrap_or_default(), routing_key, shown }
    }

    /// The exchange and routing key of this message.
    ///
    /// # Errors
    /// Permanent: it has none, or one that AMQP cannot carry.
    pub(super) fn find(&self, message: MessageRef<'_>) -> Result<(ShortString, ShortString), Failure> {
        let (what, found) = match &self.routing_key {
            Key::Fixed(key) => return Ok((self.exchange.clone(), key.clone())),
            Key::Header(name) => (format!("header '{name}'"), message.headers().get(name)),
            Key::Message => ("key".to_owned(), message.key()),
        };
        let refused = |why: &str| Failure::reject(format!("the routing key for {} {why}", self.shown));
        let found = found.ok_or_else(|| refused(&format!("comes from its {what}, and the message has none")))?;
        let text = std::str::from_utf8(found).map_err(|_| refused(&format!("in its {what} is not UTF-8")))?;
        let key =
            ShortString::try_new(text).map_err(|_| refused(&format!("in its {what} is longer than 255 bytes")))?;
        Ok((self.exchange.clone(), key))
    }
}
