//! Settings of librdkafka that a URL passes on under their own names, and those that it may not.

use super::place::Protocol;
use crate::transport::{Options, Secret};
use rdkafka::ClientConfig;

/// Why a setting is refused.
enum No {
    /// Something else says it.
    Said(&'static str),
    /// It would break a promise, or what is built on it.
    Breaks(&'static str),
    /// It would break a promise by any value but these.
    Unless(&'static [&'static str], &'static str),
}

use No::{Breaks, Said, Unless};

/// Settings that are refused, each with the reason. A name that ends with a dot is all that begin with it.
const REFUSED: &[(&str, No)] = &[
    ("bootstrap.servers", Said("the hosts of the URL")),
    ("metadata.broker.list", Said("the hosts of the URL")),
    ("security.protocol", Said("the scheme, kafka or kafkas, and a login")),
    ("sasl.mechanism", Said("option 'auth'")),
    ("sasl.mechanisms", Said("option 'auth'")),
    ("sasl.username", Said("user:password before the hosts")),
    ("sasl.password", Said("user:password before the hosts")),
    ("ssl.ca.location", Said("option 'ca'")),
    ("ssl.certificate.location", Said("option 'cert'")),
    ("ssl.key.location", Said("option 'cert-key'")),
    ("enable.ssl.certificate.verification", Unless(&["true"], "certificates are always verified")),
    ("ssl.endpoint.identification.algorithm", Unless(&["https"], "host names are always verified")),
    ("group.id", Said("option 'group'")),
    ("group.instance.id", Said("option 'instance'")),
    ("group.protocol", Said("option 'protocol'")),
    ("auto.offset.reset", Said("option 'start'")),
    ("isolation.level", Said("option 'isolation'")),
    ("allow.auto.create.topics", Said("option 'declare'")),
    ("enable.auto.commit", Unless(&["false"], "what was not handled would be committed")),
    ("auto.commit.enable", Unless(&["false"], "what was not handled would be committed")),
    ("auto.commit.interval.ms", Breaks("the worker commits what was handled")),
    ("enable.auto.offset.store", Unless(&["false"], "what was not handled would be committed")),
    ("offset.store.method", Unless(&["broker"], "offsets are kept by the broker")),
    ("enable.partition.eof", Breaks("the worker knows the end of a partition by itself")),
    ("queued.max.messages.kbytes", Breaks("the byte budget of the worker bounds what is fetched")),
    ("enable.idempotence", Unless(&["true"], "a record could be stored twice or out of order")),
    ("acks", Unless(&["all", "-1"], "a record could be confirmed and lost")),
    ("request.required.acks", Unless(&["all", "-1"], "a record could be confirmed and lost")),
    ("partitioner", Unless(&["murmur2_random"], "records of a key would go where those of other clients do not")),
    ("queuing.strategy", Unless(&["fifo"], "records of a key would be stored out of order")),
    ("delivery.report.only.error", Unless(&["false"], "no record would be confirmed")),
    ("message.timeout.ms", Breaks("a record waits until it is stored, however long an outage lasts")),
    ("delivery.timeout.ms", Breaks("a record waits until it is stored, however long an outage lasts")),
    ("enable.gapless.guarantee", Unless(&["false"], "a record that is refused would end all others")),
    ("transactional.id", Breaks("exactly_once() chooses it")),
    ("log.queue", Breaks("log lines go the way of all others")),
    ("plugin.library.paths", Breaks("it would load foreign code")),
    ("test.", Breaks("it is for tests of the client library")),
];

/// Settings that the broker has in place of a member, where it decides who reads what.
const NOT_OF_CONSUMER: [&str; 3] = ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"];

/// Settings without a dot in their names that are refused by name, as they are known from elsewhere.
const WITHOUT_DOT: [&str; 2] = ["acks", "partitioner"];

/// Reads every option that is a setting of the client library: its name has a dot.
pub(super) fn read(options: &Options<'_>, protocol: Protocol) -> Vec<(String, Secret)> {
    let given = options.named(|name| name.contains('.') || WITHOUT_DOT.contains(&name));
    for (name, value) in &given {
        if let Some(wrong) = refused(name, value, protocol).or_else(|| unknown(name, value)) {
            options.wrong(wrong);
        }
    }
    given.into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value))).collect()
}

