//! Settings of an app: from code, file and environment, the later before the earlier.

use super::plan::Problem;
use crate::admin::AdminListen;
use crate::duration;
use crate::engine::order::Order;
use crate::engine::retry::Retry;
use crate::transport::did_you_mean;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The whole time of a stop, unless something else is set.
pub const STOP_DEADLINE: Duration = Duration::from_secs(25);
/// How long an unreachable broker is tried at start: by an app.
pub const START_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// What is left of the pod's grace for the process to end after its deadline.
const GRACE_MARGIN: Duration = Duration::from_secs(2);
/// The file that is read where no other is named and it is there.
const DEFAULT_FILE: &str = "longshore.toml";

/// Where the settings of an app come from, besides its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// From nowhere else.
    Code,
    /// The times of a stop and of the start from the environment.
    CodeAndTimes,
    /// Everything from the environment and the configuration file.
    Everywhere,
}

/// What holds for the app as a whole.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) deadline: Duration,
    /// What the file sets, so that a pod's grace does not pass over it.
    pub(super) deadline_of_file: Option<Duration>,
    pub(super) delay: Duration,
    pub(super) patience: Duration,
    pub(super) admin: AdminListen,
    pub(super) workers: BTreeMap<String, WorkerOverride>,
    /// The file that was read.
    pub(super) file: Option<PathBuf>,
}

/// What the configuration file sets for one worker of the code.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkerOverride {
    pub(super) source: Option<String>,
    pub(super) to: Option<String>,
    pub(super) dead_letter: Option<String>,
    pub(super) concurrency: Option<u32>,
    pub(super) rate: Option<f64>,
    pub(super) order: Option<Order>,
    pub(super) timeout: Option<Duration>,
    pub(super) retry: Option<Retry>,
}

#[derive(Deserialize, Default)]
struct File {
    #[serde(default)]
    app: toml::Table,
    #[serde(default)]
    start: toml::Table,
    #[serde(default)]
    stop: toml::Table,
    #[serde(default)]
    admin: toml::Table,
    #[serde(default)]
    workers: BTreeMap<String, toml::Table>,
    #[serde(flatten)]
    rest: toml::Table,
}

/// Takes fields out of a table by name; what is left over is unknown.
struct Fields<'a> {
    place: String,
    table: toml::Table,
    known: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Fields<'a> {
    fn new(place: impl Into<String>, table: toml::Table, problems: &'a mut Vec<Problem>) -> Self {
        Self { place: place.into(), table, known: Vec::new(), problems }
    }

    fn wrong(&mut self, name: &str, why: impl std::fmt::Display) {
        self.problems.push(Problem::text(format!("{}.{name}: {why}", self.place)));
    }

    fn take<T>(&mut self, name: &'static str, read: impl FnOnce(&toml::Value) -> Result<T, String>) -> Option<T> {
        self.known.push(name);
        let value = self.table.remove(name)?;
        match read(&value) {
            Ok(value) => Some(value),
            Err(why) => {
                self.wrong(name, why);
                None
            }
        }
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        self.take(name, |value| value.as_str().map(str::to_owned).ok_or_else(|| format!("{} is no text", kind(value))))
    }

    fn duration(&mut self, name: &'static str) -> Option<Duration> {
        self.take(name, |value| match value {
            toml::Value::String(text) => duration::parse(text),
            other => Err(format!("{} is no duration such as \"25s\"", kind(other))),
        })
    }

    fn number(&mut self, name: &'static str) -> Option<u32> {
        self.take(name, |value| {
            let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| format!("{} is no whole number from 0 to {}", kind(value), u32::MAX))
        })
    }

    fn rate(&mut self, name: &'static str) -> Option<f64> {
        self.take(name, |value| {
            value
                .as_float()
                .or_else(|| value.as_integer().map(|n| n as f64))
                .ok_or_else(|| format!("{} is no number", kind(value)))
        })
    }

    fn finish(self) {
        for name in self.table.keys() {
            let hint = did_you_mean(name, self.known.iter().copied());
            self.problems.push(Problem::text(format!("{}.{name}: unknown field{hint}", self.place)));
        }
    }
}

/// A value that is of the wrong kind. What may hold a URL, and with it a password, is named by its kind alone.
fn kind(value: &toml::Value) -> String {
    match value {
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => value.to_string(),
        toml::Value::Array(_) => "an array".to_owned(),
        other => format!("a {}", other.type_str()),
    }
}

fn order(value: &toml::Value) -> Result<Order, String> {
    match value.as_str() {
        Some("key") => Ok(Order::ByKey),
        Some("partition") => Ok(Order::ByPartition),
        Some("none") => Ok(Order::None),
        _ => Err(format!("{value} is none of \"key\", \"partition\", \"none\"")),
    }
}

