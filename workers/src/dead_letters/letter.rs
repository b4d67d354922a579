//! One dead letter: a message, and why it is dead.

use super::filter::{Field, Fields};
use jiff::Timestamp;
use longshore::message::{At, Headers, ID_HEADER, KEY_HEADER, Message, MessageRef};
use longshore::transport::{OVERSIZED_HEADER, UNDECODABLE_HEADER, Url};
use std::time::Duration;

const REASON: &str = "longshore-reason";
const ERROR: &str = "longshore-error";
const ATTEMPTS: &str = "longshore-attempts";
const WORKER: &str = "longshore-worker";
const SOURCE: &str = "longshore-source";
const POSITION: &str = "longshore-position";
const FIRST_SEEN: &str = "longshore-first-seen";
const DEAD_AT: &str = "longshore-dead-at";
/// Where a message that was sent again had been.
pub const REDRIVEN_FROM: &str = "longshore-redriven-from";

/// Headers that make a message a dead letter: gone when it is sent again. `longshore-first-seen` stays true.
const OF_THE_DEAD: [&str; 10] = [
    REASON,
    ERROR,
    ATTEMPTS,
    WORKER,
    SOURCE,
    POSITION,
    DEAD_AT,
    // Only a place without keys needs it, and its sink writes it anew.
    KEY_HEADER,
    // What the source could not read is read anew.
    UNDECODABLE_HEADER,
    OVERSIZED_HEADER,
];

/// Begins what a redrive adds to an id.
const REDRIVEN: &str = "+redriven-";

/// One of them, and where it lies.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its name in its place.
    pub at: At,
    /// It, with all its headers.
    pub message: Message,
    /// When it was looked at.
    now: Timestamp,
}

impl Letter {
    /// A message of a dead-letter place, looked at now.
    pub fn of(message: MessageRef<'_>, now: Timestamp) -> Self {
        Self { at: message.head().at, message: message.to_message(), now }
    }

    fn header(&self, name: &str) -> Option<String> {
        self.message.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// When it died: as it says, else when it was made.
    pub fn dead_at(&self) -> Option<Timestamp> {
        let said = self.header(DEAD_AT).and_then(|text| text.parse().ok());
        said.or_else(|| self.message.timestamp_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()))
    }

    /// Its key, which a place without keys has in a header.
    pub fn key(&self) -> Option<&[u8]> {
        self.message.key.as_deref().or_else(|| self.message.headers.get(KEY_HEADER))
    }

    /// How `list` shows it and `show` takes it: `12`, or `3/12` of partition 3.
    pub fn name(&self) -> String {
        match self.at.partition {
            0 => self.at.position.to_string(),
            partition => format!("{partition}/{}", self.at.position),
        }
    }

    /// Whether its payload was too large to be kept: then nothing is left to be sent again.
    pub fn is_hollow(&self) -> bool {
        self.message.headers.get(OVERSIZED_HEADER).is_some()
    }

    /// The message as it is sent again.
    ///
    /// Its id is the same however often this dead letter is sent, so that a place that knows ids takes it once. It is
    /// not the id that the message had: another group may hold that one still, and a place that knows it would drop
    /// this one.
    pub fn redriven(&self, from: &Url) -> Message {
        let id = self.header(ID_HEADER).unwrap_or_default();
        let base = id.split(REDRIVEN).next().unwrap_or_default();
        let id = format!("{base}{REDRIVEN}{:032x}", self.fingerprint());
        let mut headers: Headers =
            self.message.headers.iter().filter(|(name, _)| !OF_THE_DEAD.contains(name)).collect();
        headers.set(ID_HEADER, id);
        headers.set(REDRIVEN_FROM, from.to_string());
        let key = self.key().map(<[u8]>::to_vec).map(Into::into);
        Message { key, headers, ..self.message.clone() }
    }

    /// Tells dead letters apart, and is the same for the same one at every look: its headers, key and payload. Its
    /// place is no part of it, since a line of a file moves when others are taken off.
    fn fingerprint(&self) -> u128 {
        let mut hash = Fnv::new();
        for (name, value) in self.message.headers.iter() {
            hash.part(name.as_bytes());
            hash.part(value);
        }
        hash.part(self.message.key.as_deref().unwrap_or_default());
        hash.part(self.message.payload.as_deref().unwrap_or_default());
        hash.0
    }

