//! Health, metrics and control over HTTP.
//!
//! The server runs on a thread and a runtime of its own. So it still answers, and still takes `POST /shutdown`, while
//! every thread of the app's executor is stuck in somebody's loop; and `/livez` can then say so instead of timing out.
//! It starts when the address is bound, and ends last, in bounded time whatever its clients do.

mod listen;
mod pulse;
mod routes;
mod server;
#[cfg(test)]
mod tests;
mod token;

pub use listen::AdminListen;
pub use routes::Shutdown;

use crate::error::{Error, ErrorKind};
use crate::supervisor::health::Health;
use crate::telemetry::metrics::Scrape;
use crate::transport::Secret;
use pulse::Pulse;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

/// The executor must turn at least this often to count as alive.
const ALIVE_WITHIN: Duration = Duration::from_secs(10);

/// How long a stop waits for the server's thread at most. The server itself is done much earlier.
const STOP_WITHIN: Duration = Duration::from_millis(500);

/// The admin server of an app.
pub struct Admin;

impl Admin {
    /// Binds the address; `None` where it is off. Nothing is answered before [`Bound::serve`]: clients that come
    /// earlier wait in the backlog.
    ///
    /// # Errors
    /// Configuration, naming `admin.listen` and the address: in use, not of this machine, not allowed, not resolvable.
    pub fn bind(listen: &AdminListen) -> Result<Option<Bound>, Error> {
        let AdminListen::At(address) = listen else { return Ok(None) };
        let wrong = |error: std::io::Error| {
            Error::configuration(format!("admin.listen: cannot listen on '{address}'")).caused_by(error)
        };
        let listener = TcpListener::bind(address.as_str()).map_err(wrong)?;
        listener.set_nonblocking(true).map_err(wrong)?;
        let addr = listener.local_addr().map_err(wrong)?;
        Ok(Some(Bound { listener, addr }))
    }
}

/// An address that is bound, and not yet served.
pub struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Bound {
    /// The address, with the real port where 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until [`AdminHandle::stop`]. The runtime it is called on is the one whose turning `/livez` watches.
    ///
    /// `shutdown` is called on the server's thread for every `POST /shutdown` that is allowed: it must not block, and
    /// returns the same deadline each time. Without a token, or with an empty one, every `POST` is refused. `metrics`
    /// is `None` where the program has a recorder of its own.
    ///
    /// # Errors
    /// Start: no thread or no runtime is to be had.
    pub async fn serve(
        self,
        health: Health,
        metrics: Option<Scrape>,
        shutdown: Shutdown,
        token: Option<Secret>,
    ) -> Result<AdminHandle, Error> {
        self.serve_watching(ALIVE_WITHIN, health, metrics, shutdown, token).await
    }

    async fn serve_watching(
        self,
        alive_within: Duration,
        health: Health,
        metrics: Option<Scrape>,
        shutdown: Shutdown,
        token: Option<Secret>,
    ) -> Result<AdminHandle, Error> {
        let Self { listener, addr } = self;
        // Not when it was bound: the first log line says that signals are obeyed.
        tracing::info!(event = %"admin_listening", %addr, "admin listens");
        let pulse = Arc::new(Pulse::new(alive_within));
        let router = routes::router(health, metrics, shutdown, token, pulse.clone());
        let (stop, stopping) = watch::channel(false);
        let (tell_started, started) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        let failed =
            |error: std::io::Error| Error::new(ErrorKind::Start, "the admin server cannot be started").caused_by(error);
        let run = move || {
            server::run(listener, router, stopping, tell_started);
            // Nobody listens any more where the stop gave up waiting.
            let _ = tell_ended.send(());
        };
        // The runtime is made and dropped on its thread, since neither may be done inside of another runtime. The thread
        // is not joined: it ends on its own, and its end is told.
        std::thread::Builder::new().name("longshore-admin".to_owned()).spawn(run).map_err(failed)?;
        started.await.unwrap_or_else(|_| Err(std::io::Error::other("its thread died"))).map_err(failed)?;
        let beating = tokio::spawn(pulse.beat()).abort_handle();
        Ok(AdminHandle { addr, stop, ended, beating })
    }
}

/// A server at work. Dropping it tells the server to stop and does not wait.
pub struct AdminHandle {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
    beating: AbortHandle,
}

impl AdminHandle {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes the address, lets answers that are being written go out, and ends. Idle connections are closed at once,
    /// others are given 100 ms; half a second is the end in any case.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(STOP_WITHIN, &mut self.ended).await.is_err() {
            tracing::warn!(addr = %self.addr, "the admin server did not end in time and is left behind");
        }
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.beating.abort();
    }
}
