//! What tests of whole apps share: a log that can be awaited, and a transport that does what a test says.

#![allow(dead_code, reason = "each test file uses its part of it")]

pub mod scripted;

use longshore::message::Message;
use longshore::prelude::*;
use longshore::transport::memory::Memory;
use longshore::transport::{Transport, Url};
use longshore::{Running, Stopped};
use std::future::Future;
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Whoever waits longer has found a hang.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("this did not happen within {PATIENCE:?}: {what}"),
    }
}

/// What handlers saw, in order; tests wait until it is enough.
pub struct Log<T> {
    all: Arc<Mutex<Vec<T>>>,
    grown: watch::Sender<usize>,
}

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self { all: self.all.clone(), grown: self.grown.clone() }
    }
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self { all: Arc::default(), grown: watch::Sender::new(0) }
    }
}

impl<T: Clone> Log<T> {
    pub fn push(&self, entry: T) {
        let mut all = self.all.lock().unwrap();
        all.push(entry);
        let len = all.len();
        drop(all);
        self.grown.send_replace(len);
    }

    pub fn all(&self) -> Vec<T> {
        self.all.lock().unwrap().clone()
    }

    pub fn len(&self) -> usize {
        self.all.lock().unwrap().len()
    }

    /// Waits for so many entries.
    pub async fn until(&self, len: usize) -> Vec<T> {
        let mut grown = self.grown.subscribe();
        soon(&format!("{len} entries in the log"), grown.wait_for(|now| *now >= len)).await.unwrap();
        self.all()
    }
}

/// Lets handlers wait for the test: closed until it is opened.
#[derive(Clone)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub fn close(&self) {
        self.0.send_replace(false);
    }

    pub async fn pass(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// Polls a condition that nothing announces.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Starts an app and waits until it is ready.
pub async fn started(app: App) -> Running {
    let running = app.start(&Handle::current()).await.unwrap();
    assert!(soon("the app is ready", running.ready()).await, "the app did not start");
    running
}

/// Stops an app and waits for its end.
pub async fn stopped(mut running: Running) -> Stopped {
    running.stop();
    ended(&mut running).await
}

/// Waits for the end of an app.
pub async fn ended(running: &mut Running) -> Stopped {
    let stopped = soon("the app stops", running.wait()).await;
    assert_eq!(stopped.report()["total"]["unaccounted"], 0, "{}", stopped.table());
    stopped
}

/// A count of a worker in the report.
pub fn count(stopped: &Stopped, worker: &str, of: &str) -> u64 {
    actor(stopped, worker)[of].as_u64().unwrap_or_else(|| panic!("'{of}' of '{worker}' in {}", stopped.report()))
}

/// An actor of the report.
pub fn actor(stopped: &Stopped, name: &str) -> serde_json::Value {
    let report = stopped.report();
    let mut all =
        ["workers", "others"].into_iter().flat_map(|part| report[part].as_array().cloned().unwrap_or_default());
    all.find(|actor| actor["name"] == name).unwrap_or_else(|| panic!("'{name}' in {report}"))
}

/// Everything that lies in a queue, without taking it; nothing where there is no such queue.
pub async fn content(transport: &impl Transport, url: &str) -> Vec<Message> {
    let url = Url::parse(url).unwrap();
    let mut found = Vec::new();
    let mut shelf = match transport.shelf(&url).await {
        Ok(shelf) => shelf,
        Err(error) if error.to_string().contains("does not exist") => return found,
        Err(error) => panic!("{error}"),
    };
    loop {
        let slab = shelf.read(256).await.unwrap();
        if slab.is_empty() {
            return found;
        }
        found.extend(slab.iter().map(|message| message.to_message()));
    }
}

pub fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.get(name).map(|value| std::str::from_utf8(value).unwrap())
}

/// A message of a number, as JSON, under a key.
pub fn numbered(number: u32, key: impl std::fmt::Display) -> Message {
    Message::new(number.to_string()).with_key(key.to_string())
}

/// An app on in-process queues of its own.
pub fn app(name: &str) -> (App, Memory) {
    let memory = Memory::new();
    (App::new(name).transport(memory.clone()).stop_deadline(Duration::from_secs(20)), memory)
}

/// Retries that do not hold up a test.
pub fn quickly(attempts: u32) -> Retry {
    Retry::fixed(Duration::from_millis(2)).attempts(attempts)
}
