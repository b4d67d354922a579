//! What the extractors of a worker are prepared from: the producers and resources of its app.

use super::{Context, ResourceCell, TypedOutlet};
use std::any::{Any, TypeId, type_name};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Something a worker asks for that the app does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Worker, resource or service that asks.
    pub worker: String,
    /// What it asks for and how to give it.
    pub what: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' {}", self.worker, self.what)
    }
}

/// Producers and resources by type, filled while the app is built.
#[derive(Default)]
pub(crate) struct Registry {
    outlets: HashMap<(TypeId, TypeId), Arc<dyn Any + Send + Sync>>,
    resources: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Registry {
    /// False when there is one of these types already.
    pub(crate) fn add_outlet<T: 'static, Tag: 'static>(&mut self, outlet: Arc<TypedOutlet<T>>) -> bool {
        self.outlets.insert((TypeId::of::<T>(), TypeId::of::<Tag>()), outlet).is_none()
    }

    /// False when there is one of this type already.
    pub(crate) fn add_resource<T: Send + Sync + 'static>(&mut self, cell: Arc<ResourceCell<T>>) -> bool {
        self.resources.insert(TypeId::of::<T>(), cell).is_none()
    }
}

/// The last part of a type's path, as people call it.
pub(crate) fn short_name<T>() -> String {
    // A type of a function's own is named with the function, and with the closure if that is async.
    let full = type_name::<T>().replace("{{closure}}::", "");
    let mut out = String::new();
    let mut word = String::new();
    for each in full.chars() {
        if each.is_alphanumeric() || each == '_' {
            word.push(each);
        } else {
            if each == ':' {
                word.clear();
                continue;
            }
            out.push_str(&word);
            word.clear();
            out.push(each);
        }
    }
    out + &word
}

/// What extractors are prepared from.
pub struct Wiring<'a> {
    registry: &'a Registry,
    context: Context,
    batch_arguments: Cell<u32>,
}

impl<'a> Wiring<'a> {
    pub(crate) fn new(registry: &'a Registry, context: Context) -> Self {
        Self { registry, context, batch_arguments: Cell::new(0) }
    }

    /// The context of the worker that is being prepared.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Says that something is missing.
    pub fn missing(&self, missing: &mut Vec<Missing>, what: impl Into<String>) {
        missing.push(Missing { worker: self.context.worker().to_owned(), what: what.into() });
    }

    pub(super) fn batch_argument(&self) -> u32 {
        self.batch_arguments.set(self.batch_arguments.get() + 1);
        self.batch_arguments.get()
    }

    pub(super) fn outlet<T: 'static, Tag: 'static>(&self) -> Option<Arc<TypedOutlet<T>>> {
        self.registry.outlets.get(&(TypeId::of::<T>(), TypeId::of::<Tag>()))?.clone().downcast().ok()
    }

    pub(super) fn resource<T: Send + Sync + 'static>(&self) -> Option<Arc<ResourceCell<T>>> {
        self.registry.resources.get(&TypeId::of::<T>())?.clone().downcast().ok()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_type_is_named_as_people_call_it() {
        assert_eq!(super::short_name::<Vec<Option<std::time::Duration>>>(), "Vec<Option<Duration>>");
        struct Own;
        let name = || super::short_name::<(Own, u8)>();
        assert_eq!(name(), "(Own, u8)");
    }
}
