//! The builder of an app.

use super::consumer::AnyConsumer;
use super::plan::{Planning, Problem};
use super::producer::{AnyProducer, Producer};
use super::settings::{From, Settings};
use super::{Bridge, Consumer};
use crate::actor::{Blueprint, ResourcePlan, ServicePlan};
use crate::admin::AdminListen;
use crate::error::Error;
use crate::failure::BoxError;
use crate::handler::{Bind, Context, Make, Missing, Registry, Resource, ResourceCell, Wiring};
use crate::supervisor::restart::{Policy, When};
use crate::transport::{Transport, Transports};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type MakeContext<'a> = &'a dyn Fn(&Arc<str>) -> Context;

/// A resource or service of any type, prepared in the order of installation.
trait AnyPart: Send {
    fn name(&self) -> &Arc<str>;
    fn plan(self: Box<Self>, registry: &mut Registry, context: Context, missing: &mut Vec<Missing>) -> Option<Part>;
}

enum Part {
    Resource(ResourcePlan),
    Service(ServicePlan),
}

enum Item {
    Part(Box<dyn AnyPart>),
    Producer(Box<dyn AnyProducer>),
    Taker(Box<dyn AnyConsumer>),
}

impl Item {
    fn name(&self) -> &Arc<str> {
        match self {
            Item::Part(part) => part.name(),
            Item::Producer(producer) => producer.name(),
            Item::Taker(taker) => taker.name(),
        }
    }
}

/// An app: its workers, and what they need. Order of installation is order of start, within resources, services,
/// producers, bridges and consumers, which start in this order.
///
/// Building one opens nothing, spawns nothing and needs no runtime.
pub struct App {
    pub(super) settings: Settings,
    pub(super) from: From,
    pub(super) transports: Transports,
    items: Vec<Item>,
}

/// What an app comes to once it is prepared: its actors, and the context of each.
pub(super) struct Prepared {
    pub(super) blueprints: Vec<(Box<dyn Blueprint>, Context, Policy)>,
}

