//! What `bridge`, `produce` and `consume` have in common: an app with one bridge.

use crate::cli::duration;
use crate::ending::{Ending, say};
use crate::place::is_standard;
use crate::progress::Meter;
use longshore::admin::AdminListen;
use longshore::transport::Url;
use longshore::{App, Bridge, Counts};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::time::Duration;

/// How long an unreachable broker is tried by a command at its start.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The name of a command's app, and with it the group of a URL that names none.
pub const APP: &str = "longshore";
/// What the framework ends with when a worker cannot go on.
const GAVE_UP: u8 = 70;

/// Options of every command that moves messages.
#[derive(Debug, clap::Args)]
pub struct Flow {
    /// End after so many messages
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// End once nothing came, nothing is in flight and no retry waits for DUR, such as 5s
    #[arg(long, value_name = "DUR", value_parser = duration)]
    until_idle: Option<Duration>,
    /// At most so many messages a second
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Serve /readyz, /metrics, POST /shutdown and more at ADDR, such as 127.0.0.1:8080
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
}

impl Flow {
    /// Sets the bridge as asked.
    pub fn set(&self, mut bridge: Bridge) -> Bridge {
        if let Some(limit) = self.limit {
            bridge = bridge.limit(limit);
        }
        if let Some(idle) = self.until_idle {
            bridge = bridge.until_idle(idle);
        }
        if let Some(rate) = self.rate {
            bridge = bridge.rate(rate);
        }
        bridge
    }

    /// Runs the bridge until its end or a stop.
    pub fn run(&self, bridge: Bridge, source: &str, sink: &str) -> Ending {
        warn_of_passwords([source, sink]);
        let listen = match self.admin_listen.as_deref().map(str::parse::<AdminListen>) {
            None => AdminListen::Off,
            Some(Ok(listen)) => listen,
            Some(Err(error)) => return Ending::failed(&error.of("--admin-listen"), Counts::default()),
        };
        let app = App::for_command(APP).start_patience(PATIENCE).admin(listen).bridge(bridge);
        let mut meter = Meter::new(source, self.limit);
        match app.run_with_progress(move |progress| meter.show(progress)) {
            Err(error) => Ending::failed(&error, Counts::default()),
            Ok(stopped) if stopped.exit_code() == GAVE_UP && is_standard(sink) && nobody_reads_stdout() => {
                longshore::logs::clear_status();
                say(format_args!("standard output was closed by whoever read it: stopped"));
                Ending::new(0, stopped.counts())
            }
            Ok(stopped) => {
                longshore::logs::clear_status();
                stopped.print();
                if stopped.exit_code() != 0 && stopped.start_error().is_none() {
                    say_why(&stopped.report());
                }
                Ending::new(stopped.exit_code(), stopped.counts())
            }
        }
    }
}

/// Says why a worker could not go on: the report has it, and a person should not have to look for it there.
fn say_why(report: &serde_json::Value) {
    for worker in report["workers"].as_array().into_iter().flatten() {
        if let (Some(name), Some(error)) = (worker["name"].as_str(), worker["error"].as_str()) {
            say(format_args!("error: '{name}': {error}"));
        }
    }
}

/// Says where a password stands that everybody can see.
pub fn warn_of_passwords<'a>(urls: impl IntoIterator<Item = &'a str>) {
    for url in urls.into_iter().filter_map(|url| Url::parse(url).ok()).filter(Url::has_literal_password) {
        tracing::warn!(
            "the password in '{url}' is seen by whoever lists the processes: write ${{env:NAME}} or ${{file:PATH}} there"
        );
    }
}

/// Whether the other end of standard output is gone.
pub fn nobody_reads_stdout() -> bool {
    let out = io::stdout();
    let mut ready = [PollFd::new(&out, PollFlags::OUT)];
    let gone = PollFlags::ERR | PollFlags::HUP;
    poll(&mut ready, Some(&Timespec::default())).is_ok() && ready[0].revents().intersects(gone)
}
