//! Bridges, as a user defines them: from a source to a sink, nothing in between.

use super::consumer::{AnyConsumer, MadeLanes, Taking};
use super::plan::Planning;
use super::producer::own_outlet;
use crate::actor::{LanesOf, Publishing, TakerPlan};
use crate::delivery::Delivery;
use crate::engine::order::Order;
use crate::engine::outlet::{Outlet, Receipt, Refused};
use crate::engine::retry::Retry;
use crate::failure::Failure;
use crate::handler::{Bind, Context, HandlerBind, Missing, Registry, Wiring};
use crate::supervisor::drain::Kind;
use crate::transport::SinkSpec;
use std::sync::Arc;
use std::time::Duration;

/// Takes every message of a source to a sink, with key, headers and time, and acks it once the sink has it.
///
/// The order by key is kept from source to sink.
pub struct Bridge {
    taking: Taking,
    to: String,
}

impl Bridge {
    /// A bridge between two URLs.
    pub fn new(name: impl Into<Arc<str>>, from: impl Into<String>, to: impl Into<String>) -> Self {
        // One lane: there is nothing to compute, and messages without a key keep their order on the way.
        let taking = Taking { lanes: Some(1), ..Taking::new(name.into(), from.into()) };
        Self { taking, to: to.into() }
    }

    /// Messages on their way at a time that wait for room in the sink; 16 by default.
    #[must_use]
    pub fn concurrency(mut self, concurrency: u32) -> Self {
        self.taking.concurrency = concurrency;
        self
    }

    /// What keeps its order; by key by default.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.taking.order = order;
        self
    }

    /// At most so many messages a second.
    #[must_use]
    pub fn rate(mut self, per_second: f64) -> Self {
        self.taking.rate = Some(per_second);
        self
    }

    /// When a message that the sink did not take is tried again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.taking.retry = retry;
        self
    }

    /// Where what cannot be taken over goes, instead of the source's default place.
    #[must_use]
    pub fn dead_letter(mut self, url: impl Into<String>) -> Self {
        self.taking.dead_letter = Some(url.into());
        self
    }

    /// Messages that may be on their way.
    #[must_use]
    pub fn look_ahead(mut self, messages: u32) -> Self {
        self.taking.look_ahead = Some(messages);
        self
    }

    /// The largest payload in bytes.
    #[must_use]
    pub fn max_message(mut self, bytes: u64) -> Self {
        self.taking.max_message = bytes;
        self
    }

    /// Ends after so many messages, as if the source had.
    #[must_use]
    pub fn limit(mut self, messages: u64) -> Self {
        self.taking.limit = Some(messages);
        self
    }

    /// Ends, as if the source had, once nothing came and nothing was in flight for so long.
    #[must_use]
    pub fn until_idle(mut self, idle: Duration) -> Self {
        self.taking.until_idle = Some(idle);
        self
    }
}

/// Hands a message over to the sink; its confirm settles it.
async fn forward(outlet: Arc<Outlet>, delivery: Delivery) -> Result<(), Failure> {
    let size = delivery.message().size();
    loop {
        let sent = outlet.try_send(
            size,
            |slab| {
                let message = delivery.message();
                slab.push(message.key(), message.payload(), message.headers(), message.timestamp_ms());
            },
            || {
                delivery.cause.register()?;
                Ok(Receipt::Cause(delivery.cause.clone()))
            },
            true,
        );
        match sent {
            Ok(()) => return Ok(()),
            Err(Refused::Full) => outlet.room(size, true).await,
            Err(refused) => return Err(refused.failure(outlet.name())),
        }
    }
}

fn forwarder(outlet: Arc<Outlet>) -> impl Bind<Unit = Delivery> {
    HandlerBind::<_, (Delivery,), Delivery>::new(move |delivery: Delivery| forward(outlet.clone(), delivery))
}

fn lanes<B: Bind>(bind: B, wiring: &Wiring<'_>, missing: &mut Vec<Missing>) -> Option<MadeLanes> {
    let bound = bind.bind(wiring, missing)?;
    let lanes: Arc<dyn crate::actor::MakeLanes> = Arc::new(LanesOf::<B::Service, B::Unit>::new(bound.service));
    Some((lanes, bound.life))
}

impl AnyConsumer for Bridge {
    fn name(&self) -> &Arc<str> {
        &self.taking.name
    }

    fn plan(
        self: Box<Self>,
        registry: &Registry,
        context: Context,
        missing: &mut Vec<Missing>,
        planning: &mut Planning<'_>,
    ) -> Option<TakerPlan> {
        let this = *self;
        let name = this.taking.name.clone();
        let to = planning.url_of(&name, "to", &this.to);
        let outlet = own_outlet(to.as_ref().map_or_else(|| name.clone(), |to| to.to_string().into()));
        let spec = SinkSpec { worker: name.clone(), patience: planning.patience };
        let sink = to.and_then(|to| planning.sink(&name, &to, &spec));
        let destination = sink.map(|sink| Publishing { outlet: outlet.clone(), sink, lazily: false });
        let has_destination = destination.is_some();
        let lanes = lanes(forwarder(outlet), &Wiring::new(registry, context), missing);
        let plan = this.taking.plan(Kind::Bridge, false, destination, lanes, planning);
        plan.filter(|_| has_destination)
    }
}
