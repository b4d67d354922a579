//! A task that does not outlive its holder.

use tokio::task::{AbortHandle, JoinHandle};

/// Aborts its task when it is dropped.
pub(super) struct Guarded {
    watch: JoinHandle<()>,
    work: AbortHandle,
}

impl Guarded {
    /// Runs `work` beside an actor; `panicked` is called with the text of its panic, should it come to that.
    pub(super) fn spawn(
        work: impl Future<Output = ()> + Send + 'static,
        panicked: impl FnOnce(String) + Send + 'static,
    ) -> Self {
        let inner = tokio::spawn(work);
        let work = inner.abort_handle();
        let abort = AbortOnDrop(inner.abort_handle());
        let watch = tokio::spawn(async move {
            let _abort = abort;
            if let Err(error) = inner.await
                && error.is_panic()
            {
                panicked(error.to_string());
            }
        });
        Self { watch, work }
    }

    /// Aborts its task and waits until it is gone: what it was in the middle of is done, or will not be.
    pub(super) async fn end(mut self) {
        self.work.abort();
        let _ = (&mut self.watch).await;
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
