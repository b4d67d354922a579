//! From what a user wrote to a service that a lane calls: prepared once, cloned for each lane.
//!
//! Layers wrap the service *inside* the ack boundary: what a layer returns is what the engine settles by. The types
//! stay generic until the app takes the worker, so that neither a handler nor a layer costs a box a message.

use super::{Extract, Handler, IntoOutcome, Missing, Unit, Wiring};
use crate::failure::{BoxError, Failure};
use crate::transport::BoxFuture;
use pin_project_lite::pin_project;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// A worker that could be run: what [`Consumer`](crate::Consumer) is made of.
pub trait Bind: Send + 'static {
    /// What it handles at a time.
    type Unit: Unit;
    /// What a lane calls.
    type Service: Service<Self::Unit, Response = <Self::Unit as Unit>::Done, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + 'static;

    /// Prepares it. `None` when something is missing, which is then in the list.
    fn bind(self, wiring: &Wiring<'_>, missing: &mut Vec<Missing>) -> Option<Bound<Self::Service>>;
}

/// A prepared worker.
#[derive(Clone)]
pub struct Bound<S> {
    /// What lanes call, each a clone of its own.
    pub service: S,
    /// What has to be started before and stopped after, where there is something.
    pub life: Option<Arc<dyn Life>>,
}

/// Instances that are started before the first message and stopped after the last.
pub trait Life: Send + Sync {
    /// Starts those that exist; an error is a failed start of the worker.
    fn start(&self) -> BoxFuture<'_, Result<(), Failure>>;
    /// Stops those that are left.
    fn stop(&self, why: super::Why) -> BoxFuture<'_, ()>;
}

/// An async function as a worker.
pub struct HandlerBind<H, Args, In> {
    handler: H,
    marker: PhantomData<fn(Args, In)>,
}

impl<H, Args, In> HandlerBind<H, Args, In> {
    pub(crate) fn new(handler: H) -> Self {
        Self { handler, marker: PhantomData }
    }
}

impl<H, Args, In> Bind for HandlerBind<H, Args, In>
where
    H: Handler<Args, In>,
    Args: Extract<In>,
    In: Unit,
{
    type Unit = In;
    type Service = HandlerService<H, Args, In>;

    fn bind(self, wiring: &Wiring<'_>, missing: &mut Vec<Missing>) -> Option<Bound<Self::Service>> {
        let ready = Args::prepare(wiring, missing)?;
        Some(Bound { service: HandlerService { handler: self.handler, ready, marker: PhantomData }, life: None })
    }
}

/// A prepared handler as a tower service.
pub struct HandlerService<H, Args: Extract<In>, In: Unit> {
    handler: H,
    ready: Args::Ready,
    marker: PhantomData<fn(In)>,
}

impl<H: Clone, Args: Extract<In>, In: Unit> Clone for HandlerService<H, Args, In> {
    fn clone(&self) -> Self {
        Self { handler: self.handler.clone(), ready: self.ready.clone(), marker: PhantomData }
    }
}

impl<H, Args, In> Service<In> for HandlerService<H, Args, In>
where
    H: Handler<Args, In>,
    Args: Extract<In>,
    In: Unit,
{
    type Response = In::Done;
    type Error = BoxError;
    type Future = HandlerFuture<H::Future, In>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, input: In) -> Self::Future {
        match Args::extract(&self.ready, &input) {
            Ok(args) => HandlerFuture::running(self.handler.call(args), input.early()),
            Err(failure) => HandlerFuture::refused(failure),
        }
    }
}

pin_project! {
    /// The future of a handler, or the reason why it was not called.
    pub struct HandlerFuture<F, In: Unit> {
        #[pin]
        future: Option<F>,
        early: Option<In::Early>,
        refused: Option<Failure>,
    }
}

impl<F, In: Unit> HandlerFuture<F, In> {
    pub(crate) fn running(future: F, early: In::Early) -> Self {
        Self { future: Some(future), early: Some(early), refused: None }
    }

    pub(crate) fn refused(failure: Failure) -> Self {
        Self { future: None, early: None, refused: Some(failure) }
    }
}

impl<F, In> Future for HandlerFuture<F, In>
where
    F: Future<Output: IntoOutcome<In::Done>>,
    In: Unit,
{
    type Output = Result<In::Done, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(future) = this.future.as_pin_mut() else {
            let failure = this.refused.take().expect("polled once more after it was ready");
            return Poll::Ready(Err(failure.into_error()));
        };
        let done = ready!(future.poll(cx)).into_outcome();
        let early = this.early.take().expect("polled once more after it was ready");
        Poll::Ready(In::merge(early, done).map_err(Failure::into_error))
    }
}

/// A worker inside a layer.
pub struct Layered<B, L> {
    inner: B,
    layer: L,
}

impl<B, L> Layered<B, L> {
    pub(crate) fn new(inner: B, layer: L) -> Self {
        Self { inner, layer }
    }
}

impl<B, L> Bind for Layered<B, L>
where
    B: Bind,
    L: Layer<B::Service> + Send + 'static,
    L::Service: Service<B::Unit, Response = <B::Unit as Unit>::Done, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
{
    type Unit = B::Unit;
    type Service = L::Service;

    fn bind(self, wiring: &Wiring<'_>, missing: &mut Vec<Missing>) -> Option<Bound<Self::Service>> {
        let bound = self.inner.bind(wiring, missing)?;
        Some(Bound { service: self.layer.layer(bound.service), life: bound.life })
    }
}
