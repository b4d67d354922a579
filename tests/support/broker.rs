//! Real RabbitMQ nodes for tests, started by `scripts/broker`. A node ends with the process of its tests, however that
//! ends. All that waits here blocks its thread: an async test that goes on meanwhile asks by [`Broker::aside`].

#![allow(dead_code, reason = "each test file uses its part of it")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// A queue's name is never used twice, so that tests of one process, and of several that share a node, do not meet.
static NAMES: AtomicU32 = AtomicU32::new(0);

/// Names the node that tests join instead of starting one: it starts faster, and it can be looked at afterwards. Kafka's
/// has `-kafka` behind it.
pub const JOIN: &str = "LONGSHORE_TEST_BROKER";
/// `off` where no node can be had: tests that need one say so and do nothing.
const WANTED: &str = "LONGSHORE_TEST_BROKERS";

/// The node that tests of this process share; none if `LONGSHORE_TEST_BROKERS=off`. Who kills, freezes or restarts a
/// node takes one of its [`own`].
///
/// Panics if the node does not start: a test that needs it fails.
pub fn shared() -> Option<Broker> {
    static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
    SHARED
        .get_or_init(|| {
            let name = std::env::var(JOIN).unwrap_or_else(|_| format!("test-{}", std::process::id()));
            wanted().then(|| Broker::start(&name, &[]))
        })
        .clone()
}

/// A node of this test alone, which ends with it; none if `LONGSHORE_TEST_BROKERS=off`. Options are those of
/// `scripts/broker start`: `--tls`, `--management`.
pub fn own(options: &[&str]) -> Option<Own> {
    wanted().then(|| Own(Broker::start(&unique("test"), options)))
}

/// A name that no other node or queue of this process has.
pub fn unique(stem: &str) -> String {
    format!("{stem}-{}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed))
}

/// Whether nodes are wanted; if not, it says that this test does nothing.
pub fn wanted() -> bool {
    let wanted = std::env::var(WANTED).as_deref() != Ok("off");
    if !wanted {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        // By the stream itself, which libtest does not keep from being seen.
        let _ = writeln!(std::io::stderr(), "NOT DONE: {test}: {WANTED}=off, and it needs a broker");
    }
    wanted
}

/// A running node. Clones are the same node.
#[derive(Clone)]
pub struct Broker {
    name: Arc<str>,
    env: Arc<HashMap<String, String>>,
}

/// Messages that lie in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    pub ready: u64,
    pub unacked: u64,
}

impl Broker {
    fn start(name: &str, options: &[&str]) -> Self {
        Self { name: name.into(), env: Arc::new(start(name, std::process::id(), options)) }
    }

    /// What `scripts/broker start` printed.
    fn env(&self, key: &str) -> &str {
        self.env.get(key).unwrap_or_else(|| panic!("node '{}' was started without what gives {key}", self.name))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn port(&self) -> u16 {
        self.env("AMQP_PORT").parse().unwrap()
    }

    /// `amqp://guest:guest@127.0.0.1:PORT`, with no path.
    pub fn url(&self) -> &str {
        self.env("AMQP_URL")
    }

    pub fn management_url(&self) -> &str {
        self.env("MANAGEMENT_URL")
    }

    pub fn tls(&self) -> Tls {
        Tls {
            url: self.env("AMQPS_URL").to_owned(),
            port: self.env("AMQPS_PORT").parse().unwrap(),
            folder: self.env("TLS_FOLDER").into(),
        }
    }

    /// Runs `rabbitmqctl`: half a second of CPU.
    pub fn ctl(&self, args: &[&str]) -> String {
        script(&[&["ctl", &self.name, "--quiet"], args].concat())
    }

    /// As [`ctl`](Self::ctl), where a failure is an answer.
    pub fn try_ctl(&self, args: &[&str]) -> Result<String, String> {
        try_script(&[&["ctl", &self.name, "--quiet"], args].concat())
    }

    pub fn kill(&self) {
        script(&["kill", &self.name]);
    }

    /// Has the node write down which queues it has. It holds that back for up to 2 s (of `disk_log`), and one that is
    /// killed meanwhile has forgotten the queue, with the messages in it that were confirmed.
    pub fn write_down(&self) {
        self.ctl(&["eval", "mnesia:sync_log()."]);
    }

    pub fn restart(&self) {
        script(&["restart", &self.name]);
    }

    pub fn freeze(&self) {
        script(&["freeze", &self.name]);
    }

    pub fn thaw(&self) {
        script(&["thaw", &self.name]);
    }

    pub fn reset(&self) {
        script(&["reset", &self.name]);
    }

    /// A name that no other test has.
    pub fn fresh(&self, stem: &str) -> String {
        unique(stem)
    }

    /// What lies in a queue at this moment; none where there is no such queue. It asks the queue itself: what
    /// `list_queues` says of a quorum queue is up to 5 s old.
    pub fn depth(&self, queue: &str) -> Option<Depth> {
        const ASK: &str = "\
            case rabbit_amqqueue:lookup({resource, <<\"/\">>, queue, <<NAME>>}) of \
              {error, not_found} -> none; \
              {ok, Q} -> \
                case amqqueue:get_type(Q) of \
                  rabbit_quorum_queue -> \
                    Ask = fun(F) -> {ok, {_, N}, _} = ra:leader_query(amqqueue:get_pid(Q), F), N end, \
                    {Ask(fun rabbit_fifo:query_messages_ready/1), Ask(fun rabbit_fifo:query_messages_checked_out/1)}; \
                  _ -> \
                    [{_, Ready}, {_, Unacked}] = rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged]), \
                    {Ready, Unacked} \
                end \
            end.";
        let name: Vec<String> = queue.bytes().map(|byte| byte.to_string()).collect();
        let answer = self.ctl(&["eval", &ASK.replace("NAME", &name.join(","))]);
        if answer.trim() == "none" {
            return None;
        }
        let both = answer.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let (ready, unacked) = both.and_then(|both| both.split_once(',')).unwrap_or_else(|| panic!("{answer}"));
        Some(Depth { ready: ready.trim().parse().unwrap(), unacked: unacked.trim().parse().unwrap() })
    }

    /// Does something that blocks while the async test goes on.
    pub async fn aside<T: Send + 'static>(&self, work: impl FnOnce(&Broker) -> T + Send + 'static) -> T {
        let node = self.clone();
        tokio::task::spawn_blocking(move || work(&node)).await.unwrap()
    }
}

