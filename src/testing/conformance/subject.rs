//! What is tested: a transport, where it can be tried, and how long it may take.

use crate::error::Error;
use crate::transport::{BoxFuture, Source, Transport, Url};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What makes a place that nobody has used.
type Fresh = Box<dyn FnMut(&str) -> Place + Send>;
/// What a crash does to an open source.
type Crash = Box<dyn Fn(Box<dyn Source>) -> BoxFuture<'static, ()> + Send + Sync>;
/// What ends the ownership of every open source of a place.
type Lapse = Box<dyn Fn(&Place) -> BoxFuture<'static, ()> + Send + Sync>;

/// A queue, topic or file that nobody has used yet: where to publish, and where to consume.
#[derive(Debug, Clone)]
pub struct Place {
    sink: String,
    source: String,
}

impl Place {
    /// A place by its two URLs. `{group}` in the source's is replaced by the group of a case; without it the
    /// transport must not declare groups.
    pub fn new(sink: impl Into<String>, source: impl Into<String>) -> Self {
        Self { sink: sink.into(), source: source.into() }
    }

    /// Where to publish.
    pub fn sink(&self) -> Result<Url, Error> {
        Url::parse(&self.sink)
    }

    /// Where to consume as that group.
    pub fn source(&self, group: &str) -> Result<Url, Error> {
        Url::parse(&self.source.replace("{group}", group))
    }

    /// The same place with an option that no transport has.
    pub(super) fn with_nonsense(&self, name: &str) -> Self {
        let add = |url: &str| format!("{url}{}{name}=1", if url.contains('?') { '&' } else { '?' });
        Self { sink: add(&self.sink), source: add(&self.source) }
    }
}

/// Which parts of a message reach the other side of a place.
///
/// The messages of the cases have a key, and a JSON payload that names the same key at `/key`; so a place that finds
/// keys by `key=/key` carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carries {
    /// Keys.
    pub keys: bool,
    /// Headers.
    pub headers: bool,
    /// A payload that is absent, told apart from one that is empty.
    pub tombstones: bool,
    /// A payload of no bytes.
    pub empty_payloads: bool,
    /// Keys and payloads of any bytes. Without it every payload of a case is one line of JSON.
    pub any_bytes: bool,
    /// Timestamps.
    pub timestamps: bool,
}

impl Carries {
    /// Every part.
    pub const EVERYTHING: Self =
        Self { keys: true, headers: true, tombstones: true, empty_payloads: true, any_bytes: true, timestamps: true };

    /// A payload that is one line of JSON, in which a key can be found by `key=/key`.
    pub const JSON_LINES: Self = Self {
        keys: true,
        headers: false,
        tombstones: false,
        empty_payloads: false,
        any_bytes: false,
        timestamps: false,
    };
}

/// A transport on the bench.
pub struct Subject {
    pub(super) name: String,
    pub(super) transport: Arc<dyn Transport>,
    fresh: Mutex<Fresh>,
    pub(super) patience: Duration,
    pub(super) quiet: Duration,
    pub(super) carries: Carries,
    pub(super) crash: Crash,
    pub(super) lapse: Option<Lapse>,
    pub(super) gives_back: bool,
    pub(super) only: Vec<String>,
}

impl Subject {
    /// A transport, and what makes a fresh [`Place`] of it. `fresh` gets the name of the case and is called several
    /// times for some; each answer must be a place of its own, all in one store or broker where there is one.
    ///
    /// Without further word: patience 10 s, quiet 50 ms, everything is carried, a crash drops the source.
    pub fn new(
        name: impl Into<String>,
        transport: impl Transport,
        fresh: impl FnMut(&str) -> Place + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            transport: Arc::new(transport),
            fresh: Mutex::new(Box::new(fresh)),
            patience: Duration::from_secs(10),
            quiet: Duration::from_millis(50),
            carries: Carries::EVERYTHING,
            crash: Box::new(|source| {
                drop(source);
                Box::pin(std::future::ready(()))
            }),
            lapse: None,
            gives_back: false,
            only: Vec::new(),
        }
    }

    /// A place that nobody has used, for that case.
    pub(super) fn place(&mut self, case: &str) -> Place {
        self.fresh.get_mut().unwrap_or_else(PoisonError::into_inner)(case)
    }

    /// How long a single wait may take before its case fails. It bounds what a broker needs to notice a dead owner.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How long a case listens for what must not come.
    #[must_use]
    pub fn quiet(mut self, quiet: Duration) -> Self {
        self.quiet = quiet;
        self
    }

    /// Which parts of a message a place carries.
    #[must_use]
    pub fn carries(mut self, carries: Carries) -> Self {
        self.carries = carries;
        self
    }

    /// What a crash does to an open source, where dropping it is not the whole of it: cutting its connection first.
    #[must_use]
    pub fn crash(mut self, crash: impl Fn(Box<dyn Source>) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        self.crash = Box::new(crash);
        self
    }

    /// How the ownership of what is delivered at a place can be ended from outside while its source lives: closing
    /// its channel, taking its partitions, letting its claims run out. Without it that case is not run.
    #[must_use]
    pub fn lapse(mut self, lapse: impl Fn(&Place) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        self.lapse = Some(Box::new(lapse));
        self
    }

    /// What is not settled comes again, in its old order, when it is returned or its source ends, though the transport
    /// declares neither `durable` nor `takes_back`: it would be lost with the process, and so a stop works it off.
    #[must_use]
    pub fn gives_back(mut self) -> Self {
        self.gives_back = true;
        self
    }

    /// Runs this case, and others named so, instead of all.
    #[must_use]
    pub fn only(mut self, case: impl Into<String>) -> Self {
        self.only.push(case.into());
        self
    }
}
