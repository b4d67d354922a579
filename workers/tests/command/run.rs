//! Running the binary, and what it says.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Whatever hangs, a test fails after so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The counts of the last line of stderr, which every command has.
    pub fn counts(&self) -> BTreeMap<String, i64> {
        let last = self.stderr.lines().last().unwrap_or_default();
        let named =
            last.strip_prefix("counts ").unwrap_or_else(|| panic!("the last line is no counts:\n{}", self.stderr));
        let counts: BTreeMap<String, i64> = named
            .split(' ')
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, count)| (name.to_owned(), count.parse().unwrap()))
            .collect();
        assert_eq!(counts.len(), 9, "{last}");
        assert_eq!(counts["unaccounted"], 0, "{last}");
        counts
    }

    /// One of the counts.
    pub fn count(&self, name: &str) -> i64 {
        self.counts()[name]
    }

    /// The same, having ended with this code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        self.counts();
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        self
    }

    /// The same, having said this on stderr.
    #[track_caller]
    pub fn said(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} is missing in\n{}", self.stderr);
        self
    }

    /// The values of a line of JSON on stdout.
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A command that runs.
pub struct Started {
    pub child: Child,
    out: Option<JoinHandle<String>>,
    err: JoinHandle<String>,
    lines: mpsc::Receiver<String>,
}

/// Starts `longshore` in a folder. Standard input stays open; standard output is the caller's where `keep` says so.
fn start_with(dir: &Path, args: &[&str], keep: bool) -> Started {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    for (name, _) in std::env::vars() {
        if name.starts_with("LONGSHORE_") {
            command.env_remove(name);
        }
    }
    command.args(args).current_dir(dir).env_remove("RUST_LOG").env_remove("SHUTDOWN_TIMEOUT");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    let err = BufReader::new(child.stderr.take().unwrap());
    let (tell, lines) = mpsc::channel();
    let err = std::thread::spawn(move || {
        let mut all = String::new();
        for line in err.lines().map_while(Result::ok) {
            all.push_str(&line);
            all.push('\n');
            let _ = tell.send(line);
        }
        all
    });
    let out = (!keep).then(|| {
        let mut out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut all = Vec::new();
            out.read_to_end(&mut all).unwrap();
            String::from_utf8(all).unwrap()
        })
    });
    Started { child, out, err, lines }
}

/// Starts a command.
pub fn start(dir: &Path, args: &[&str]) -> Started {
    start_with(dir, args, false)
}

/// Starts a command whose standard output the test reads itself.
pub fn start_unread(dir: &Path, args: &[&str]) -> Started {
    start_with(dir, args, true)
}

impl Started {
    /// Waits until it says on stderr that it is ready.
    pub fn ready(&self) {
        let until = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if line.contains("\"event\":\"ready\"") {
                return;
            }
        }
        panic!("it is not ready");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Closes standard input and waits for the end.
    pub fn end(mut self) -> Ran {
        drop(self.child.stdin.take());
        let until = Instant::now() + PATIENCE;
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            if Instant::now() > until {
                let _ = self.child.kill();
                panic!("it does not end:\n{}", self.err.join().unwrap());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let stdout = self.out.map_or_else(String::new, |out| out.join().unwrap());
        Ran { code, stdout, stderr: self.err.join().unwrap() }
    }
}

/// Runs a command to its end with this standard input.
pub fn run_with(dir: &Path, args: &[&str], input: &str) -> Ran {
    let mut started = start(dir, args);
    let mut stdin = started.child.stdin.take().unwrap();
    // A command that reads none may have ended already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    started.end()
}

/// Runs a command to its end.
pub fn run(dir: &Path, args: &[&str]) -> Ran {
    run_with(dir, args, "")
}

/// Waits until something holds.
pub fn until(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "it never holds");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What waits in a source.
pub fn waiting(dir: &Path, source: &str) -> u64 {
    let ran = run(dir, &["inspect", source, "--json"]);
    // A store or queue that is not there yet holds nothing.
    if ran.code == Some(78) { 0 } else { ran.ended(0).json()[0]["waiting"].as_u64().unwrap() }
}
