//! A source: a handle that the engine tells and asks, and a thread of its own behind it.
//!
//! `desk` is where the two meet; `driver` is the thread, and `clerk` a second one for what the client library answers in
//! its own time. `member` is the consumer that the group knows and `reader` the one that reads. What is delivered of a
//! partition and what is to be committed of it is kept in `part`, by the pure rules of `tracker`.

mod bell;
mod clerk;
mod desk;
mod driver;
mod inbound;
mod member;
mod part;
mod reader;
mod seats;
mod tracker;

use super::place::Place;
use super::{client, topics};
use crate::error::{Error, ErrorKind};
use crate::transport::{Ask, BoxFuture, Event, Source, SourceSpec};
pub(super) use inbound::Reading;
pub(super) use tracker::{LONGEST, Note, Step, Tracker, read, write};

use bell::Bell;
use desk::Desk;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::channel;

/// What a source was opened with.
struct Setup {
    place: Place,
    spec: SourceSpec,
    group: Arc<str>,
}

/// An open source. Dropped without a close it ends as its process would: nothing is committed.
pub(super) struct KafkaSource {
    desk: Arc<Desk>,
    /// Looks for the topics; over once the thread works.
    looking: tokio::task::JoinHandle<()>,
}

impl KafkaSource {
    /// Opens it; connecting goes on in its thread.
    ///
    /// # Errors
    /// No thread can be started. Everything else is an [`Event::Failed`].
    pub(super) async fn open(place: Place, spec: SourceSpec) -> Result<Self, Error> {
        client::warn_of_plain_login(&place, &spec.worker);
        let group = place.group.as_deref().map_or_else(|| spec.default_group.clone(), Arc::from);
        let bell = Arc::new(Bell::default());
        let desk = Arc::new(Desk::new(bell.clone()));
        let setup = Arc::new(Setup { place, spec, group });
        let (tell, ready) = channel();
        let thread = {
            let (setup, desk, bell) = (setup.clone(), desk.clone(), bell.clone());
            move || {
                let said = desk.clone();
                let worked = catch_unwind(AssertUnwindSafe(|| driver::run(setup, desk, bell, &ready)));
                if worked.is_err() {
                    // What it panicked with is in the log: the hook has said it.
                    said.say(Event::Failed(Error::new(ErrorKind::Start, "the thread of the source panicked")));
                }
            }
        };
        let named = std::thread::Builder::new().name(format!("kafka-{}", setup.spec.worker));
        named.spawn(thread).map_err(|why| {
            Error::new(ErrorKind::Start, format!("worker '{}': no thread", setup.spec.worker)).caused_by(why)
        })?;
        let looking = tokio::spawn(async move {
            let found = topics::ready(&setup.place, &setup.spec.worker, setup.spec.patience).await;
            let _ = tell.send(found);
            bell.ring();
        });
        Ok(Self { desk, looking })
    }
}

impl Source for KafkaSource {
    fn tell(&mut self, ask: Ask) {
        self.desk.tell(ask);
    }

    fn next(&mut self) -> BoxFuture<'_, Event> {
        Box::pin(poll_fn(|cx| self.desk.poll_event(cx)))
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.looking.abort();
        self.desk.crash();
    }
}
