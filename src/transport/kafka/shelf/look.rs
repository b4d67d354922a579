//! The thread of a look: it reads, and it writes the place of the group.

use super::super::client;
use super::super::context::{Ear, Heard};
use super::super::inspect::{LOOK_LIMIT, NAME, absent, committed, ends, places};
use super::super::place::{Place, Start};
use super::super::refusal::explain;
use super::super::source::Reading;
use super::super::topics::Asker;
use super::part::Part;
use super::{Job, shelf_group};
use crate::error::{Error, ErrorKind};
use crate::message::{At, Slab, SlabBuilder};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// A read ends after so many bytes.
const READ_BYTES: usize = 16 << 20;
/// Fetched ahead, in KiB: a read's worth.
const AHEAD_KBYTES: u32 = 16 << 10;
/// So often it is looked whether a login was refused while nothing comes.
const SLICE: Duration = Duration::from_millis(100);
/// What the deletion of records may take; what it leaves is deleted after the next removal.
const DELETE_LIMIT: Duration = Duration::from_secs(5);

/// Where each partition begins and ends for a group.
pub(super) fn parts(asker: &Asker, name: &str, group: &str) -> Result<Vec<Part>, Error> {
    let topic = asker.topic(name)?;
    let Some(partitions) = topic.partitions else { return Err(absent(&asker.place, name)) };
    let places = places(asker, name, partitions, group)?;
    let mut parts = Vec::new();
    for (number, (low, high)) in (0..).zip(ends(asker, &topic)?) {
        let (low, end) = (low.unsigned_abs(), high.unsigned_abs());
        let known = places.get(&(number as i32));
        let begin = match (known.filter(|known| known.offset <= end), asker.place.start) {
            (Some(known), _) => known.offset.max(low),
            (None, Some(Start::Latest)) => end,
            (None, Some(Start::Offset(offset))) => u64::try_from(offset).unwrap_or(0).clamp(low, end),
            (None, Some(Start::Time(at))) => at_time(asker, name, number, at)?.unwrap_or(end),
            (None, None | Some(Start::Earliest)) => low,
        };
        parts.push(Part::new(number, known, begin, end));
    }
    Ok(parts)
}

/// The first record that is not older; `None` where there is none.
fn at_time(asker: &Asker, topic: &str, partition: u32, at: i64) -> Result<Option<u64>, Error> {
    let of = |error: KafkaError| explain(format_args!("partition {partition} of topic '{topic}'"), &error);
    let config = client::reader(&asker.place, NAME, shelf_group(topic), 1);
    let reader: BaseConsumer<Ear> = client::create(&config, Ear::new(NAME.into(), &asker.place), &asker.place)?;
    let list = list(topic, partition, Offset::Offset(at)).map_err(of)?;
    let told = reader.offsets_for_times(list, LOOK_LIMIT).map_err(of)?;
    let offset = told.elements().first().and_then(|each| each.offset().to_raw());
    Ok(offset.and_then(|offset| u64::try_from(offset).ok()))
}

fn list(topic: &str, partition: u32, offset: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, partition as i32, offset)?;
    Ok(list)
}

/// What the thread has. What it does blocks.
pub(super) struct Look {
    reader: BaseConsumer<Ear>,
    place: Place,
    topic: Arc<str>,
    group: String,
    parts: Vec<Part>,
    /// Which of them is read, and whether it is assigned.
    at: usize,
    assigned: bool,
    reading: Reading,
    runtime: Handle,
    /// There once something was deleted.
    admin: Option<AdminClient<Ear>>,
    deletes: bool,
}

impl Look {
    pub(super) fn new(
        place: Place,
        topic: String,
        group: String,
        parts: Vec<Part>,
        runtime: Handle,
    ) -> Result<Self, Error> {
        let mut config = client::reader(&place, NAME, &group, AHEAD_KBYTES);
        // What the log has lost since the open is passed by.
        config.set("auto.offset.reset", "earliest").set("enable.partition.eof", "true");
        let reader = client::create(&config, Ear::new(NAME.into(), &place), &place)?;
        let reading = Reading::new(place.key.clone(), u64::MAX);
        // Others who read a topic for a group of theirs keep it whole.
        let deletes = place.group.is_none();
        let (topic, at, assigned, admin) = (topic.into(), 0, false, None);
        Ok(Self { reader, place, topic, group, parts, at, assigned, reading, runtime, admin, deletes })
    }

    pub(super) fn work(&mut self, asked: &Receiver<Job>) {
        while let Ok(job) = asked.recv() {
            // Who has gone meanwhile is told nothing.
            match job {
                Job::Read(max, tell) => drop(tell.send(self.read(max))),
                Job::Remove(these, tell) => drop(tell.send(self.remove(&these))),
            }
        }
    }

    fn explain(&self, error: &KafkaError) -> Error {
        explain(format_args!("looking into topic '{}'", self.topic), error)
    }

