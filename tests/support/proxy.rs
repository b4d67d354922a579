//! A network that does what a test says: a TCP proxy on loopback between a client and a server.

#![allow(dead_code, reason = "each test file uses its part of it")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// More than any test opens: whoever reconnects without end is found out by it.
const CONNECTIONS: usize = 1_024;
/// Read at once; in delay lie at most [`CHUNKS`] of them a direction, then the sender is held back.
const CHUNK: usize = 16 * 1024;
const CHUNKS: usize = 256;

/// What becomes of bytes in one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Flow {
    Pass,
    /// They come later by the first, and by up to the second more, in their order.
    Late(Duration, Duration),
    /// They arrive in pieces of at most so many bytes.
    Sliced(usize),
    /// They lie in the network until it heals. Nobody is told, and an end of the stream does not arrive either.
    Hole,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// An orderly end of both directions.
    Cut,
    /// RST to both sides.
    Reset,
}

#[derive(Debug, Clone, Copy)]
struct State {
    to_server: Flow,
    to_client: Flow,
    refuses: bool,
    /// How often all connections were ended: one that was opened since then lives on.
    ended: u64,
    end: End,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    open: AtomicUsize,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

/// Both directions pass until it is told otherwise. It ends, with all connections, when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    counts: Arc<Counts>,
    task: AbortHandle,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1, for a server on a port of 127.0.0.1.
    pub async fn to(server: u16) -> Self {
        Self::between(0, server).await
    }

    /// Listens on this port of 127.0.0.1, for a server that sends its clients there.
    pub async fn between(port: u16, server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { to_server: Flow::Pass, to_client: Flow::Pass, refuses: false, ended: 0, end: End::Cut };
        let state = watch::Sender::new(state);
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(accept(listener, server, state.subscribe(), counts.clone())).abort_handle();
        Self { address, state, counts, task }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn set(&self, to_server: Flow, to_client: Flow) {
        self.state.send_modify(|state| (state.to_server, state.to_client) = (to_server, to_client));
    }

    /// Nothing arrives anywhere, and nobody is told.
    pub fn black_hole(&self) {
        self.set(Flow::Hole, Flow::Hole);
    }

    /// All passes again, new connections too. What lay in the network arrives.
    pub fn heal(&self) {
        self.state.send_modify(|state| {
            (state.to_server, state.to_client, state.refuses) = (Flow::Pass, Flow::Pass, false);
        });
    }

    /// New connections are reset at once; those that are open stay.
    pub fn refuse(&self) {
        self.state.send_modify(|state| state.refuses = true);
    }

    /// Every open connection ends as if its peer had closed it.
    pub fn cut(&self) {
        self.end(End::Cut);
    }

    /// Every open connection is reset.
    pub fn reset(&self) {
        self.end(End::Reset);
    }

    fn end(&self, end: End) {
        self.state.send_modify(|state| (state.ended, state.end) = (state.ended + 1, end));
    }

    /// Connections that were accepted so far, those that were refused included.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Bytes that arrived at the server.
    pub fn to_server(&self) -> u64 {
        self.counts.to_server.load(Ordering::Relaxed)
    }

    /// Bytes that arrived at clients.
    pub fn to_client(&self) -> u64 {
        self.counts.to_client.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort(); // and with it the set of its connections
    }
}

async fn accept(listener: TcpListener, server: u16, state: watch::Receiver<State>, counts: Arc<Counts>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (client, _) = accepted.expect("accepting on loopback does not fail");
        let permit = room.clone().try_acquire_owned().expect("no more than CONNECTIONS at once");
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        let (state, counts) = (state.clone(), counts.clone());
        connections.spawn(async move {
            let open = Open::count(counts);
            carry(client, server, state, &open.0).await;
            drop(permit);
        });
    }
}

/// A connection, counted for as long as its task lives.
struct Open(Arc<Counts>);

impl Open {
    fn count(counts: Arc<Counts>) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn carry(mut client: TcpStream, server: u16, mut state: watch::Receiver<State>, counts: &Counts) {
    let born = *state.borrow_and_update();
    if born.refuses {
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let reset = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let both = async {
            tokio::try_join!(
                pump(from_client, to_server, state.clone(), |state| state.to_server, &counts.to_server),
                pump(from_server, to_client, state.clone(), |state| state.to_client, &counts.to_client),
            )
        };
        let mut told = state.clone();
        tokio::select! {
            // An error of one side is the other's reset.
            ended = both => ended.is_err(),
            told = told.wait_for(|state| state.ended != born.ended) => told.is_ok_and(|state| state.end == End::Reset),
        }
    };
    if reset {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// One direction until its end: a reader stamps what comes with the time at which it is due, a writer waits for that.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    state: watch::Receiver<State>,
    flow: impl Fn(&State) -> Flow,
    written: &AtomicU64,
) -> io::Result<()> {
    let (line, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let mut seen = state.clone();
    let reader = async {
        let mut last = Instant::now();
        loop {
            open(&mut seen, &flow).await;
            let mut chunk = vec![0; CHUNK];
            let len = from.read(&mut chunk).await?;
            if len == 0 {
                drop(line);
                return Ok(());
            }
            chunk.truncate(len);
            if let Flow::Late(by, more) = flow(&seen.borrow()) {
                last = last.max(Instant::now() + by + more.mul_f64(fastrand::f64()));
            }
            // The writer ends first only with an error, which ends the connection.
            let _ = line.send((last, chunk)).await;
        }
    };
    let mut seen = state.clone();
    let writer = async {
        while let Some((at, chunk)) = due.recv().await {
            sleep_until(at).await;
            let slice = match open(&mut seen, &flow).await {
                Flow::Sliced(len) => len.max(1),
                _ => chunk.len(),
            };
            for piece in chunk.chunks(slice) {
                to.write_all(piece).await?;
                written.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        }
        open(&mut seen, &flow).await;
        to.shutdown().await
    };
    tokio::try_join!(reader, writer).map(|_| ())
}

/// Waits while the direction is a hole.
async fn open(state: &mut watch::Receiver<State>, flow: &impl Fn(&State) -> Flow) -> Flow {
    if let Ok(state) = state.wait_for(|state| flow(state) != Flow::Hole).await {
        return flow(&state);
    }
    std::future::pending().await // the proxy is gone, and ends this connection
}
