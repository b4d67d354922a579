//! A message of ours and the properties and headers of AMQP, both ways.
//!
//! | ours | on the wire |
//! |---|---|
//! | key | header `longshore-key` (bytes), also where `key=` finds it elsewhere |
//! | header | header, as a long string; a value of another type comes in as text: numbers and booleans as JSON writes them, a timestamp as RFC 3339, an array or a table as JSON, bytes as they are, void as no bytes |
//! | header `amqp-NAME` | the property of that name: `content-type`, `content-encoding`, `priority`, `correlation-id`, `reply-to`, `message-id`, `type`, `app-id`; `expiration` and `user-id` come in and never go out |
//! | order and repeats of headers | header `longshore-headers`, where a table would lose them: see `order` |
//! | timestamp | property `timestamp` (seconds), and header `timestamp_in_ms` where it has milliseconds |
//! | tombstone | header `longshore-tombstone`; no body |
//!
//! What the broker adds about the past of a message (`x-death`, `x-first-death-*`, `x-last-death-*`,
//! `x-delivery-count`) is not handed on: published again, it would mislead the broker.

pub(super) mod inbound;
pub(super) mod order;
pub(super) mod outbound;

/// Header of a message whose payload is absent, not empty.
pub(super) const TOMBSTONE_HEADER: &str = "longshore-tombstone";
/// Header with the milliseconds that the property `timestamp` cannot hold; RabbitMQ's own plugin calls it so.
pub(super) const MILLISECONDS_HEADER: &str = "timestamp_in_ms";
/// What stands before the name of a property among the headers of a message.
pub(super) const PROPERTY_PREFIX: &str = "amqp-";
