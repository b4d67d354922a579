//! The command line: what there is, and what is said when it is wrong.

use crate::ending::{Ending, WRONG_COMMAND_LINE};
use crate::{bridge, check, consume, dead_letters, inspect, produce, shell};
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

const URLS: &str = "\
Sources and sinks are URLs; quote them, a shell takes & and ? for itself:
  'local:orders.db?queue=orders&group=ship'    a durable queue in one file, for one group
  'file:in.ndjson?key=/id&group=in'            lines of JSON; a group remembers its place
  file:-                                       standard input or output
";

/// In a build that has it.
const AMQP_URLS: &str = "  'amqp://me:${env:PASSWORD}@host/vhost?queue=orders'   RabbitMQ; amqps for TLS\n";

/// In a build that has it.
const KAFKA_URLS: &str = "  'kafka://h1:9092,h2:9092?topic=orders&group=ship'     Kafka; kafkas for TLS\n";

const REST: &str = "\
Keep passwords out of them: ${env:NAME} and ${file:PATH} are put in where they stand.

Try it:
  printf '{\"id\":1}\\n{\"id\":2}\\n' | longshore produce 'local:try.db?queue=orders'
  longshore inspect 'local:try.db?queue=orders&group=me'
  longshore consume 'local:try.db?queue=orders&group=me' --until-idle 1s

A command ends with 0 when it is done or was stopped by Ctrl+C or SIGTERM; nothing is lost by that.
Otherwise: 64 wrong command line, 65 bad input that has no dead-letter place, 69 unreachable,
75 not done by the deadline, 77 credentials, 78 wrong URL, option or path, 130 interrupted twice,
1 and 70 failed.";

fn after_help() -> String {
    let amqp = if cfg!(feature = "amqp") { AMQP_URLS } else { "" };
    let kafka = if cfg!(feature = "kafka") { KAFKA_URLS } else { "" };
    [URLS, amqp, kafka, REST].concat()
}

/// Moves messages between files, queues and brokers, and loses none.
#[derive(Debug, Parser)]
#[command(name = "longshore", version, after_help = after_help())]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take every message of a source to a sink; each is acked once the sink has it
    Bridge(bridge::Args),
    /// Send lines of a file or of standard input to a sink
    Produce(produce::Args),
    /// Take messages off a source and write them as lines
    Consume(consume::Args),
    /// Count what waits in a source; changes nothing
    Inspect(inspect::Args),
    /// Say what is wrong with URLs, and try them with --connect; changes nothing
    Check(check::Args),
    /// Look at what could not be handled, send it again, or throw it away
    DeadLetters(dead_letters::Args),
}

impl Command {
    /// Does it.
    pub fn run(self) -> Ending {
        longshore::logs::install();
        shell::warn_of_background();
        match self {
            Self::Bridge(args) => bridge::run(args),
            Self::Produce(args) => produce::run(args),
            Self::Consume(args) => consume::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Check(args) => check::run(args),
            Self::DeadLetters(args) => dead_letters::run(args),
        }
    }
}

/// Reads the command line.
pub fn parse() -> Result<Cli, clap::Error> {
    Cli::try_parse()
}

/// Says why the command line was not taken, or what was asked of it.
pub fn refuse(refused: &clap::Error) -> ExitCode {
    // Nobody may be reading any more.
    let _ = refused.print();
    match refused.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => ExitCode::from(WRONG_COMMAND_LINE),
        kind => {
            let arguments: Vec<String> =
                std::env::args_os().skip(1).map(|each| each.to_string_lossy().into_owned()).collect();
            if let Some(hint) = shell::lost_tail(kind, &arguments) {
                let _ = writeln!(std::io::stderr(), "\nhint: {hint}");
            }
            Ending::empty(WRONG_COMMAND_LINE).print()
        }
    }
}

/// A duration such as `500ms`, `25s`, `5m`.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    longshore::duration::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound_and_shows_only_what_works() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for later in ["peek", "bench", "status", "dump"] {
            assert!(!help.contains(later), "{later}\n{help}");
        }
        assert_eq!(help.contains("amqp://"), cfg!(feature = "amqp"), "{help}");
        assert_eq!(help.contains("kafka://"), cfg!(feature = "kafka"), "{help}");
    }

    #[test]
    fn every_command_teaches_by_an_example() {
        fn look(command: &mut clap::Command, path: &str) {
            let help = command.render_long_help().to_string();
            assert!(help.contains("\n  longshore ") || help.contains("| longshore "), "{path}\n{help}");
            for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
                let path = format!("{path} {}", sub.get_name());
                look(sub, &path);
            }
        }
        look(&mut Cli::command(), "longshore");
    }
}
