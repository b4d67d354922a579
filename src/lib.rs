//! Longshore runs message-queue workers: *a message is received, handled, settled; a worker is started, watched,
//! drained, stopped.*
//!
//! You write what to do with a message. Longshore connects it to a queue, supervises it, and stops it so that nothing
//! is lost, nothing that was finished is done twice, and the process ends in time.
//!
//! ```rust,standalone_crate
//! use longshore::admin::AdminListen;
//! use longshore::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Purchase {
//!     id: u32,
//!     customer: String,
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Shipped {
//!     id: u32,
//! }
//!
//! /// A handler: an async function of what it needs. An error is tried again, then goes to the dead letters.
//! async fn ship(Json(purchase): Json<Purchase>, shipped: To<Shipped>) -> Result<(), Failure> {
//!     // Confirmed by its queue before the purchase is acked.
//!     shipped.send(&Shipped { id: purchase.id }).await
//! }
//!
//! async fn tell(Json(shipped): Json<Shipped>) {
//!     println!("shipped {}", shipped.id);
//! }
//!
//! async fn buy(purchases: Publisher<Purchase>) -> Result<(), Failure> {
//!     purchases.publish(&Purchase { id: 7, customer: "ada".to_owned() }).await
//! }
//!
//! fn main() -> ExitCode {
//!     // Building opens nothing; `run` owns the runtime, the signals and the deadline.
//!     App::new("shop")
//!         .admin(AdminListen::Off)
//!         .producer(Producer::<Purchase>::new("purchases", "memory:purchases").key(|each| each.customer.clone()))
//!         .producer(Producer::<Shipped>::new("shipped", "memory:shipped"))
//!         .service("buy", buy)
//!         .consumer(Consumer::new("ship", "memory:purchases", ship).concurrency(64).limit(1))
//!         .consumer(Consumer::new("tell", "memory:shipped", tell).limit(1))
//!         .run()
//! }
//! ```
//!
//! # The way of a message
//!
//! ```text
//!             ┌────────────────────── a consumer ──────────────────────┐
//! queue ────▶ source ──batch on──▶ intake ──▶ lanes ──▶ handler ──To──▶ outlet ────▶ sink ────▶ queue
//!               ▲     one slab       │  ▲     a key       │              a producer's    │
//!               │                    │  │     always in   ▼                              │
//!               └──── settlements ◀──┘  └──── the same ◀─ outcome ◀────── confirm ◀──────┘
//! ```
//!
//! A source yields batches on one shared buffer. Its *intake* task hands them to *lanes*, one a core, in which handlers
//! are polled in place, up to `concurrency` at a time, one at a time for a key. A handler returns; when everything that
//! it sent is confirmed, its message is settled, in one place: [`Outcome`] says how. Every queue on this way is bounded
//! in messages and in bytes.
//!
//! # The life of a process
//!
//! ```text
//! guard thread: signals, deadline ─────────────────────────────────────────────▶ the last way out
//! root supervisor
//! ├── resources   opened first, closed last
//! ├── services
//! ├── producers   stopped when nobody is left who sends
//! ├── bridges
//! └── consumers   started last, stopped first
//! ```
//!
//! Actors carry control, batches carry data: an actor (of ractor) starts, watches and stops a data loop that runs
//! beside it as a task. SIGTERM, Ctrl+C, `POST /shutdown` and the end of every source begin the same drain: a pure
//! state machine that is searched over all its interleavings in a test.
//!
//! # Promises
//!
//! - **At least once** on a durable queue: acked after the handler succeeded *and* what it sent was confirmed.
//! - **A graceful stop duplicates nothing**; a crash repeats at most what was delivered ([`Consumer::look_ahead`]).
//! - **The process ends by its deadline and a second**, whatever a handler or a queue does, and says who held it.
//! - **Order by key holds** within one owner of a queue, also across retries and restarts. An owner is a process on a queue
//!   of RabbitMQ, or all of them where it has a single active consumer; a partition of Kafka; a claim on a key of `local`.
//!
//! # The code
//!
//! | room | what it owns | what is absent |
//! |---|---|---|
//! | [`message`] | values: a message, alone or in a batch | I/O, time |
//! | `failure`, `error` | what became of a message; what is wrong with the library | each other |
//! | [`handler`] | what a user writes: handlers, workers, extractors | settling: a handler cannot ack |
//! | `engine` | lanes, order by key, attempts, retries, settling | actors, and the name of any transport |
//! | [`transport`] | the contracts of source and sink, and a room for each transport | the engine |
//! | `actor` | one actor each for consumer, producer, bridge, resource, service | data: no message passes through a mailbox |
//! | `supervisor` | start order, restarts, the drain, the report | I/O and clocks in the drain |
//! | `process` | the thread that owns signals and deadline | tokio and tracing on the last way out |
//! | `app` | collects, checks, starts, waits, reports | whoever uses it: nobody knows `app` |
//! | [`admin`], `telemetry` | health, metrics, logs | anything paid for each message but counters |
//! | [`testing`] | the conformance suite for transports | |
//!
//! Dependencies point one way: values ← contracts ← transports; values ← engine ← actors ← supervisor ← app. `ractor`
//! is named in `actor` and `supervisor` alone, `rusqlite` in `transport::local` alone, `lapin` in `transport::amqp` alone,
//! `rdkafka` in `transport::kafka` alone. There is no unsafe code.

mod actor;
pub mod admin;
mod app;
mod delivery;
pub mod duration;
mod engine;
mod error;
mod failure;
pub mod handler;
pub mod message;
mod process;
mod supervisor;
mod telemetry;
pub mod testing;
pub mod transport;

pub use app::{App, Bridge, Consumer, Producer, Progress, Running, Stopped};
pub use delivery::Delivery;
pub use engine::order::Order;
pub use engine::retry::Retry;
pub use error::{Error, ErrorKind};
pub use failure::{BoxError, Failure, Fate, Outcome, Tally};
pub use supervisor::report::Counts;

/// Log lines of a process: set up by `App::run`, and by a program that logs before it runs an app.
pub mod logs {
    pub use crate::telemetry::logs::install;
    pub use crate::telemetry::status::{clear_status, show_status};
}

/// What a program of workers usually needs.
pub mod prelude {
    pub use crate::handler::{
        Attempt, Batch, BatchDone, BatchWorker, Context, Headers, Json, Key, Publisher, Raw, Res, Resource, Stopping,
        To, Why, Worker,
    };
    pub use crate::{App, BoxError, Bridge, Consumer, Delivery, Failure, Order, Outcome, Producer, Retry};
    pub use std::process::ExitCode;
    pub use std::time::Duration;
}

/// The examples of the README are compiled with those of the docs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
