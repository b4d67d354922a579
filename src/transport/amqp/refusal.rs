//! What the broker or the client library said no to, as an error of ours.

use crate::error::{Error, ErrorKind};
use lapin::ErrorKind as Lapin;
use lapin::protocol::AMQPErrorKind;

/// Reply codes of AMQP 0.9.1 that are told apart here (specification, "Reply codes").
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// What the broker's reply code means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Password, permission or vhost: nothing that waiting mends.
    Access,
    /// The queue or exchange does not exist.
    Absent,
    /// Somebody else has it exclusively.
    Locked,
    /// It exists and differs from what was asked for; also a delivery that was unsettled for too long, and a message
    /// over the server's limit.
    Precondition,
    /// Any other reply, or no reply at all: the connection.
    Other,
}

pub(super) fn refusal(error: &lapin::Error) -> Refusal {
    match error.kind() {
        Lapin::ProtocolError(reply) => match reply.get_id() {
            ACCESS_REFUSED | NOT_ALLOWED => Refusal::Access,
            NOT_FOUND => Refusal::Absent,
            RESOURCE_LOCKED => Refusal::Locked,
            PRECONDITION_FAILED => Refusal::Precondition,
            _ => Refusal::Other,
        },
        _ => Refusal::Other,
    }
}

/// Whether the broker closed a channel by it and the connection lives on: what the protocol calls a soft error.
pub(super) fn is_of_channel(error: &lapin::Error) -> bool {
    matches!(error.kind(), Lapin::ProtocolError(reply) if matches!(reply.kind(), AMQPErrorKind::Soft(_)))
}

/// Whether the connection is over by it, and every channel with it.
pub(super) fn is_of_connection(error: &lapin::Error) -> bool {
    match error.kind() {
        Lapin::ProtocolError(reply) => matches!(reply.kind(), AMQPErrorKind::Hard(_)),
        Lapin::IOError(_) | Lapin::MissingHeartbeatError | Lapin::InvalidConnectionState(_) => true,
        _ => false,
    }
}

/// Whether the exchange may be written to, and by this routing key not.
pub(super) fn is_of_topic(error: &lapin::Error) -> bool {
    refusal(error) == Refusal::Access && words(error).contains("access to topic")
}

/// What the broker wrote in its reply, or what the client library says.
pub(super) fn words(error: &lapin::Error) -> String {
    match error.kind() {
        Lapin::ProtocolError(reply) => reply.get_message().to_string(),
        Lapin::MissingHeartbeatError => "no heartbeat from the broker".to_owned(),
        Lapin::IOError(error) => error.to_string(),
        _ => error.to_string(),
    }
}

/// The error of ours, said of what was asked for.
pub(super) fn explain(what: impl std::fmt::Display, error: &lapin::Error) -> Error {
    let kind = match refusal(error) {
        Refusal::Access => ErrorKind::Credentials,
        Refusal::Absent | Refusal::Precondition => ErrorKind::Configuration,
        Refusal::Locked | Refusal::Other => ErrorKind::Unreachable,
    };
    Error::new(kind, format!("{what}: {}", words(error)))
}
