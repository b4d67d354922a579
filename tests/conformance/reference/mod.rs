//! A small honest transport, and a way to break it in one place at a time.
//!
//! It keeps everything in one `Mutex`, so that each promise is a line or two that can be read, and each [`Fault`] an
//! `if` beside them. It is here to try the suite, not to be used.

mod sink;
mod source;
mod world;

use longshore::transport::*;
use longshore::{Error, message::At, message::Slab};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;
use world::World;

/// One thing that the transport does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// What is delivered is in this process alone, settled or not.
    AcksEarly,
    /// A return is heard and nothing is done.
    ForgetsReturns,
    /// A return goes to the end of the queue.
    ReturnsToTheTail,
    /// The intake goes on after it was said to have stopped.
    DeliversAfterStop,
    /// One more batch comes between the word to close and the end.
    DeliversAfterClose,
    /// A settlement is carried out whoever owns the message now.
    SettlesStale,
    /// A settlement under an ownership that is over is dropped and counted nowhere.
    HidesStale,
    /// Everything there is is delivered, whatever was asked for.
    IgnoresDemand,
    /// Bytes are not looked at.
    IgnoresBytes,
    /// A pause is not heard.
    IgnoresPause,
    /// `Flushed` overtakes the proof.
    FlushesEarly,
    /// A dropped wait takes a batch with it.
    LosesOnCancel,
    /// A dropped wait takes a confirm with it.
    LosesConfirmOnCancel,
    /// A message is confirmed first and stored later.
    ConfirmsEarly,
    /// What is sent and not stored is dropped by a close.
    ForgetsAtClose,
    /// What a dead owner had stays with it.
    BuriesTheDead,
    /// A delay is not waited.
    IgnoresDelay,
    /// A retry begins to count anew.
    ForgetsAttempts,
    /// A mark is said to be durable and is not.
    ForgetsMarks,
    /// A key goes to whoever asks.
    SharesKeys,
    /// One group's settlement is every group's.
    MixesGroups,
    /// Some of what a close gives back is not counted.
    Miscounts,
    /// A dropped ownership is not told.
    HidesLoss,
    /// An id is not looked at.
    ForgetsIds,
    /// Headers of one name become one.
    MergesHeaders,
    /// Looking at a shelf takes what is looked at.
    TakesByLooking,
    /// Options are not looked at.
    TakesAnyOption,
    /// A confirm is said twice.
    ConfirmsTwice,
    /// The flush of a sink overtakes what is not stored.
    FlushesBeforeStoring,
    /// A sink that drains drops what is not stored.
    DropsWhenDraining,
    /// What is stored in one queue is in the others too.
    MixesQueues,
    /// A long payload is cut.
    CutsPayloads,
    /// Bytes that are no text are replaced.
    MakesText,
    /// Keys do not arrive.
    DropsKeys,
    /// A tombstone arrives as an empty payload.
    FillsTombstones,
    /// Timestamps do not arrive.
    ForgetsTime,
    /// A payload is delivered whatever its size.
    IgnoresLimit,
    /// A source that waits is not told of what is stored.
    MissesNews,
    /// What one consumer has another gets as well.
    SharesDeliveries,
    /// A new group sees nothing of what was there.
    ForgetsThePast,
    /// A finite source ends while messages wait.
    EndsEarly,
    /// A finite source does not say that it ended.
    NeverEnds,
    /// Settlements are proven when somebody asks for it.
    ProvesOnDemand,
    /// What was settled right before a close is not proven.
    ForgetsProofs,
    /// A batch comes backwards.
    Reverses,
    /// A close whose time is up never ends.
    HangsWithoutTime,
    /// A plan opens one source.
    OpensOnce,
    /// Nothing is measured.
    NeverMeasures,
    /// What waits is counted wrongly.
    CountsWrongly,
    /// An owner's death is not remembered.
    ForgetsDeaths,
    /// An orderly end is held against a message.
    SuspectsEverybody,
    /// A delivery is not counted.
    CountsTooLow,
    /// What cannot be taken back is not worked off.
    StopsShort,
}

/// Which promises the transport makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// A durable queue with everything.
    Queue,
    /// Reads to an end, one consumer a group.
    Finite,
    /// Takes nothing back, and what is open when it ends is gone.
    Fleeting,
}

/// The transport; clones share their queues.
#[derive(Clone)]
pub struct Reference {
    shared: Arc<Shared>,
}

