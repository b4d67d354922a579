//! A task that does not outlive its holder.

use tokio::task::JoinHandle;

/// Aborts its task when it is dropped.
pub(super) struct Guarded(JoinHandle<()>);

impl Guarded {
    /// Runs `work` beside an actor; `panicked` is called with the text of its panic, should it come to that.
    pub(super) fn spawn(
        work: impl Future<Output = ()> + Send + 'static,
        panicked: impl FnOnce(String) + Send + 'static,
    ) -> Self {
        let inner = tokio::spawn(work);
        let abort = AbortOnDrop(inner.abort_handle());
        Self(tokio::spawn(async move {
            let _abort = abort;
            if let Err(error) = inner.await
                && error.is_panic()
            {
                panicked(error.to_string());
            }
        }))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
