//! Where the key of a message is found.

use crate::error::Error;
use crate::message::{HeadersRef, KEY_HEADER};
use std::borrow::Cow;

/// Where a source finds the key of a message: option `key=` of its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFrom {
    /// The key the transport carries, or the header `longshore-key` where it carries none.
    Message,
    /// A header: `key=header:NAME`.
    Header(String),
    /// The routing key: `key=routing-key`; for transports that have one.
    RoutingKey,
    /// A place in a JSON payload: `key=/customer/id`.
    Pointer(String),
}

impl KeyFrom {
    /// Reads the option `key=`.
    pub fn parse(option: Option<&str>) -> Result<Self, Error> {
        match option {
            None => Ok(Self::Message),
            Some("routing-key") => Ok(Self::RoutingKey),
            Some(pointer) if pointer.starts_with('/') => Ok(Self::Pointer(pointer.to_owned())),
            Some(other) => match other.strip_prefix("header:") {
                Some(name) if !name.is_empty() => Ok(Self::Header(name.to_owned())),
                _ => Err(Error::configuration(format!(
                    "option 'key={other}' is none of /json/pointer, header:NAME, routing-key"
                ))),
            },
        }
    }

    /// The key of a message, given what the transport itself carries for it.
    ///
    /// A pointer to a string gives its text, to a number or boolean its JSON text, to anything else no key.
    pub fn find<'a>(
        &self,
        native: Option<&'a [u8]>,
        routing_key: Option<&'a [u8]>,
        headers: HeadersRef<'a>,
        payload: Option<&[u8]>,
    ) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Message => native.or_else(|| headers.get(KEY_HEADER)).map(Cow::Borrowed),
            Self::Header(name) => headers.get(name).map(Cow::Borrowed),
            Self::RoutingKey => routing_key.map(Cow::Borrowed),
            Self::Pointer(pointer) => {
                let value: serde_json::Value = serde_json::from_slice(payload?).ok()?;
                match value.pointer(pointer)? {
                    serde_json::Value::String(text) => Some(Cow::Owned(text.clone().into_bytes())),
                    other @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => {
                        Some(Cow::Owned(other.to_string().into_bytes()))
                    }
                    _ => None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pointer: &str, payload: &str) -> Option<String> {
        KeyFrom::parse(Some(pointer))
            .unwrap()
            .find(None, None, HeadersRef::default(), Some(payload.as_bytes()))
            .map(|key| String::from_utf8(key.into_owned()).unwrap())
    }

    #[test]
    fn a_pointer_finds_text_numbers_and_booleans_and_nothing_else() {
        let payload = r#"{"a":{"b":"x"},"n":7,"t":true,"l":[1],"z":null}"#;
        assert_eq!(at("/a/b", payload).as_deref(), Some("x"));
        assert_eq!(at("/n", payload).as_deref(), Some("7"));
        assert_eq!(at("/t", payload).as_deref(), Some("true"));
        for none in ["/l", "/a", "/z", "/absent"] {
            assert_eq!(at(none, payload), None, "{none}");
        }
        assert_eq!(at("/a", "no json"), None);
    }

    #[test]
    fn an_option_that_names_no_place_is_refused() {
        assert!(KeyFrom::parse(Some("customer")).is_err());
        assert!(KeyFrom::parse(Some("header:")).is_err());
    }
}
