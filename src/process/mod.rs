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

/// Set when the guard has begun to end the process: logs are silent from then on.
static LEAVING: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Whether the guard is ending the process right now.
pub(crate) fn is_leaving() -> bool {
    LEAVING.load(std::sync::atomic::Ordering::Relaxed)
}
