//! Ids of messages, and payloads of which every byte follows from the id.

use std::fmt;
use std::str::FromStr;

/// One message of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The run, so that what an earlier one left behind is found out.
    pub run: u32,
    /// Who produced it.
    pub producer: u16,
    /// Its key, as a number.
    pub key: u32,
    /// Its place among the messages of its producer and key, from 1.
    pub seq: u32,
}

impl Id {
    /// What an effect is written under whose payload names no id.
    pub const NONE: Self = Self { run: 0, producer: 0, key: 0, seq: 0 };

    /// The key as the queue carries it.
    pub fn key_name(self) -> String {
        format!("k{}", self.key)
    }

    /// The payload: JSON of so many bytes, or of as many as the id needs. Its filling is a checksum of the rest that
    /// never ends: no byte can change, be missing or be another message's without being noticed.
    pub fn payload(self, bytes: usize) -> Vec<u8> {
        let mut text = format!("{{\"id\":\"{self}\",\"fill\":\"").into_bytes();
        let mut state = fnv(&text) ^ bytes as u64;
        while text.len() + 2 < bytes {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            text.push(b'a' + (state >> 33) as u8 % 26);
        }
        text.extend_from_slice(b"\"}");
        text
    }

    /// The id that a payload names, and whether the payload is what it was when it was sent.
    pub fn of_payload(payload: &[u8]) -> (Self, bool) {
        let named = payload.strip_prefix(b"{\"id\":\"").and_then(|rest| rest.split(|byte| *byte == b'"').next());
        let id = named.and_then(|id| std::str::from_utf8(id).ok()).and_then(|id| id.parse::<Id>().ok());
        match id {
            Some(id) => (id, id.payload(payload.len()) == payload),
            None => (Self::NONE, false),
        }
    }
}

/// Fowler, Noll, Vo: 64 bits, variant 1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}-{}-{}", self.run, self.producer, self.key, self.seq)
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let mut parts = text.split('-');
            let run = u32::from_str_radix(parts.next()?, 16).ok()?;
            let mut number = || parts.next()?.parse::<u32>().ok();
            let (producer, key, seq) = (number()?.try_into().ok()?, number()?, number()?);
            parts.next().is_none().then_some(Self { run, producer, key, seq })
        };
        read().ok_or_else(|| format!("'{text}' is no id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Id = Id { run: 0xbeef, producer: 2, key: 17, seq: 4_000 };

    #[test]
    fn an_id_is_read_back_as_it_was_written() {
        assert_eq!(ID.to_string().parse(), Ok(ID));
        for wrong in ["", "beef-2-17", "beef-2-17-4000-1", "beef-2-17-x", "beef-70000-1-1"] {
            assert!(wrong.parse::<Id>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_payload_has_the_size_asked_for_and_is_json() {
        let payload = ID.payload(256);
        assert_eq!(payload.len(), 256);
        let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(json["id"], ID.to_string());
        assert_eq!(Id::of_payload(&payload), (ID, true));
    }

    #[test]
    fn a_payload_that_was_changed_cut_or_filled_from_another_message_is_found_out() {
        let whole = ID.payload(256);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_ne!(Id::of_payload(&changed), (ID, true), "byte {at}");
        }
        for cut in 0..whole.len() {
            assert!(!Id::of_payload(&whole[..cut]).1, "cut at {cut}");
        }
        let other = Id { seq: 4_001, ..ID }.payload(256);
        let mixed = [&whole[..128], &other[128..]].concat();
        assert!(!Id::of_payload(&mixed).1);
    }
}
