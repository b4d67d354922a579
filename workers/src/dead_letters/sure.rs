//! Before something is taken off: counted, shown or asked.

use super::list::Table;
use super::place::{Meant, Place};
use super::{Sure, Which};
use crate::ending::{WRONG_COMMAND_LINE, say};
use crate::task::{Answer, Stop};
use jiff::Timestamp;
use longshore::{Error, ErrorKind};
use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;

/// Whether it shall be done.
pub enum Answered {
    /// Do it.
    Yes,
    /// End with this code.
    No(u8),
}

impl Sure {
    /// Asks, where that is wanted and possible. `what` is such as `redrive {} to 'URL'`, with `{}` for how many.
    pub async fn ask(
        &self,
        place: &Place,
        which: &Which,
        began: Timestamp,
        stop: &mut Stop,
        what: impl Fn(&str) -> String,
    ) -> Result<Answered, Error> {
        if self.yes && !self.dry_run {
            return Ok(Answered::Yes);
        }
        let mut meant = Meant::new(which, began);
        if let Some(mut shelf) = place.open().await? {
            let mut table = Table::new();
            meant
                .each(&mut *shelf, stop, |letters| {
                    if self.dry_run && !letters.is_empty() {
                        Answer::new().write(table.rows(&letters).as_bytes())?;
                    }
                    Ok(ControlFlow::Continue(()))
                })
                .await?;
        }
        if meant.meant == 0 {
            place.say_none(which, meant.seen);
            return Ok(Answered::No(0));
        }
        let what = what(&format!("{} of {} dead letters in '{}'", meant.meant, meant.seen, place.url));
        if self.dry_run {
            say(format_args!("would {what}"));
            return Ok(Answered::No(0));
        }
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            say(format_args!("error: would {what}, and nobody can be asked here: add --yes, or --dry-run to look"));
            return Ok(Answered::No(WRONG_COMMAND_LINE));
        }
        let _ = write!(std::io::stderr(), "{what}? [y/N] ");
        let read = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = tokio::select! {
            line = read => line
                .map_err(|error| Error::new(ErrorKind::Start, "the question was not answered").caused_by(error))?
                .unwrap_or_default(),
            () = stop.asked() => {
                // The question stands on a line that nobody has ended.
                say(format_args!(""));
                String::new()
            }
        };
        if matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return Ok(Answered::Yes);
        }
        say(format_args!("nothing was changed"));
        Ok(Answered::No(0))
    }
}