/// A node of one test: it is stopped when this is dropped.
pub struct Own(Broker);

impl std::ops::Deref for Own {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        &self.0
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // A panic within a panic would hide the first, and the node ends with the process anyway.
        if let Err(error) = try_script(&["stop", &self.0.name]) {
            let _ = writeln!(std::io::stderr(), "{error}");
        }
    }
}

/// How a node with `--tls` is reached (of Kafka the first), and certificates, good and bad: each name has a `.pem` and a `.key` (PKCS 8).
pub struct Tls {
    /// `amqps://guest:guest@localhost:PORT`, with no path, or `kafkas://127.0.0.1:PORT`.
    pub url: String,
    pub port: u16,
    pub folder: PathBuf,
}

/// A certificate that a server must not be believed with.
#[derive(Debug, Clone, Copy)]
pub enum Bad {
    /// By the known authority, and over since 2021.
    Expired,
    /// By the known authority, for `elsewhere.invalid`.
    WrongHost,
    /// Right in all but its authority.
    UnknownAuthority,
}

impl Tls {
    /// The authority that signed the node's certificate.
    pub fn ca(&self) -> PathBuf {
        self.pem("ca")
    }

    /// One that signed nothing of the node.
    pub fn unknown_ca(&self) -> PathBuf {
        self.pem("unknown-ca")
    }

    /// A client's certificate and key: `client` is `guest` by EXTERNAL, `nobody` a user who does not exist,
    /// `unknown-client` one `guest` whose authority the node does not know.
    pub fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.pem(name), self.folder.join(format!("{name}.key")))
    }

    fn pem(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pem"))
    }

    /// A server on 127.0.0.1 that presents a bad certificate, and records what it is told after the handshake.
    pub fn impostor(&self, bad: Bad) -> Impostor {
        let pair = match bad {
            Bad::Expired => "expired",
            Bad::WrongHost => "wrong-host",
            Bad::UnknownAuthority => "unknown",
        };
        let (cert, key) = self.client(pair);
        Impostor::start(&cert, &key)
    }
}

/// A TLS server that is no broker. It ends when it is dropped.
pub struct Impostor {
    server: Child,
    pub port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Impostor {
    fn start(cert: &Path, key: &Path) -> Self {
        let mut server = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert"])
            .arg(cert)
            .arg("-key")
            .arg(key)
            .stdin(Stdio::piped()) // at its end the server would end
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl starts");
        let mut out = BufReader::new(server.stdout.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "openssl s_server ended before it listened");
            if let Some(address) = line.trim().strip_prefix("ACCEPT ") {
                break address.rsplit(':').next().unwrap().parse().unwrap();
            }
        };
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        // Ends with the server.
        std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(len @ 1..) = out.read(&mut some) {
                into.lock().unwrap().extend_from_slice(&some[..len]);
            }
        });
        Self { server, port, heard }
    }

    /// Whether a client of RabbitMQ or Kafka spoke to it: then it believed the certificate. A password would have come next.
    pub fn was_believed(&self) -> bool {
        let heard = self.heard.lock().unwrap();
        let said = |what: &[u8]| heard.windows(what.len()).any(|some| some == what);
        said(b"AMQP") || said(b"rdkafka")
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Whether a node greets a client on this port within the time.
pub fn greets(port: u16, within: Duration) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(within)).unwrap();
    stream.write_all(b"AMQP\x00\x00\x09\x01").is_ok() && matches!(stream.read(&mut [0; 1]), Ok(1))
}

/// Starts or joins a node for a process, and says what the script printed.
pub fn start(name: &str, owner: u32, options: &[&str]) -> HashMap<String, String> {
    let printed = script(&[&["start", name, "--owner", &owner.to_string()], options].concat());
    printed.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

pub fn script(args: &[&str]) -> String {
    try_script(args).unwrap_or_else(|error| panic!("{error}"))
}

pub fn try_script(args: &[&str]) -> Result<String, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = here.ancestors().map(|folder| folder.join("scripts/broker")).find(|path| path.exists());
    let script = script.ok_or("no scripts/broker above this package")?;
    let output = Command::new(&script).args(args).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Err(format!("scripts/broker {} failed ({}):\n{said}", args.join(" "), output.status))
}
