//! A record of Kafka as a message of ours.

use crate::message::{Head, Headers, SlabBuilder};
use crate::transport::{KeyFrom, OVERSIZED_HEADER};
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};

/// How records are read.
pub(in super::super) struct Reading {
    pub(super) key: KeyFrom,
    pub(super) max_message: u64,
    /// Headers of the record at hand; kept for its buffer.
    headers: Headers,
}

impl Reading {
    pub(in super::super) fn new(key: KeyFrom, max_message: u64) -> Self {
        Self { key, max_message, headers: Headers::new() }
    }

    /// Adds a record to a batch.
    pub(in super::super) fn push<'a>(
        &mut self,
        builder: &'a mut SlabBuilder,
        record: &BorrowedMessage<'_>,
    ) -> &'a mut Head {
        self.headers.clear();
        if let Some(headers) = record.headers() {
            // A value that is absent is empty here: the same to whoever reads it as bytes.
            headers.iter().for_each(|header| self.headers.push(header.key, header.value.unwrap_or_default()));
        }
        let mut payload = record.payload();
        let size = payload.map_or(0, <[u8]>::len) as u64;
        if size > self.max_message {
            payload = Some(b"");
            self.headers.set(OVERSIZED_HEADER, size.to_string());
        }
        let headers = self.headers.as_ref();
        let timestamp = record.timestamp().to_millis();
        match (&self.key, record.key()) {
            (KeyFrom::Message, Some(key)) => builder.push(Some(key), payload, headers, timestamp),
            (from, key) => {
                let key = from.find(key, None, headers, payload);
                builder.push(key.as_deref(), payload, headers, timestamp)
            }
        }
    }
}
