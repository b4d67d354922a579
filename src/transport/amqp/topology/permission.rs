//! Whether a user may read a queue or write to an exchange, asked without doing either.
//!
//! The broker looks at the permission first and at the arguments then: a request whose arguments are wrong is refused
//! by "access refused" to one who may not, and by "precondition failed" to one who may, and does nothing.

use super::super::place::{Place, RoutingKey};
use super::super::refusal::{Refusal, explain, is_of_topic, refusal};
use super::super::wire::{Wire, answered, answered_or_refused};
use crate::error::Error;
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};

/// Fails where the user may not consume the queue of a place.
pub(super) async fn to_read(wire: &Wire, place: &Place) -> Result<(), Error> {
    let what = format!("user '{}' reading queue '{}'", place.server.user, place.queue);
    let channel = wire.channel().await?;
    // A stream is looked at only by a consumer with a prefetch.
    answered(what.clone(), channel.basic_qos(1, BasicQosOptions::default())).await?;
    let mut wrong = FieldTable::default();
    wrong.insert("x-priority".into(), AMQPValue::LongString("longshore-probe".into()));
    let asked = channel.basic_consume(place.queue.as_str().into(), "".into(), BasicConsumeOptions::default(), wrong);
    judged(what.clone(), answered_or_refused(what, asked).await?.map(drop))
}

/// Fails where the user may not publish to what a place names, and where that exchange is absent.
pub(super) async fn to_write(wire: &Wire, place: &Place) -> Result<(), Error> {
    let what = match place.exchange.as_str() {
        "" => format!("user '{}' writing to the default exchange, for queue '{}'", place.server.user, place.queue),
        exchange => format!("user '{}' writing to exchange '{exchange}'", place.server.user),
    };
    let channel = wire.channel().await?;
    answered(what.clone(), channel.confirm_select(ConfirmSelectOptions::default())).await?;
    // Looked at after the permission and before the routing; an expiration is a number in text.
    let wrong = BasicProperties::default().with_expiration("longshore-probe".into());
    let (key, is_known) = match &place.routing_key {
        RoutingKey::Fixed(key) => (key.as_str(), true),
        RoutingKey::Header(_) | RoutingKey::Key => ("", false),
    };
    let asked = async {
        let options = BasicPublishOptions::default();
        channel.basic_publish(place.exchange.as_str().into(), key.into(), options, b"", wrong).await?.await
    };
    match answered_or_refused(&what, asked).await? {
        // Topics are allowed one by one: each message will hear of its own.
        Err(error) if !is_known && is_of_topic(&error) => Ok(()),
        answer => judged(what, answer.map(drop)),
    }
}

fn judged(what: String, answer: Result<(), lapin::Error>) -> Result<(), Error> {
    match answer {
        Err(error) if refusal(&error) == Refusal::Precondition => Ok(()),
        Err(error) => Err(explain(what, &error)),
        // A broker that looks at neither has let us do what we asked for.
        Ok(()) => Ok(()),
    }
}
