//! A delivery as a case sees it: what came, by its name.

use crate::message::{At, Message, MessageRef};
use tokio::time::Instant;

/// One delivery.
#[derive(Debug, Clone)]
pub(super) struct Got {
    /// Name that its payload tells, empty where it tells none.
    pub name: String,
    pub message: Message,
    pub at: At,
    pub attempts: u32,
    pub unclean: u32,
    /// Bytes of key, payload and headers.
    pub size: u64,
    pub when: Instant,
}

impl Got {
    pub(super) fn of(message: MessageRef<'_>) -> Self {
        let head = message.head();
        Self {
            name: text_at(message.payload(), "id"),
            message: message.to_message(),
            at: head.at,
            attempts: head.attempts,
            unclean: head.unclean,
            size: message.size() as u64,
            when: Instant::now(),
        }
    }

    /// The key under which it was published, whether or not the place carries keys.
    pub(super) fn sent_key(&self) -> String {
        text_at(self.message.payload.as_deref(), "key")
    }
}

fn text_at(payload: Option<&[u8]>, field: &str) -> String {
    payload
        .and_then(|payload| serde_json::from_slice::<serde_json::Value>(payload).ok())
        .and_then(|value| value.get(field)?.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Names in the order of delivery.
pub(super) fn names_of(all: &[Got]) -> Vec<String> {
    all.iter().map(|got| got.name.clone()).collect()
}

/// Names in the order of their numbers, where the order of delivery says nothing.
pub(super) fn sorted_names(all: &[Got]) -> Vec<String> {
    let mut names = names_of(all);
    names.sort();
    names
}

/// Names of one key in the order of delivery.
pub(super) fn names_of_key(all: &[Got], key: &str) -> Vec<String> {
    all.iter().filter(|got| got.sent_key() == key).map(|got| got.name.clone()).collect()
}
