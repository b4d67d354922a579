//! What a broker or the client library said no to, as an error of ours.

use crate::error::{Error, ErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::fmt::Display;

/// What a code means for whoever asked.
pub(super) fn kind(code: Code) -> ErrorKind {
    match code {
        // Nothing that waiting mends, and nothing that a setting of ours is wrong about.
        Code::Authentication
        | Code::SSL
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::DelegationTokenAuthorizationFailed => ErrorKind::Credentials,
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidReplicaAssignment
        | Code::InvalidConfig
        | Code::InvalidGroupId
        | Code::InvalidSessionTimeout
        | Code::InvalidTransactionTimeout
        | Code::InconsistentGroupProtocol
        | Code::UnsupportedAssignor
        | Code::UnsupportedFeature
        | Code::UnsupportedVersion
        | Code::PolicyViolation
        | Code::InvalidArgument => ErrorKind::Configuration,
        // Somebody else has taken over, or this client can never go on.
        Code::Fatal
        | Code::Fenced
        | Code::FencedInstanceId
        | Code::UnreleasedInstanceId
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch => ErrorKind::GaveUp,
        _ => ErrorKind::Unreachable,
    }
}

/// What the client library says in words, in lower case and without its own name for it.
pub(super) fn words(code: Code) -> String {
    // `TopicAuthorizationFailed (Broker: Topic authorization failed)`.
    let text = code.to_string();
    let text = text.split_once(" (").and_then(|(_, text)| text.strip_suffix(')')).unwrap_or(&text);
    let text = text.strip_prefix("Local: ").or_else(|| text.strip_prefix("Broker: ")).unwrap_or(text);
    let mut letters = text.chars();
    match letters.next() {
        // An abbreviation, such as SSL, stays.
        Some(first) if !letters.clone().next().is_some_and(char::is_uppercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// The error of ours for a code, said of what was asked for.
pub(super) fn refused(what: impl Display, code: Code) -> Error {
    Error::new(kind(code), format!("{what}: {}", words(code)))
}

/// The error of ours, said of what was asked for. Neither shows a setting's value, which may be a secret.
pub(super) fn explain(what: impl Display, error: &KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, _, name, _) => {
            Error::configuration(format!("{what}: option '{name}' has a value that librdkafka does not take"))
        }
        KafkaError::ClientCreation(why) if is_of_tls(why) => {
            Error::new(ErrorKind::Credentials, format!("{what}: TLS: {why}"))
        }
        KafkaError::ClientCreation(why) => Error::configuration(format!("{what}: {why}")),
        KafkaError::AdminOpCreation(why) => Error::configuration(format!("{what}: {why}")),
        KafkaError::Nul(_) => Error::configuration(format!("{what}: a value holds a NUL")),
        KafkaError::AdminOp(code) => refused(what, *code),
        error => match error.rdkafka_error_code() {
            Some(code) => refused(what, code),
            None => Error::new(ErrorKind::Unreachable, format!("{what}: {error}")),
        },
    }
}

/// Whether a client could not be made because of its certificate, key or CA.
fn is_of_tls(why: &str) -> bool {
    ["ssl.", "SSL", "certificate"].iter().any(|word| why.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_start_has_the_exit_code_of_its_kind() {
        for (code, exit) in [
            (Code::SaslAuthenticationFailed, 77),
            (Code::Authentication, 77),
            (Code::SSL, 77),
            (Code::TopicAuthorizationFailed, 77),
            (Code::UnknownTopicOrPartition, 78),
            (Code::InvalidReplicationFactor, 78),
            (Code::BrokerTransportFailure, 69),
            (Code::AllBrokersDown, 69),
            (Code::FencedInstanceId, 70),
            (Code::Fatal, 70),
        ] {
            assert_eq!(refused("topic 'a'", code).exit_code(), exit, "{code:?}");
        }
    }

    #[test]
    fn a_refusal_speaks_of_what_was_asked_for_in_our_way() {
        let error = refused("topic 'a'", Code::TopicAuthorizationFailed).to_string();
        assert_eq!(error, "topic 'a': topic authorization failed");
        assert_eq!(words(Code::SSL), "SSL error");
    }

    #[test]
    fn a_value_that_may_be_a_secret_is_not_shown() {
        let native = rdkafka::ClientConfig::new().set("linger.ms", "canary").create_native_config();
        let error = explain("cluster h", &native.err().unwrap());
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("'linger.ms'") && !shown.contains("canary"), "{shown}");
    }
}
