//! The place where the dead letters of a source are.

use super::letter::Letter;
use super::{Where, Which};
use crate::ending::say;
use crate::flow::APP;
use crate::task::Stop;
use jiff::Timestamp;
use longshore::Error;
use longshore::transport::{DeadPlace, Shelf, Transport, Transports, Url};
use std::ops::ControlFlow;
use std::sync::Arc;

/// So many are read at a time.
const READ: u32 = 256;

/// The dead letters of one source.
pub struct Place {
    /// The source.
    pub source: Url,
    /// Where they are.
    pub url: Url,
    transports: Transports,
    group: String,
    named: bool,
}

impl Place {
    /// Finds it; opens nothing.
    pub fn find(place: &Where) -> Result<Self, Error> {
        let counted = |url: &str| match place.count_as_delivery {
            false => url.to_owned(),
            true => format!("{url}{}count-as-delivery=true", if url.contains('?') { '&' } else { '?' }),
        };
        let source = Url::parse(&counted(&place.source)).map_err(|error| error.of("SOURCE"))?;
        let transports = Transports::built_in();
        let transport = transports.of(&source).map_err(|error| error.of(format_args!("SOURCE '{source}'")))?;
        let group = source.option("group").unwrap_or(APP).to_owned();
        let url = match &place.dead_letter {
            Some(url) => Url::parse(&counted(url)).map_err(|error| error.of("--dead-letter"))?,
            None => match transport.dead_letters(&source, &group) {
                DeadPlace::At(url) => url,
                _ => {
                    return Err(Error::configuration(format!(
                        "SOURCE '{source}' has no place for dead letters of its own: name the one that its worker was \
                         given by --dead-letter"
                    )));
                }
            },
        };
        Ok(Self { source, url, transports, group, named: place.dead_letter.is_some() })
    }

    /// The transport of a URL.
    pub fn transport(&self, url: &Url) -> Result<&Arc<dyn Transport>, Error> {
        self.transports.of(url)
    }

    /// Opens it; `None` where nothing was ever dead-lettered.
    pub async fn open(&self) -> Result<Option<Box<dyn Shelf>>, Error> {
        let opened = self.transport(&self.url).map_err(|error| error.of(format_args!("'{}'", self.url)))?;
        let error = match opened.shelf(&self.url).await {
            Ok(shelf) => return Ok(Some(shelf)),
            Err(error) => error,
        };
        if !self.named {
            // The place is made by the first dead letter. Without one the source has to be there.
            let transport = self.transport(&self.source)?;
            let found = transport.inspect(&self.source, &self.group).await;
            let found = found.map_err(|error| error.of(format_args!("SOURCE '{}'", self.source)))?;
            if found.dead == Some(0) {
                return Ok(None);
            }
        }
        Err(error.of(format_args!("'{}'", self.url)))
    }

    /// Says what was found to be none, and where.
    pub fn say_none(&self, which: &Which, seen: u64) {
        match which.filter {
            Some(_) if seen > 0 => say(format_args!("none of {seen} dead letters in '{}' is meant", self.url)),
            _ => say(format_args!("no dead letters in '{}'", self.url)),
        }
        // A queue of RabbitMQ has no groups, and a file keeps its place in one alone.
        let groups = !["file", "amqp", "amqps"].contains(&self.source.scheme());
        if self.source.option("group").is_none() && !self.named && groups {
            say(format_args!("hint: SOURCE names no group, so it is '{}': add group=NAME for another", self.group));
        }
    }
}

/// Those that are meant, in their order, as a shelf is read.
pub struct Meant<'a> {
    which: &'a Which,
    began: Timestamp,
    /// Read so far.
    pub seen: u64,
    /// Meant so far.
    pub meant: u64,
}

impl<'a> Meant<'a> {
    /// What died after `began` is not meant: it may be what was sent again a moment ago.
    pub fn new(which: &'a Which, began: Timestamp) -> Self {
        Self { which, began, seen: 0, meant: 0 }
    }

    /// The next of them, `None` at the end; some batches hold none.
    pub async fn next(&mut self, shelf: &mut dyn Shelf) -> Result<Option<Vec<Letter>>, Error> {
        let left = self.which.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.meant));
        if left == 0 {
            return Ok(None);
        }
        let slab = shelf.read(READ).await?;
        if slab.is_empty() {
            return Ok(None);
        }
        self.seen += slab.len() as u64;
        let now = Timestamp::now();
        let letters: Vec<Letter> = slab
            .iter()
            .map(|message| Letter::of(message, now))
            .filter(|letter| letter.dead_at().is_none_or(|dead_at| dead_at <= self.began) && self.which.means(letter))
            .take(usize::try_from(left).unwrap_or(usize::MAX))
            .collect();
        self.meant += letters.len() as u64;
        Ok(Some(letters))
    }

    /// Gives each batch to `each`, until it breaks or a stop is asked for.
    pub async fn each(
        &mut self,
        shelf: &mut dyn Shelf,
        stop: &Stop,
        mut each: impl FnMut(Vec<Letter>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        while !stop.is_asked()
            && let Some(letters) = self.next(shelf).await?
        {
            if each(letters)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
