//! What a handler can know of the worker it runs in.

use std::fmt;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// How far a stop has come, as a handler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stopping {
    /// The worker runs.
    #[default]
    No,
    /// The drain has begun: end soon, and begin nothing long.
    Draining,
    /// Time is up: the future is about to be dropped.
    Cancelling,
}

/// The worker that a handler runs in; cheap to clone.
#[derive(Clone)]
pub struct Context {
    worker: Arc<str>,
    app: Arc<str>,
    stopping: watch::Receiver<Stopping>,
    trouble: Arc<Mutex<Trouble>>,
    request_stop: Arc<dyn Fn() + Send + Sync>,
}

/// A reason not to be ready that a worker, service or resource gave itself, and who hears of it.
#[derive(Default)]
struct Trouble {
    reason: Option<String>,
    hears: Option<Hears>,
}

/// Is told the reason, or that there is none any more.
type Hears = Box<dyn Fn(Option<&str>) + Send>;

impl Context {
    pub(crate) fn new(
        app: Arc<str>,
        worker: Arc<str>,
        stopping: watch::Receiver<Stopping>,
        request_stop: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self { worker, app, stopping, trouble: Arc::default(), request_stop }
    }

    /// Asks the app to stop, as SIGTERM does. Returns at once; asking again changes nothing.
    pub fn request_stop(&self) {
        (self.request_stop)();
    }

    /// The worker's name, as in logs, metrics and errors.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// The app's name.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// How far a stop has come.
    pub fn stopping(&self) -> Stopping {
        *self.stopping.borrow()
    }

    /// Waits until a stop has come that far. Cancel-safe.
    pub async fn until(&self, stage: Stopping) {
        let mut stopping = self.stopping.clone();
        // The sender lives as long as the app; when it is gone, the app is past every stage.
        let _ = stopping.wait_for(|now| *now >= stage).await;
    }

    /// Reports this worker as not ready, with a reason that `/readyz` shows, until [`Context::report_ready`].
    pub fn report_not_ready(&self, reason: impl Into<String>) {
        self.set_trouble(Some(reason.into()));
    }

    /// Takes back what [`Context::report_not_ready`] said.
    pub fn report_ready(&self) {
        self.set_trouble(None);
    }

    /// Names who hears of trouble from now on; what was said before is said again.
    pub(crate) fn on_trouble(&self, hears: impl Fn(Option<&str>) + Send + 'static) {
        let mut trouble = self.trouble.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        hears(trouble.reason.as_deref());
        trouble.hears = Some(Box::new(hears));
    }

    fn set_trouble(&self, reason: Option<String>) {
        // Told under the lock, so that two words are heard in the order in which they were said.
        let mut trouble = self.trouble.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        trouble.reason = reason;
        if let Some(hears) = &trouble.hears {
            hears(trouble.reason.as_deref());
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("worker", &self.worker).field("stopping", &self.stopping()).finish()
    }
}
