//! Looks that take nothing: counts, and whether a source or a sink could start.

use super::client;
use super::context::{Ear, cluster_name};
use super::dead_topic;
use super::place::{Place, Start, Topics};
use super::refusal::explain;
use super::shelf::shelf_group;
use super::source::{Note, read};
use super::topics::{self, Asker, Topic};
use crate::error::Error;
use crate::transport::{Finding, Inspection};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::Producer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// What a look may take: as long as a connection and a few answers do.
pub(super) const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// What a broker cannot answer yet is asked again after so long.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// The name that the broker and log lines show for a look.
pub(super) const NAME: &str = "longshore looks";

/// Tries all that a source or sink needs and that can be tried without a change.
pub(super) async fn check(place: &Place) -> Result<Vec<Finding>, Error> {
    let mut found = Vec::new();
    for topic in topics::look(place, &NAME.into(), LOOK_LIMIT).await? {
        match topic.partitions {
            Some(_) => {}
            None if place.declare => found.push(Finding::Note(format!(
                "topic '{}' does not exist: it is created at the start, with the broker's defaults",
                topic.name
            ))),
            None => return Err(absent(place, &topic.name)),
        }
    }
    if place.cluster.login.is_some() && place.cluster.tls.is_none() {
        let text = "the login goes over the network without TLS, which the scheme kafkas has";
        found.push(Finding::Warning(text.to_owned()));
    }
    Ok(found)
}

pub(super) fn absent(place: &Place, topic: &str) -> Error {
    Error::configuration(format!("topic '{topic}' does not exist in {}", cluster_name(place)))
}

/// Counts what lies between the place of a group and the end of its topics, but for what the place says is settled beyond
/// it. Offsets without a record count, too: of those the broker does not tell.
pub(super) async fn inspect(place: &Place, group: &str) -> Result<Inspection, Error> {
    let group = group.to_owned();
    topics::ask(place, &NAME.into(), LOOK_LIMIT, move |asker| count(asker, &group)).await
}

fn count(asker: &Asker, group: &str) -> Result<Inspection, Error> {
    let Topics::Named(names) = &asker.place.topics else {
        return Err(Error::configuration("a pattern of topics cannot be inspected: name a topic"));
    };
    let mut waiting = 0;
    for topic in asker.look()? {
        let Some(partitions) = topic.partitions else { return Err(absent(&asker.place, &topic.name)) };
        let places = places(asker, &topic.name, partitions, group)?;
        for (partition, (low, high)) in (0..).zip(ends(asker, &topic)?) {
            let start = if asker.place.start == Some(Start::Latest) { high } else { low };
            waiting += left(places.get(&partition), start, low, high);
        }
    }
    let dead = match &names[..] {
        [name] => Some(dead(asker, &dead_topic(name, group))?),
        _ => None,
    };
    Ok(Inspection {
        queue: names.join(","),
        group: Some(group.to_owned()),
        waiting: Some(waiting),
        delayed: Some(0),
        in_flight: None,
        dead,
        lag: Some(waiting),
        oldest_age_ms: None,
    })
}

/// Records in a dead-letter topic that were not taken off; none where there is no such topic.
fn dead(asker: &Asker, name: &str) -> Result<u64, Error> {
    let topic = asker.topic(name)?;
    let Some(partitions) = topic.partitions else { return Ok(0) };
    let places = places(asker, name, partitions, shelf_group(name))?;
    let ends = (0..).zip(ends(asker, &topic)?);
    Ok(ends.map(|(partition, (low, high))| left(places.get(&partition), low, low, high)).sum())
}

/// Offsets of a partition that a group has not settled; without a place it begins at `start`.
fn left(place: Option<&Committed>, start: i64, low: i64, high: i64) -> u64 {
    // One behind the end is of a log that is no more.
    let place = place.filter(|place| place.offset <= high.unsigned_abs());
    let Some(place) = place else { return u64::try_from(high - start).unwrap_or(0) };
    let (low, high) = (low.unsigned_abs(), high.unsigned_abs());
    let settled: u64 = place.settled(high).map(|run| run.end.saturating_sub(run.start.max(low))).sum();
    high.saturating_sub(place.offset.max(low)).saturating_sub(settled)
}

/// The first offset of each partition, and the one behind the last.
pub(super) fn ends(asker: &Asker, topic: &Topic) -> Result<Vec<(i64, i64)>, Error> {
    let ends = |partition: u32| {
        let asked = asker.client.client().fetch_watermarks(&topic.name, partition as i32, LOOK_LIMIT);
        asked.map_err(|error| explain(format_args!("partition {partition} of topic '{}'", topic.name), &error))
    };
    (0..topic.partitions.unwrap_or(0)).map(ends).collect()
}

/// The place of a group in a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) offset: u64,
    pub(super) metadata: String,
}

impl Committed {
    /// What its metadata says, if that is about a log that ends there.
    pub(super) fn noted(&self, end: u64) -> (Note, Vec<Range<u64>>) {
        read(&self.metadata, self.offset, Some(end)).unwrap_or_default()
    }

    /// Runs beyond it that are settled.
    fn settled(&self, end: u64) -> impl Iterator<Item = Range<u64>> {
        self.noted(end).1.into_iter()
    }
}

/// What a group has committed, by partition where it has.
pub(super) type Places = BTreeMap<i32, Committed>;

/// What the group has committed, asked by a client of it that is no member.
pub(super) fn places(asker: &Asker, topic: &str, partitions: u32, group: &str) -> Result<Places, Error> {
    let place = &asker.place;
    let config = client::reader(place, NAME, group, 1);
    let reader: BaseConsumer<Ear> = client::create(&config, Ear::new(NAME.into(), place), place)?;
    committed(&reader, topic, partitions, group)
}

/// The same of a client that there is. Blocks for [`LOOK_LIMIT`] or a little more.
pub(super) fn committed(
    reader: &BaseConsumer<Ear>,
    topic: &str,
    partitions: u32,
    group: &str,
) -> Result<Places, Error> {
    let until = Instant::now() + LOOK_LIMIT;
    // A list that outlives its client keeps it from ending: only values leave this.
    let told = loop {
        let mut all = TopicPartitionList::new();
        all.add_partition_range(topic, 0, partitions.saturating_sub(1) as i32);
        match reader.committed_offsets(all, until.saturating_duration_since(Instant::now()).max(AGAIN_AFTER)) {
            Ok(told) => break told,
            Err(error) => {
                let what = format_args!("the places of group '{group}' in topic '{topic}'");
                let error = explain(what, &error);
                // The first group of a cluster is asked for while its place is made, others while theirs moves.
                if !error.is_retryable() || Instant::now() >= until {
                    return Err(error);
                }
                std::thread::sleep(AGAIN_AFTER);
            }
        }
    };
    let places = told.elements().into_iter().filter_map(|each| match each.offset() {
        Offset::Offset(offset) => {
            let offset = u64::try_from(offset).ok()?;
            Some((each.partition(), Committed { offset, metadata: each.metadata().to_owned() }))
        }
        _ => None,
    });
    Ok(places.collect())
}
