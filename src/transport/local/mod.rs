//! `local:PATH?queue=NAME`: a durable queue in one SQLite file.
//!
//! Several processes may use one file. It is kept in WAL mode, and every confirm and every proven settlement has
//! been synced to disk. A message is deleted once every group that exists has settled it, or `retain=` later.
//!
//! The rooms: `store` finds, checks, makes and migrates the file; `session` is one owner at work, without threads, and
//! `claim` and `settle` are what it does; `source` and `sink` each put a thread around it, because SQLite blocks; `desk` is what lies between that
//! thread and the task that owns the source. `held` is what an owner holds, `owner` how others know that it lives,
//! `neighbours` how sources and sinks of one process take turns and wake each other.
//!
//! ```text
//! published ─▶ above the cursor ─claim─▶ range of an owner ─settle─▶ done, deleted
//!                                  │            │  ▲
//!                        key held by another    │  └─claim── pending, free ◀─┐
//!                                  └────────────┴─ return, retry, crash ─────┘
//! ```

mod claim;
mod desk;
mod filesystem;
mod held;
mod neighbours;
mod owner;
mod publish;
mod rows;
mod session;
mod settle;
mod shelf;
mod sink;
mod source;
#[doc(hidden)]
pub mod statements;
mod store;
#[cfg(test)]
mod tests;

use super::{
    BoxFuture, Capabilities, DeadPlace, DeliveryCount, Inspection, KeyFrom, Shelf, Sink, SinkPlan, SinkSpec, Source,
    SourceHooks, SourcePlan, SourceSpec, Transport, Url,
};
use crate::error::Error;
use neighbours::Neighbourhoods;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A claim that is not renewed for so long is free, unless `claim=` says otherwise.
pub const CLAIM: Duration = Duration::from_secs(30);

/// The shortest claim: it is renewed at a third, which has to leave room for one slow commit.
const SHORTEST_CLAIM: Duration = Duration::from_millis(100);

/// The embedded durable queue; clones share what their sources and sinks tell each other.
#[derive(Clone, Default)]
pub struct Local {
    open: Arc<Neighbourhoods>,
}

/// What a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    queue: String,
    group: Option<String>,
    key: KeyFrom,
    retain: Option<Duration>,
    claim: Duration,
    declare: bool,
}

impl Place {
    fn read(url: &Url) -> Result<Self, Error> {
        let options = url.options();
        let queue = options.required("queue").to_owned();
        let group = options.text("group").map(str::to_owned);
        if group.as_deref() == Some("") {
            options.wrong("option 'group' is empty".into());
        }
        let key = match KeyFrom::parse(options.text("key")) {
            Ok(KeyFrom::RoutingKey) => {
                options.wrong("option 'key=routing-key': a local queue has no routing keys".into());
                KeyFrom::Message
            }
            Ok(key) => key,
            Err(error) => {
                options.wrong(error.to_string());
                KeyFrom::Message
            }
        };
        let retain = options.duration("retain");
        let claim = options.duration("claim").unwrap_or(CLAIM);
        if claim < SHORTEST_CLAIM {
            options.wrong(format!("option 'claim' is below {} ms", SHORTEST_CLAIM.as_millis()));
        }
        let declare = options.bool("declare").unwrap_or(true);
        if url.path().is_empty() {
            options.wrong("a local store needs a path, such as local:orders.db?queue=orders".into());
        }
        if !url.hosts().is_empty() {
            options.wrong("a local store has no host: write local:PATH or local:///PATH".into());
        }
        options.finish().map_err(|error| error.of(format_args!("'{url}'")))?;
        Ok(Self { path: url.path().into(), queue, group, key, retain, claim, declare })
    }
}

/// The queue of dead letters of a queue and group.
fn dead_queue(queue: &str, group: &str) -> String {
    format!("{queue}.{group}.dead")
}

const CAPABILITIES: Capabilities = Capabilities {
    durable: true,
    ordered_across_processes: true,
    partitions: false,
    keys: true,
    delivery_count: DeliveryCount::Exact,
    delayed_redelivery: true,
    settles_one_by_one: true,
    bytes_bounded: true,
    takes_back: true,
    poison_protection: true,
    groups: true,
    shared: true,
    replays: true,
    finite: false,
    transactions: false,
    recognises_ids: true,
    batch: 1_024,
};

impl Transport for Local {
    fn schemes(&self) -> &'static [&'static str] {
        &["local"]
    }

    fn source(&self, url: &Url, spec: &SourceSpec) -> Result<Box<dyn SourcePlan>, Error> {
        let mut place = Place::read(url)?;
        place.group.get_or_insert_with(|| spec.default_group.to_string());
        Ok(Box::new(LocalSourcePlan { place, spec: spec.clone(), open: self.open.clone() }))
    }

    fn sink(&self, url: &Url, spec: &SinkSpec) -> Result<Box<dyn SinkPlan>, Error> {
        Ok(Box::new(LocalSinkPlan { place: Place::read(url)?, spec: spec.clone(), open: self.open.clone() }))
    }

    fn dead_letters(&self, url: &Url, group: &str) -> DeadPlace {
        let Some(queue) = url.option("queue") else { return DeadPlace::None };
        let queue = dead_queue(queue, group);
        let mut options = vec![("queue", queue.as_str())];
        options.extend(url.option("declare").map(|declare| ("declare", declare)));
        DeadPlace::At(url.with(url.path(), &options))
    }

    fn inspect<'a>(&'a self, url: &'a Url, group: &'a str) -> BoxFuture<'a, Result<Inspection, Error>> {
        let (open, group) = (self.open.clone(), group.to_owned());
        Box::pin(async move {
            let place = Place::read(url)?;
            shelf::beside(move || shelf::inspect(&place, &group, &open)).await
        })
    }

    fn shelf<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<Box<dyn Shelf>, Error>> {
        let open = self.open.clone();
        Box::pin(async move {
            let place = Place::read(url)?;
            let shelf = shelf::beside(move || shelf::LocalShelf::open(&place, &open)).await?;
            Ok(Box::new(shelf) as Box<dyn Shelf>)
        })
    }
}

struct LocalSourcePlan {
    place: Place,
    spec: SourceSpec,
    open: Arc<Neighbourhoods>,
}

impl SourcePlan for LocalSourcePlan {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn group(&self) -> Option<&str> {
        self.place.group.as_deref()
    }

    fn open(&self, _hooks: SourceHooks) -> BoxFuture<'_, Result<Box<dyn Source>, Error>> {
        let (place, spec, open) = (self.place.clone(), self.spec.clone(), self.open.clone());
        Box::pin(async move { Ok(Box::new(source::LocalSource::open(place, spec, open).await?) as Box<dyn Source>) })
    }
}

struct LocalSinkPlan {
    place: Place,
    spec: SinkSpec,
    open: Arc<Neighbourhoods>,
}

impl SinkPlan for LocalSinkPlan {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Sink>, Error>> {
        let (place, spec, open) = (self.place.clone(), self.spec.clone(), self.open.clone());
        Box::pin(async move { Ok(Box::new(sink::LocalSink::open(place, spec, open).await?) as Box<dyn Sink>) })
    }
}