    /// One line of JSON about it, without its payload.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "at": self.name(),
            "id": self.text(Field::Id),
            "key": self.text(Field::Key),
            "reason": self.text(Field::Reason),
            "error": self.text(Field::Error),
            "attempts": self.text(Field::Attempts).and_then(|text| text.parse::<u64>().ok()),
            "worker": self.text(Field::Worker),
            "source": self.text(Field::Source),
            "position": self.text(Field::Position),
            "first_seen": self.text(Field::FirstSeen),
            "dead_at": self.text(Field::DeadAt),
            "redriven_from": self.text(Field::RedrivenFrom),
            "age_ms": self.age().map(|age| age.as_millis() as u64),
            "bytes": self.message.payload.as_ref().map(|payload| payload.len()),
        })
    }
}

impl Fields for Letter {
    fn text(&self, field: Field) -> Option<String> {
        match field {
            Field::Id => self.header(ID_HEADER),
            Field::Key => self.key().map(|key| String::from_utf8_lossy(key).into_owned()),
            Field::Reason => self.header(REASON),
            Field::Error => self.header(ERROR),
            Field::Attempts => self.header(ATTEMPTS),
            Field::Worker => self.header(WORKER),
            Field::Source => self.header(SOURCE),
            Field::Position => self.header(POSITION),
            Field::FirstSeen => self.header(FIRST_SEEN),
            Field::DeadAt => self.header(DEAD_AT),
            Field::RedrivenFrom => self.header(REDRIVEN_FROM),
            Field::Age => None,
        }
    }

    fn age(&self) -> Option<Duration> {
        let age = self.now.duration_since(self.dead_at()?);
        Some(Duration::try_from(age).unwrap_or_default())
    }
}

/// FNV-1a in 128 bits: the same in every version and on every machine, which the hashes of the standard library do not
/// promise.
struct Fnv(u128);

impl Fnv {
    fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    /// A part, told apart from the next by its length.
    fn part(&mut self, bytes: &[u8]) {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore::message::SlabBuilder;

    fn letter(id: Option<&str>, dead_at: &str) -> Letter {
        let mut message = Message::new("{}").with_header("mine", "1").with_header(DEAD_AT, dead_at);
        message.headers.push(KEY_HEADER, "k");
        message.headers.push(UNDECODABLE_HEADER, "line 3");
        if let Some(id) = id {
            message = message.with_id(id);
        }
        let mut slab = SlabBuilder::new();
        slab.push_message(&message);
        let slab = slab.finish("dead".into());
        Letter::of(slab.get(0), "2026-03-01T13:00:00Z".parse().unwrap())
    }

    fn place() -> Url {
        Url::parse("local:w.db?queue=a.g.dead").unwrap()
    }

    #[test]
    fn what_is_sent_again_is_the_message_as_it_was_with_where_it_has_been() {
        let letter = letter(Some("a7"), "2026-03-01T12:00:00Z");
        let again = letter.redriven(&place());
        assert_eq!((again.key.as_deref(), again.payload.as_deref()), (Some(&b"k"[..]), Some(&b"{}"[..])));
        let names: Vec<&str> = again.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["mine", ID_HEADER, REDRIVEN_FROM]);
        assert_eq!(letter.age(), Some(Duration::from_secs(3_600)));
    }

    #[test]
    fn a_dead_letter_is_sent_under_one_id_that_is_its_own() {
        let id =
            |letter: &Letter| String::from_utf8(letter.redriven(&place()).headers.get(ID_HEADER).unwrap().to_vec());
        let (one, other) = (letter(Some("a7"), "2026-03-01T12:00:00Z"), letter(Some("a7"), "2026-03-01T12:00:01Z"));
        assert_eq!(id(&one), id(&one.clone()));
        assert_ne!(id(&one), id(&other));
        assert!(id(&one).unwrap().starts_with("a7+redriven-"));
        assert_ne!(id(&letter(None, "2026-03-01T12:00:00Z")), id(&letter(None, "2026-03-01T12:00:01Z")));
    }

    #[test]
    fn an_id_does_not_grow_with_each_redrive() {
        let id = |id: &str| {
            letter(Some(id), "2026-03-01T12:00:00Z").redriven(&place()).headers.get(ID_HEADER).unwrap().to_vec()
        };
        let first = String::from_utf8(id("a7")).unwrap();
        let second = String::from_utf8(id(&first)).unwrap();
        assert_eq!((first.len(), second.matches(REDRIVEN).count()), (second.len(), 1));
        assert_ne!(first, second);
    }
}