fn retry(place: &str, value: &toml::Value, problems: &mut Vec<Problem>) -> Option<Retry> {
    let Some(table) = value.as_table() else {
        problems.push(Problem::text(format!("{place}.retry: {value} is no table {{attempts, min, max}}")));
        return None;
    };
    let mut fields = Fields::new(format!("{place}.retry"), table.clone(), problems);
    let (attempts, min, max) = (fields.number("attempts"), fields.duration("min"), fields.duration("max"));
    fields.finish();
    let min = min.unwrap_or(Duration::from_secs(1));
    Some(Retry::exponential(min, max.unwrap_or(Duration::from_secs(30)).max(min)).attempts(attempts.unwrap_or(3)))
}

impl Settings {
    /// What code says, with nothing else looked at.
    pub(super) fn of_code(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            deadline: STOP_DEADLINE,
            deadline_of_file: None,
            delay: Duration::ZERO,
            patience: START_PATIENCE,
            admin: AdminListen::loopback(),
            workers: BTreeMap::new(),
            file: None,
        }
    }

    /// Puts the file and the environment over what code says. `set` looks up an environment variable.
    pub(super) fn overlaid(mut self, set: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<Problem>) -> Self {
        let named = set("LONGSHORE_CONFIG").map(PathBuf::from);
        let file = named.clone().or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()));
        if let Some(path) = file {
            self.read(&path, problems);
            self.file = Some(path);
        }
        self.environment(set, problems);
        self
    }

    fn read(&mut self, path: &Path, problems: &mut Vec<Problem>) {
        let file: File = match std::fs::read_to_string(path) {
            Ok(text) => match toml::from_str(&text) {
                Ok(file) => file,
                Err(error) => return problems.push(Problem::text(format!("{}: {}", path.display(), error.message()))),
            },
            Err(error) => return problems.push(Problem::text(format!("{}: {error}", path.display()))),
        };
        let mut app = Fields::new("app", file.app, problems);
        self.name = app.text("name").unwrap_or_else(|| self.name.clone());
        app.finish();
        let mut start = Fields::new("start", file.start, problems);
        self.patience = start.duration("patience").unwrap_or(self.patience);
        start.finish();
        let mut stop = Fields::new("stop", file.stop, problems);
        self.deadline_of_file = stop.duration("deadline");
        self.deadline = self.deadline_of_file.unwrap_or(self.deadline);
        self.delay = stop.duration("delay").unwrap_or(self.delay);
        stop.finish();
        let mut admin = Fields::new("admin", file.admin, problems);
        let listen = admin.take("listen", |value| {
            let text = value.as_str().ok_or_else(|| format!("{} is no text", kind(value)))?;
            text.parse::<AdminListen>().map_err(|error| error.to_string())
        });
        self.admin = listen.unwrap_or_else(|| self.admin.clone());
        admin.finish();
        for (name, table) in file.workers {
            let place = format!("workers.{name}");
            let retry = table.get("retry").cloned().and_then(|value| retry(&place, &value, problems));
            let mut fields = Fields::new(place, table, problems);
            let over = WorkerOverride {
                source: fields.text("source"),
                to: fields.text("to"),
                dead_letter: fields.text("dead_letter"),
                concurrency: fields.number("concurrency"),
                rate: fields.rate("rate"),
                order: fields.take("order", order),
                timeout: fields.duration("timeout"),
                retry: fields.take("retry", |_| Ok(())).and(retry),
            };
            fields.finish();
            self.workers.insert(name, over);
        }
        let known = ["app", "start", "stop", "admin", "workers"];
        for name in file.rest.keys() {
            let hint = did_you_mean(name, known);
            problems.push(Problem::text(format!("{name}: unknown section{hint}")));
        }
    }

    fn environment(&mut self, set: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<Problem>) {
        self.times(set, problems);
        if let Some(name) = set("LONGSHORE_APP_NAME") {
            self.name = name;
        }
        if let Some(listen) = set("LONGSHORE_ADMIN_LISTEN") {
            match listen.parse() {
                Ok(listen) => self.admin = listen,
                Err(error) => problems.push(Problem::text(format!("LONGSHORE_ADMIN_LISTEN: {error}"))),
            }
        }
    }

    /// Takes the times of a stop and of the start out of the environment, and checks them.
    pub(super) fn times(&mut self, set: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<Problem>) {
        let mut seconds = |name: &str| -> Option<Duration> {
            let text = set(name)?;
            duration::parse_or_seconds(&text).map_err(|why| problems.push(Problem::text(format!("{name}: {why}")))).ok()
        };
        let shutdown = seconds("SHUTDOWN_TIMEOUT");
        let grace = seconds("TERMINATION_GRACE_SECONDS");
        let prestop = seconds("PRESTOP_SECONDS").unwrap_or_default();
        let deadline = seconds("LONGSHORE_STOP_DEADLINE").or(shutdown);
        let delay = seconds("LONGSHORE_STOP_DELAY");
        let patience = seconds("LONGSHORE_START_PATIENCE");
        self.delay = delay.unwrap_or(self.delay);
        self.patience = patience.unwrap_or(self.patience);
        match grace.map(|grace| grace.saturating_sub(prestop + GRACE_MARGIN)) {
            Some(room) if room.is_zero() => problems.push(Problem::text(
                "TERMINATION_GRACE_SECONDS: leaves no time for a stop after PRESTOP_SECONDS and 2s".to_owned(),
            )),
            Some(room) => {
                let wanted = deadline.or(self.deadline_of_file).unwrap_or(room);
                if wanted > room {
                    problems.push(Problem::text(format!(
                        "stop.deadline: {} is beyond the {} that TERMINATION_GRACE_SECONDS leaves",
                        duration::short(wanted),
                        duration::short(room)
                    )));
                }
                self.deadline = wanted;
            }
            None => self.deadline = deadline.unwrap_or(self.deadline),
        }
        if self.deadline.is_zero() {
            problems.push(Problem::text("stop.deadline: must be more than 0".to_owned()));
        } else if self.delay >= self.deadline {
            problems.push(Problem::text(format!(
                "stop.delay: {} leaves nothing of the deadline of {}",
                duration::short(self.delay),
                duration::short(self.deadline)
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: &[(&str, &str)]) -> (Settings, Vec<Problem>) {
        let set: BTreeMap<String, String> = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut problems = Vec::new();
        let settings = Settings::of_code("orders").overlaid(&|name| set.get(name).cloned(), &mut problems);
        (settings, problems)
    }

    #[test]
    fn the_grace_of_a_pod_alone_gives_the_deadline() {
        let (settings, problems) = with(&[("TERMINATION_GRACE_SECONDS", "60"), ("PRESTOP_SECONDS", "5")]);
        assert_eq!((settings.deadline, problems), (Duration::from_secs(53), Vec::new()));
    }

    #[test]
    fn a_deadline_beyond_the_grace_is_refused() {
        let (_, problems) = with(&[("TERMINATION_GRACE_SECONDS", "30"), ("SHUTDOWN_TIMEOUT", "29")]);
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn our_own_variable_beats_the_common_one() {
        let (settings, _) = with(&[("SHUTDOWN_TIMEOUT", "10"), ("LONGSHORE_STOP_DEADLINE", "500ms")]);
        assert_eq!(settings.deadline, Duration::from_millis(500));
    }

    #[test]
    fn a_command_takes_times_from_the_environment_and_nothing_else() {
        let set = |name: &str| match name {
            "SHUTDOWN_TIMEOUT" => Some("7".to_owned()),
            "LONGSHORE_ADMIN_LISTEN" => Some("127.0.0.1:1".to_owned()),
            "LONGSHORE_APP_NAME" => Some("other".to_owned()),
            _ => None,
        };
        let (mut settings, mut problems) = (Settings::of_code("orders"), Vec::new());
        settings.times(&set, &mut problems);
        assert_eq!((settings.deadline, settings.name.as_str()), (Duration::from_secs(7), "orders"));
        assert_eq!((settings.admin, problems), (AdminListen::loopback(), Vec::new()));
    }

    #[test]
    fn every_wrong_field_of_a_file_is_named_with_what_was_meant() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        std::fs::write(
            &path,
            "[stop]\ndeadlin = \"5s\"\ndelay = 3\n[workers.ship]\nconcurrency = -1\nretry = { atempts = 2 }\n[sotp]\n",
        )
        .unwrap();
        let (_, problems) = with(&[("LONGSHORE_CONFIG", path.to_str().unwrap())]);
        let all = format!("{problems:?}");
        for wanted in [
            "stop.deadlin: unknown field: did you mean 'deadline'?",
            "stop.delay: 3 is no duration",
            "workers.ship.concurrency: -1",
            "workers.ship.retry.atempts: unknown field: did you mean 'attempts'?",
            "sotp: unknown section: did you mean 'stop'?",
        ] {
            assert!(all.contains(wanted), "{wanted}\n{all}");
        }
    }
}
