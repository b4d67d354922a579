//! `dead-letters redrive`: sent again, confirmed, then taken off.

use super::letter::Letter;
use super::place::{Meant, Place};
use super::publish::Publisher;
use super::sure::Answered;
use super::{Sure, Where, Which};
use crate::ending::{BAD_INPUT, say};
use crate::task::{Books, Stop};
use jiff::Timestamp;
use longshore::transport::{Shelf, Url};
use longshore::{Error, Failure};
use std::time::Duration;
use tokio::time::Instant;

const EXAMPLES: &str = with_filter!(
    "\
Each goes to SOURCE again unless --to names another place, and is taken off once that place has
it. It keeps its key, its payload and its own headers; longshore-redriven-from says where it has
been. Stopped in the middle, start it again: a place that knows ids takes none twice. What dies
meanwhile is left for the next time. It asks on a terminal; elsewhere it needs --yes.

Examples:
  longshore dead-letters redrive 'local:orders.db?queue=orders&group=ship' --dry-run
  longshore dead-letters redrive 'local:orders.db?queue=orders&group=ship' --rate 10 --yes
  longshore dead-letters redrive 'file:in.ndjson?group=in' --to 'local:fix.db?queue=broken' --yes"
);

/// Options that mean something to a source alone.
const OF_SOURCES: [&str; 12] = [
    "key",
    "group",
    "place",
    "follow",
    "claim",
    "prefetch",
    "priority",
    "instance",
    "start",
    "isolation",
    "consumer_timeout",
    "count-as-delivery",
];
/// So many are sent before the first of them is confirmed and taken off.
const BATCH: usize = 256;
/// With a rate, a batch holds what may go in this time.
const BREATH: Duration = Duration::from_millis(250);
/// So many of those that were not taken are named.
const NAMED: u64 = 10;

/// Send dead letters again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub(super) place: Where,
    #[command(flatten)]
    which: Which,
    /// URL that they go to, instead of SOURCE
    #[arg(long, value_name = "SINK")]
    pub(super) to: Option<String>,
    /// At most so many a second
    #[arg(long, value_name = "N")]
    pub(super) rate: Option<f64>,
    #[command(flatten)]
    sure: Sure,
}

/// Runs it.
pub async fn run(args: Args, mut stop: Stop, books: Books) -> Result<u8, Error> {
    let place = Place::find(&args.place)?;
    let to = match &args.to {
        Some(to) => Url::parse(to).map_err(|error| error.of("--to"))?,
        None => place.source.without(&OF_SOURCES),
    };
    if to == place.url {
        return Err(Error::configuration(format!("'{to}' is the place where the dead letters are")));
    }
    let plan = Publisher::plan(place.transport(&to)?, &to)?;
    let began = Timestamp::now();
    let asked = args.sure.ask(&place, &args.which, began, &mut stop, |these| format!("redrive {these} to '{to}'"));
    if let Answered::No(code) = asked.await? {
        return Ok(code);
    }
    let mut meant = Meant::new(&args.which, began);
    let mut run =
        Redrive { place: &place, to: &to, books, rate: args.rate, stop, next_at: Instant::now(), left: 0, gone: 0 };
    if let Some(mut shelf) = place.open().await? {
        let mut publisher = None;
        while !run.stop.is_asked()
            && let Some(letters) = meant.next(&mut *shelf).await?
        {
            if letters.is_empty() {
                continue;
            }
            if publisher.is_none() {
                publisher = Some(Publisher::open(&*plan, &to).await?);
            }
            let publisher = publisher.as_mut().expect("it was opened above");
            run.all(&mut *shelf, publisher, &letters).await?;
        }
        if let Some(publisher) = publisher {
            publisher.close().await;
        }
    }
    match meant.meant {
        0 => place.say_none(&args.which, meant.seen),
        _ => say(format_args!("redrove {} of {} dead letters in '{}' to '{to}'", run.gone, meant.seen, place.url)),
    }
    if run.left > 0 {
        say(format_args!("error: '{to}' did not take {}, which stay where they are", run.left));
        return Ok(BAD_INPUT);
    }
    Ok(0)
}

struct Redrive<'a> {
    place: &'a Place,
    to: &'a Url,
    books: Books,
    rate: Option<f64>,
    stop: Stop,
    next_at: Instant,
    /// Not taken.
    left: u64,
    gone: u64,
}

impl Redrive<'_> {
    /// Sends these, in batches that the rate allows.
    async fn all(&mut self, shelf: &mut dyn Shelf, publisher: &mut Publisher, all: &[Letter]) -> Result<(), Error> {
        let batch = self.rate.map_or(BATCH, |rate| ((rate * BREATH.as_secs_f64()) as usize).clamp(1, BATCH));
        for letters in all.chunks(batch) {
            if let Some(rate) = self.rate {
                tokio::select! {
                    () = tokio::time::sleep_until(self.next_at) => {}
                    () = self.stop.asked() => {}
                }
                let took = Duration::try_from_secs_f64(letters.len() as f64 / rate).unwrap_or(Duration::MAX);
                self.next_at = self.next_at.max(Instant::now()).checked_add(took).unwrap_or(self.next_at);
            }
            if self.stop.is_asked() {
                break;
            }
            self.books.note(|counts| counts.received += letters.len() as u64);
            if let Err(error) = self.some(shelf, publisher, letters).await {
                // Sent or not: they are still there, and known by their ids.
                self.books.note(|counts| counts.returned += u64::try_from(counts.unaccounted()).unwrap_or(0));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn some(
        &mut self,
        shelf: &mut dyn Shelf,
        publisher: &mut Publisher,
        letters: &[Letter],
    ) -> Result<(), Error> {
        let (hollow, whole): (Vec<&Letter>, Vec<&Letter>) = letters.iter().partition(|letter| letter.is_hollow());
        for letter in hollow {
            self.stays(letter, "its payload was too large to be kept");
        }
        let messages: Vec<_> = whole.iter().map(|letter| letter.redriven(&self.place.url)).collect();
        let refused = publisher.publish(&messages).await?;
        let is_refused = |index: usize| refused.iter().any(|(at, _)| *at == index);
        let sent: Vec<_> =
            whole.iter().enumerate().filter(|(index, _)| !is_refused(*index)).map(|(_, letter)| letter.at).collect();
        for (index, failure) in &refused {
            self.stays(whole[*index], &Failure::chain(failure));
        }
        if !sent.is_empty() {
            let many = sent.len() as u64;
            // Whether or not another redrive has been faster in taking them off: they are sent.
            shelf.remove(sent).await?;
            self.gone += many;
            self.books.note(|counts| counts.acked += many);
        }
        Ok(())
    }

    fn stays(&mut self, letter: &Letter, why: &str) {
        self.left += 1;
        self.books.note(|counts| counts.returned += 1);
        if self.left <= NAMED {
            say(format_args!("not redriven: {} to '{}': {why}", letter.name(), self.to));
        }
    }
}