impl App {
    /// An app of that name with the transports of this build. Looks neither at the environment nor at a file.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self {
            settings: Settings::of_code(name.as_ref()),
            from: From::Code,
            transports: Transports::built_in(),
            items: Vec::new(),
        }
    }

    /// An app whose settings come from the environment and the configuration file as well: `$LONGSHORE_CONFIG`, else
    /// `./longshore.toml` if it is there. Both are read when it is run, and what is wrong in them is told then.
    pub fn from_env(name: impl AsRef<str>) -> Self {
        Self { from: From::Everywhere, ..Self::new(name) }
    }

    /// An app that takes the times of its stop and of its start from the environment (`SHUTDOWN_TIMEOUT`,
    /// `TERMINATION_GRACE_SECONDS`, `PRESTOP_SECONDS`, `LONGSHORE_STOP_DEADLINE`, `LONGSHORE_STOP_DELAY`,
    /// `LONGSHORE_START_PATIENCE`), and nothing else, and looks at no file: for a command, whose line says the rest.
    pub fn for_command(name: impl AsRef<str>) -> Self {
        Self { from: From::CodeAndTimes, ..Self::new(name) }
    }

    /// Adds a transport of your own, or replaces one by its scheme.
    #[must_use]
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transports.add(Arc::new(transport));
        self
    }

    /// Applies a function that installs something: how modules are composed.
    #[must_use]
    pub fn install(self, module: impl FnOnce(App) -> App) -> Self {
        module(self)
    }

    /// The whole time of a stop; 25 s by default.
    #[must_use]
    pub fn stop_deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// How long a stop goes on taking messages after it has turned not ready; part of the deadline, 0 by default.
    #[must_use]
    pub fn stop_delay(mut self, delay: Duration) -> Self {
        self.settings.delay = delay;
        self
    }

    /// How long an unreachable broker is tried at start; 5 min by default.
    #[must_use]
    pub fn start_patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// Where `/readyz`, `/metrics` and the rest are served; `127.0.0.1:8080` by default with [`App::run`], off with
    /// [`App::start`].
    #[must_use]
    pub fn admin(mut self, listen: AdminListen) -> Self {
        self.settings.admin = listen;
        self
    }

    /// A resource: opened by an async function before every worker, which may ask for earlier resources; closed after
    /// every worker, by [`Resource::close`].
    #[must_use]
    pub fn resource<T, F, Args>(self, name: impl Into<Arc<str>>, open: F) -> Self
    where
        T: Resource,
        F: Make<Args, T>,
        Args: 'static,
    {
        self.resource_with(name, open, |resource: Arc<T>| async move { resource.close().await })
    }

    /// A resource of a type that is not yours, with a function that closes it.
    #[must_use]
    pub fn resource_with<T, F, Args, C, Closing>(mut self, name: impl Into<Arc<str>>, open: F, close: C) -> Self
    where
        T: Send + Sync + 'static,
        F: Make<Args, T>,
        Args: 'static,
        C: FnOnce(Arc<T>) -> Closing + Send + 'static,
        Closing: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let part =
            ResourcePart { name: name.into(), open, close, marker: std::marker::PhantomData::<fn(T, Args) -> Closing> };
        self.items.push(Item::Part(Box::new(part)));
        self
    }

    /// A service: a background task that may ask for resources, publishers and its [`Context`]. It runs until it
    /// returns; at a stop its context says *draining*, and it should end soon. One that fails is started again.
    #[must_use]
    pub fn service<F, Args>(mut self, name: impl Into<Arc<str>>, run: F) -> Self
    where
        F: Make<Args, ()>,
        Args: 'static,
    {
        let part = RunPart { name: name.into(), run, marker: std::marker::PhantomData::<fn(Args)> };
        self.items.push(Item::Part(Box::new(part)));
        self
    }

    /// A service that is started and stopped by functions: what `start` returns, `stop` is given.
    #[must_use]
    pub fn service_with<T, F, Args, S, Stopping>(mut self, name: impl Into<Arc<str>>, start: F, stop: S) -> Self
    where
        T: Send + 'static,
        F: Make<Args, T>,
        Args: 'static,
        S: Fn(T) -> Stopping + Send + Sync + 'static,
        Stopping: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let part = StartStopPart {
            name: name.into(),
            start,
            stop,
            marker: std::marker::PhantomData::<fn(T, Args) -> Stopping>,
        };
        self.items.push(Item::Part(Box::new(part)));
        self
    }

    /// A producer: handlers send to it by `To<T>`.
    #[must_use]
    pub fn producer<T: Send + Sync + 'static, Tag: 'static>(mut self, producer: Producer<T, Tag>) -> Self {
        self.items.push(Item::Producer(Box::new(producer)));
        self
    }

    /// A consumer.
    #[must_use]
    pub fn consumer<B: Bind>(mut self, consumer: Consumer<B>) -> Self {
        self.items.push(Item::Taker(Box::new(consumer)));
        self
    }

    /// A bridge.
    #[must_use]
    pub fn bridge(mut self, bridge: Bridge) -> Self {
        self.items.push(Item::Taker(Box::new(bridge)));
        self
    }

    /// Plans everything without opening anything; all that is wrong is in the one error.
    pub(super) fn prepare(self, problems: Vec<Problem>, context: MakeContext<'_>) -> Result<Prepared, Error> {
        let app: Arc<str> = self.settings.name.as_str().into();
        let mut planning = Planning::new(&self.transports, app, self.settings.patience, &self.settings.workers);
        problems.into_iter().for_each(|problem| planning.wrong(problem));
        let mut names = HashSet::new();
        for item in &self.items {
            if !names.insert(item.name().clone()) {
                planning.wrong(Problem::new(item.name(), "is the name of two actors: names are unique in an app"));
            }
        }
        for name in self.settings.workers.keys().filter(|name| !names.contains(name.as_str())) {
            let hint = crate::transport::did_you_mean(name, names.iter().map(|name| &**name));
            planning.wrong(Problem::text(format!("workers.{name}: no such worker{hint}")));
        }
        let mut registry = Registry::default();
        let mut missing = Vec::new();
        let mut blueprints: Vec<(Box<dyn Blueprint>, Context, Policy)> = Vec::new();
        let (mut parts, mut takers) = (Vec::new(), Vec::new());
        for item in self.items {
            match item {
                Item::Part(part) => parts.push(part),
                Item::Taker(taker) => takers.push(taker),
                Item::Producer(producer) => {
                    let context = context(producer.name());
                    if let Some(plan) = producer.register(&mut registry, &mut planning) {
                        blueprints.push((Box::new(plan), context, Policy::default()));
                    }
                }
            }
        }
        for part in parts {
            let context = context(part.name());
            match part.plan(&mut registry, context.clone(), &mut missing) {
                Some(Part::Resource(plan)) => blueprints.push((Box::new(plan), context, Policy::default())),
                Some(Part::Service(plan)) => {
                    let policy = Policy { when: When::Transient, ..Policy::default() };
                    blueprints.push((Box::new(plan), context, policy));
                }
                None => {}
            }
        }
        for taker in takers {
            let context = context(taker.name());
            if let Some(plan) = taker.plan(&registry, context.clone(), &mut missing, &mut planning) {
                blueprints.push((Box::new(plan), context, Policy::default()));
            }
        }
        missing.into_iter().for_each(|missing| planning.wrong(Problem::text(missing.to_string())));
        planning.finish()?;
        Ok(Prepared { blueprints })
    }
}

