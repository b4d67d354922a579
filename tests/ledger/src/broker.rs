//! The broker of a run, by way of `scripts/broker`.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A private broker; stopped when it is dropped, frozen or not.
pub struct Broker {
    name: String,
    url: String,
}

fn script() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "scripts", "broker"].iter().collect()
}

fn call(arguments: &[&str]) -> io::Result<String> {
    let said = Command::new(script()).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if said.status.success() {
        return Ok(String::from_utf8_lossy(&said.stdout).into_owned());
    }
    Err(io::Error::other(format!("scripts/broker {}: {}", arguments.join(" "), said.status)))
}

impl Broker {
    /// Starts one of that name, which ends with this process however that ends.
    pub fn start(name: &str) -> io::Result<Self> {
        let said = call(&["start", name, "--owner", &std::process::id().to_string()])?;
        let url = said.lines().find_map(|line| line.strip_prefix("AMQP_URL="));
        let url = url.ok_or_else(|| io::Error::other("scripts/broker start does not say AMQP_URL="))?;
        Ok(Self { name: name.to_owned(), url: url.trim_matches(['\'', '"']).to_owned() })
    }

    /// The URL of a queue.
    pub fn url(&self, queue: &str, options: &str) -> String {
        format!("{}?queue={queue}{options}", self.url)
    }

    /// Kills it as a power cut would.
    pub fn kill(&self) -> io::Result<()> {
        call(&["kill", &self.name]).map(drop)
    }

    /// Starts it again with what it had, and waits until it answers.
    pub fn restart(&self) -> io::Result<()> {
        call(&["restart", &self.name]).map(drop)
    }

    /// Stops its process without ending it.
    pub fn freeze(&self) -> io::Result<()> {
        call(&["freeze", &self.name]).map(drop)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> io::Result<()> {
        call(&["thaw", &self.name]).map(drop)
    }

    /// Runs `rabbitmqctl`; what it says.
    pub fn ctl(&self, arguments: &[&str]) -> io::Result<String> {
        call(&[&["ctl", &self.name], arguments].concat())
    }

    /// Every queue with two of its columns, such as `messages_ready messages_unacknowledged`.
    pub fn queues(&self, columns: [&str; 2]) -> io::Result<Vec<(String, u64, u64)>> {
        let said = self.ctl(&["-q", "--no-table-headers", "list_queues", "name", columns[0], columns[1]])?;
        let read = |line: &str| {
            let mut words = line.split('\t');
            let name = words.next()?.to_owned();
            let mut number = || words.next()?.trim().parse().ok();
            Some((name, number()?, number()?))
        };
        Ok(said.lines().filter_map(read).collect())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Err(error) = call(&["stop", &self.name]) {
            eprintln!("error: the broker '{}' is still there: {error}", self.name);
        }
    }
}