    fn read(&mut self, max: u32) -> Result<Slab, Error> {
        let mut builder = SlabBuilder::new();
        let mut heard_at = Instant::now();
        while (builder.len() as u32) < max && builder.bytes() < READ_BYTES {
            let Some(part) = self.parts.get_mut(self.at) else { break };
            if part.is_read() {
                (self.at, self.assigned) = (self.at + 1, false);
                continue;
            }
            if !self.assigned {
                let begin = Offset::Offset(part.begin as i64);
                let assigned = list(&self.topic, part.number, begin).and_then(|list| self.reader.assign(&list));
                assigned.map_err(|error| self.explain(&error))?;
                (self.assigned, heard_at) = (true, Instant::now());
                continue;
            }
            match self.reader.poll(SLICE) {
                // Of the partition before, and on its way when that had ended.
                Some(Ok(record)) if record.partition() as u32 != part.number => {}
                Some(Ok(record)) => {
                    heard_at = Instant::now();
                    if part.step(record.offset() as u64) {
                        let head = self.reading.push(&mut builder, &record);
                        head.at = At { position: record.offset() as u64, epoch: 0, partition: part.number };
                    }
                }
                // What the log still had below the end was no record: it was compacted away, or ended a transaction.
                Some(Err(KafkaError::PartitionEOF(number))) => {
                    if number as u32 == part.number {
                        part.ends();
                    }
                }
                other => {
                    if let Some(Err(error)) = other {
                        let error = self.explain(&error);
                        if !error.is_retryable() {
                            return Err(error);
                        }
                    }
                    self.refused()?;
                    if heard_at.elapsed() >= LOOK_LIMIT {
                        // What was read is worth to be shown; the next read says why there is no more.
                        if builder.is_empty() {
                            return Err(self.reader.context().unreachable("no answer"));
                        }
                        break;
                    }
                }
            }
        }
        Ok(builder.finish(self.topic.clone()))
    }

    /// Whether a login, a certificate or a permission was refused.
    fn refused(&self) -> Result<(), Error> {
        let heard = self.reader.context().take().into_iter().find_map(|heard| match heard {
            Heard::Refused(error) | Heard::Fatal(error) => Some(error),
            Heard::Lost(_) | Heard::Odd(_) => None,
        });
        heard.map_or(Ok(()), Err)
    }

    fn remove(&mut self, these: &[At]) -> Result<u64, Error> {
        if !matches!(self.place.start, None | Some(Start::Earliest)) {
            // Whatever lies before would be gone with it.
            return Err(Error::configuration("with option 'start' a part is looked at: nothing is taken off"));
        }
        let mut wanted: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        for at in these {
            wanted.entry(at.partition).or_default().insert(at.position);
        }
        let places = committed(&self.reader, &self.topic, self.parts.len() as u32, &self.group)?;
        let (mut list, mut removed, mut full) = (TopicPartitionList::new(), 0, false);
        let mut settled = Vec::new();
        for part in &mut self.parts {
            let Some(wanted) = wanted.get(&part.number) else { continue };
            let taken = part.take(places.get(&(part.number as i32)), wanted)?;
            full |= taken.full;
            if taken.count == 0 {
                continue;
            }
            removed += taken.count;
            let mut line = list.add_partition(&self.topic, part.number as i32);
            let set = line.set_offset(Offset::Offset(taken.offset as i64));
            line.set_metadata(taken.metadata);
            set.map_err(|error| explain(format_args!("topic '{}'", self.topic), &error))?;
            settled.push((part.number, taken.offset, taken.gone));
        }
        if removed > 0 {
            self.reader.commit(&list, CommitMode::Sync).map_err(|error| self.not_taken(&error))?;
            for (number, offset, gone) in &settled {
                self.parts[*number as usize].is_gone(*offset, gone);
            }
            self.delete(&settled);
        }
        match full {
            false => Ok(removed),
            true => Err(Error::new(
                ErrorKind::Start,
                format!(
                    "topic '{}': {removed} are taken off, and no more can be while older ones between them stay",
                    self.topic
                ),
            )),
        }
    }

    fn not_taken(&self, error: &KafkaError) -> Error {
        let Self { topic, group, .. } = self;
        match error.rdkafka_error_code() {
            Some(Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress) => Error::configuration(
                format!("topic '{topic}': group '{group}' is at work, and what it has not settled is its members'"),
            ),
            _ => explain(format_args!("taking off topic '{topic}' for group '{group}'"), error),
        }
    }

    /// Deletes what lies below the places. They stand without it: where it is not allowed it is not tried again.
    fn delete(&mut self, settled: &[(u32, u64, BTreeSet<u64>)]) {
        if !self.deletes {
            return;
        }
        let deleted = self.try_delete(settled);
        if let Err(error) = deleted {
            self.deletes = error.is_retryable();
            tracing::debug!(topic = &*self.topic, "records that were taken off stay in the log: {error}");
        }
    }

    fn try_delete(&mut self, settled: &[(u32, u64, BTreeSet<u64>)]) -> Result<(), Error> {
        let mut list = TopicPartitionList::with_capacity(settled.len());
        for (number, offset, _) in settled {
            let added = list.add_partition_offset(&self.topic, *number as i32, Offset::Offset(*offset as i64));
            added.map_err(|error| self.explain(&error))?;
        }
        let options = AdminOptions::new().request_timeout(Some(DELETE_LIMIT)).operation_timeout(Some(DELETE_LIMIT));
        let admin = match self.admin.take() {
            Some(admin) => admin,
            None => {
                let ear = Ear::new(NAME.into(), &self.place);
                client::create(&client::admin(&self.place, NAME), ear, &self.place)?
            }
        };
        let told = self.runtime.block_on(admin.delete_records(&list, &options));
        let told = told.and_then(|told| told.elements().iter().try_for_each(|each| each.error()));
        self.admin = Some(admin);
        told.map_err(|error| self.explain(&error))
    }
}
