//! What an operator should know about a queue that was found: pure.

use super::super::place::{Place, QueueType};
use super::arguments::{
    Arguments, DEAD_LETTER_EXCHANGE, DELIVERY_LIMIT, EXPIRES, LIMIT, MAX_BYTES, MAX_LENGTH, MAX_PRIORITY, OVERFLOW,
    SINGLE_ACTIVE, TTL, Value,
};
use super::probe::Found;
use crate::error::Error;
use crate::transport::Side;

/// Where the URL asks for what the queue is not, and a promise would break.
pub(super) fn refused(found: &Found, place: &Place) -> Result<(), Error> {
    let mut broken = Vec::new();
    let (is, said) = (found.queue_type(), place.queue_type);
    if (is == Some(QueueType::Stream)) != (said == Some(QueueType::Stream)) {
        broken.push(match said {
            Some(QueueType::Stream) => "the URL says type=stream, which is read in another way".to_owned(),
            _ => "a stream is not durable for its reader: say type=stream".to_owned(),
        });
    }
    if place.single_active && !has(&found.arguments, SINGLE_ACTIVE) {
        broken.push(
            "the URL says single-active=true and the queue is without it: order by key over several processes would \
             not hold"
                .to_owned(),
        );
    }
    if broken.is_empty() {
        return Ok(());
    }
    let exists = format!("queue '{}' exists as {}", place.queue, kind(found));
    Err(Error::configuration(format!("{exists}; {}: delete it, or change the URL", broken.join("; "))))
}

/// What may lose messages or is otherwise than the URL says, each a sentence without a full stop. `policy`: what the
/// management plugin says that policies add.
pub(super) fn warnings(found: &Found, policy: &Arguments, place: &Place, side: Side) -> Vec<String> {
    let queue = &place.queue;
    let mut all = Vec::new();
    let differs = differences(found, place);
    if !differs.is_empty() {
        all.push(format!("queue '{queue}' exists as {}; {}; it is used as it is", kind(found), differs.join("; ")));
    }
    if !found.durable {
        all.push(format!("queue '{queue}' is not durable: it is gone with the broker, and its messages with it"));
    }
    if found.auto_delete {
        all.push(format!("queue '{queue}' is deleted with its last consumer, which every stop may be"));
    }
    let of = |name: &str| policy.get(name.trim_start_matches("x-")).or_else(|| found.arguments.get(name));
    let dead_letters = of(DEAD_LETTER_EXCHANGE).is_some();
    let nowhere = if dead_letters { "" } else { ", and without a dead-letter exchange it is lost" };
    if found.queue_type() == Some(QueueType::Quorum) {
        match of(LIMIT).and_then(Value::number) {
            Some(limit) if limit < DELIVERY_LIMIT => all.push(format!(
                "queue '{queue}' has a delivery limit of {limit}: every stop counts as a delivery of each message that \
                 was prefetched; one delivered more often is dropped by the broker{nowhere}"
            )),
            Some(_) => {}
            None => all.push(format!(
                "queue '{queue}' has no delivery limit of its own: RabbitMQ 4 then sets 20, and every stop counts as a \
                 delivery of each message that was prefetched; one delivered more often is dropped{nowhere}"
            )),
        }
    }
    let bounded = [MAX_LENGTH, MAX_BYTES].into_iter().find_map(|name| Some((name, of(name)?)));
    let overflow = of(OVERFLOW).and_then(Value::as_text).unwrap_or("drop-head");
    match bounded {
        Some((name, bound)) if overflow != "reject-publish" && found.queue_type() != Some(QueueType::Stream) => {
            all.push(format!(
                "queue '{queue}' holds {name}={bound} and then drops messages that were confirmed (overflow {overflow}): \
                 reject-publish would not"
            ));
        }
        _ => {}
    }
    for (name, what) in [(TTL, "messages"), (EXPIRES, "the queue itself, while unused,")] {
        if let Some(ms) = of(name) {
            let lost = if name == TTL && dead_letters { "dead-lettered" } else { "dropped" };
            all.push(format!("queue '{queue}' has {name}={ms}: {what} older than {ms} ms are {lost} by the broker"));
        }
    }
    if side == Side::Source && has(&found.arguments, SINGLE_ACTIVE) && !place.single_active {
        all.push(format!(
            "queue '{queue}' has a single active consumer and the URL does not say so: other processes wait idle; say \
             single-active=true"
        ));
    }
    all
}

