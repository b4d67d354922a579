//! What a queue really is. AMQP 0.9.1 does not tell, but a declaration that differs is refused by a text that names one
//! argument and its value; so the queue is declared again and again, each time with what the last refusal said.
//!
//! **No probe can create a queue**, also where the queue is deleted between two of them: each carries an argument which
//! the broker compares for no queue of that type, and for which it refuses to create one ([`poison`]). Both were tried
//! on RabbitMQ 3.10 for each type; the value alone (a text where a number has to be) is invalid as well. A queue that is
//! as it was described answers with "ok", one that is gone with "invalid arg".
//!
//! Each refusal is a line in the broker's log and costs a channel; a queue of ours needs none of them, because the first
//! probe says what ours are declared with.

use super::super::place::{Place, QueueType};
use super::super::refusal::{Refusal, refusal, words};
use super::super::wire::{Wire, answered_or_refused};
use super::arguments::{Arguments, LIMIT, MAX_PRIORITY, OVERFLOW, SINGLE_ACTIVE, TYPE, Value, ours, table};
use crate::error::Error;
use lapin::options::QueueDeclareOptions;

/// Each probe tells one property, of which a queue has some 20.
const MOST_PROBES: usize = 24;

/// What a probed queue is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) arguments: Arguments,
}

impl Found {
    pub(super) fn queue_type(&self) -> Option<QueueType> {
        match self.arguments.get(TYPE).and_then(Value::as_text) {
            // A queue without this argument is one from before there were types.
            None | Some("classic") => Some(QueueType::Classic),
            Some("quorum") => Some(QueueType::Quorum),
            Some("stream") => Some(QueueType::Stream),
            Some(_) => None,
        }
    }
}

impl Found {
    /// Takes away what ours are declared with and what the broker did not look at, so that it proves nothing.
    fn forget_what_was_not_compared(&mut self) {
        let not_compared: &[&str] = match self.queue_type() {
            Some(QueueType::Quorum) => &[MAX_PRIORITY],
            Some(QueueType::Classic) => &[LIMIT],
            Some(QueueType::Stream) | None => &[LIMIT, OVERFLOW, SINGLE_ACTIVE, MAX_PRIORITY],
        };
        self.arguments.retain(|name, _| !not_compared.contains(&name.as_str()));
    }
}

/// What came of probing.
#[derive(Debug)]
pub(super) enum Probed {
    Known(Found),
    /// It is not there, and this user may make it.
    Absent,
    /// It could not be seen, for this reason; a queue that is there can be used all the same.
    Hidden(String),
    /// This user may not declare it, in the broker's words.
    Forbidden(String),
}

/// An argument for which no queue of that type is created, and which none that exists is compared by.
fn poison(arguments: &Arguments) -> &'static str {
    match arguments.get(TYPE).and_then(Value::as_text) {
        Some("stream") => "x-delivery-limit",
        _ => "x-stream-max-segment-size-bytes",
    }
}

/// Finds out what the queue of a place is.
///
/// # Errors
/// The connection.
pub(super) async fn probe(wire: &Wire, place: &Place) -> Result<Probed, Error> {
    let mut found = Found { durable: true, auto_delete: false, arguments: ours(place) };
    for _ in 0..MOST_PROBES {
        let mut arguments = found.arguments.clone();
        arguments.insert(poison(&found.arguments).to_owned(), Value::text("longshore-probe"));
        let options = QueueDeclareOptions {
            durable: found.durable,
            auto_delete: found.auto_delete,
            ..QueueDeclareOptions::default()
        };
        let channel = wire.channel().await?;
        let asked = channel.queue_declare(place.queue.as_str().into(), options, table(&arguments));
        let Err(error) = answered_or_refused(format!("queue '{}'", place.queue), asked).await? else {
            found.forget_what_was_not_compared();
            return Ok(Probed::Known(found));
        };
        let text = words(&error);
        match refusal(&error) {
            Refusal::Precondition if text.contains("inequivalent arg") => {
                let Some(difference) = Difference::read(&text) else { return Ok(Probed::Hidden(text)) };
                if !difference.apply(&mut found) {
                    return Ok(Probed::Hidden(text));
                }
            }
            // Only creating one looks at that: there is none.
            Refusal::Precondition => return Ok(Probed::Absent),
            Refusal::Access => return Ok(Probed::Forbidden(text)),
            _ => return Ok(Probed::Hidden(text)),
        }
    }
    Ok(Probed::Hidden(format!("it is not described by {MOST_PROBES} probes")))
}

