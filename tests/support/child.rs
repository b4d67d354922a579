//! Child processes of a test program: the program starts itself again, and its `main` is then the app's.
//!
//! A child says on its stdout what it has come to, a line that begins with `@` each; stderr is Longshore's.

#![allow(dead_code, reason = "each test program uses its part of it")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Which life a child leads.
const ROLE: &str = "LONGSHORE_TEST_ROLE";

/// Nobody waits longer for anything, and no child lives longer, whatever is broken.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Whether every repeat and every time-out is to be as long as the promise says, instead of a tenth.
pub fn full() -> bool {
    std::env::var_os("LONGSHORE_TEST_FULL").is_some_and(|value| value != "0")
}

/// A life of a child, by name.
pub type Life = (&'static str, fn() -> ExitCode);

/// In a child, leads its life; else returns `None`.
pub fn child(lives: &[Life]) -> Option<ExitCode> {
    let role = std::env::var(ROLE).ok()?;
    let (_, life) = lives.iter().find(|(name, _)| *name == role).expect("a life of that name");
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE);
        rustix::process::kill_process(rustix::process::getpid(), Signal::KILL)
    });
    Some(life())
}

/// Tells the parent.
pub fn say(what: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    // In one write, so that lines of several threads and of a killed child stay whole.
    let _ = out.write_all(format!("@ {what}\n").as_bytes());
    let _ = out.flush();
}

/// What a child is given besides its name.
pub fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("a child is given {name}"))
}

/// A child at work.
pub struct Puppet {
    child: Child,
    said: Receiver<String>,
    logged: Receiver<String>,
    stdout: Vec<String>,
    stderr: Vec<String>,
}

/// A child that has ended.
pub struct Ended {
    status: ExitStatus,
    /// When it was waited for.
    pub at: Instant,
    /// All lines.
    pub stdout: Vec<String>,
    /// All lines.
    pub stderr: Vec<String>,
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            line.clear();
            if tell.send(text).is_err() {
                return;
            }
        }
    });
    lines
}

/// The command that starts a child of that role, with nothing of Longshore's in its environment.
pub fn command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test program has a path"));
    clean(&mut command, role);
    command
}

/// The same by way of another program, which is given the child's path as its last argument.
pub fn command_by(program: &str, arguments: &[&str], role: &str) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).arg(std::env::current_exe().expect("a test program has a path"));
    clean(&mut command, role);
    command
}

fn clean(command: &mut Command, role: &str) {
    let of_the_app = ["SHUTDOWN_TIMEOUT", "TERMINATION_GRACE_SECONDS", "PRESTOP_SECONDS", "RUST_LOG", "NO_COLOR"];
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("LONGSHORE_") || of_the_app.contains(&name)) {
            command.env_remove(&name);
        }
    }
    command.env(ROLE, role).env("LONGSHORE_ADMIN_LISTEN", "off").stdin(Stdio::null());
}

impl Puppet {
    /// Starts a child of that role with these variables.
    pub fn start(role: &str, set: &[(&str, &str)]) -> Self {
        let mut command = command(role);
        command.envs(set.iter().copied());
        Self::of(command)
    }