/// What the URL says and the queue is not, argument by argument, where it can be used all the same.
fn differences(found: &Found, place: &Place) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(said) = place.queue_type
        && found.queue_type() != Some(said)
    {
        all.push(format!("the URL says type={}", said.name()));
    }
    if let Some(said) = place.max_priority {
        match found.arguments.get(MAX_PRIORITY).and_then(Value::number) {
            Some(is) if is == i64::from(said) => {}
            Some(is) => all.push(format!("the URL says max-priority={said} and it has {is}")),
            None => all.push(format!("the URL says max-priority={said} and it knows no priorities")),
        }
    }
    if place.rejects_when_full && found.arguments.get(OVERFLOW).and_then(Value::as_text) != Some("reject-publish") {
        all.push("the URL says overflow=reject-publish and it has none, so that a full one drops its head".to_owned());
    }
    all
}

fn has(arguments: &Arguments, name: &str) -> bool {
    arguments.get(name) == Some(&Value::Bool(true))
}

/// `quorum`, as the URL would say it.
fn kind(found: &Found) -> &str {
    match found.queue_type() {
        Some(known) => known.name(),
        None => found.arguments.get(super::arguments::TYPE).and_then(Value::as_text).unwrap_or("an unknown type"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Url;

    fn place(options: &str) -> Place {
        Place::read(&Url::parse(&format!("amqp://h?queue=orders{options}")).unwrap(), Side::Source).unwrap()
    }

    fn found(arguments: &[(&str, Value)]) -> Found {
        let arguments = arguments.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Found { durable: true, auto_delete: false, arguments }
    }

    fn quorum(limit: i64) -> Found {
        found(&[("x-queue-type", Value::text("quorum")), ("x-delivery-limit", Value::Number(limit))])
    }

    fn said(found: &Found, options: &str) -> String {
        warnings(found, &Arguments::new(), &place(options), Side::Source).join("\n")
    }

    #[test]
    fn a_queue_of_ours_needs_no_word() {
        assert_eq!(said(&quorum(DELIVERY_LIMIT), "&type=quorum"), "");
    }

    #[test]
    fn a_difference_is_explained_argument_by_argument() {
        let classic = found(&[]);
        assert_eq!(
            said(&classic, "&type=quorum&overflow=reject-publish"),
            "queue 'orders' exists as classic; the URL says type=quorum; the URL says overflow=reject-publish and it has \
             none, so that a full one drops its head; it is used as it is"
        );
        assert!(said(&classic, "&type=classic&max-priority=5").contains("max-priority=5 and it knows no priorities"));
        assert_eq!(said(&classic, "&type=classic"), "");
    }

    #[test]
    fn what_the_broker_would_lose_by_itself_is_named() {
        let low = quorum(3);
        assert!(said(&low, "").contains("limit of 3") && said(&low, "").contains("it is lost"), "{}", said(&low, ""));
        let mut kept = low.clone();
        kept.arguments.insert(DEAD_LETTER_EXCHANGE.into(), Value::text("dlx"));
        assert!(!said(&kept, "").contains("it is lost"), "{}", said(&kept, ""));
        assert!(said(&found(&[("x-queue-type", Value::text("quorum"))]), "").contains("RabbitMQ 4 then sets 20"));
        assert!(said(&found(&[("x-max-length", Value::Number(5))]), "").contains("drops messages that were confirmed"));
        assert!(said(&Found { durable: false, ..found(&[]) }, "").contains("is not durable"));
    }

    #[test]
    fn a_policy_counts_as_an_argument_does() {
        let policy = Arguments::from([("max-length".to_owned(), Value::Number(5))]);
        let said = warnings(&quorum(DELIVERY_LIMIT), &policy, &place(""), Side::Sink);
        assert!(said.len() == 1 && said[0].contains("x-max-length=5"), "{said:?}");
    }

    #[test]
    fn what_would_break_a_promise_is_refused() {
        let refusal = |found: &Found, options: &str| refused(found, &place(options)).unwrap_err().to_string();
        assert!(refusal(&found(&[]), "&single-active=true").contains("order by key over several processes"));
        let stream = found(&[("x-queue-type", Value::text("stream"))]);
        assert!(refusal(&stream, "").contains("say type=stream"));
        assert!(refusal(&found(&[]), "&type=stream").starts_with("queue 'orders' exists as classic; the URL says"));
        refused(&stream, &place("&type=stream")).unwrap();
    }
}
