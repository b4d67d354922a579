//! Looking into a topic, and taking off what was looked at: dead letters, mostly.
//!
//! A look is a reader that belongs to no group: it is told where to begin and commits nothing. It goes from the place of
//! the group, or where there is none from the beginning, to the end as it was at the open, one partition after the other.
//! What that place says is settled beyond it is stepped over. Without a group in the URL it is the shelf's own, which has
//! the name of the topic.
//!
//! A log cannot lose one record. Taken off means that the group has settled it: its place, with the offsets beyond it in
//! the metadata of the commit as a source writes them, is read again, joined with what is taken off and committed before
//! a removal is answered. Every process sees it then, and `inspect` counts by it. Where the URL names no group, records
//! below that place are deleted from the log as well, if that is allowed: a broker forgets the place of a group that
//! nobody uses (after 7 days by default), and letters that were taken off would be back.
//!
//! What this cannot do: between the reading of a place and its commit another process may commit as well, and what that
//! one has taken off comes back then; none is lost by it. A place holds about 2,000 runs of offsets: who takes off every
//! second letter of more is told so. And a place whose members are at work is theirs alone: the broker refuses a commit
//! beside them.
//!
//! `look` is the thread that reads and commits, `part` the pure state of one partition.

mod look;
mod part;

use super::context::cluster_name;
use super::inspect::{LOOK_LIMIT, NAME};
use super::place::{Place, Topics};
use super::topics;
use crate::error::{Error, ErrorKind};
use crate::message::{At, Slab};
use crate::transport::{BoxFuture, Shelf};
use look::{Look, parts};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// What a removal may take: the question for the places ([`LOOK_LIMIT`]), the commit, for which the client library has no
/// limit of its own, as long as a request may take (20 s), and the deletion (5 s).
const REMOVE_LIMIT: Duration = Duration::from_secs(40);

/// The group whose place says what was taken off a topic, for a URL that names none.
pub(super) fn shelf_group(topic: &str) -> &str {
    topic
}

/// A topic that is looked into. Its thread ends soon after it is dropped.
pub(super) struct KafkaShelf {
    jobs: Sender<Job>,
    of: String,
    /// A removal was not answered in time or not waited for: the thread may be held up by it for long.
    unanswered: bool,
}

enum Job {
    Read(u32, oneshot::Sender<Result<Slab, Error>>),
    Remove(Vec<At>, oneshot::Sender<Result<u64, Error>>),
}

impl KafkaShelf {
    /// # Errors
    /// An absent topic, as looking makes nothing; several topics, which have no one order.
    pub(super) async fn open(place: Place) -> Result<Self, Error> {
        let topic = match &place.topics {
            Topics::Named(names) if names.len() == 1 => names[0].clone(),
            _ => return Err(Error::configuration("several topics cannot be looked into at once: name one")),
        };
        let group = place.group.clone().unwrap_or_else(|| shelf_group(&topic).to_owned());
        let (name, of) = (topic.clone(), group.clone());
        let parts = topics::ask(&place, &NAME.into(), LOOK_LIMIT, move |asker| parts(asker, &name, &of)).await?;
        let of = format!("topic '{topic}' of {}", cluster_name(&place));
        let runtime = Handle::current();
        let (jobs, asked) = channel();
        let (tell, opened) = oneshot::channel();
        let work = move || match Look::new(place, topic, group, parts, runtime) {
            Ok(mut look) => {
                let _ = tell.send(Ok(()));
                look.work(&asked);
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        };
        let no_thread = |why| Error::new(ErrorKind::Start, format!("{of}: no thread to look")).caused_by(why);
        std::thread::Builder::new().name("kafka-look".to_owned()).spawn(work).map_err(no_thread)?;
        opened.await.unwrap_or_else(|_| Err(ended(&of)))?;
        Ok(Self { jobs, of, unanswered: false })
    }

    fn ask(&self, job: Job) -> Result<(), Error> {
        if self.unanswered {
            return Err(unanswered(&self.of));
        }
        self.jobs.send(job).map_err(|_| ended(&self.of))
    }
}

fn ended(of: &str) -> Error {
    Error::new(ErrorKind::Start, format!("{of}: looking ended early"))
}

fn unanswered(of: &str) -> Error {
    Error::new(ErrorKind::Unreachable, format!("{of}: what was to be taken off was not answered"))
}

impl Shelf for KafkaShelf {
    fn read(&mut self, max: u32) -> BoxFuture<'_, Result<Slab, Error>> {
        Box::pin(async move {
            let (tell, answer) = oneshot::channel();
            // The thread gives up by itself: after a silence, or at the end that the look has.
            self.ask(Job::Read(max, tell))?;
            answer.await.unwrap_or_else(|_| Err(ended(&self.of)))
        })
    }

    fn remove(&mut self, these: Vec<At>) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move {
            let (tell, answer) = oneshot::channel();
            self.ask(Job::Remove(these, tell))?;
            self.unanswered = true;
            let answer = tokio::time::timeout(REMOVE_LIMIT, answer).await.map_err(|_| unanswered(&self.of))?;
            self.unanswered = false;
            answer.unwrap_or_else(|_| Err(ended(&self.of)))
        })
    }
}
