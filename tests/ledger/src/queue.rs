//! What the queues of a run hold at its end, by way of Longshore's own transports.

use crate::ids::Id;
use longshore::Error;
use longshore::transport::{DeadPlace, Transports, Url};

/// Messages looked at in one go.
const TOGETHER: u32 = 1_000;

/// What a queue holds.
#[derive(Debug, Default)]
pub struct Holds {
    /// Messages that are not settled, as the broker counts them.
    pub unsettled: u64,
    /// Those among them that could be looked at.
    pub left: Vec<Id>,
    /// Dead letters.
    pub dead: Vec<Id>,
}

/// Looks into a queue that nobody consumes any more.
pub fn look(url: &str, group: &str) -> Result<Holds, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime of one thread").block_on(async {
        let url = Url::parse(url)?;
        let transports = Transports::built_in();
        let transport = transports.of(&url)?;
        let inspection = transport.inspect(&url, group).await?;
        let counts = [inspection.waiting, inspection.delayed, inspection.in_flight];
        let unsettled = counts.into_iter().flatten().sum();
        // Looking into a queue may count as a delivery: only where there is something to see.
        let left = if unsettled > 0 { ids(&transports, &url).await? } else { Vec::new() };
        let dead = match transport.dead_letters(&url, group) {
            DeadPlace::At(place) if inspection.dead != Some(0) => ids(&transports, &place).await?,
            _ => Vec::new(),
        };
        Ok(Holds { unsettled, left, dead })
    })
}

async fn ids(transports: &Transports, url: &Url) -> Result<Vec<Id>, Error> {
    let mut ids = Vec::new();
    let mut shelf = match transports.of(url)?.shelf(url).await {
        Ok(shelf) => shelf,
        // Nobody has declared it yet.
        Err(error) if error.to_string().contains("does not exist") => return Ok(ids),
        Err(error) => return Err(error),
    };
    loop {
        let messages = shelf.read(TOGETHER).await?;
        if messages.is_empty() {
            return Ok(ids);
        }
        ids.extend(messages.iter().map(|message| Id::of_payload(message.payload().unwrap_or_default()).0));
    }
}
