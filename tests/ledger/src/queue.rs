//! What the queues of a run hold at its end, by way of Longshore's own transports.

use crate::ids::Id;
use crate::world::GROUP;
use longshore::Error;
use longshore::transport::{DeadPlace, Transports, Url};

/// Messages looked at in one go.
const TOGETHER: u32 = 1_000;

/// What a queue holds, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that are not settled.
    pub unsettled: u64,
    /// Dead letters.
    pub dead: u64,
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime of one thread").block_on(future)
}

/// What a queue holds that nobody consumes any more, as its transport counts it.
pub fn count(url: &str) -> Result<Counts, Error> {
    let url = Url::parse(url)?;
    let inspection = wait(Transports::built_in().of(&url)?.inspect(&url, GROUP))?;
    let counts = [inspection.waiting, inspection.delayed, inspection.in_flight];
    Ok(Counts { unsettled: counts.into_iter().flatten().sum(), dead: inspection.dead.unwrap_or(0) })
}

/// The messages of a queue that nobody consumes any more. Looking may count as a delivery: do so only where there is
/// something to see.
pub fn left(url: &str) -> Result<Vec<Id>, Error> {
    let url = Url::parse(url)?;
    wait(ids(&Transports::built_in(), &url))
}

/// The dead letters of a queue.
pub fn dead(url: &str) -> Result<Vec<Id>, Error> {
    let url = Url::parse(url)?;
    let transports = Transports::built_in();
    match transports.of(&url)?.dead_letters(&url, GROUP) {
        DeadPlace::At(place) => wait(ids(&transports, &place)),
        _ => Ok(Vec::new()),
    }
}

async fn ids(transports: &Transports, url: &Url) -> Result<Vec<Id>, Error> {
    let mut ids = Vec::new();
    let mut shelf = transports.of(url)?.shelf(url).await?;
    loop {
        let messages = shelf.read(TOGETHER).await?;
        if messages.is_empty() {
            return Ok(ids);
        }
        ids.extend(messages.iter().map(|message| Id::of_payload(message.payload().unwrap_or_default()).0));
    }
}
