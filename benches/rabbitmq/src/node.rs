//! The broker of a run: somebody's, or a node of our own that ends with us.

use crate::contender::Result;
use std::process::{Command, Stdio};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/broker");

/// Where the laps find their broker.
pub struct Node {
    pub url: String,
    own: Option<String>,
}

impl Node {
    pub fn at(url: String) -> Self {
        Self { url, own: None }
    }

    pub fn start() -> Result<Self> {
        let pid = std::process::id();
        let name = format!("bench-{pid}");
        let started = Command::new(SCRIPT)
            .args(["start", &name, "--owner", &pid.to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        if !started.status.success() {
            return Err(format!("{SCRIPT} start ended with {}", started.status).into());
        }
        let told = String::from_utf8(started.stdout)?;
        let url = told.lines().find_map(|line| line.strip_prefix("AMQP_URL=")).ok_or("the script tells no URL")?;
        Ok(Self { url: url.to_owned(), own: Some(name) })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(name) = &self.own {
            // If that fails, the node ends by itself: we own it.
            let _ = Command::new(SCRIPT).args(["stop", name]).stdout(Stdio::null()).status();
        }
    }
}