fn refused(name: &str, value: &str, protocol: Protocol) -> Option<String> {
    if protocol == Protocol::Consumer && NOT_OF_CONSUMER.contains(&name) {
        return Some(format!("option '{name}' has no meaning with 'protocol=consumer': the broker decides it"));
    }
    if name == "partition.assignment.strategy" {
        let cooperative = value.split(',').filter(|each| each.trim() == "cooperative-sticky").count();
        let mixed = cooperative != 0 && cooperative != value.split(',').count();
        return mixed.then(|| format!("option '{name}={value}' mixes cooperative and eager strategies"));
    }
    let is_it = |at: &str| at == name || (at.ends_with('.') && name.starts_with(at));
    let (_, no) = REFUSED.iter().find(|(at, _)| is_it(at))?;
    match no {
        Said(what) => Some(format!("option '{name}' is refused: {what} says it")),
        Breaks(why) => Some(format!("option '{name}' is refused: {why}")),
        Unless(values, why) => {
            // A value is shown by its option's name alone: it might be a secret that slipped.
            (!values.contains(&value))
                .then(|| format!("option '{name}' is refused but for {}: {why}", values.join(" or ")))
        }
    }
}

/// What the client library says of a setting that it does not know, or not by this value.
fn unknown(name: &str, value: &str) -> Option<String> {
    let tried = ClientConfig::new().set(name, value).create_native_config();
    let error = match tried {
        Ok(_) => return None,
        Err(rdkafka::error::KafkaError::ClientConfig(_, why, _, _)) => why,
        Err(error) => error.to_string(),
    };
    // Its words repeat the value.
    let known = !error.starts_with("No such configuration property");
    Some(match known {
        true => format!("option '{name}' has a value that librdkafka does not take"),
        false => format!("unknown option '{name}': librdkafka has no such setting"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Url;

    fn wrong(query: &str, protocol: Protocol) -> Option<String> {
        let url = Url::parse(&format!("kafka://h?{query}")).unwrap();
        let options = url.options();
        read(&options, protocol);
        options.finish().err().map(|error| error.to_string())
    }

    #[test]
    fn every_refusal_names_the_setting_and_the_reason() {
        for (name, no) in REFUSED {
            let name = if name.ends_with('.') { format!("{name}x") } else { (*name).to_owned() };
            let (value, why) = match no {
                Said(why) | Breaks(why) => ("1", why),
                Unless(_, why) => ("other", why),
            };
            let error = wrong(&format!("{name}={value}"), Protocol::Classic).unwrap();
            assert!(error.contains(&format!("'{name}'")) && error.contains(why), "{error}");
            assert!(!error.contains("unknown option"), "{error}");
            if let Unless(values, _) = no {
                for value in *values {
                    assert_eq!(wrong(&format!("{name}={value}"), Protocol::Classic), None, "{name}={value}");
                }
            }
        }
    }

    #[test]
    fn what_is_refused_exists_so_that_a_misspelt_refusal_is_found_here() {
        for (name, _) in REFUSED.iter().filter(|(name, _)| !name.ends_with('.')) {
            let tried = ClientConfig::new().set(*name, "no value that any setting has").create_native_config();
            let error = tried.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!error.contains("No such configuration property"), "{name}: {error}");
        }
    }

    #[test]
    fn other_settings_are_passed_on() {
        for query in [
            "linger.ms=5",
            "compression.codec=zstd",
            "compression.type=lz4",
            "message.max.bytes=1000",
            "session.timeout.ms=6000",
            "max.poll.interval.ms=6000",
            "partition.assignment.strategy=range",
            "partition.assignment.strategy=range,roundrobin",
            "client.id=me",
            "client.rack=a",
        ] {
            assert_eq!(wrong(query, Protocol::Classic), None, "{query}");
        }
    }

    #[test]
    fn a_setting_that_does_not_exist_or_has_no_such_value_is_named_without_its_value() {
        let error = wrong("linger.msec=canary", Protocol::Classic).unwrap();
        assert!(error.contains("unknown option 'linger.msec'") && !error.contains("canary"), "{error}");
        let error = wrong("linger.ms=canary", Protocol::Classic).unwrap();
        assert!(error.contains("option 'linger.ms' has a value") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn strategies_are_not_mixed_and_the_broker_decides_what_it_decides() {
        let error = wrong("partition.assignment.strategy=range,cooperative-sticky", Protocol::Classic).unwrap();
        assert!(error.contains("mixes cooperative and eager"), "{error}");
        for name in NOT_OF_CONSUMER {
            let error = wrong(&format!("{name}=6000"), Protocol::Consumer).unwrap();
            assert!(error.contains(name) && error.contains("protocol=consumer"), "{error}");
        }
    }
}
