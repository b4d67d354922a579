//! The thread that owns signals and the deadline, and the board of atomics that it reads.
//!
//! Nothing here knows an actor, a message or the runtime: when tokio itself is stuck, this still works.

pub(crate) mod board;
mod emergency;
pub(crate) mod guard;

/// Whether a panic unwinds in this build. With `panic = "abort"` a handler's panic would end the process, and every
/// other handler with it, so an app refuses to start.
pub(crate) const fn panic_unwinds() -> bool {
    cfg!(panic = "unwind")
}
