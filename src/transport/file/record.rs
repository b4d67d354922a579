//! What a line is: a payload as it stands, or a whole message with `format=record`.

use crate::failure::Failure;
use crate::message::{Headers, MessageRef};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A payload, which must be JSON.
    Payload,
    /// A message with key, headers and time.
    Record,
}

impl Format {
    pub(super) const WORDS: &[&str] = &["payload", "record"];

    pub(super) fn named(word: Option<&str>) -> Self {
        if word == Some("record") { Self::Record } else { Self::Payload }
    }

    /// Appends the line of a message, or says why it cannot be one; nothing is appended then.
    pub(super) fn write(self, message: MessageRef<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        match self {
            Self::Payload => {
                let Some(payload) = message.payload() else {
                    return Err(unrepresentable("a tombstone has no line without format=record"));
                };
                if payload.contains(&b'\n') {
                    return Err(unrepresentable("a payload with a line feed is no line without format=record"));
                }
                if let Err(why) = is_json(payload) {
                    return Err(unrepresentable(format!("the payload is no JSON: {why}")));
                }
                out.extend_from_slice(payload);
            }
            Self::Record => {
                let record = Record {
                    key: message.key().map(Text::of),
                    payload: message.payload().map(Text::of),
                    headers: message
                        .headers()
                        .iter()
                        .map(|(name, value)| (Text(Cow::Borrowed(name.as_bytes())), Text::of(value)))
                        .collect(),
                    timestamp_ms: message.timestamp_ms(),
                    topic: Some(Cow::Borrowed(message.topic())),
                };
                serde_json::to_writer(&mut *out, &record).expect("a record is JSON, and a Vec takes it");
            }
        }
        out.push(b'\n');
        Ok(())
    }
}

fn unrepresentable(why: impl Into<crate::failure::BoxError>) -> Failure {
    Failure::reject(why).classed("unrepresentable")
}

/// Whether it is JSON in UTF-8.
pub(super) fn is_json(line: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ()).map_err(|error| error.to_string())
}

/// Bytes: a string where they are UTF-8, else `{"base64": …}`.
pub(super) struct Text<'a>(pub(super) Cow<'a, [u8]>);

impl<'a> Text<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

#[derive(Serialize, Deserialize)]
struct Encoded<'a> {
    #[serde(borrow)]
    base64: Cow<'a, str>,
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded { base64: BASE64.encode(&self.0).into() }.serialize(serializer),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "neither a string nor {\"base64\": …}")]
        enum Either<'a> {
            Plain(#[serde(borrow)] Cow<'a, str>),
            Encoded(#[serde(borrow)] Encoded<'a>),
        }
        Ok(Self(match Either::deserialize(deserializer)? {
            Either::Plain(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
            Either::Plain(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
            Either::Encoded(encoded) => {
                Cow::Owned(BASE64.decode(encoded.base64.as_bytes()).map_err(serde::de::Error::custom)?)
            }
        }))
    }
}

/// One line of `format=record`.
#[derive(Serialize, Deserialize)]
pub(super) struct Record<'a> {
    #[serde(borrow, default)]
    pub(super) key: Option<Text<'a>>,
    /// `null` is a tombstone; a line without it is no record.
    #[serde(borrow, deserialize_with = "present")]
    pub(super) payload: Option<Text<'a>>,
    #[serde(borrow, default)]
    headers: Vec<(Text<'a>, Text<'a>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) timestamp_ms: Option<i64>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    topic: Option<Cow<'a, str>>,
}

/// A field with this may be `null`, and may not be absent.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Text<'a>>, D::Error> {
    Option::deserialize(deserializer)
}

impl<'a> Record<'a> {
    /// Reads a line; the error says why it is no record.
    pub(super) fn read(line: &'a [u8]) -> Result<(Self, Headers), String> {
        let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
        let record: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut headers = Headers::new();
        for (name, value) in &record.headers {
            let name = std::str::from_utf8(&name.0).map_err(|_| "the name of a header is no UTF-8".to_owned())?;
            headers.push(name, &value.0);
        }
        Ok((record, headers))
    }
}
