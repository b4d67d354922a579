//! The app: what a user builds, and how it is run.
//!
//! Building opens nothing, spawns nothing and needs no runtime. Starting prepares everything first, so that all that
//! can be known to be wrong is told at once; then the root supervisor starts the actors one by one.

mod bridge;
mod builder;
mod consumer;
mod plan;
mod producer;
mod run;
mod running;
mod settings;

pub use bridge::Bridge;
pub use builder::App;
pub use consumer::Consumer;
pub use producer::Producer;
pub use running::{Progress, Running, Stopped};
