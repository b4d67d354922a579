//! `dead-letters show`: one of them, whole.

use super::letter::Letter;
use super::place::{Meant, Place};
use super::{Where, Which};
use crate::task::{Answer, Stop};
use jiff::Timestamp;
use longshore::message::ID_HEADER;
use longshore::{Error, ErrorKind};
use std::fmt::Write;
use std::ops::ControlFlow;

const EXAMPLES: &str = "\
Shows its headers, an empty line, and its payload as it is.

Examples:
  longshore dead-letters show 'local:orders.db?queue=orders&group=ship' 7
  longshore dead-letters show 'local:orders.db?queue=orders&group=ship' order-4711 | sed '1,/^$/d' | jq .";

/// Show one dead letter whole.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub(super) place: Where,
    /// Its AT in 'dead-letters list', or its id
    which: String,
    /// As one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub async fn run(args: Args, stop: Stop) -> Result<u8, Error> {
    let place = Place::find(&args.place)?;
    let mut found = None;
    if let Some(mut shelf) = place.open().await? {
        let all = Which { filter: None, limit: None };
        let mut meant = Meant::new(&all, Timestamp::MAX);
        let is_it = |letter: &Letter| {
            letter.name() == args.which || letter.message.headers.get(ID_HEADER) == Some(args.which.as_bytes())
        };
        meant
            .each(&mut *shelf, &stop, |letters| {
                found = letters.into_iter().find(is_it);
                Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })
            .await?;
    }
    let letter = found
        .ok_or_else(|| Error::new(ErrorKind::Start, format!("no dead letter '{}' in '{}'", args.which, place.url)))?;
    Answer::new().write(&if args.json { json(&letter) } else { text(&letter) })?;
    Ok(0)
}

/// Headers, an empty line, payload.
fn text(letter: &Letter) -> Vec<u8> {
    let mut text = format!("at: {}\n", letter.name());
    if let Some(key) = letter.key() {
        let _ = writeln!(text, "key: {}", key.escape_ascii());
    }
    if let Some(at) = letter.message.timestamp_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
        let _ = writeln!(text, "timestamp: {at}");
    }
    for (name, value) in letter.message.headers.iter() {
        let value = match std::str::from_utf8(value) {
            Ok(value) => value
                .chars()
                .flat_map(|each| if each.is_control() { each.escape_default().collect() } else { vec![each] })
                .collect(),
            Err(_) => value.escape_ascii().to_string(),
        };
        let _ = writeln!(text, "{name}: {value}");
    }
    text.push('\n');
    let mut bytes = text.into_bytes();
    match &letter.message.payload {
        Some(payload) => bytes.extend_from_slice(payload),
        None => bytes.extend_from_slice(b"(no payload: a tombstone)"),
    }
    bytes.push(b'\n');
    bytes
}

fn json(letter: &Letter) -> Vec<u8> {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::Value::from(text),
        // As the lines of format=record have it, but for the encoding: for eyes.
        Err(_) => serde_json::json!({ "escaped": bytes.escape_ascii().to_string() }),
    };
    let mut json = letter.json();
    let headers: Vec<serde_json::Value> =
        letter.message.headers.iter().map(|(name, value)| serde_json::json!([name, text(value)])).collect();
    json["headers"] = headers.into();
    json["timestamp_ms"] = letter.message.timestamp_ms.into();
    json["payload"] = letter.message.payload.as_deref().map_or(serde_json::Value::Null, text);
    format!("{json}\n").into_bytes()
}
