//! What the messages say: JSON of the same length each, so that a contender that decodes has something to decode.

use serde::{Deserialize, Serialize};

const LENGTH: usize = 256;

#[derive(Serialize, Deserialize)]
pub struct Order {
    pub id: u64,
    pub note: String,
}

/// The payloads of a lap, made before its clock starts.
pub struct Payloads(Vec<Payload>);

/// One of them: a type of its own, so that a producer can be found by it.
pub struct Payload(Vec<u8>);

impl Payloads {
    pub fn new(messages: u64) -> Self {
        Self((0..messages).map(payload).map(Payload).collect())
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Payload> {
        self.0.iter()
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn payload(id: u64) -> Vec<u8> {
    let bare = serde_json::to_vec(&Order { id, note: String::new() }).expect("an order is JSON");
    let note = "x".repeat(LENGTH - bare.len());
    serde_json::to_vec(&Order { id, note }).expect("an order is JSON")
}
