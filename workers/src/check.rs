//! `longshore check`: what is wrong with URLs, before anything starts.

use crate::ending::{Ending, say};
use crate::flow::{APP, PATIENCE, warn_of_passwords};
use crate::task::{self, Answer, Stop};
use clap::ValueEnum;
use longshore::Error;
use longshore::transport::{Finding, Side, SinkSpec, SourceSpec, Transport, Transports, Url};
use serde_json::json;
use std::sync::Arc;

const EXAMPLES: &str = "\
Names every wrong option at once. With --connect it also goes there: host, TLS, login, permissions,
queues. It takes no message, declares nothing, and prints what may lose messages as warnings.
A URL is looked at as a source and as a sink, and is fine if it can be one of them.

Ends with 0 if every URL is fine, else 78 wrong, 77 refused, 69 unreachable; the highest of them.

Examples:
  longshore check 'local:orders.db?queue=orders&group=ship' 'file:out.ndjson'
  longshore check --connect --as source --json 'local:orders.db?queue=orders'";

/// Say what is wrong with URLs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// URLs of sources and sinks
    #[arg(required = true, value_name = "URL")]
    urls: Vec<String>,
    /// Go there and try
    #[arg(long)]
    connect: bool,
    /// Only as this
    #[arg(long = "as", value_name = "SIDE")]
    side: Option<As>,
    /// A line of JSON for each URL and side
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum As {
    Source,
    Sink,
}

/// Runs it.
pub fn run(args: Args) -> Ending {
    warn_of_passwords(args.urls.iter().map(String::as_str));
    task::run(async move |stop, _books| all(&args, stop).await)
}

async fn all(args: &Args, mut stop: Stop) -> Result<u8, Error> {
    let transports = Transports::built_in();
    let mut code = 0;
    for text in &args.urls {
        let url = match parsed(&transports, text) {
            Ok(url) => url,
            Err(error) => {
                code = code.max(error.exit_code());
                say(format_args!("error: {error}"));
                continue;
            }
        };
        let (url, transport) = url;
        let mut looks = Vec::new();
        let sides: &[Side] = match args.side {
            None => &[Side::Source, Side::Sink],
            Some(As::Source) => &[Side::Source],
            Some(As::Sink) => &[Side::Sink],
        };
        for side in sides {
            let found = tokio::select! {
                found = look(transport, &url, *side, args.connect) => found,
                () = stop.asked() => return Ok(0),
            };
            looks.push(Look { side: *side, found });
        }
        code = code.max(told(&url, &looks, args.json)?);
    }
    Ok(code)
}

fn parsed<'a>(transports: &'a Transports, text: &str) -> Result<(Url, &'a Arc<dyn Transport>), Error> {
    let url = Url::parse(text)?;
    let transport = transports.of(&url).map_err(|error| error.of(format_args!("'{url}'")))?;
    Ok((url, transport))
}

async fn look(transport: &Arc<dyn Transport>, url: &Url, side: Side, connect: bool) -> Result<Vec<Finding>, Error> {
    match side {
        Side::Source => drop(transport.source(url, &SourceSpec::new("check", APP, PATIENCE))?),
        Side::Sink => drop(transport.sink(url, &SinkSpec::new("check", PATIENCE))?),
    }
    if connect { transport.check(url, side).await } else { Ok(Vec::new()) }
}

/// What a URL is as one side.
struct Look {
    side: Side,
    found: Result<Vec<Finding>, Error>,
}

impl Look {
    fn side(&self) -> &'static str {
        match self.side {
            Side::Source => "source",
            Side::Sink => "sink",
        }
    }

    fn json(&self, url: &Url) -> serde_json::Value {
        let (mut warnings, mut notes) = (Vec::new(), Vec::new());
        for finding in self.found.iter().flatten() {
            match finding {
                Finding::Warning(text) => warnings.push(text),
                Finding::Note(text) => notes.push(text),
                _ => {}
            }
        }
        let error = self.found.as_ref().err();
        json!({
            "url": url.to_string(),
            "side": self.side(),
            "ok": error.is_none(),
            "error": error.map(ToString::to_string),
            "exit_code": error.map_or(0, Error::exit_code),
            "warnings": warnings,
            "notes": notes,
        })
    }
}

/// Says what was found of one URL; the exit code that it asks for.
fn told(url: &Url, looks: &[Look], json: bool) -> Result<u8, Error> {
    let fine = looks.iter().any(|look| look.found.is_ok());
    let mut answer = Answer::new();
    let (mut code, mut said) = (0, Vec::new());
    for look in looks {
        if json {
            answer.write(format!("{}\n", look.json(url)).as_bytes())?;
        }
        match &look.found {
            Err(error) if fine && !json => {
                answer.write(format!("'{url}' as a {}: not possible: {error}\n", look.side()).as_bytes())?;
            }
            Err(_) if fine => {}
            Err(error) => {
                code = code.max(error.exit_code());
                let (mut text, url) = (error.to_string(), url.to_string());
                if !text.contains(&url) {
                    text = format!("'{url}': {text}");
                }
                // Most of it is wrong in both ways.
                if !said.contains(&text) {
                    say(format_args!("error: {text}"));
                    said.push(text);
                }
            }
            Ok(findings) if !json => {
                answer.write(format!("'{url}' as a {}: fine\n", look.side()).as_bytes())?;
                for finding in findings {
                    let (word, text) = match finding {
                        Finding::Warning(text) => ("warning", text),
                        Finding::Note(text) => ("note", text),
                        _ => continue,
                    };
                    if !said.contains(text) {
                        answer.write(format!("  {word}: {text}\n").as_bytes())?;
                        said.push(text.clone());
                    }
                }
            }
            Ok(_) => {}
        }
    }
    Ok(code)
}
