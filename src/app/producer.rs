//! Producers, as a user defines them.

use super::plan::{Planning, Problem};
use crate::actor::ProducerPlan;
use crate::engine::outlet::Outlet;
use crate::failure::BoxError;
use crate::handler::{Registry, TypedOutlet};
use crate::transport::SinkSpec;
use std::marker::PhantomData;
use std::sync::Arc;

/// A destination for values of one type: handlers send to it by `To<T>`, services by `Publisher<T>`.
///
/// Two destinations of one type are told apart by a tag of yours: `Producer::<Order, Archive>::new(…)` and
/// `To<Order, Archive>`.
pub struct Producer<T, Tag = ()> {
    name: Arc<str>,
    url: String,
    typed: TypedOutlet<T>,
    tag: PhantomData<fn() -> Tag>,
}

impl<T: Send + Sync + 'static, Tag: 'static> Producer<T, Tag> {
    /// A producer that writes values as JSON.
    pub fn new(name: impl Into<Arc<str>>, url: impl Into<String>) -> Self
    where
        T: serde::Serialize,
    {
        Self::with(name, url, |value, into| Ok(serde_json::to_writer(into, value)?))
    }

    /// A producer that writes values in a way of its own.
    pub fn with(
        name: impl Into<Arc<str>>,
        url: impl Into<String>,
        encode: impl Fn(&T, &mut Vec<u8>) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        let outlet = Arc::new(Outlet::new(name.clone()));
        let typed = TypedOutlet { outlet, encode: Arc::new(encode), key: None };
        Self { name, url: url.into(), typed, tag: PhantomData }
    }

    /// The key of a value. Without it a send inherits the key of the message that caused it.
    #[must_use]
    pub fn key<K: AsRef<[u8]>>(mut self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        self.typed.key = Some(Arc::new(move |value, into| {
            into.extend_from_slice(key(value).as_ref());
            true
        }));
        self
    }
}

/// A producer of any type.
pub(super) trait AnyProducer: Send {
    fn name(&self) -> &Arc<str>;
    fn register(self: Box<Self>, registry: &mut Registry, planning: &mut Planning<'_>) -> Option<ProducerPlan>;
}

impl<T: Send + Sync + 'static, Tag: 'static> AnyProducer for Producer<T, Tag> {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn register(self: Box<Self>, registry: &mut Registry, planning: &mut Planning<'_>) -> Option<ProducerPlan> {
        let this = *self;
        let outlet = this.typed.outlet.clone();
        if !registry.add_outlet::<T, Tag>(Arc::new(this.typed)) {
            planning.wrong(Problem::new(
                &this.name,
                "is a second producer of its type: tell them apart by a tag, Producer::<T, Tag>",
            ));
        }
        let url = planning.url_of(&this.name, "to", &this.url)?;
        let spec = SinkSpec { worker: this.name.clone(), patience: planning.patience };
        let sink = planning.sink(&this.name, &url, &spec)?;
        Some(ProducerPlan { outlet, sink })
    }
}

/// An outlet of its own with a sink behind it: the destination of a bridge, a dead-letter place, a retry store.
pub(super) fn own_outlet(name: Arc<str>) -> Arc<Outlet> {
    Arc::new(Outlet::new(name))
}
