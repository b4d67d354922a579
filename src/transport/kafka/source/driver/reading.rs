//! Records into batches: as much as was asked for, a partition at a time.

use super::super::super::refusal::explain;
use super::super::part::Part;
use super::super::reader::seek;
use super::super::seats::Name;
use super::super::tracker::Step;
use super::Driver;
use crate::error::{Error, ErrorKind};
use crate::message::{At, SlabBuilder};
use crate::transport::{Backlog, Event};
use rdkafka::Message;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use std::time::Duration;

/// Most messages of one batch.
const BATCH: usize = 256;
/// A batch that has grown to so many bytes is handed over.
const BATCH_BYTES: u64 = 1 << 20;
/// Records that are stepped over in one turn, because they are finished or in flight.
const STEPPED_OVER: usize = 4_096;

/// Why a turn with a partition ended.
enum End {
    /// Nothing is there for now.
    Empty,
    /// There may be more.
    More,
    /// Reading has to begin anew at this offset.
    Again(u64),
    Failed(Code),
}

impl Driver {
    /// A partition's queue may hold something.
    pub(super) fn list(&mut self, number: u32) {
        let Some(part) = self.parts.get_mut(&number) else { return };
        if !std::mem::replace(&mut part.listed, true) {
            self.filled.push_back(number);
        }
    }

    /// Every queue may hold something: a bell that was not rung costs a moment, and no more.
    pub(super) fn list_all(&mut self) {
        for part in self.parts.values_mut().filter(|part| !part.listed && part.reads()) {
            part.listed = true;
            self.filled.push_back(part.number);
        }
    }

    /// Reads one batch. True when there may be more to read at once.
    pub(super) fn read(&mut self) -> bool {
        let seen = self.desk.see();
        if seen.messages == 0 || seen.bytes == 0 || self.closing.is_some() {
            return false;
        }
        let (messages, bytes) = (BATCH.min(seen.messages as usize), BATCH_BYTES.min(seen.bytes));
        while let Some(number) = self.filled.pop_front() {
            let Some(part) = self.parts.get_mut(&number) else { continue };
            part.listed = false;
            if !part.reads() {
                continue;
            }
            let mut builder = SlabBuilder::with_capacity(messages, self.batch_bytes);
            let topic = part.name.topic.clone();
            let end = Self::fill(&mut self.reading, part, &mut builder, messages, bytes, seen.window);
            let any = !builder.is_empty();
            if any {
                self.batch_bytes = builder.bytes();
                self.desk.deliver(builder.finish(topic));
            }
            match end {
                End::Empty => {}
                End::More => self.list(number),
                End::Again(offset) => self.seek(number, offset),
                End::Failed(code) => self.reading_failed(number, code),
            }
            if any {
                return !self.filled.is_empty();
            }
        }
        false
    }

    fn fill(
        reading: &mut super::Reading,
        part: &mut Part,
        builder: &mut SlabBuilder,
        messages: usize,
        bytes: u64,
        window: u32,
    ) -> End {
        let (number, epoch) = (part.number, part.epoch);
        let Some(work) = &mut part.work else { return End::Empty };
        let Some(queue) = work.queue.take() else { return End::Empty };
        let mut end = End::More;
        let mut skipped = 0;
        while builder.len() < messages && (builder.bytes() as u64) < bytes && skipped < STEPPED_OVER {
            let record = match queue.poll(Duration::ZERO) {
                Some(Ok(record)) => record,
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    work.at_end = true;
                    continue;
                }
                Some(Err(error)) => {
                    end = End::Failed(error.rdkafka_error_code().unwrap_or(Code::Fail));
                    break;
                }
                None => {
                    end = End::Empty;
                    break;
                }
            };
            work.at_end = false;
            let offset = record.offset() as u64;
            match work.tracker.step(offset) {
                Step::Skip => skipped += 1,
                Step::Again(from) => {
                    end = End::Again(from);
                    break;
                }
                Step::Deliver => {
                    let (unclean, marks) = work.suspicion(offset, window);
                    let head = reading.push(builder, &record);
                    head.at = At { position: offset, epoch, partition: number };
                    // A run that was marked is a start that happened.
                    (head.unclean, head.marks, head.attempts) = (unclean, marks, marks);
                }
            }
        }
        work.queue = Some(queue);
        end
    }

    /// Goes back to the first message that was given back, if it has been passed.
    pub(super) fn rewind(&mut self, number: u32) {
        let work = self.parts.get_mut(&number).and_then(|part| part.work.as_mut());
        if let Some(offset) = work.and_then(|work| work.tracker.rewind()) {
            self.seek(number, offset);
        }
    }

    fn seek(&mut self, number: u32, offset: u64) {
        let Some(part) = self.parts.get(&number) else { return };
        // One that is not read yet begins there.
        if part.work.as_ref().is_some_and(|work| work.queue.is_some()) {
            if let Err(error) = seek(&self.reader, &part.name, offset) {
                let what = format!("partition {}: going back to {offset}", part.name);
                self.trouble(explain(what, &error));
            }
            self.list(number);
        }
    }

    fn reading_failed(&mut self, number: u32, code: Code) {
        let Some(part) = self.parts.get(&number) else { return };
        let name = part.name.clone();
        if matches!(code, Code::AutoOffsetReset | Code::OffsetOutOfRange) {
            // What was asked for is not in the log. What is there instead is looked up, under an ownership of its own.
            let text = format!("partition {name}: its offset is not in the log any more, it is looked up anew");
            self.trouble(Error::new(ErrorKind::Unreachable, text));
            self.forget(number);
            return;
        }
        self.trouble(super::super::super::refusal::refused(format_args!("partition {name}"), code));
        self.list(number);
    }

    /// What waits, as the ends of the logs are known now.
    pub(super) fn measured(&mut self, ends: KafkaResult<Vec<(Name, u64)>>) {
        let Ok(ends) = ends else {
            self.desk.say(Event::Measured(Backlog::default()));
            return;
        };
        self.link.answered();
        let mut waiting = 0;
        for (name, end) in ends {
            let number = self.seats.of(&name);
            let Some(work) = self.parts.get(&number).and_then(|part| part.work.as_ref()) else { continue };
            // What lies behind the last record may be the end of a transaction, which nobody delivers.
            let behind = if work.at_end { 0 } else { end.saturating_sub(work.tracker.next()) };
            waiting += behind + work.tracker.returned() as u64;
        }
        waiting += self.desk.read_ahead();
        self.desk.say(Event::Measured(Backlog { waiting: Some(waiting), delayed: Some(0) }));
    }
}
