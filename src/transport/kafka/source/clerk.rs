//! The clerk: a thread for the questions that the client library answers in its own time.
//!
//! A synchronous commit has no bound of its own, and the drop of a consumer neither. So they are done here, one at a
//! time; whoever asked waits as long as it likes and goes on without an answer. A clerk that never comes back is left
//! behind with what it holds.

use super::super::place::Start;
use super::bell::Bell;
use super::member::{Member, leave, list_of};
use super::reader::Reader;
use super::seats::Name;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// A question to the cluster is given up after so long and asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// While consumers close, each is served so long in turn.
const CLOSING_STEP: Duration = Duration::from_millis(1);

/// A line of a commit.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: Name,
    /// The next offset.
    pub(super) offset: u64,
    pub(super) metadata: String,
}

/// What the cluster knows of a partition.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) name: Name,
    /// The group's place and what was written beside it, from one answer.
    pub(super) committed: Option<(u64, String)>,
    /// The log: its first offset, and the one behind its last.
    pub(super) log: (u64, u64),
    /// Where a group without a place starts.
    pub(super) start: u64,
}

pub(super) enum Job {
    /// Where the group stands in these, and where they begin and end.
    Look(Vec<Name>, Start),
    Commit(Vec<Line>),
    /// Where the log of these ends for a reader.
    Ends(Vec<Name>),
    /// Whether the cluster answers.
    Probe,
    /// The consumers are to be dropped.
    Leave {
        member: Arc<Member>,
        reader: Reader,
    },
}

pub(super) enum Answer {
    Looked(KafkaResult<Vec<Found>>),
    Committed(KafkaResult<()>),
    Ends(KafkaResult<Vec<(Name, u64)>>),
    Probed(KafkaResult<()>),
    Left,
}

/// The other side of the clerk's counter.
pub(super) struct Clerk {
    jobs: Sender<Job>,
    pub(super) answers: Receiver<Answer>,
}

impl Clerk {
    /// Starts the thread.
    pub(super) fn start(worker: &str, member: Arc<Member>, reader: Reader, bell: Arc<Bell>) -> std::io::Result<Self> {
        let (jobs, asked) = channel();
        let (answer, answers) = channel();
        let work = move || work(member, reader, &asked, &answer, &bell);
        std::thread::Builder::new().name(format!("kafka-clerk-{worker}")).spawn(work)?;
        Ok(Self { jobs, answers })
    }

    pub(super) fn ask(&self, job: Job) {
        // It lives until it has dropped the consumers, after which nobody asks.
        let _ = self.jobs.send(job);
    }
}

fn work(member: Arc<Member>, reader: Reader, asked: &Receiver<Job>, answer: &Sender<Answer>, bell: &Bell) {
    while let Ok(job) = asked.recv() {
        let said = match job {
            Job::Look(names, start) => Answer::Looked(look(&member, &names, start)),
            Job::Commit(lines) => Answer::Committed(commit(&member, &lines)),
            Job::Ends(names) => Answer::Ends(ends(&reader, &names)),
            Job::Probe => Answer::Probed(probe(&member)),
            Job::Leave { member: last, reader: other } => {
                leave(&last);
                close(&last, &other);
                // The group is left. What remains is for the client library to end its threads, which nobody waits for.
                let _ = answer.send(Answer::Left);
                bell.ring();
                return;
            }
        };
        // Nobody listens after a crash; the consumers are still to be dropped.
        let _ = answer.send(said);
        bell.ring();
    }
}

/// Closes both at once. Their drop does it as well, one after the other and in steps of 100 ms.
fn close(member: &Member, reader: &Reader) {
    if member.close_queue().is_err() || reader.close_queue().is_err() {
        return;
    }
    // For as long as it takes, as a drop: whoever cannot wait goes on without.
    while !(member.closed() && reader.closed()) {
        member.poll(CLOSING_STEP);
        reader.poll(CLOSING_STEP);
    }
}

fn commit(member: &Member, lines: &[Line]) -> KafkaResult<()> {
    let mut list = TopicPartitionList::with_capacity(lines.len());
    for line in lines {
        let mut place = list.add_partition(&line.name.topic, line.name.partition);
        place.set_offset(Offset::Offset(line.offset as i64))?;
        place.set_metadata(line.metadata.as_str());
    }
    // An error of one partition is the error of the call; without one, all of them are stored.
    member.commit(&list, CommitMode::Sync)
}

fn probe(member: &Member) -> KafkaResult<()> {
    // The broker that is asked is any; what is asked for is a topic that nobody has, so that the answer is short.
    member.client().fetch_metadata(Some("longshore.probe"), ANSWER_WITHIN).map(drop)
}

fn names_and_offsets(list: &TopicPartitionList) -> KafkaResult<Vec<(Name, i64)>> {
    let each = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        element.error()?;
        let offset = element.offset().to_raw().unwrap_or(-1);
        Ok((Name { topic: element.topic().into(), partition: element.partition() }, offset))
    };
    list.elements().iter().map(each).collect()
}

/// Offsets by time, where -2 and -1 are the ends of the log: one question a broker, however many partitions.
fn offsets(of: &impl Asks, names: &[Name], time: Offset) -> KafkaResult<HashMap<Name, i64>> {
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let mut list = list_of(names);
    list.set_all_offsets(time)?;
    Ok(names_and_offsets(&of.offsets_for_times(list)?)?.into_iter().collect())
}

trait Asks {
    fn offsets_for_times(&self, list: TopicPartitionList) -> KafkaResult<TopicPartitionList>;
}

impl Asks for Member {
    fn offsets_for_times(&self, list: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
        Consumer::offsets_for_times(self, list, ANSWER_WITHIN)
    }
}

impl Asks for Reader {
    fn offsets_for_times(&self, list: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
        Consumer::offsets_for_times(&**self, list, ANSWER_WITHIN)
    }
}

fn ends(reader: &Reader, names: &[Name]) -> KafkaResult<Vec<(Name, u64)>> {
    let ends = offsets(reader, names, Offset::End)?;
    Ok(ends.into_iter().map(|(name, end)| (name, u64::try_from(end).unwrap_or(0))).collect())
}

fn look(member: &Member, names: &[Name], start: Start) -> KafkaResult<Vec<Found>> {
    let committed = member.committed_offsets(list_of(names), ANSWER_WITHIN)?;
    let first = offsets(member, names, Offset::Beginning)?;
    let end = offsets(member, names, Offset::End)?;
    let of_time = match start {
        Start::Time(at) => offsets(member, names, Offset::Offset(at))?,
        _ => HashMap::new(),
    };
    let mut found = Vec::with_capacity(names.len());
    for element in committed.elements() {
        element.error()?;
        let name = Name { topic: element.topic().into(), partition: element.partition() };
        let of = |offsets: &HashMap<Name, i64>| offsets.get(&name).and_then(|offset| u64::try_from(*offset).ok());
        let (first, end) = (of(&first).unwrap_or(0), of(&end).unwrap_or(0));
        let start = match start {
            Start::Earliest => first,
            Start::Latest => end,
            Start::Offset(offset) => u64::try_from(offset).unwrap_or(0).clamp(first, end.max(first)),
            // No record is as young: what comes next is.
            Start::Time(_) => of(&of_time).unwrap_or(end),
        };
        let committed = match element.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        };
        let committed = committed.map(|offset| (offset, element.metadata().to_owned()));
        found.push(Found { name, committed, log: (first, end), start });
    }
    Ok(found)
}
