//! Real Kafka for tests, started by `scripts/broker`: as `broker.rs` beside it, whose module a test names too. All that
//! waits here blocks its thread: an async test that goes on meanwhile asks by [`Kafka::aside`].

#![allow(dead_code, reason = "each test file uses its part of it")]

use super::broker::{JOIN, Tls, script, start, try_script, unique, wanted};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The node that tests of this process share; none if `LONGSHORE_TEST_BROKERS=off`. Who kills, freezes or restarts one
/// takes [`own`].
///
/// Panics if the node does not start: a test that needs it fails.
pub fn shared() -> Option<Kafka> {
    static SHARED: OnceLock<Option<Kafka>> = OnceLock::new();
    SHARED
        .get_or_init(|| {
            let name = std::env::var(JOIN).unwrap_or_else(|_| format!("test-{}", std::process::id()));
            wanted().then(|| Kafka::start(&format!("{name}-kafka"), &[]))
        })
        .clone()
}

/// Nodes of this test alone, which end with it; none if `LONGSHORE_TEST_BROKERS=off`. Options are those of
/// `scripts/broker start --kafka`: `--nodes 3`, `--tls`, `--sasl`, `--proxy`, `--version 3.9.1`, `--set KEY=VALUE`.
pub fn own(options: &[&str]) -> Option<Own> {
    wanted().then(|| Own(Kafka::start(&unique("test-kafka"), options)))
}

/// One running node or several, which count from 1. Clones are the same.
#[derive(Clone)]
pub struct Kafka {
    name: Arc<str>,
    env: Arc<HashMap<String, String>>,
}

impl Kafka {
    fn start(name: &str, options: &[&str]) -> Self {
        let env = start(name, std::process::id(), &[&["--kafka"], options].concat());
        Self { name: name.into(), env: Arc::new(env) }
    }

    /// What `scripts/broker start` printed.
    fn env(&self, key: &str) -> &str {
        self.env.get(key).unwrap_or_else(|| panic!("'{}' was started without what gives {key}", self.name))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `127.0.0.1:PORT`, and so for every node, with commas between.
    pub fn bootstrap(&self) -> &str {
        self.env("KAFKA_BOOTSTRAP")
    }

    /// `kafka://127.0.0.1:PORT`, with no topic. Who comes by it may do everything.
    pub fn url(&self) -> &str {
        self.env("KAFKA_URL")
    }

    /// Of each node, in their order.
    pub fn ports(&self) -> Vec<u16> {
        let ports = self.bootstrap().split(',').map(|address| address.rsplit(':').next().unwrap().parse().unwrap());
        ports.collect()
    }

    /// With `--proxy`: where a proxy has to listen, and for which port of the first node. Clients that come to the first
    /// stay with it: `Proxy::between(port, server)`.
    pub fn proxy_ports(&self) -> (u16, u16) {
        let port = |key| self.env(key).parse().unwrap();
        (port("KAFKA_PROXY_PORT"), port("KAFKA_PROXIED_PORT"))
    }

    /// With `--tls`.
    pub fn tls(&self) -> Tls {
        let first = self.env("KAFKAS_BOOTSTRAP").split(',').next().unwrap();
        Tls {
            url: self.env("KAFKAS_URL").to_owned(),
            port: first.rsplit(':').next().unwrap().parse().unwrap(),
            folder: self.env("TLS_FOLDER").into(),
        }
    }

    /// With `--sasl`: `kafka://guest:guest-password@127.0.0.1:PORT`, by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. `guest`
    /// may do everything.
    pub fn sasl_url(&self) -> &str {
        self.env("KAFKA_SASL_URL")
    }

    /// The same for `nobody`, who may do what a test lets him: `ctl(&["acls", "--add", …])`.
    pub fn nobody_url(&self) -> &str {
        self.env("KAFKA_NOBODY_URL")
    }

    /// With `--sasl`: as [`bootstrap`](Self::bootstrap).
    pub fn sasl_bootstrap(&self) -> &str {
        self.env("KAFKA_SASL_BOOTSTRAP")
    }

    /// With `--tls` and `--sasl`: `kafkas://guest:guest-password@127.0.0.1:PORT`.
    pub fn tls_sasl_url(&self) -> &str {
        self.env("KAFKAS_SASL_URL")
    }

    /// Runs one of Kafka's commands, as `topics`, `configs`, `acls`, `consumer-groups`: a second of CPU.
    pub fn ctl(&self, args: &[&str]) -> String {
        script(&[&["ctl", &self.name], args].concat())
    }

    /// As [`ctl`](Self::ctl), where a failure is an answer.
    pub fn try_ctl(&self, args: &[&str]) -> Result<String, String> {
        try_script(&[&["ctl", &self.name], args].concat())
    }

    /// Makes a topic, which each node keeps.
    pub fn create(&self, topic: &str, partitions: u32) {
        self.ctl(&["topics", "--create", "--topic", topic, "--partitions", &partitions.to_string()]);
    }

    /// All nodes.
    pub fn kill(&self) {
        script(&["kill", &self.name]);
    }

    /// One of several.
    pub fn kill_node(&self, node: u32) {
        script(&["kill", &self.name, &node.to_string()]);
    }

    /// One by one as an upgrade does, and the dead. A killed node is let in again 4 s after its end.
    pub fn restart(&self) {
        script(&["restart", &self.name]);
    }

    pub fn restart_node(&self, node: u32) {
        script(&["restart", &self.name, &node.to_string()]);
    }

    pub fn freeze(&self) {
        script(&["freeze", &self.name]);
    }

    pub fn freeze_node(&self, node: u32) {
        script(&["freeze", &self.name, &node.to_string()]);
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

    /// Does something that blocks while the async test goes on.
    pub async fn aside<T: Send + 'static>(&self, work: impl FnOnce(&Kafka) -> T + Send + 'static) -> T {
        let kafka = self.clone();
        tokio::task::spawn_blocking(move || work(&kafka)).await.unwrap()
    }
}

/// Nodes of one test: they are stopped when this is dropped.
pub struct Own(Kafka);

impl std::ops::Deref for Own {
    type Target = Kafka;

    fn deref(&self) -> &Kafka {
        &self.0
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // A panic within a panic would hide the first, and the nodes end with the process anyway.
        if let Err(error) = try_script(&["stop", &self.0.name]) {
            let _ = writeln!(std::io::stderr(), "{error}");
        }
    }
}

/// Whether a node answers a client on this port within the time.
pub fn answers(port: u16, within: Duration) -> bool {
    // Length, ApiVersions version 0, correlation, no client's name.
    const ASK: &[u8] = b"\0\0\0\x0a\0\x12\0\0\0\0\0\0\xff\xff";
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(within)).unwrap();
    stream.write_all(ASK).is_ok() && matches!(stream.read(&mut [0; 1]), Ok(1))
}
