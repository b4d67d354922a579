//! Connections: how many, for how long, and how they end.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections at a time; more wait in the backlog.
pub(super) const CONNECTIONS: usize = 64;

/// How long a request's head may take, and so how long a connection may be idle. With [`CONNECTIONS`] it says how long
/// leaked connections can keep a probe waiting.
pub(super) const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;

/// How old a connection may grow: bounds a client that does not read its answer.
const CONNECTION_AGE: Duration = Duration::from_secs(60);

/// How long answers that are being written have at the end of a connection's life.
const CLOSE_WITHIN: Duration = Duration::from_millis(100);

/// How long to wait after an `accept` that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

type Stopping = watch::Receiver<bool>;

/// Runs the server on this thread until it is told to stop. Tells first whether it could be started.
pub(super) fn run(
    listener: TcpListener,
    router: Router,
    stopping: Stopping,
    tell_started: oneshot::Sender<io::Result<()>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(tell_started.send(Err(error))),
    };
    runtime.block_on(async {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                // Where nobody waits for this any more, the handle is gone too, which stops the server.
                let _ = tell_started.send(Ok(()));
                accept(listener, router, stopping).await;
            }
            Err(error) => drop(tell_started.send(Err(error))),
        }
    });
}

async fn accept(listener: tokio::net::TcpListener, router: Router, stopping: Stopping) {
    let mut connections = JoinSet::new();
    let mut stop = pin!(stopped(stopping.clone()));
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, router.clone(), stopping.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin server cannot accept a connection");
                    tokio::select! { () = &mut stop => break, () = sleep(ACCEPT_PAUSE) => {} }
                }
            }
        }
    }
    drop(listener);
    // Each connection has seen the stop and ends within CLOSE_WITHIN.
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, router: Router, stopping: Stopping) {
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    // What goes wrong on a connection is its client's business.
    tokio::select! {
        _ = &mut connection => return,
        () = stopped(stopping) => {}
        () = sleep(CONNECTION_AGE) => {}
    }
    // An idle connection ends here at once, one with a request after its answer.
    connection.as_mut().graceful_shutdown();
    let _ = timeout(CLOSE_WITHIN, connection).await;
}

/// Returns when the stop is told, or whoever could tell it is gone.
async fn stopped(mut stopping: Stopping) {
    let _ = stopping.wait_for(|stop| *stop).await;
}
