//! Collects what is wrong with an app, by worker and field, so that all of it is told at once.

use super::settings::WorkerOverride;
use crate::error::Error;
use crate::transport::{SinkPlan, SinkSpec, SourcePlan, SourceSpec, Transports, Url};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem(String);

impl Problem {
    pub(super) fn new(worker: &str, what: impl fmt::Display) -> Self {
        Self(format!("'{worker}' {what}"))
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// What workers are planned with.
pub(super) struct Planning<'a> {
    pub(super) transports: &'a Transports,
    pub(super) app: Arc<str>,
    pub(super) patience: Duration,
    pub(super) overrides: &'a BTreeMap<String, WorkerOverride>,
    problems: Vec<Problem>,
    /// Kinds of error that are not of configuration keep their exit code: the first of them.
    worst: Option<Error>,
}

impl<'a> Planning<'a> {
    pub(super) fn new(
        transports: &'a Transports,
        app: Arc<str>,
        patience: Duration,
        overrides: &'a BTreeMap<String, WorkerOverride>,
    ) -> Self {
        Self { transports, app, patience, overrides, problems: Vec::new(), worst: None }
    }

    pub(super) fn wrong(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// The URL of a worker's field, read; a `from` or `to` of the configuration file comes first.
    pub(super) fn url_of(&mut self, worker: &str, field: &str, in_code: &str) -> Option<Url> {
        let set = self.overrides.get(worker).and_then(|over| match field {
            "source" => over.source.as_deref(),
            "to" => over.to.as_deref(),
            _ => over.dead_letter.as_deref(),
        });
        self.checked(worker, field, Url::parse(set.unwrap_or(in_code)))
    }

    pub(super) fn source(&mut self, worker: &str, url: &Url, spec: &SourceSpec) -> Option<Arc<dyn SourcePlan>> {
        let plan = self.transports.of(url).and_then(|transport| transport.source(url, spec));
        self.checked(worker, &format!("source {url}"), plan).map(Arc::from)
    }

    pub(super) fn sink(&mut self, worker: &str, url: &Url, spec: &SinkSpec) -> Option<Arc<dyn SinkPlan>> {
        let plan = self.transports.of(url).and_then(|transport| transport.sink(url, spec));
        self.checked(worker, &format!("sink {url}"), plan).map(Arc::from)
    }

    /// Where retries of a source wait; `Some(None)` where its transport has no such store.
    #[expect(clippy::option_option, reason = "something is wrong, which is told; or there is none; or this one")]
    pub(super) fn retry_store(
        &mut self,
        worker: &str,
        url: &Url,
        spec: &SinkSpec,
    ) -> Option<Option<Arc<dyn SinkPlan>>> {
        let plan = self.transports.of(url).and_then(|transport| transport.retry_store(url, spec));
        Some(self.checked(worker, &format!("retry store of {url}"), plan)?.map(Arc::from))
    }

    fn checked<T>(&mut self, worker: &str, field: &str, found: Result<T, Error>) -> Option<T> {
        match found {
            Ok(found) => Some(found),
            Err(error) => {
                self.problems.push(Problem(format!("'{worker}' {field}: {error}")));
                if error.kind() != crate::ErrorKind::Configuration {
                    self.worst.get_or_insert(error);
                }
                None
            }
        }
    }

    /// Nothing was wrong, or everything that was.
    pub(super) fn finish(self) -> Result<(), Error> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let kind = self.worst.map_or(crate::ErrorKind::Configuration, |error| error.kind());
        let lines: Vec<&str> = self.problems.iter().map(|problem| problem.0.as_str()).collect();
        Err(Error::new(kind, lines.join("\n")))
    }
}
