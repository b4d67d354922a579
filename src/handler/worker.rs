//! Worker actors: types with state of their own, one message at a time.

use super::bind::{Bind, Bound, HandlerFuture, Life};
use super::make::Making;
use super::{Batch, BatchDone, Context, Deliveries, Extract, IntoOutcome, Make, Missing, Unit, Wiring};
use crate::delivery::Delivery;
use crate::failure::{BoxError, Failure, Outcome};
use crate::transport::BoxFuture;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use tower_service::Service;

/// Why an instance is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The app stops.
    Stopping,
    /// The worker is started anew.
    Restarting,
}

/// An actor that handles messages: each instance has its own state and handles one message at a time; a key always
/// goes to the same instance.
///
/// Write the methods as `async fn`. A panic, a time-out or a cancelled call costs the instance its state, never the
/// message: the factory makes a new one, which is `started` before it goes on.
pub trait Worker: Sized + Send + 'static {
    /// What it takes of a message: an extractor, or a tuple of them.
    type Input: Extract<Delivery>;

    /// Before the first message. An error at the app's start fails the start.
    fn started(&mut self, cx: &Context) -> impl Future<Output = Outcome> + Send {
        let _ = cx;
        async { Ok(()) }
    }

    /// Handles one message.
    fn handle(&mut self, input: Self::Input, cx: &Context) -> impl Future<Output = Outcome> + Send;

    /// After the last message.
    fn stopped(&mut self, why: Why) -> impl Future<Output = ()> + Send {
        let _ = why;
        async {}
    }
}

/// A [`Worker`] that handles batches.
pub trait BatchWorker: Sized + Send + 'static {
    /// What it takes of each message: an extractor, or a tuple of them.
    type Item: Extract<Delivery>;

    /// Before the first batch. An error at the app's start fails the start.
    fn started(&mut self, cx: &Context) -> impl Future<Output = Outcome> + Send {
        let _ = cx;
        async { Ok(()) }
    }

    /// Handles one batch; says the same of all messages, or an outcome for each.
    fn handle(
        &mut self,
        batch: Batch<Self::Item>,
        cx: &Context,
    ) -> impl Future<Output = Result<BatchDone, Failure>> + Send;

    /// After the last batch.
    fn stopped(&mut self, why: Why) -> impl Future<Output = ()> + Send {
        let _ = why;
        async {}
    }
}

/// What the two kinds of worker have in common, so that one service serves both.
pub trait Actor: Sized + Send + 'static {
    fn on_start<'a>(&'a mut self, cx: &'a Context) -> BoxFuture<'a, Outcome>;
    fn on_stop(&mut self, why: Why) -> BoxFuture<'_, ()>;
}

/// A kind of worker by type, since both traits could be on one type.
pub struct Single<W>(W);
pub struct Batched<W>(W);

impl<W: Worker> Actor for Single<W> {
    fn on_start<'a>(&'a mut self, cx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(self.0.started(cx))
    }
    fn on_stop(&mut self, why: Why) -> BoxFuture<'_, ()> {
        Box::pin(self.0.stopped(why))
    }
}

impl<W: BatchWorker> Actor for Batched<W> {
    fn on_start<'a>(&'a mut self, cx: &'a Context) -> BoxFuture<'a, Outcome> {
        Box::pin(self.0.started(cx))
    }
    fn on_stop(&mut self, why: Why) -> BoxFuture<'_, ()> {
        Box::pin(self.0.stopped(why))
    }
}

/// Where an instance lies between two messages; empty while it is lent to a future, and after that future was lost.
type Cell<A> = Arc<Mutex<Option<Box<A>>>>;

pub struct Instances<A> {
    make: Making<A>,
    context: Context,
    cells: Mutex<Vec<Cell<A>>>,
}

impl<A: Actor> Instances<A> {
    fn new_cell(&self) -> Cell<A> {
        let cell = Cell::default();
        let mut cells = self.cells.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // A cell that only this list holds belongs to a lane of an earlier start.
        cells.retain(|cell| Arc::strong_count(cell) > 1);
        cells.push(Arc::clone(&cell));
        cell
    }

    fn cells(&self) -> Vec<Cell<A>> {
        self.cells.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    async fn begin(&self) -> Result<Box<A>, Failure> {
        let mut actor = Box::new((self.make)().await.map_err(Failure::from)?);
        actor.on_start(&self.context).await?;
        Ok(actor)
    }
}

fn take<A>(cell: &Cell<A>) -> Option<Box<A>> {
    cell.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
}

fn put<A>(cell: &Cell<A>, actor: Box<A>) {
    *cell.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(actor);
}

impl<A: Actor> Life for Instances<A> {
    fn start(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            for cell in self.cells() {
                let actor = self.begin().await?;
                put(&cell, actor);
            }
            Ok(())
        })
    }

    fn stop(&self, why: Why) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            for cell in self.cells() {
                if let Some(mut actor) = take(&cell) {
                    actor.on_stop(why).await;
                }
            }
        })
    }
}

/// An instance lent to the future of one message. Dropped on the way, it is lost with its state.
pub struct Lent<A> {
    cell: Cell<A>,
    of: Arc<Instances<A>>,
}

