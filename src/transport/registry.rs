//! The transports of an app, by URL scheme.

use super::{Transport, Url, did_you_mean};
use crate::error::Error;
use std::sync::Arc;

/// The transports that an app knows, in the order in which they are asked; a later one of a scheme replaces an
/// earlier one.
#[derive(Clone, Default)]
pub struct Transports {
    known: Vec<Arc<dyn Transport>>,
}

/// Schemes that exist, each with the feature that brings it.
const FEATURES: &[(&str, &str)] = &[
    ("local", "local"),
    ("file", "file"),
    ("amqp", "amqp"),
    ("amqps", "amqp"),
    ("kafka", "kafka"),
    ("kafkas", "kafka"),
];

impl Transports {
    /// None at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of this build.
    pub fn built_in() -> Self {
        let mut all = Self::none();
        all.add(Arc::new(super::memory::Memory::new()));
        #[cfg(feature = "file")]
        all.add(Arc::new(super::file::File::default()));
        #[cfg(feature = "local")]
        all.add(Arc::new(super::local::Local::default()));
        #[cfg(feature = "amqp")]
        all.add(Arc::new(super::amqp::Amqp::default()));
        #[cfg(feature = "kafka")]
        all.add(Arc::new(super::kafka::Kafka::default()));
        all
    }

    /// Adds one; it answers for its schemes from now on.
    pub fn add(&mut self, transport: Arc<dyn Transport>) {
        self.known.push(transport);
    }

    /// The transport of a URL. An unknown scheme says which feature brings it, or which was meant.
    pub fn of(&self, url: &Url) -> Result<&Arc<dyn Transport>, Error> {
        let scheme = url.scheme();
        if let Some(found) = self.known.iter().rev().find(|transport| transport.schemes().contains(&scheme)) {
            return Ok(found);
        }
        if let Some((_, feature)) = FEATURES.iter().find(|(name, _)| *name == scheme) {
            return Err(Error::configuration(format!(
                "scheme '{scheme}' is not in this build: it comes with the feature '{feature}'"
            )));
        }
        let known = self.known.iter().flat_map(|transport| transport.schemes().iter().copied());
        let schemes = known.chain(FEATURES.iter().map(|(name, _)| *name));
        Err(Error::configuration(format!("unknown scheme '{scheme}'{}", did_you_mean(scheme, schemes))))
    }
}
