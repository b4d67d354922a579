//! A source: a handle that the engine tells and asks, and a driver of its own behind it.
//!
//! `desk` is where the two meet; `driver` connects, and connects again; `session` owns one channel. What they decide by
//! is pure and lies apart: `ledger` (which acks are due), `proofs` (which have arrived), `prefetch` (how much is let
//! out), `ending` (how a channel ends), `calm` (when its
//! consumer may be cancelled). `consume`, `offsets` and `frames` are what goes over the wire.

mod calm;
mod consume;
mod desk;
mod driver;
mod ending;
mod frames;
mod ghosts;
mod ledger;
mod offsets;
mod prefetch;
mod proofs;
mod session;
mod witness;

use super::place::Place;
use super::properties::inbound::Reading;
use crate::error::Error;
use crate::transport::{Ask, BoxFuture, Event, Source, SourceSpec};
use consume::Start;
use desk::Desk;
use driver::Driver;
use std::future::poll_fn;
use std::sync::Arc;

/// What a source was opened with.
struct Setup {
    place: Place,
    spec: SourceSpec,
    start: Option<Start>,
    /// What the tags of its consumers begin with, as the broker shows them.
    tag: String,
}

/// An open source. Dropped without a close it cuts its connection, as the death of its process would.
pub(super) struct AmqpSource {
    desk: Arc<Desk>,
    driver: tokio::task::JoinHandle<()>,
}

impl AmqpSource {
    /// Opens it; connecting goes on in its driver.
    ///
    /// # Errors
    /// An option that cannot be understood. Everything else is an [`Event::Failed`].
    pub(super) async fn open(place: Place, spec: SourceSpec) -> Result<Self, Error> {
        let start = Start::of(&place)?;
        let reading = Reading { key: place.key.clone(), max_message: spec.max_message };
        let desk = Arc::new(Desk::new(reading, place.queue.as_str().into()));
        // A tag is a short string; a name that is longer would make every consume fail.
        let name: String = spec.worker.chars().filter(char::is_ascii).take(100).collect();
        let tag = format!("{name}-{}", std::process::id());
        let driver = Driver::new(Setup { place, spec, start, tag }, desk.clone());
        Ok(Self { desk, driver: tokio::spawn(driver.run()) })
    }
}

impl Source for AmqpSource {
    fn tell(&mut self, ask: Ask) {
        self.desk.tell(ask);
    }

    fn next(&mut self) -> BoxFuture<'_, Event> {
        Box::pin(poll_fn(|cx| self.desk.poll_event(cx)))
    }
}

impl Drop for AmqpSource {
    fn drop(&mut self) {
        self.desk.crash();
        self.driver.abort();
    }
}