impl<A: Actor> Lent<A> {
    async fn instance(&self) -> Result<Box<A>, Failure> {
        match take(&self.cell) {
            Some(actor) => Ok(actor),
            None => self.of.begin().await.map_err(|failure| failure.classed("restart")),
        }
    }
}

/// Calls an instance for one input. A trait, so that the future of an async block has a name.
pub trait Run<A, In, Done>: Clone + Send + 'static {
    type Future: Future<Output: IntoOutcome<Done>> + Send + 'static;
    fn run(&self, lent: Lent<A>, input: In) -> Self::Future;
}

impl<A, In, Done, Fun, Fut> Run<A, In, Done> for Fun
where
    Fun: Fn(Lent<A>, In) -> Fut + Clone + Send + 'static,
    Fut: Future<Output: IntoOutcome<Done>> + Send + 'static,
{
    type Future = Fut;
    fn run(&self, lent: Lent<A>, input: In) -> Fut {
        self(lent, input)
    }
}

type Prepare<A> = Box<dyn FnOnce(&Wiring<'_>, &mut Vec<Missing>) -> Option<Making<A>> + Send>;

/// A worker actor as something that can be bound.
pub struct WorkerBind<A, In, Args, R> {
    prepare: Prepare<A>,
    run: R,
    marker: PhantomData<fn(In, Args)>,
}

fn prepared<W, A, F, Args>(factory: F, wrap: fn(W) -> A) -> Prepare<A>
where
    W: Send + 'static,
    A: Actor,
    F: Make<Args, W>,
    Args: 'static,
{
    Box::new(move |wiring, missing| {
        let super::make::Maker(make) = factory.prepare(wiring, missing)?;
        Some(Arc::new(move || {
            let made = make();
            Box::pin(async move { made.await.map(wrap) }) as BoxFuture<'static, Result<A, BoxError>>
        }) as Making<A>)
    })
}

/// A worker actor for one message at a time.
pub(crate) fn single<W: Worker, F: Make<Args, W>, Args: 'static>(factory: F) -> impl Bind<Unit = Delivery> {
    let run = |lent: Lent<Single<W>>, input: W::Input| async move {
        let mut actor = lent.instance().await?;
        let outcome = actor.0.handle(input, &lent.of.context).await;
        put(&lent.cell, actor);
        outcome
    };
    WorkerBind::<Single<W>, Delivery, W::Input, _> { prepare: prepared(factory, Single), run, marker: PhantomData }
}

/// A worker actor for batches.
pub(crate) fn batched<W: BatchWorker, F: Make<Args, W>, Args: 'static>(factory: F) -> impl Bind<Unit = Deliveries> {
    let run = |lent: Lent<Batched<W>>, input: Batch<W::Item>| async move {
        let mut actor = lent.instance().await?;
        let outcome = actor.0.handle(input, &lent.of.context).await;
        put(&lent.cell, actor);
        outcome
    };
    WorkerBind::<Batched<W>, Deliveries, Batch<W::Item>, _> {
        prepare: prepared(factory, Batched),
        run,
        marker: PhantomData,
    }
}

impl<A, In, Args, R> Bind for WorkerBind<A, In, Args, R>
where
    A: Actor,
    In: Unit,
    Args: Extract<In>,
    R: Run<A, Args, In::Done>,
{
    type Unit = In;
    type Service = WorkerService<A, In, Args, R>;

    fn bind(self, wiring: &Wiring<'_>, missing: &mut Vec<Missing>) -> Option<Bound<Self::Service>> {
        let ready = Args::prepare(wiring, missing);
        let make = (self.prepare)(wiring, missing)?;
        let instances = Arc::new(Instances { make, context: wiring.context().clone(), cells: Mutex::new(Vec::new()) });
        let service = WorkerService {
            // The template is never called and has no instance.
            cell: Cell::default(),
            instances: instances.clone(),
            ready: ready?,
            run: self.run,
            marker: PhantomData,
        };
        Some(Bound { service, life: Some(instances) })
    }
}

/// One instance as a tower service. A clone is another instance.
pub struct WorkerService<A, In: Unit, Args: Extract<In>, R> {
    cell: Cell<A>,
    instances: Arc<Instances<A>>,
    ready: Args::Ready,
    run: R,
    marker: PhantomData<fn(In)>,
}

impl<A: Actor, In: Unit, Args: Extract<In>, R: Clone> Clone for WorkerService<A, In, Args, R> {
    fn clone(&self) -> Self {
        Self {
            cell: self.instances.new_cell(),
            instances: self.instances.clone(),
            ready: self.ready.clone(),
            run: self.run.clone(),
            marker: PhantomData,
        }
    }
}

impl<A, In, Args, R> Service<In> for WorkerService<A, In, Args, R>
where
    A: Actor,
    In: Unit,
    Args: Extract<In>,
    R: Run<A, Args, In::Done>,
{
    type Response = In::Done;
    type Error = BoxError;
    type Future = HandlerFuture<R::Future, In>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, input: In) -> Self::Future {
        match Args::extract(&self.ready, &input) {
            Ok(args) => {
                let lent = Lent { cell: self.cell.clone(), of: self.instances.clone() };
                HandlerFuture::running(self.run.run(lent, args), input.early())
            }
            Err(failure) => HandlerFuture::refused(failure),
        }
    }
}
