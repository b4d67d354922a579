//! Consumers, as a user defines them.

use super::plan::{Planning, Problem};
use super::producer::own_outlet;
use crate::actor::{LanesOf, Publishing, TakerPlan};
use crate::delivery::Delivery;
use crate::engine::lane::{BatchBounds, LaneConfig, Places};
use crate::engine::order::Order;
use crate::engine::rate::RateLimit;
use crate::engine::retry::{IN_PLACE_WITHOUT_ORDER, Retry};
use crate::handler::{
    BatchWorker, Bind, Context, Deliveries, Handler, HandlerBind, Layered, Make, Missing, Registry, Unit, Wiring,
    Worker,
};
use crate::supervisor::drain::Kind;
use crate::transport::{Capabilities, DeadPlace, SinkSpec, SourceSpec, Url};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Handlers at a time, unless a worker says otherwise.
pub const CONCURRENCY: u32 = 16;
/// A handler may take this long, unless its worker says otherwise.
pub const HANDLER_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Bytes of batches that a worker holds in memory at most, unless it says otherwise.
pub const BYTES: u64 = 64 << 20;
/// The largest payload that a handler is given, unless its worker says otherwise.
pub const MAX_MESSAGE: u64 = 16 << 20;
/// Messages delivered ahead for each handler at a time.
const LOOK_AHEAD: u32 = 4;
/// A batch is handed over at this many messages, this many bytes or after this time, unless its worker says otherwise.
const BATCH: BatchBounds = BatchBounds { messages: 100, bytes: 4 << 20, linger: Duration::from_millis(100) };

/// What makes the lanes of a worker, and what its instances are started and stopped by, where it has some.
pub(super) type MadeLanes = (Arc<dyn crate::actor::MakeLanes>, Option<Arc<dyn crate::handler::Life>>);

/// What consumers and bridges have in common.
#[derive(Debug, Clone)]
pub(super) struct Taking {
    pub(super) name: Arc<str>,
    pub(super) source: String,
    pub(super) concurrency: u32,
    pub(super) instances: Option<u32>,
    pub(super) order: Order,
    pub(super) timeout: Duration,
    pub(super) retry: Retry,
    pub(super) rate: Option<f64>,
    pub(super) dead_letter: Option<String>,
    pub(super) look_ahead: Option<u32>,
    pub(super) bytes: u64,
    pub(super) max_message: u64,
    pub(super) batch: BatchBounds,
    pub(super) limit: Option<u64>,
    pub(super) until_idle: Option<Duration>,
    pub(super) lanes: Option<u32>,
}

impl Taking {
    pub(super) fn new(name: Arc<str>, source: String) -> Self {
        Self {
            name,
            source,
            concurrency: CONCURRENCY,
            instances: None,
            order: Order::ByKey,
            timeout: HANDLER_TIMEOUT,
            retry: Retry::default(),
            rate: None,
            dead_letter: None,
            look_ahead: None,
            bytes: BYTES,
            max_message: MAX_MESSAGE,
            batch: BATCH,
            limit: None,
            until_idle: None,
            lanes: None,
        }
    }

    fn overridden(&mut self, planning: &mut Planning<'_>) {
        let Some(over) = planning.overrides.get(&*self.name).cloned() else { return };
        self.concurrency = over.concurrency.unwrap_or(self.concurrency);
        self.rate = over.rate.or(self.rate);
        self.dead_letter = over.dead_letter.or(self.dead_letter.take());
        if let Some(order) = over.order {
            self.order = order;
        }
        if let Some(timeout) = over.timeout {
            self.timeout = timeout;
        }
        if let Some(retry) = over.retry {
            // Where retries wait is no matter of figures: it stays what the code says.
            self.retry = if self.retry.is_durable() { retry.durable() } else { retry };
        }
    }