    /// Starts what [`command`] made, with stdout and stderr read.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a child");
        let said = lines(child.stdout.take().expect("a pipe"));
        let logged = lines(child.stderr.take().expect("a pipe"));
        Self { child, said, logged, stdout: Vec::new(), stderr: Vec::new() }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What goes to its stdin; dropping it is the end of that.
    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("stdin is a pipe")
    }

    fn next(&mut self, of_log: bool, wanted: &str) -> String {
        let from = if of_log { &self.logged } else { &self.said };
        match from.recv_timeout(PATIENCE) {
            Ok(line) => {
                if of_log { &mut self.stderr } else { &mut self.stdout }.push(line.clone());
                line
            }
            Err(why) => {
                while let Ok(line) = self.logged.recv_timeout(Duration::from_millis(100)) {
                    self.stderr.push(line);
                }
                let why = if why == RecvTimeoutError::Timeout { "nothing came" } else { "it ended" };
                panic!("waited for {wanted}: {why}; stdout {:#?}\nstderr {:#?}", self.stdout, self.stderr);
            }
        }
    }

    /// Waits until it says a line that begins so; the rest of it.
    pub fn hear(&mut self, begin: &str) -> String {
        loop {
            let line = self.next(false, begin);
            if let Some(rest) = line.strip_prefix("@ ").and_then(|said| said.strip_prefix(begin)) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Waits for any line of stderr.
    pub fn first_line(&mut self) -> String {
        self.next(true, "a first line")
    }

    /// Waits for a line of stderr that holds this.
    pub fn log(&mut self, wanted: &str) -> String {
        loop {
            let line = self.next(true, wanted);
            if line.contains(wanted) {
                return line;
            }
        }
    }

    /// Waits for the log line of an event, unless it has been read already: what several threads log has no order.
    pub fn event(&mut self, event: &str) -> Value {
        let wanted = format!("\"event\":\"{event}\"");
        let seen = self.stderr.iter().find(|line| line.contains(&wanted)).cloned();
        let line = seen.unwrap_or_else(|| self.log(&wanted));
        serde_json::from_str(&line).expect("a log line is JSON")
    }

    /// Sends a signal; when.
    pub fn send(&self, signal: Signal) -> Instant {
        let at = Instant::now();
        kill_process(Pid::from_child(&self.child), signal).expect("the child is there");
        at
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        let status = self.child.wait().expect("a child can be waited for");
        let at = Instant::now();
        let rest = |from: &Receiver<String>, mut all: Vec<String>| {
            all.extend(from.iter());
            all
        };
        let stdout = rest(&self.said, std::mem::take(&mut self.stdout));
        let stderr = rest(&self.logged, std::mem::take(&mut self.stderr));
        Ended { status, at, stdout, stderr }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Its exit code; −1 where a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// All of stderr.
    pub fn log(&self) -> String {
        self.stderr.join("\n")
    }

    /// Says so with all of stderr where the exit code is another.
    #[track_caller]
    pub fn exited(&self, code: i32) {
        assert_eq!(self.code(), code, "{:?}\n{}", self.status, self.log());
    }

    /// Says so with all of stderr where it is not there.
    #[track_caller]
    pub fn names(&self, wanted: &str) {
        assert!(self.log().contains(wanted), "no '{wanted}' in\n{}", self.log());
    }

    /// The shutdown report: the last line of stderr, and the only one of its kind.
    #[track_caller]
    pub fn report(&self) -> Value {
        let of_event = |line: &&String| line.contains("\"shutdown_report\"");
        let found: Vec<&String> = self.stderr.iter().filter(of_event).collect();
        assert_eq!(found.len(), 1, "one line is the report\n{}", self.log());
        assert_eq!(Some(found[0]), self.stderr.last(), "the report is the last line");
        let report: Value = serde_json::from_str(found[0]).expect("the report is JSON");
        assert_eq!(report["exit_code"], self.code(), "the report says how the process ended");
        let workers = report["workers"].as_array().expect("workers");
        for counts in workers.iter().chain([&report["total"]]) {
            assert_eq!(counts["unaccounted"], 0, "counts add up: {counts}");
        }
        for name in ["received", "acked", "retried", "dead_lettered", "discarded", "returned", "abandoned", "unknown"] {
            let sum: i64 = workers.iter().map(|worker| worker[name].as_i64().expect("a count")).sum();
            assert_eq!(report["total"][name], sum, "{name} of all workers: {report}");
        }
        report
    }

    /// An actor of the report.
    #[track_caller]
    pub fn actor(&self, name: &str) -> Value {
        let report = self.report();
        let all = ["workers", "others"].into_iter().flat_map(|kind| report[kind].as_array().expect("a list").clone());
        all.into_iter().find(|actor| actor["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
    }
}

/// Fills a queue with messages `{"n":0,"k":"k0"}` and on, `keys` keys in turn; the app under test is not involved.
pub fn fill(folder: &std::path::Path, url: &str, messages: usize, keys: usize) {
    use longshore::{App, Bridge};
    let path = folder.join("fill.ndjson");
    let lines: String = (0..messages).map(|n| format!("{{\"n\":{n},\"k\":\"k{}\"}}\n", n % keys)).collect();
    std::fs::write(&path, lines).expect("a file of lines");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bridge = Bridge::new("fill", format!("file:{}?key=/k", path.display()), url);
        let app = App::new("fill").bridge(bridge).start(&tokio::runtime::Handle::current()).await;
        let stopped = app.expect("an app that is right").wait().await;
        assert_eq!(stopped.exit_code(), 0, "{}", stopped.table());
        assert_eq!(stopped.report()["total"]["acked"], messages);
    });
}
