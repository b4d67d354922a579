//! `dead-letters discard`: taken off for good.

use super::place::{Meant, Place};
use super::sure::Answered;
use super::{Sure, Where, Which};
use crate::ending::say;
use crate::task::{Books, Stop};
use jiff::Timestamp;
use longshore::Error;

const EXAMPLES: &str = with_filter!(
    "\
What is discarded is gone. It asks on a terminal; elsewhere it needs --yes.

Examples:
  longshore dead-letters discard 'local:orders.db?queue=orders&group=ship' --where 'reason=undecodable' --dry-run
  longshore dead-letters discard 'local:orders.db?queue=orders&group=ship' --where 'age>30d' --yes"
);

/// Take dead letters off for good.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub(super) place: Where,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    sure: Sure,
}

/// Runs it.
pub async fn run(args: Args, mut stop: Stop, books: Books) -> Result<u8, Error> {
    let place = Place::find(&args.place)?;
    let began = Timestamp::now();
    let asked = args.sure.ask(&place, &args.which, began, &mut stop, |these| format!("discard {these}"));
    if let Answered::No(code) = asked.await? {
        return Ok(code);
    }
    let mut meant = Meant::new(&args.which, began);
    let mut gone = 0;
    if let Some(mut shelf) = place.open().await? {
        // One batch is taken off before the next is read, so that a stop leaves nothing half done.
        while !stop.is_asked()
            && let Some(letters) = meant.next(&mut *shelf).await?
        {
            if letters.is_empty() {
                continue;
            }
            books.note(|counts| counts.received += letters.len() as u64);
            let removed = shelf.remove(letters.iter().map(|letter| letter.at).collect()).await;
            let removed = match removed {
                Ok(removed) => removed,
                Err(error) => {
                    books.note(|counts| counts.returned += letters.len() as u64);
                    return Err(error);
                }
            };
            gone += removed;
            books.note(|counts| {
                counts.discarded += removed;
                // Somebody else has taken these off meanwhile.
                counts.returned += letters.len() as u64 - removed;
            });
        }
    }
    match meant.meant {
        0 => place.say_none(&args.which, meant.seen),
        _ => say(format_args!("discarded {gone} of {} dead letters in '{}'", meant.seen, place.url)),
    }
    Ok(0)
}
