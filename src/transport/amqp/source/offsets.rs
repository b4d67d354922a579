//! Where a stream is to be read on after its channel has ended: the broker keeps no place for us.

use super::super::properties::inbound::stream_offset;
use super::consume::Start;
use lapin::BasicProperties;
use std::collections::BTreeMap;

/// Offsets of what was delivered on one channel.
#[derive(Debug)]
pub(super) struct Offsets {
    start: Start,
    /// Those that are not settled, by delivery tag.
    open: BTreeMap<u64, i64>,
    /// Behind the last one that was delivered.
    next: Option<i64>,
}

impl Offsets {
    pub(super) fn new(start: Start) -> Self {
        Self { start, open: BTreeMap::new(), next: None }
    }

    pub(super) fn delivered(&mut self, tag: u64, properties: &BasicProperties) {
        if let Some(offset) = stream_offset(properties) {
            self.open.insert(tag, offset);
            self.next = Some(offset.saturating_add(1));
        }
    }

    pub(super) fn settled(&mut self, tag: u64) {
        self.open.remove(&tag);
    }

    /// From the first message that is not settled.
    pub(super) fn resume(&self) -> Start {
        match self.open.first_key_value().map(|(_, offset)| *offset).or(self.next) {
            Some(offset) => Start::Offset(offset),
            None => self.start.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::{AMQPValue, FieldTable};

    #[test]
    fn a_stream_is_read_on_from_the_first_message_that_is_not_settled() {
        let mut offsets = Offsets::new(Start::First);
        assert_eq!(offsets.resume(), Start::First);
        for (tag, offset) in [(1, 70), (2, 71), (3, 72)] {
            let mut table = FieldTable::default();
            table.insert("x-stream-offset".into(), AMQPValue::LongLongInt(offset));
            offsets.delivered(tag, &BasicProperties::default().with_headers(table));
        }
        offsets.settled(2);
        assert_eq!(offsets.resume(), Start::Offset(70));
        offsets.settled(1);
        assert_eq!(offsets.resume(), Start::Offset(72));
        offsets.settled(3);
        assert_eq!(offsets.resume(), Start::Offset(73));
    }
}