    /// The plan of an actor, with lanes that the caller makes; `None` when something is wrong, which is then told.
    pub(super) fn plan(
        mut self,
        kind: Kind,
        batch: bool,
        destination: Option<Publishing>,
        lanes_of: Option<MadeLanes>,
        planning: &mut Planning<'_>,
    ) -> Option<TakerPlan> {
        self.overridden(planning);
        for (what, bad) in [
            ("concurrency must be at least 1", self.concurrency == 0),
            ("limit must be at least 1", self.limit == Some(0)),
            ("instances must be at least 1", self.instances == Some(0)),
            ("look-ahead must be at least 1", self.look_ahead == Some(0)),
            ("rate must be more than 0 a second", self.rate.is_some_and(|rate| rate <= 0.0 || !rate.is_finite())),
            ("handler timeout must be more than 0", self.timeout.is_zero()),
            ("batch must hold at least 1 message", batch && self.batch.messages == 0),
            ("batch must hold at least 1 byte", batch && self.batch.bytes == 0),
            ("byte budget must be at least 1", self.bytes == 0),
        ] {
            if bad {
                planning.wrong(Problem::new(&self.name, what));
            }
        }
        let url = planning.url_of(&self.name, "source", &self.source)?;
        let concurrency = self.instances.unwrap_or(self.concurrency).max(1);
        let spec = SourceSpec {
            worker: self.name.clone(),
            default_group: planning.app.clone(),
            concurrency,
            by_key: self.order == Order::ByKey,
            max_message: self.max_message,
            patience: planning.patience,
        };
        let source = planning.source(&self.name, &url, &spec);
        if let Some(group) = source.as_ref().and_then(|source| source.group())
            && url.option("group").is_none()
        {
            tracing::info!(worker = %self.name, group, "no group in the source's URL: it is '{group}'");
        }
        let mut publishing: Vec<Publishing> = destination.into_iter().collect();
        let group = source.as_ref().and_then(|source| source.group()).unwrap_or(&planning.app).to_owned();
        let mut places = Places { source: url.to_string().into(), ..Places::default() };
        let place = match &self.dead_letter {
            Some(place) => planning.url_of(&self.name, "dead_letter", place).map_or(DeadPlace::None, DeadPlace::At),
            None => match planning.transports.of(&url) {
                Ok(transport) => transport.dead_letters(&url, &group),
                Err(_) => DeadPlace::None,
            },
        };
        if let DeadPlace::At(place) = place {
            let name: Arc<str> = format!("{} dead letters {place}", self.name).into();
            let outlet = own_outlet(name);
            let spec = SinkSpec { worker: self.name.clone(), patience: planning.patience };
            if let Some(sink) = planning.sink(&self.name, &place, &spec) {
                publishing.push(Publishing { outlet: outlet.clone(), sink, lazily: true });
                places.dead_letters = Some(outlet);
            }
        }
        let source = source?;
        let capabilities = source.capabilities();
        if let Some(store) = self.retry_store(&url, &capabilities, planning) {
            places.retry_store = Some(store.outlet.clone());
            publishing.push(store);
        }
        self.fits_in(source.holds_for(), &url, &capabilities, planning);
        let (lanes_of, life) = lanes_of?;
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        let lanes = self.instances.or(self.lanes).unwrap_or(cores).clamp(1, concurrency);
        let window = self.window(concurrency, batch, &capabilities);
        Some(TakerPlan {
            name: self.name.clone(),
            kind,
            source,
            publishing,
            lanes: lanes_of,
            life,
            lane: LaneConfig {
                worker: self.name.clone(),
                index: 0,
                lanes,
                concurrency,
                order: self.order,
                timeout: self.timeout,
                retry: self.retry,
                rate: self.rate.map(|rate| Arc::new(RateLimit::new(rate, Instant::now()))),
                batch: batch.then_some(self.batch),
                places,
                delayed_redelivery: capabilities.delayed_redelivery,
            },
            concurrency,
            window,
            bytes: self.bytes,
            timeout: self.timeout,
            limit: self.limit,
            until_idle: self.until_idle,
        })
    }

