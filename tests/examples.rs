//! The examples as processes: each starts, works, and ends as a process of Longshore should.
//!
//! `LONGSHORE_TEST_REPEATS` (5) and `LONGSHORE_TEST_ORDERS` (200) say how often and how long the quickstart is
//! interrupted.

#[cfg(feature = "amqp")]
#[path = "support/broker.rs"]
mod broker;

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A process that has not ended by then is taken for hung; the longest has a deadline of 25 s.
const HUNG: Duration = Duration::from_secs(60);
/// From start to exit of an example that is stopped while it works.
const START_TO_EXIT: Duration = Duration::from_secs(5);
/// Quickstarts at a time: they mostly sleep, but share the disk.
const AT_A_TIME: usize = 3;

/// Where cargo puts the examples of this build, which are built once.
fn examples() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // …/target/PROFILE/deps/examples-HASH
        let this = std::env::current_exe().unwrap();
        let profile = this.parent().and_then(Path::parent).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--examples",
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ]);
        if cfg!(feature = "amqp") {
            cargo.args(["--features", "amqp"]);
        }
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the examples do not build");
        profile.join("examples")
    })
}

/// A file, or a folder with a `main.rs`; where there is a broker for it, also what needs one.
fn names() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let programs = entries.filter(|path| path.extension().is_some() || path.join("main.rs").exists());
    let mut names: Vec<String> = programs.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    assert!(names.len() >= 6, "{names:?}");
    names.retain(|name| name != "rabbitmq" || broker().is_some());
    names
}

/// Where the broker of these tests is.
#[cfg(feature = "amqp")]
fn broker() -> Option<String> {
    broker::shared().map(|node| node.url().to_owned())
}

#[cfg(not(feature = "amqp"))]
fn broker() -> Option<String> {
    None
}

/// An example that runs.
struct Run {
    child: Child,
    began: Instant,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
    first_log_line: Receiver<()>,
}

/// An example that has ended.
struct Ended {
    /// The exit code, where it was not killed.
    code: Option<i32>,
    took: Duration,
    stdout: String,
    stderr: String,
}

impl Run {
    fn start(name: &str, folder: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(examples().join(name));
        command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(url) = broker() {
            command.env("AMQP_URL", url);
        }
        let began = Instant::now();
        let mut child = command.spawn().unwrap();
        let (mut out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).unwrap();
            text
        });
        let (tell, first_log_line) = channel();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let mut lines = BufReader::new(err);
            while lines.read_line(&mut text).unwrap() > 0 {
                let _ = tell.send(());
            }
            text
        });
        let run = Self { child, began, stdout: Some(stdout), stderr: Some(stderr), first_log_line };
        // From its first log line on, a signal does not end a process by itself.
        run.first_log_line.recv_timeout(HUNG).unwrap_or_else(|_| panic!("{name}: no log line"));
        run
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is not waited for yet");
    }

    fn end(mut self) -> Ended {
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if self.began.elapsed() > HUNG => {
                    self.signal(Signal::QUIT);
                    std::thread::sleep(Duration::from_millis(200));
                    self.signal(Signal::KILL);
                    panic!("hung: {}", self.stderr.take().unwrap().join().unwrap());
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let took = self.began.elapsed();
        let text = |thread: Option<JoinHandle<String>>| thread.unwrap().join().unwrap();
        Ended { code: status.code(), took, stdout: text(self.stdout.take()), stderr: text(self.stderr.take()) }
    }
}

#[test]
fn every_example_ends_by_itself_and_well() {
    for name in names() {
        let folder = tempfile::tempdir().unwrap();
        let args: &[&str] = if name == "quickstart" { &["--orders", "50"] } else { &[] };
        let ended = Run::start(&name, folder.path(), args).end();
        assert_eq!(ended.code, Some(0), "{name}: {}", ended.stderr);
        assert!(!ended.stdout.is_empty(), "{name} shows nothing");
    }
}

#[test]
fn every_example_that_gets_a_sigterm_ends_soon_and_well() {
    for name in names() {
        for after in [0, 10, 50, 200] {
            let folder = tempfile::tempdir().unwrap();
            let run = Run::start(&name, folder.path(), &[]);
            std::thread::sleep(Duration::from_millis(after));
            run.signal(Signal::TERM);
            let ended = run.end();
            assert_eq!(ended.code, Some(0), "{name}, {after} ms: {}", ended.stderr);
            assert!(ended.took < START_TO_EXIT, "{name}, {after} ms: {:?}", ended.took);
        }
    }
}

/// The ledger of a process, which stands on the last line but one.
#[derive(Debug, PartialEq, Eq)]
struct Ledger {
    sent: u64,
    handled: u64,
    waiting: u64,
    duplicated: u64,
    lost: u64,
    bound: u64,
}

