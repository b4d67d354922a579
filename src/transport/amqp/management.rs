//! What AMQP does not tell and the management plugin does: policies, what is in flight, the age of the oldest.
//!
//! `management=http://user:password@host:15672`; without a login, that of the broker. Plain HTTP alone: for a node on
//! this host, or behind something that brings TLS.

use super::place::Place;
use super::topology::{Arguments, Value};
use crate::error::{Error, ErrorKind};
use crate::transport::Url;
use base64::Engine;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::header::{AUTHORIZATION, HOST};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::Duration;
use tokio::net::TcpStream;

/// It is asked beside the start of a source, which it must not hold up.
const LIMIT: Duration = Duration::from_secs(3);
/// The description of one queue has some 3 kB, and more with each consumer.
const MOST_BYTES: usize = 4 << 20;

/// What it tells about a queue.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// What policies set, by their names: `delivery-limit`, `max-length`.
    pub(super) policy: Arguments,
    pub(super) unacked: Option<u64>,
    /// When the oldest message that is ready was made, in seconds since 1970: classic queues, where messages say so.
    pub(super) oldest_s: Option<u64>,
}

/// Asks about the queue of a place; `None` where the URL names no plugin to ask.
pub(super) async fn queue(place: &Place) -> Option<Result<Told, Error>> {
    let management = place.management.as_deref()?;
    let asked = tokio::time::timeout(LIMIT, ask(management, place)).await;
    let told = asked.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Unreachable, format!("it does not answer within {} s", LIMIT.as_secs())))
    });
    Some(told.map_err(|error| error.of("option 'management'")))
}

/// What is wrong with the value of the option.
pub(super) fn wrong(management: &str) -> Option<String> {
    match Url::parse(management) {
        Err(error) => Some(format!("option 'management': {error}")),
        Ok(url) if url.scheme() != "http" || url.hosts().len() != 1 => Some(format!(
            "option 'management={url}' is not http://host:port (https is not there: name the plugin on a loopback port)"
        )),
        Ok(_) => None,
    }
}

async fn ask(management: &str, place: &Place) -> Result<Told, Error> {
    let url = Url::parse(management)?;
    let host = url.hosts().first().ok_or_else(|| Error::configuration("it names no host"))?;
    let at = if host.contains(':') { host.clone() } else { format!("{host}:15672") };
    let away = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Unreachable, format!("http://{at}: {error}"));
    let stream = TcpStream::connect(&at).await.map_err(|error| away(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| away(&error))?;
    let login = match (url.user(), url.password()) {
        (Some(user), password) => (user, password.map_or("", |password| password.reveal())),
        (None, _) => (place.server.user.as_str(), place.server.password.reveal()),
    };
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", login.0, login.1));
    let path = format!("/api/queues/{}/{}", escaped(&place.server.vhost), escaped(&place.queue));
    let mut login_header =
        hyper::header::HeaderValue::try_from(format!("Basic {basic}")).map_err(|error| away(&error))?;
    login_header.set_sensitive(true);
    let request = Request::get(path)
        .header(HOST, &at)
        .header(AUTHORIZATION, login_header)
        .body(Empty::<&[u8]>::new())
        .map_err(|error| away(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| away(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await.map_err(|error| away(&error))?;
        Ok((status, body.to_bytes()))
    };
    // The connection is driven beside the request and dropped with it.
    let (status, body) = tokio::select! {
        biased;
        answer = exchange => answer?,
        ended = connection => {
            return Err(match ended {
                Err(error) => away(&error),
                Ok(()) => away(&"it closed the connection"),
            });
        }
    };
    match status.as_u16() {
        200 => Ok(read(&serde_json::from_slice(&body).map_err(|error| away(&error))?)),
        401 | 403 => Err(Error::new(ErrorKind::Credentials, format!("http://{at}: user '{}' was refused", login.0))),
        404 => Err(Error::configuration(format!("http://{at}: there is no queue '{}'", place.queue))),
        _ => Err(away(&status)),
    }
}

fn escaped(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

fn read(json: &serde_json::Value) -> Told {
    let policy = json["effective_policy_definition"].as_object().into_iter().flatten().filter_map(|(name, value)| {
        let value = match value {
            serde_json::Value::String(text) => Value::text(text),
            serde_json::Value::Number(number) => Value::Number(number.as_i64()?),
            serde_json::Value::Bool(is) => Value::Bool(*is),
            _ => return None,
        };
        Some((name.clone(), value))
    });
    Told {
        policy: policy.collect(),
        unacked: json["messages_unacknowledged"].as_u64(),
        oldest_s: json["head_message_timestamp"].as_u64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_to_one_host_is_taken() {
        assert_eq!(wrong("http://u:p@127.0.0.1:15672"), None);
        assert!(wrong("https://127.0.0.1:15671").unwrap().contains("https is not there"));
        assert!(wrong("127.0.0.1").unwrap().contains("option 'management'"));
        assert!(!wrong("https://u:canary@h").unwrap().contains("canary"));
    }

    #[test]
    fn policies_are_read_and_what_is_not_told_is_unknown() {
        let told = read(&serde_json::json!({
            "effective_policy_definition": {"delivery-limit": 3, "overflow": "drop-head", "x": [1]},
            "messages_unacknowledged": 2,
        }));
        assert_eq!((told.unacked, told.oldest_s), (Some(2), None));
        assert_eq!((told.policy.len(), &told.policy["delivery-limit"]), (2, &Value::Number(3)));
        assert!(read(&serde_json::json!({"effective_policy_definition": []})).policy.is_empty());
    }
}