    /// Where retries wait outside of the worker, for a source that cannot delay them by itself. Tells what is wrong
    /// when they shall wait there and cannot.
    fn retry_store(&self, url: &Url, capabilities: &Capabilities, planning: &mut Planning<'_>) -> Option<Publishing> {
        if capabilities.delayed_redelivery || self.retry.max_attempts() == 1 {
            return None;
        }
        let spec = SinkSpec { worker: self.name.clone(), patience: planning.patience };
        let Some(sink) = planning.retry_store(&self.name, url, &spec)? else {
            if self.retry.is_durable() {
                let what = format!(
                    "asks for durable retries, and nothing outside of the worker can delay messages of its source \
                     {url}: without durable() they wait in the worker"
                );
                planning.wrong(Problem::new(&self.name, what));
            }
            return None;
        };
        let outlet = own_outlet(format!("{} retry store of {url}", self.name).into());
        // Who asked for it shall hear at the start that the server cannot.
        Some(Publishing { outlet, sink, lazily: !self.retry.is_durable() })
    }

    /// Tells when the broker would take a message away before its last attempt could end.
    fn fits_in(&self, limit: Option<Duration>, url: &Url, capabilities: &Capabilities, planning: &mut Planning<'_>) {
        let Some(limit) = limit else { return };
        let unordered = self.order == Order::None && capabilities.delayed_redelivery;
        let leaves = |delay| self.retry.is_durable() || (unordered && delay > IN_PLACE_WITHOUT_ORDER);
        let held = self.retry.held_at_most(self.timeout, leaves);
        if held < limit {
            return;
        }
        let short = crate::duration::short;
        let what = format!(
            "may hold a message for {}: {} attempts with a handler timeout of {}, and delays of up to {} between them; \
             {url} takes it away after {}. Shorten the handler timeout or the retries, let retries wait in the broker \
             by durable(), or have the broker allow more",
            short(held),
            self.retry.max_attempts(),
            short(self.timeout),
            short(self.retry.max_delay()),
            short(limit),
        );
        planning.wrong(Problem::new(&self.name, what));
    }

    /// Messages that may be delivered and unsettled.
    fn window(&self, concurrency: u32, batch: bool, capabilities: &Capabilities) -> u32 {
        self.look_ahead.unwrap_or_else(|| {
            let handlers = concurrency.saturating_mul(LOOK_AHEAD);
            let batches = if batch { concurrency.saturating_mul(self.batch.messages).saturating_mul(2) } else { 0 };
            handlers.max(batches).max(capabilities.batch)
        })
    }
}

/// A consumer: a source, and what handles its messages.
///
/// Made by [`Consumer::new`] for a handler, [`Consumer::worker`] for a worker actor, and their batch forms; given to
/// `App::consumer`.
pub struct Consumer<B = ()> {
    taking: Taking,
    bind: B,
}

impl Consumer {
    /// A consumer whose messages an async function handles.
    pub fn new<H, Args>(
        name: impl Into<Arc<str>>,
        source: impl Into<String>,
        handler: H,
    ) -> Consumer<HandlerBind<H, Args, Delivery>>
    where
        H: Handler<Args, Delivery>,
    {
        Consumer { taking: Taking::new(name.into(), source.into()), bind: HandlerBind::new(handler) }
    }

    /// A consumer whose messages an async function handles in batches: its first argument is a `Batch`.
    pub fn batch<H, Args>(
        name: impl Into<Arc<str>>,
        source: impl Into<String>,
        handler: H,
    ) -> Consumer<HandlerBind<H, Args, Deliveries>>
    where
        H: Handler<Args, Deliveries>,
    {
        Consumer { taking: Taking::new(name.into(), source.into()), bind: HandlerBind::new(handler) }
    }

    /// A consumer whose messages worker actors handle, made by an async `factory` that may ask for resources; one
    /// instance, unless [`Consumer::instances`] says otherwise.
    pub fn worker<W, F, Args>(
        name: impl Into<Arc<str>>,
        source: impl Into<String>,
        factory: F,
    ) -> Consumer<impl Bind<Unit = Delivery>>
    where
        W: Worker,
        F: Make<Args, W>,
        Args: 'static,
    {
        let taking = Taking { instances: Some(1), ..Taking::new(name.into(), source.into()) };
        Consumer { taking, bind: crate::handler::single::<W, F, Args>(factory) }
    }

