//! Longshore: message-queue workers as supervised actors.

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
