//! `file:PATH`: lines of a file, in and out.

use super::{DeadPlace, SinkPlan, SinkSpec, SourcePlan, SourceSpec, Transport, Url};
use crate::error::Error;

/// Files of lines.
#[derive(Clone, Default)]
pub struct File {}

impl Transport for File {
    fn schemes(&self) -> &'static [&'static str] {
        &["file"]
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
