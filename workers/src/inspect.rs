//! `longshore inspect`: what waits in a source, counted without a change.

use crate::ending::Ending;
use crate::flow::{APP, warn_of_passwords};
use crate::task::{self, Answer};
use longshore::transport::{Inspection, Transports, Url};
use longshore::{Error, duration};
use std::fmt::Write;
use std::time::Duration;

const EXAMPLES: &str = "\
Takes nothing and changes nothing. What the source does not tell is 'unknown', and null with --json.

Examples:
  longshore inspect 'local:orders.db?queue=orders&group=ship'
  longshore inspect 'file:in.ndjson?group=in' --json";

/// Count what waits in a source.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// URL of the source, with its group
    source: String,
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(args: Args) -> Ending {
    warn_of_passwords([args.source.as_str()]);
    task::run(async move |_stop, _books| {
        let found = inspect(&args.source).await?;
        let text = if args.json {
            format!("{}\n", serde_json::to_string(&found).expect("names and numbers are JSON"))
        } else {
            table(&found)
        };
        Answer::new().write(text.as_bytes())?;
        Ok(0)
    })
}

async fn inspect(source: &str) -> Result<Inspection, Error> {
    let url = Url::parse(source).map_err(|error| error.of("SOURCE"))?;
    let transports = Transports::built_in();
    let transport = transports.of(&url).map_err(|error| error.of(format_args!("SOURCE '{url}'")))?;
    let looking = transport.inspect(&url, url.option("group").unwrap_or(APP));
    looking.await.map_err(|error| error.of(format_args!("SOURCE '{url}'")))
}

/// A line for each number.
fn table(found: &Inspection) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
    let age = match (found.oldest_age_ms, found.waiting) {
        (Some(age), _) => duration::short(Duration::from_millis(age)),
        (None, Some(0)) => "-".to_owned(),
        (None, _) => "unknown".to_owned(),
    };
    let mut text = String::new();
    for (name, value) in [
        ("queue", found.queue.clone()),
        ("group", found.group.clone().unwrap_or_else(|| "-".to_owned())),
        ("waiting", number(found.waiting)),
        ("delayed", number(found.delayed)),
        ("in flight", number(found.in_flight)),
        ("dead", number(found.dead)),
        ("lag", number(found.lag)),
        ("oldest", age),
    ] {
        let _ = writeln!(text, "{name:10}  {value}");
    }
    text
}