impl Ended {
    fn ledger(&self) -> Ledger {
        let lines: Vec<&str> = self.stdout.lines().collect();
        let [.., ledger, next] = lines[..] else { panic!("no ledger in {:?}\n{}", self.stdout, self.stderr) };
        assert!(next.starts_with("next: "), "{next:?}");
        let mut rest = ledger.strip_prefix("ledger: ").unwrap_or_else(|| panic!("{ledger:?}")).split(", ");
        let mut field = |name: &str| -> u64 {
            let value = rest.next().and_then(|field| field.strip_prefix(name)?.strip_prefix(' '));
            value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {ledger:?}"))
        };
        let (sent, handled, waiting) = (field("sent"), field("handled"), field("waiting"));
        Ledger { sent, handled, waiting, duplicated: field("duplicated"), lost: field("lost"), bound: field("bound") }
    }

    /// `resuming: 412 done, 588 waiting`
    fn resumed(&self) -> Option<(u64, u64)> {
        let line = self.stdout.lines().find_map(|line| line.strip_prefix("resuming: "))?;
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        Some((numbers[0], numbers[1]))
    }
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// Interrupts the quickstart at a random moment and starts it again; each time in a folder of its own.
fn interrupted(signal: Signal, check: impl Fn(&Ended, &Ended, u64) + Sync) {
    let orders = from_env("LONGSHORE_TEST_ORDERS", 200);
    let left = Mutex::new(from_env("LONGSHORE_TEST_REPEATS", 5));
    examples();
    let one = || {
        let folder = tempfile::tempdir().unwrap();
        let args = ["--orders", &orders.to_string()];
        let first = Run::start("quickstart", folder.path(), &args);
        // A hundred orders are handled in a second.
        let after = Duration::from_millis(fastrand::u64(0..orders * 10));
        std::thread::sleep(after);
        first.signal(signal);
        let first = first.end();
        let second = Run::start("quickstart", folder.path(), &args).end();
        println!("after {after:?}: {}{}", first.stdout, second.stdout);
        check(&first, &second, orders);
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(rest) = { left.lock().unwrap().checked_sub(1) } {
                    *left.lock().unwrap() = rest;
                    one();
                }
            });
        }
    });
}

#[test]
fn a_quickstart_stopped_by_sigterm_at_any_moment_loses_nothing_and_does_nothing_twice() {
    interrupted(Signal::TERM, |first, second, orders| {
        assert_eq!((first.code, second.code), (Some(0), Some(0)), "{}\n{}", first.stderr, second.stderr);
        let (before, after) = (first.ledger(), second.ledger());
        assert_eq!((before.lost, before.duplicated), (0, 0), "{before:?}");
        assert_eq!(before.sent, before.handled + before.waiting, "{before:?}");
        assert_eq!(after, Ledger { sent: orders, handled: orders, waiting: 0, duplicated: 0, lost: 0, bound: 64 });
        // Nothing to go on with: it was stopped before its first order, or after its last.
        let done = before.handled == orders || before.sent == 0;
        match second.resumed() {
            Some(resumed) => assert_eq!(resumed, (before.handled, before.waiting)),
            None => assert!(done, "{before:?}"),
        }
    });
}

#[test]
fn a_quickstart_killed_at_any_moment_loses_nothing_and_repeats_no_more_than_its_window() {
    interrupted(Signal::KILL, |first, second, orders| {
        assert_eq!((first.code, second.code), (None, Some(0)), "{}\n{}", first.stderr, second.stderr);
        let after = second.ledger();
        assert_eq!((after.sent, after.handled, after.waiting, after.lost), (orders, orders, 0, 0), "{after:?}");
        assert!(after.duplicated <= after.bound, "{after:?}");
        assert_eq!(after.bound, 64, "{after:?}");
    });
}

#[test]
fn a_quickstart_whose_store_is_gone_says_what_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let first = Run::start("quickstart", folder.path(), &["--orders", "300"]);
    std::thread::sleep(Duration::from_millis(1_500));
    first.signal(Signal::TERM);
    let before = first.end().ledger();
    assert!(before.waiting > 0, "{before:?}");
    for entry in std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()) {
        if !entry.file_name().to_str().unwrap().ends_with(".ledger") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let ended = Run::start("quickstart", folder.path(), &["--orders", "300"]).end();
    let after = ended.ledger();
    assert_eq!((after.lost, after.waiting), (before.waiting, 0), "{after:?}\n{}", ended.stderr);
}

#[test]
fn a_quickstart_after_a_finished_one_begins_a_new_run() {
    let folder = tempfile::tempdir().unwrap();
    for orders in [20, 30] {
        let ended = Run::start("quickstart", folder.path(), &["--orders", &orders.to_string()]).end();
        assert_eq!((ended.code, ended.resumed()), (Some(0), None), "{}", ended.stderr);
        assert_eq!((ended.ledger().sent, ended.ledger().handled, ended.ledger().lost), (orders, orders, 0));
    }
}

#[test]
fn two_quickstarts_on_one_store_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let first = Run::start("quickstart", folder.path(), &["--forever"]);
    // The store is there once the ledger is.
    while !folder.path().join("quickstart.db").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = Run::start("quickstart", folder.path(), &[]).end();
    first.signal(Signal::INT);
    let first = first.end();
    assert_eq!((second.code, first.code), (Some(1), Some(0)), "{}", first.stderr);
    assert!(second.stderr.contains("another quickstart works on"), "{}", second.stderr);
    assert_eq!(first.ledger().lost, 0);
}
