//! What a user writes: handlers, worker actors, batches, and what they ask for.
//!
//! A **handler** is an async function of extractors. A **worker actor** is a type with state of its own. Both return an
//! [`Outcome`](crate::Outcome); the engine settles. What a handler asks for is *prepared* once, before anything opens,
//! so that a `To<T>` without a producer is told at start and not by the first message.

mod args;
mod batch;
pub(crate) mod bind;
mod context;
mod extract;
mod make;
mod res;
mod to;
mod wiring;
mod worker;

pub use args::{Handler, IntoOutcome};
pub use batch::{Batch, BatchDone, Deliveries};
pub use bind::{Bind, Bound, HandlerBind, HandlerFuture, HandlerService, Layered, Life};
pub use context::{Context, Stopping};
pub use extract::{Attempt, Extract, Headers, Input, Json, Key, Raw, Setup, Unit};
pub use make::Make;
pub(crate) use res::ResourceCell;
pub use res::{Res, Resource};
pub(crate) use to::TypedOutlet;
pub use to::{Publisher, To};
pub(crate) use wiring::Registry;
pub use wiring::{Missing, Wiring};
pub use worker::{BatchWorker, Why, Worker};
pub(crate) use worker::{batched, single};