struct ResourcePart<T, F, Args, C, Closing> {
    name: Arc<str>,
    open: F,
    close: C,
    marker: std::marker::PhantomData<fn(T, Args) -> Closing>,
}

impl<T, F, Args, C, Closing> AnyPart for ResourcePart<T, F, Args, C, Closing>
where
    T: Send + Sync + 'static,
    F: Make<Args, T>,
    Args: 'static,
    C: FnOnce(Arc<T>) -> Closing + Send + 'static,
    Closing: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn plan(self: Box<Self>, registry: &mut Registry, context: Context, missing: &mut Vec<Missing>) -> Option<Part> {
        let this = *self;
        let make = {
            let wiring = Wiring::new(registry, context);
            this.open.prepare(&wiring, missing).map(|maker| maker.0)
        };
        let cell = Arc::new(ResourceCell::<T>::new(this.name.clone()));
        // Only now: a resource may take earlier ones, and not itself.
        if !registry.add_resource(cell.clone()) {
            missing.push(Missing {
                worker: this.name.to_string(),
                what: "is a second resource of its type: wrap one of them in a type of its own".to_owned(),
            });
        }
        let make = make?;
        let (put, taken) = (cell.clone(), cell);
        let close = Mutex::new(Some(this.close));
        Some(Part::Resource(ResourcePlan {
            name: this.name,
            open: Arc::new(move || {
                let (made, put) = (make(), put.clone());
                Box::pin(async move {
                    put.put(Arc::new(made.await?));
                    Ok(())
                })
            }),
            close: Arc::new(move || {
                let resource = taken.take();
                let close = close.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
                Box::pin(async move {
                    match (resource, close) {
                        (Some(resource), Some(close)) => close(resource).await,
                        // Never opened, or closed already.
                        _ => Ok(()),
                    }
                })
            }),
        }))
    }
}

struct RunPart<F, Args> {
    name: Arc<str>,
    run: F,
    marker: std::marker::PhantomData<fn(Args)>,
}

impl<F, Args> AnyPart for RunPart<F, Args>
where
    F: Make<Args, ()>,
    Args: 'static,
{
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn plan(self: Box<Self>, registry: &mut Registry, context: Context, missing: &mut Vec<Missing>) -> Option<Part> {
        let this = *self;
        let run = this.run.prepare(&Wiring::new(registry, context), missing)?.0;
        Some(Part::Service(ServicePlan { name: this.name, start: None, run: Some(run), stop: None }))
    }
}

struct StartStopPart<T, F, Args, S, Stopping> {
    name: Arc<str>,
    start: F,
    stop: S,
    marker: std::marker::PhantomData<fn(T, Args) -> Stopping>,
}

impl<T, F, Args, S, Stopping> AnyPart for StartStopPart<T, F, Args, S, Stopping>
where
    T: Send + 'static,
    F: Make<Args, T>,
    Args: 'static,
    S: Fn(T) -> Stopping + Send + Sync + 'static,
    Stopping: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn plan(self: Box<Self>, registry: &mut Registry, context: Context, missing: &mut Vec<Missing>) -> Option<Part> {
        let this = *self;
        let start = this.start.prepare(&Wiring::new(registry, context), missing)?.0;
        let started = Arc::new(Mutex::new(None));
        let (put, taken) = (started.clone(), started);
        let stop = Arc::new(this.stop);
        Some(Part::Service(ServicePlan {
            name: this.name,
            start: Some(Arc::new(move || {
                let (made, put) = (start(), put.clone());
                Box::pin(async move {
                    let made = made.await?;
                    *put.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(made);
                    Ok(())
                })
            })),
            run: None,
            stop: Some(Arc::new(move || {
                let started = taken.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
                let stop = stop.clone();
                Box::pin(async move {
                    match started {
                        Some(started) => stop(started).await,
                        None => Ok(()),
                    }
                })
            })),
        }))
    }
}
