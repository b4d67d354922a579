//! `memory:NAME`: queues inside the process.

use super::*;

/// Queues inside the process; clones share them.
#[derive(Clone, Default)]
pub struct Memory {}

impl Memory {
    /// No queue yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Transport for Memory {
    fn schemes(&self) -> &'static [&'static str] {
        &["memory"]
    }
    fn source(&self, _url: &Url, _spec: &SourceSpec) -> Result<Box<dyn SourcePlan>, Error> {
        Err(Error::configuration("not yet"))
    }
    fn sink(&self, _url: &Url, _spec: &SinkSpec) -> Result<Box<dyn SinkPlan>, Error> {
        Err(Error::configuration("not yet"))
    }
    fn dead_letters(&self, _url: &Url, _group: &str) -> DeadPlace {
        DeadPlace::None
    }
}
