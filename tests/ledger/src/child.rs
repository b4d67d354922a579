//! Processes of a run: this program again, in another role.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a process is asked whether it has ended: what a measured exit may be too late by.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long a process is waited for that has logged nothing yet.
const START: Duration = Duration::from_secs(10);

/// A process in its role; killed when it is dropped.
pub struct Role {
    name: String,
    child: Child,
    stderr: PathBuf,
}

/// A role that has ended.
pub struct Ended {
    /// Which.
    pub name: String,
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Its shutdown report, where it wrote one.
    pub report: Option<Value>,
}

impl Ended {
    /// A count of the report, over all workers.
    pub fn count(&self, name: &str) -> i64 {
        self.report.as_ref().and_then(|report| report["total"][name].as_i64()).unwrap_or(0)
    }
}

impl Role {
    /// Starts a role of this program. Its stdout and stderr go to files in the folder, under its name.
    pub fn start(folder: &Path, name: &str, arguments: &[String]) -> io::Result<Self> {
        Self::with_stdout(folder, name, arguments, |path| Ok(Stdio::from(File::create(path)?)))
    }

    /// Starts a role and waits for the first line on its stdout, which says that it is there.
    pub fn start_and_hear(folder: &Path, name: &str, arguments: &[String]) -> io::Result<Self> {
        let mut role = Self::with_stdout(folder, name, arguments, |_| Ok(Stdio::piped()))?;
        let mut line = String::new();
        BufReader::new(role.child.stdout.take().expect("it is a pipe")).read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::Error::other(format!("{name} did not start: see {}", role.stderr.display())));
        }
        Ok(role)
    }

    fn with_stdout(
        folder: &Path,
        name: &str,
        arguments: &[String],
        stdout: impl FnOnce(&Path) -> io::Result<Stdio>,
    ) -> io::Result<Self> {
        let stderr = folder.join(format!("{name}.err"));
        let child = Command::new(std::env::current_exe()?)
            .args(arguments)
            // Its end is the end of whoever started it.
            .stdin(Stdio::piped())
            .stdout(stdout(&folder.join(format!("{name}.out")))?)
            .stderr(File::create(&stderr)?)
            .spawn()?;
        Ok(Self { name: name.to_owned(), child, stderr })
    }

    /// Waits until it has logged something: then it obeys signals. Returns as well when it ends or that does not come.
    pub fn wait_until_it_obeys(&mut self) -> io::Result<()> {
        let began = Instant::now();
        while fs::metadata(&self.stderr)?.len() == 0 && began.elapsed() < START && !self.has_ended()? {
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Sends a signal; a process that has ended takes none, which its exit code will tell.
    pub fn send(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end; gives itself back when that does not come within this time.
    pub fn wait(mut self, at_most: Duration) -> io::Result<Result<Ended, Self>> {
        let began = Instant::now();
        while !self.has_ended()? {
            if began.elapsed() > at_most {
                return Ok(Err(self));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let status = self.child.wait()?;
        let log = std::fs::read(&self.stderr)?;
        let log = String::from_utf8_lossy(&log);
        let report = log.lines().rev().find(|line| line.contains("\"shutdown_report\""));
        let report = report.and_then(|line| serde_json::from_str(line).ok());
        Ok(Ok(Ended { name: self.name.clone(), code: status.code(), report }))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
