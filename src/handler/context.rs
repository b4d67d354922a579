//! What a handler can know of the worker it runs in.

use std::fmt;
use std::sync::{Arc, OnceLock};
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
    trouble: Arc<Trouble>,
    request_stop: Arc<dyn Fn() + Send + Sync>,
}

/// Hears a reason not to be ready, or that there is none any more.
type Ear = Box<dyn Fn(Option<&str>) + Send + Sync>;

/// A reason not to be ready that a worker, service or resource gave itself.
#[derive(Default)]
pub(crate) struct Trouble {
    /// Whom it is told; nobody before the app starts.
    tell: OnceLock<Ear>,
}

impl Trouble {
    /// Whoever wants to hear of it; the first one does.
    pub(crate) fn heard_by(&self, tell: impl Fn(Option<&str>) + Send + Sync + 'static) {
        let _ = self.tell.set(Box::new(tell));
    }

    fn set(&self, reason: Option<&str>) {
        if let Some(tell) = self.tell.get() {
            tell(reason);
        }
    }
}

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
        self.trouble.set(Some(&reason.into()));
    }

    /// Takes back what [`Context::report_not_ready`] said.
    pub fn report_ready(&self) {
        self.trouble.set(None);
    }

    pub(crate) fn trouble(&self) -> &Arc<Trouble> {
        &self.trouble
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("worker", &self.worker).field("stopping", &self.stopping()).finish()
    }
}
