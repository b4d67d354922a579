//! Where log lines go: text for eyes on a terminal, JSON for machines elsewhere, always stderr.

use super::status::AboveStatus;
use std::fmt;
use std::io::IsTerminal;
use tracing::{Dispatch, Level, Metadata, dispatcher};
use tracing_subscriber::filter::{EnvFilter, ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged where nobody says otherwise: not the spans that ractor puts around everything an actor does, and not
/// what lapin calls errors, which are answers to what was asked of the broker: what is wrong with it is said by us.
const DEFAULT_FILTER: &str = "info,ractor=warn,lapin=off";

/// The variables that say what is logged, the first that is set holds.
const FILTER_VARIABLES: [&str; 2] = ["LONGSHORE_LOG", "RUST_LOG"];

/// Sets `tracing` up for this process. Returns false where the user has done so already, which is then left alone.
///
/// A filter that cannot be read is named in the log and `info` holds: a typo there must not keep an app from starting.
pub fn install() -> bool {
    if dispatcher::has_been_set() {
        return false;
    }
    let (filter, wrong) = filter(|name| std::env::var(name).ok());
    // `try_init` also takes what libraries write by way of the `log` crate. Lost races end here as well.
    let form = Form::of_stderr();
    let installed = match form {
        Form::Text { .. } => subscriber(form, filter, || AboveStatus(std::io::stderr())).try_init(),
        Form::Json => subscriber(form, filter, std::io::stderr).try_init(),
    };
    let installed = installed.is_ok();
    if let Some((variable, error)) = wrong {
        tracing::warn!(variable, %error, "the log filter cannot be read, info holds");
    }
    installed
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text { colours: bool },
    Json,
}

impl Form {
    fn of_stderr() -> Self {
        Self::of(std::io::stderr().is_terminal(), |name| std::env::var(name).ok())
    }

    fn of(terminal: bool, env: impl Fn(&str) -> Option<String>) -> Self {
        // no-color.org: set and not empty.
        let refused = env("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env("TERM").is_some_and(|value| value == "dumb");
        if terminal { Self::Text { colours: !refused && !dumb } } else { Self::Json }
    }
}

/// The filter, and which variable cannot be read.
fn filter(env: impl Fn(&str) -> Option<String>) -> (EnvFilter, Option<(&'static str, ParseError)>) {
    let given = FILTER_VARIABLES.into_iter().find_map(|name| Some((name, env(name).filter(|text| !text.is_empty())?)));
    // Whoever says what is logged of us has not asked for the client library's view of it.
    let silenced = given.map(|(name, text)| (name, if text.contains("lapin") { text } else { text + ",lapin=off" }));
    match silenced.map(|(name, text)| (name, EnvFilter::builder().parse(text))) {
        Some((_, Ok(filter))) => (filter, None),
        Some((name, Err(error))) => (EnvFilter::new(DEFAULT_FILTER), Some((name, error))),
        None => (EnvFilter::new(DEFAULT_FILTER), None),
    }
}

fn subscriber<W>(form: Form, filter: EnvFilter, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // A log line that cannot be written is dropped. The subscriber would say so by `eprintln!`, which panics when
    // stderr is a closed pipe: a reader of the log that went away must not take messages down.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    let discreet = filter_fn(|metadata| !shows_secrets(metadata));
    match form {
        Form::Text { colours } => {
            let builder = builder.with_ansi(colours).with_timer(ClockTime).with_target(false).compact();
            Dispatch::new(builder.finish().with(discreet))
        }
        Form::Json => {
            let builder = builder.with_ansi(false).json().flatten_event(true).with_current_span(false);
            Dispatch::new(builder.finish().with(discreet))
        }
    }
}

/// Lines that no filter brings back: at trace lapin prints every frame that it sends, the login in the first, and of
/// each returned message the payload.
fn shows_secrets(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    (*metadata.level() == Level::TRACE && target.split(':').next() == Some("lapin"))
        || target.starts_with(concat!("lapin", "::returned_messages"))
}

/// `14:03:22.123`: on a terminal the day is known.
struct ClockTime;

impl FormatTime for ClockTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", jiff::Zoned::now().strftime("%H:%M:%S%.3f"))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(form: Form, filter: EnvFilter, act: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        dispatcher::with_default(&subscriber(form, filter, move || writer.clone()), act);
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// The JSON log lines of what `act` does on this thread.
    pub fn logged(act: impl FnOnce()) -> Vec<serde_json::Value> {
        let text = written(Form::Json, EnvFilter::new("trace"), act);
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    #[test]
    fn colours_need_a_terminal_and_nobody_who_refuses_them() {
        let env = |set: &'static [(&str, &str)]| {
            move |name: &str| set.iter().find(|(at, _)| *at == name).map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(Form::of(true, env(&[])), Form::Text { colours: true });
        assert_eq!(Form::of(true, env(&[("NO_COLOR", "")])), Form::Text { colours: true });
        assert_eq!(Form::of(true, env(&[("NO_COLOR", "1")])), Form::Text { colours: false });
        assert_eq!(Form::of(true, env(&[("TERM", "dumb")])), Form::Text { colours: false });
        assert_eq!(Form::of(false, env(&[])), Form::Json);
    }

    #[test]
    fn text_without_colours_has_no_escape_codes_and_shows_fields_bare() {
        let act = || tracing::info!(event = %"admin_listening", addr = %"127.0.0.1:8080", "listening");
        let text = written(Form::Text { colours: false }, EnvFilter::new("info"), act);
        assert!(text.ends_with("INFO listening event=admin_listening addr=127.0.0.1:8080\n"), "{text:?}");
        assert!(!text.contains('\x1b'), "{text:?}");
        let text = written(Form::Text { colours: true }, EnvFilter::new("info"), act);
        assert!(text.contains('\x1b'), "{text:?}");
    }

    #[test]
    fn a_line_of_json_has_its_fields_at_the_top_and_escapes_control_characters() {
        let line = &logged(|| tracing::warn!(event = %"gone", id = %"a\nb\x1b[31m", n = 7, "broker gone"))[0];
        assert_eq!(
            (&line["event"], &line["message"], &line["level"]),
            (&"gone".into(), &"broker gone".into(), &"WARN".into())
        );
        assert_eq!((&line["id"], &line["n"]), (&"a\nb\x1b[31m".into(), &7.into()));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn an_own_filter_beats_the_common_one_and_a_wrong_one_is_named() {
        let (found, wrong) =
            filter(|name| Some(if name == "RUST_LOG" { "error" } else { "longshore=debug" }.to_owned()));
        let quiet = EnvFilter::new("longshore=debug,lapin=off").to_string();
        assert_eq!((found.to_string(), wrong.is_none()), (quiet, true));
        assert_eq!(filter(|_| Some("info,lapin=warn".to_owned())).0.to_string(), "lapin=warn,info");
        let (found, wrong) = filter(|name| (name == "RUST_LOG").then(|| "a=b=c".to_owned()));
        assert_eq!(
            (found.to_string().as_str(), wrong.unwrap().0),
            (EnvFilter::new(DEFAULT_FILTER).to_string().as_str(), "RUST_LOG")
        );
        assert_eq!(filter(|_| None).0.to_string(), EnvFilter::new(DEFAULT_FILTER).to_string());
    }

    #[test]
    fn frames_that_hold_a_login_are_never_logged() {
        let text = written(Form::Json, EnvFilter::new("trace,lapin=trace"), || {
            tracing::trace!(target: concat!("lapin", "::io_loop"), "the login");
            tracing::warn!(target: concat!("lapin", "::returned_messages"), "the login of a payload");
            tracing::debug!(target: concat!("lapin", "::io_loop"), "a heartbeat");
            tracing::trace!(target: "lapinized", "something else");
        });
        assert!(!text.contains("the login"), "{text}");
        assert!(text.contains("a heartbeat") && text.contains("something else"), "{text}");
    }

    #[test]
    fn a_writer_that_fails_takes_nobody_down() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let dispatch = subscriber(Form::Json, EnvFilter::new("info"), || Closed);
        dispatcher::with_default(&dispatch, || tracing::info!("nobody reads this"));
    }

    #[test]
    fn a_second_install_changes_nothing_and_does_not_panic() {
        install();
        assert!(!install());
    }
}