    /// The batch form of [`Consumer::worker`].
    pub fn batch_worker<W, F, Args>(
        name: impl Into<Arc<str>>,
        source: impl Into<String>,
        factory: F,
    ) -> Consumer<impl Bind<Unit = Deliveries>>
    where
        W: BatchWorker,
        F: Make<Args, W>,
        Args: 'static,
    {
        let taking = Taking { instances: Some(1), ..Taking::new(name.into(), source.into()) };
        Consumer { taking, bind: crate::handler::batched::<W, F, Args>(factory) }
    }
}

impl<B> Consumer<B> {
    /// Handlers at a time; 16 by default. Worker actors have [`Consumer::instances`] instead.
    #[must_use]
    pub fn concurrency(mut self, concurrency: u32) -> Self {
        self.taking.concurrency = concurrency;
        self
    }

    /// Worker actors, each with its own state; a key always goes to the same one.
    #[must_use]
    pub fn instances(mut self, instances: u32) -> Self {
        self.taking.instances = Some(instances);
        self
    }

    /// What is handled one after the other; by key by default.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.taking.order = order;
        self
    }

    /// How long a handler may take; 5 min by default. Over it, its future is dropped and the message is tried again.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.taking.timeout = timeout;
        self
    }

    /// When a failed message is tried again; 3 attempts, 1 s to 30 s, by default.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.taking.retry = retry;
        self
    }

    /// At most so many handler starts a second.
    #[must_use]
    pub fn rate(mut self, per_second: f64) -> Self {
        self.taking.rate = Some(per_second);
        self
    }

    /// Where dead letters go, instead of the transport's default place.
    #[must_use]
    pub fn dead_letter(mut self, url: impl Into<String>) -> Self {
        self.taking.dead_letter = Some(url.into());
        self
    }

    /// Messages that may be delivered and unsettled; by default 4 for each handler at a time, and at least what the
    /// transport needs to be fast. It is also what a crash can do twice at most.
    #[must_use]
    pub fn look_ahead(mut self, messages: u32) -> Self {
        self.taking.look_ahead = Some(messages);
        self
    }

    /// Bytes of messages in memory at most; 64 MiB by default.
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.taking.bytes = bytes;
        self
    }

    /// The largest payload in bytes; 16 MiB by default. A larger one goes to the dead letters without its payload.
    #[must_use]
    pub fn max_message(mut self, bytes: u64) -> Self {
        self.taking.max_message = bytes;
        self
    }

    /// A batch is handed over at so many messages, so many bytes, or when its first message has waited so long;
    /// 100, 4 MiB and 100 ms by default.
    #[must_use]
    pub fn batches(mut self, messages: u32, bytes: u64, linger: Duration) -> Self {
        self.taking.batch = BatchBounds { messages, bytes, linger };
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

impl<B: Bind> Consumer<B> {
    /// Wraps the handler in a tower layer, *inside* the ack boundary: what the layer returns is settled.
    #[must_use]
    pub fn layer<L>(self, layer: L) -> Consumer<Layered<B, L>>
    where
        Layered<B, L>: Bind,
    {
        Consumer { taking: self.taking, bind: Layered::new(self.bind, layer) }
    }
}

/// A consumer of any kind.
pub(super) trait AnyConsumer: Send {
    fn name(&self) -> &Arc<str>;
    fn plan(
        self: Box<Self>,
        registry: &Registry,
        context: Context,
        missing: &mut Vec<Missing>,
        planning: &mut Planning<'_>,
    ) -> Option<TakerPlan>;
}

impl<B: Bind> AnyConsumer for Consumer<B> {
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
        let bound = this.bind.bind(&Wiring::new(registry, context), missing);
        let lanes = bound.map(|bound| {
            let lanes: Arc<dyn crate::actor::MakeLanes> = Arc::new(LanesOf::<B::Service, B::Unit>::new(bound.service));
            (lanes, bound.life)
        });
        this.taking.plan(Kind::Consumer, <B::Unit as Unit>::BATCH, None, lanes, planning)
    }
}
