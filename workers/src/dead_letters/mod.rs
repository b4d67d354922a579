//! `longshore dead-letters`: what could not be handled, looked at, sent again or thrown away.

/// What `--where` takes, for the help of each command that has it.
macro_rules! with_filter {
    ($text:literal) => {
        concat!(
            $text,
            "\n
A FILTER compares fields with values: age, reason, error, attempts, key, id, worker, source,
position, first-seen, dead-at, redriven-from; by = != ~ (contains) < > <= >=, joined by and, or,
not and parentheses: 'reason~timeout and (age<2h or attempts>=3)'"
        )
    };
}

mod discard;
mod filter;
mod letter;
mod list;
mod place;
mod publish;
mod redrive;
mod show;
mod sure;

use crate::ending::Ending;
use crate::flow::warn_of_passwords;
use crate::task;
use clap::Subcommand;
use filter::Filter;
use letter::Letter;
use longshore::{Counts, Error};

const EXAMPLES: &str = "\
SOURCE is the source whose messages were dead-lettered, with its group; where they lie follows.

Examples:
  longshore dead-letters list 'local:orders.db?queue=orders&group=ship'
  longshore dead-letters show 'local:orders.db?queue=orders&group=ship' 7
  longshore dead-letters redrive 'local:orders.db?queue=orders&group=ship' --where 'reason~timeout'
  longshore dead-letters discard 'local:orders.db?queue=orders&group=ship' --where 'attempts>=3' --dry-run";

/// What could not be handled: look at it, send it again, or throw it away.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List them, oldest first
    List(list::Args),
    /// Show one of them whole
    Show(show::Args),
    /// Send them again, to where they came from or elsewhere, and take them off
    Redrive(redrive::Args),
    /// Take them off for good
    Discard(discard::Args),
}

/// Where they are.
#[derive(Debug, clap::Args)]
struct Where {
    /// URL of the source that they came from, with its group
    source: String,
    /// URL of the place where they are, if the worker was given one
    #[arg(long, value_name = "URL", value_parser = dead_letter)]
    dead_letter: Option<String>,
    /// Look even where a look counts as a delivery: a quorum queue of RabbitMQ with a delivery limit
    #[arg(long)]
    count_as_delivery: bool,
}

fn dead_letter(url: &str) -> Result<String, std::convert::Infallible> {
    Ok(crate::place::dead_letter_url(url))
}

/// Which of them.
#[derive(Debug, clap::Args)]
struct Which {
    /// Only those that it means, such as 'reason~timeout and age<2h'; see below
    #[arg(long = "where", value_name = "FILTER")]
    filter: Option<Filter>,
    /// So many of them at most
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// How a command that takes some off makes sure.
#[derive(Debug, clap::Args)]
struct Sure {
    /// Only list what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Which {
    fn means(&self, letter: &Letter) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(letter))
    }
}

/// Runs it.
pub fn run(args: Args) -> Ending {
    let place = match &args.command {
        Command::List(args) => &args.place,
        Command::Show(args) => &args.place,
        Command::Redrive(args) => &args.place,
        Command::Discard(args) => &args.place,
    };
    let place_url = place.dead_letter.as_deref();
    warn_of_passwords([place.source.as_str()].into_iter().chain(place_url));
    match args.command {
        Command::List(args) => task::run(async move |stop, _books| list::run(args, stop).await),
        Command::Show(args) => task::run(async move |stop, _books| show::run(args, stop).await),
        Command::Redrive(args) => {
            if let Some(to) = &args.to {
                warn_of_passwords([to.as_str()]);
            }
            if let Some(rate) = args.rate.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
                let error = Error::configuration(format!("--rate {rate}: must be more than 0 a second"));
                return Ending::failed(&error, Counts::default());
            }
            task::run(async move |stop, books| redrive::run(args, stop, books).await)
        }
        Command::Discard(args) => task::run(async move |stop, books| discard::run(args, stop, books).await),
    }
}