struct Shared {
    world: Mutex<World>,
    changed: Notify,
    manner: Manner,
    fault: Option<Fault>,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("nothing panics under this lock")
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Whether what is delivered outlives its owner.
    fn keeps(&self) -> bool {
        self.manner != Manner::Fleeting && !self.has(Fault::AcksEarly)
    }

    fn capabilities(&self) -> Capabilities {
        let (lasting, queue) = (self.manner != Manner::Fleeting, self.manner == Manner::Queue);
        Capabilities {
            durable: lasting,
            ordered_across_processes: queue,
            partitions: false,
            keys: true,
            delivery_count: if self.manner == Manner::Finite {
                DeliveryCount::UpperBound
            } else {
                DeliveryCount::Exact
            },
            delayed_redelivery: queue,
            settles_one_by_one: lasting,
            bytes_bounded: true,
            takes_back: lasting,
            poison_protection: lasting,
            groups: true,
            shared: queue,
            replays: lasting,
            finite: self.manner == Manner::Finite,
            transactions: false,
            recognises_ids: queue,
            batch: 1,
        }
    }
}

impl Reference {
    pub fn new(manner: Manner, fault: Option<Fault>) -> Self {
        Self { shared: Arc::new(Shared { world: Mutex::default(), changed: Notify::new(), manner, fault }) }
    }

    /// Ends every ownership of a queue from outside.
    pub fn revoke(&self, queue: &str) {
        self.shared.world().queue(queue).revoke();
        self.shared.changed.notify_waiters();
    }
}

/// Every option but `group` is refused.
fn group_of(url: &Url, default: &str) -> Result<String, Error> {
    let options = url.options();
    let group = options.text("group").unwrap_or(default).to_owned();
    options.finish().map(|()| group)
}

impl Transport for Reference {
    fn schemes(&self) -> &'static [&'static str] {
        &["reference"]
    }

    fn source(&self, url: &Url, spec: &SourceSpec) -> Result<Box<dyn SourcePlan>, Error> {
        let group = match group_of(url, &spec.default_group) {
            Err(_) if self.shared.has(Fault::TakesAnyOption) => "any".to_owned(),
            group => group?,
        };
        let (shared, queue) = (self.shared.clone(), url.path().into());
        Ok(Box::new(source::Plan { shared, queue, group, spec: spec.clone(), opened: AtomicBool::new(false) }))
    }

    fn sink(&self, url: &Url, _: &SinkSpec) -> Result<Box<dyn SinkPlan>, Error> {
        url.options()
            .finish()
            .or_else(|error| if self.shared.has(Fault::TakesAnyOption) { Ok(()) } else { Err(error) })?;
        Ok(Box::new(sink::Plan { shared: self.shared.clone(), queue: url.path().into() }))
    }

    fn dead_letters(&self, url: &Url, group: &str) -> DeadPlace {
        match self.shared.manner {
            Manner::Fleeting => DeadPlace::None,
            _ => DeadPlace::At(Url::parse(&format!("reference:{}.{group}.dead", url.path())).expect("it is a URL")),
        }
    }

    fn inspect<'a>(&'a self, url: &'a Url, group: &'a str) -> BoxFuture<'a, Result<Inspection, Error>> {
        Box::pin(async move {
            let mut seen = self.shared.world().queue(url.path()).inspect(group);
            if self.shared.has(Fault::CountsWrongly) {
                seen.waiting = seen.waiting.map(|waiting| waiting + 1);
            }
            Ok(seen)
        })
    }

    fn shelf<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<Box<dyn Shelf>, Error>> {
        let shelf = Rows { shared: self.shared.clone(), queue: url.path().to_owned(), from: 0 };
        Box::pin(async move { Ok(Box::new(shelf) as Box<dyn Shelf>) })
    }
}

struct Rows {
    shared: Arc<Shared>,
    queue: String,
    from: u64,
}

impl Shelf for Rows {
    fn read(&mut self, max: u32) -> BoxFuture<'_, Result<Slab, Error>> {
        let mut world = self.shared.world();
        let queue = world.queue(&self.queue);
        let slab = queue.rows(&mut self.from, max);
        if self.shared.has(Fault::TakesByLooking) {
            slab.heads().iter().for_each(|head| {
                queue.remove(head.at.position);
            });
        }
        Box::pin(async move { Ok(slab) })
    }

    fn remove(&mut self, these: Vec<At>) -> BoxFuture<'_, Result<u64, Error>> {
        let mut world = self.shared.world();
        let queue = world.queue(&self.queue);
        let removed = these.iter().filter(|at| queue.remove(at.position)).count() as u64;
        Box::pin(async move { Ok(removed) })
    }
}
