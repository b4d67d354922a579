//! Partitions by the number that a delivery carries.

use std::collections::HashMap;
use std::sync::Arc;

/// Partitions of one topic are told apart by so many bits; the rest is the topic's number. Kafka's own bound on the
/// partitions of a cluster is far below it.
const PARTITION_BITS: u32 = 20;

/// A partition as Kafka names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Numbers topics in the order in which they are seen: of a source of one topic, the number of a delivery's partition
/// is Kafka's own.
#[derive(Debug, Default)]
pub(super) struct Seats {
    topics: HashMap<Arc<str>, u32>,
}

impl Seats {
    /// The topics that are known from the start come first.
    pub(super) fn new<'a>(topics: impl IntoIterator<Item = &'a str>) -> Self {
        let mut this = Self::default();
        for topic in topics {
            this.topic(topic);
        }
        this
    }

    fn topic(&mut self, topic: &str) -> u32 {
        if let Some(number) = self.topics.get(topic) {
            return *number;
        }
        let number = self.topics.len() as u32;
        self.topics.insert(topic.into(), number);
        number
    }

    /// The number of a partition: the same for as long as the source lives.
    pub(super) fn of(&mut self, name: &Name) -> u32 {
        self.topic(&name.topic) << PARTITION_BITS | name.partition as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_topic_the_number_is_kafkas_and_topics_do_not_mix() {
        let name = |topic: &str, partition| Name { topic: topic.into(), partition };
        let mut seats = Seats::new(["orders"]);
        assert_eq!(seats.of(&name("orders", 7)), 7);
        assert_ne!(seats.of(&name("bills", 7)), 7);
        assert_eq!(seats.of(&name("bills", 7)), seats.of(&name("bills", 7)));
    }
}
