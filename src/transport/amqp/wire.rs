//! A connection, what the broker says about it, and the way to end it that always works.

use super::refusal::{Refusal, explain, is_of_channel, refusal, words};
use crate::error::{Error, ErrorKind};
use futures_util::StreamExt;
use lapin::{Channel, Connection, Event};
use rustix::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A broker that does not answer a request within this is taken for dead, and its connection is cut.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The client library tells of the end of a channel in two places, which may be so far apart.
const HEARD_WITHIN: Duration = Duration::from_millis(500);

/// The socket of a connection, to be shut down past TLS, the client library and a broker that does not answer.
#[derive(Debug, Clone)]
pub(super) struct Cut(Arc<OwnedFd>);

impl Cut {
    pub(super) fn of(socket: &tokio::net::TcpStream) -> std::io::Result<Self> {
        Ok(Self(Arc::new(socket.as_fd().try_clone_to_owned()?)))
    }

    /// Ends the connection now. What was written and acknowledged by the peer's kernel stays written.
    pub(super) fn now(&self) {
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }
}

/// What is known of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// The broker takes no publishes on it for now, and says why.
    Blocked(String),
    /// It is gone, and why.
    Gone(String),
}

/// One connection. Dropped, it is cut, and the broker takes back what was delivered on it.
pub(super) struct Wire {
    connection: Connection,
    cut: Cut,
    /// `host:port` of the broker.
    pub(super) host: String,
    state: watch::Receiver<State>,
    /// What the last channel was closed for that was closed.
    closed_channel: watch::Receiver<Option<lapin::Error>>,
    listening: tokio::task::JoinHandle<()>,
}

impl Wire {
    pub(super) fn new(connection: Connection, cut: Cut, host: String) -> Self {
        let (tell, state) = watch::channel(State::Open);
        let (tell_closed, closed_channel) = watch::channel(None);
        // The one listener of this connection: two would take events from each other.
        let mut events = Box::pin(connection.events_listener());
        let listening = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::ConnectionBlocked(why) => drop(tell.send(State::Blocked(why))),
                    Event::ConnectionUnblocked => drop(tell.send(State::Open)),
                    // A channel of it was closed, which its owner hears there; not always what for.
                    Event::Error(error) if is_of_channel(&error) => drop(tell_closed.send(Some(error))),
                    Event::Error(error) => {
                        let _ = tell.send(State::Gone(words(&error)));
                    }
                    _ => {}
                }
            }
            tell.send_if_modified(|state| {
                let ends = !matches!(state, State::Gone(_));
                if ends {
                    *state = State::Gone("the connection was closed".into());
                }
                ends
            });
        });
        Self { connection, cut, host, state, closed_channel, listening }
    }

    /// Hears what channels are closed for from now on, for an owner who may hear only that his is.
    pub(super) fn closed_channels(&self) -> ClosedChannels {
        let mut closed = self.closed_channel.clone();
        closed.mark_unchanged();
        ClosedChannels(closed)
    }

    /// Follows what is known of the connection.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The way to end it from elsewhere.
    pub(super) fn cutter(&self) -> Cut {
        self.cut.clone()
    }

    /// Bytes that one frame may have, as agreed with the broker.
    pub(super) fn frame_max(&self) -> usize {
        self.connection.configuration().frame_max() as usize
    }

    /// Opens a channel.
    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        answered("opening a channel".to_owned(), self.connection.create_channel()).await
    }

    /// Closes in the orderly way, no longer than that, and cuts it in any case.
    pub(super) async fn close(self, within: Duration) {
        let closing = self.connection.close(200, "closed by its owner".into());
        let _ = tokio::time::timeout(within, closing).await;
    }
}

/// What channels of a connection are closed for.
pub(super) struct ClosedChannels(watch::Receiver<Option<lapin::Error>>);

impl ClosedChannels {
    /// What the last one was closed for that was closed since; `None` where nothing is heard soon: the connection is gone.
    pub(super) async fn why(&mut self) -> Option<lapin::Error> {
        tokio::time::timeout(HEARD_WITHIN, self.0.changed()).await.ok()?.ok()?;
        self.0.borrow_and_update().clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut.now();
        self.listening.abort();
    }
}

/// Awaits an answer of the broker, no longer than [`ANSWER_LIMIT`]; the error names what was asked.
pub(super) async fn answered<T>(
    what: String,
    asked: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER_LIMIT, asked).await {
        Ok(answer) => answer.map_err(|error| explain(what, &error)),
        Err(_) => Err(silent(what)),
    }
}

/// The same where a "no" of the broker's is an answer too: the inner error, which has closed the channel.
pub(super) async fn answered_or_refused<T>(
    what: impl std::fmt::Display,
    asked: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<Result<T, lapin::Error>, Error> {
    match tokio::time::timeout(ANSWER_LIMIT, asked).await {
        Ok(Err(error)) if refusal(&error) == Refusal::Other => Err(explain(what, &error)),
        Ok(answer) => Ok(answer),
        Err(_) => Err(silent(what)),
    }
}

fn silent(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unreachable, format!("{what}: the broker did not answer within {} s", ANSWER_LIMIT.as_secs()))
}
