//! Resources: opened before every worker, closed after every worker, by name and on purpose.

use super::{Extract, Input, Missing, Wiring};
use crate::failure::{BoxError, Failure};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, RwLock};

/// Something that is opened once for the process and must be closed: a pool, a client, a file.
///
/// For a type of another crate there is `App::resource_with(name, open, close)`.
pub trait Resource: Send + Sync + 'static {
    /// Releases it: flush, say goodbye, close. Called once, after every worker has stopped; 5 s at most.
    fn close(&self) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// A resource, shared. Holding one after the handler has returned does not keep the resource open.
pub struct Res<T>(Arc<T>);

impl<T> Clone for Res<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Res<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Res<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an open resource lies; empty before it is opened and after it is closed.
pub(crate) struct ResourceCell<T> {
    name: Arc<str>,
    value: RwLock<Option<Arc<T>>>,
}

impl<T> ResourceCell<T> {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self { name, value: RwLock::new(None) }
    }

    pub(crate) fn put(&self, value: Arc<T>) {
        *self.value.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(value);
    }

    pub(crate) fn take(&self) -> Option<Arc<T>> {
        self.value.write().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }

    fn get(&self) -> Option<Arc<T>> {
        self.value.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

#[doc(hidden)]
pub struct ResReady<T>(Arc<ResourceCell<T>>);

impl<T> Clone for ResReady<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + Sync + 'static, In: Input> Extract<In> for Res<T> {
    type Ready = ResReady<T>;

    fn prepare(wiring: &Wiring<'_>, missing: &mut Vec<Missing>) -> Option<Self::Ready> {
        let cell = wiring.resource::<T>();
        if cell.is_none() {
            let name = super::wiring::short_name::<T>();
            wiring.missing(
                missing,
                format!(
                    "asks for Res<{name}>, and no resource of that type comes before it: add App::resource(\"…\", …)"
                ),
            );
        }
        cell.map(ResReady)
    }

    fn extract(ready: &Self::Ready, _: &In) -> Result<Self, Failure> {
        let ResReady(cell) = ready;
        cell.get().map(Res).ok_or_else(|| Failure::retry(format!("resource '{}' is not open", cell.name)))
    }
}