/// One property in which a declaration differed from what is there.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    name: String,
    /// `None`: the queue does not have it.
    current: Option<Value>,
}

impl Difference {
    /// Reads `inequivalent arg 'NAME' for queue 'Q' in vhost 'V': received R but current is C`, where C is `none`,
    /// `'text'`, or `the value 'text' of type 'longstr'`.
    fn read(text: &str) -> Option<Self> {
        let (name, _) = text.split_once("inequivalent arg '")?.1.split_once('\'')?;
        let (received, current) = text.rsplit_once(" but current is ")?;
        if current == "none" {
            return Some(Self { name: name.to_owned(), current: None });
        }
        let (value, kind) = match current.strip_prefix("the value ") {
            Some(typed) => {
                let (value, kind) = typed.rsplit_once(" of type ")?;
                (value, Some(kind))
            }
            None => (current, None),
        };
        let value = value.strip_prefix('\'')?.strip_suffix('\'')?;
        let current = match kind.map(|kind| kind.trim_matches('\'')) {
            Some("longstr") => Value::text(value),
            Some("bool") => Value::Bool(value.parse().ok()?),
            Some("byte" | "signedint" | "short" | "long" | "unsignedbyte" | "unsignedshort" | "unsignedint") => {
                Value::Number(value.parse().ok()?)
            }
            Some(_) => return None,
            // Of the type that was sent: a different one is said with its type.
            None if received.ends_with("'true'") || received.ends_with("'false'") => Value::Bool(value.parse().ok()?),
            None => value.parse().map_or_else(|_| Value::text(value), Value::Number),
        };
        Some(Self { name: name.to_owned(), current: Some(current) })
    }

    /// Describes the queue by it; false where that changes nothing, so that no probe is sent twice.
    fn apply(self, found: &mut Found) -> bool {
        let before = found.clone();
        match (self.name.as_str(), self.current) {
            ("durable", Some(Value::Bool(is))) => found.durable = is,
            ("auto_delete", Some(Value::Bool(is))) => found.auto_delete = is,
            ("durable" | "auto_delete", _) => {}
            (name, Some(value)) => drop(found.arguments.insert(name.to_owned(), value)),
            (name, None) => drop(found.arguments.remove(name)),
        }
        *found != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_refusal_is_read() {
        for (said, name, current) in [
            ("received 'true' but current is 'false'", "durable", Some(Value::Bool(false))),
            ("received 'quorum' but current is 'stream'", "x-queue-type", Some(Value::text("stream"))),
            ("received '1000000' but current is '3'", "x-delivery-limit", Some(Value::Number(3))),
            ("received none but current is the value '' of type 'longstr'", "x-dlx", Some(Value::text(""))),
            ("received none but current is the value '5' of type 'signedint'", "x-max", Some(Value::Number(5))),
            ("received the value 'it' of type 'longstr' but current is none", "x-queue-type", None),
        ] {
            let text =
                format!("PRECONDITION_FAILED - inequivalent arg '{name}' for queue 'a 'b'' in vhost '/': {said}");
            assert_eq!(Difference::read(&text), Some(Difference { name: name.to_owned(), current }), "{said}");
        }
        assert_eq!(Difference::read("inequivalent arg 'x' for queue 'q': received none but current is [1]"), None);
    }

    #[test]
    fn a_refusal_that_teaches_nothing_ends_the_probing() {
        let mut found = Found { durable: true, auto_delete: false, arguments: Arguments::new() };
        assert!(!Difference { name: "x-new".into(), current: None }.apply(&mut found));
        assert!(Difference { name: "x-new".into(), current: Some(Value::Number(1)) }.apply(&mut found));
        assert!(!Difference { name: "exclusive".into(), current: None }.apply(&mut found));
    }
}
