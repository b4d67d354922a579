//! `local:PATH?queue=NAME`: a durable queue in one SQLite file.

use super::{DeadPlace, SinkPlan, SinkSpec, SourcePlan, SourceSpec, Transport, Url};
use crate::error::Error;

/// The embedded durable queue.
#[derive(Clone, Default)]
pub struct Local {}

impl Transport for Local {
    fn schemes(&self) -> &'static [&'static str] {
        &["local"]
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
