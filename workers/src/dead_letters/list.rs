//! `dead-letters list`: a line for each.

use super::filter::{Field, Fields};
use super::letter::Letter;
use super::place::{Meant, Place};
use super::{Where, Which};
use crate::task::{Answer, Stop};
use jiff::Timestamp;
use longshore::{Error, duration};
use std::fmt::Write;
use std::ops::ControlFlow;

const EXAMPLES: &str = with_filter!(
    "\
AT names a dead letter for 'dead-letters show'. Nothing is taken off.

Examples:
  longshore dead-letters list 'local:orders.db?queue=orders&group=ship' --where 'age<1d'
  longshore dead-letters list 'file:in.ndjson?group=in' --json"
);

/// An error is shown up to so many characters.
const ERROR: usize = 120;

/// List dead letters, oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub(super) place: Where,
    #[command(flatten)]
    which: Which,
    /// A line of JSON for each
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub async fn run(args: Args, stop: Stop) -> Result<u8, Error> {
    let place = Place::find(&args.place)?;
    let mut meant = Meant::new(&args.which, Timestamp::MAX);
    if let Some(mut shelf) = place.open().await? {
        let mut table = Table::new();
        meant
            .each(&mut *shelf, &stop, |letters| {
                let text = match args.json {
                    true => letters.iter().map(|letter| format!("{}\n", letter.json())).collect(),
                    false => table.rows(&letters),
                };
                Answer::new().write(text.as_bytes())?;
                Ok(ControlFlow::Continue(()))
            })
            .await?;
    }
    if meant.meant == 0 {
        place.say_none(&args.which, meant.seen);
    }
    Ok(0)
}

/// Rows below each other, read by read: the first one says how wide the columns are.
pub struct Table {
    widths: Option<[usize; 5]>,
}

const TITLES: [&str; 6] = ["AT", "AGE", "ATTEMPTS", "REASON", "KEY", "ERROR"];

impl Table {
    pub fn new() -> Self {
        Self { widths: None }
    }

    /// The text of some rows, after their titles the first time.
    pub fn rows(&mut self, letters: &[Letter]) -> String {
        let rows: Vec<[String; 6]> = letters.iter().map(row).collect();
        let mut text = String::new();
        let first = self.widths.is_none();
        let widths = *self.widths.get_or_insert_with(|| {
            std::array::from_fn(|at| {
                let longest = rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
                longest.max(TITLES[at].len())
            })
        });
        let titles = TITLES.map(str::to_owned);
        for row in first.then_some(&titles).into_iter().chain(&rows) {
            for (cell, width) in row.iter().zip(widths) {
                let _ = write!(text, "{cell:width$}  ");
            }
            let _ = writeln!(text, "{}", row[5]);
        }
        text
    }
}

fn row(letter: &Letter) -> [String; 6] {
    let text = |field| letter.text(field).map_or_else(|| "-".to_owned(), |text| plain(&text));
    [
        letter.name(),
        letter.age().map_or_else(|| "-".to_owned(), duration::short),
        text(Field::Attempts),
        text(Field::Reason),
        text(Field::Key),
        text(Field::Error),
    ]
}

/// One line, short, and without control characters, which could play with a terminal.
fn plain(text: &str) -> String {
    let mut plain: String = text.chars().take(ERROR).map(|each| if each.is_control() { ' ' } else { each }).collect();
    if text.chars().nth(ERROR).is_some() {
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_says_cannot_play_with_the_terminal_or_break_the_table() {
        assert_eq!(plain("a\u{1b}[2J\nb"), "a [2J b");
        assert_eq!(plain(&"x".repeat(500)).chars().count(), ERROR + 1);
    }
}
