//! Looks that take nothing: counts, and whether a source or a sink could start.

use super::place::{Place, Side};
use super::topology::{self, Queue};
use super::wire::Wire;
use super::{dead_queue, management};
use crate::error::Error;
use crate::transport::{Finding, Inspection};
use std::time::{Duration, SystemTime};

/// The name that the broker shows for the connection of a look.
pub(super) const NAME: &str = "longshore looks";
/// A connection that has been looked through is given so long to close.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Counts what is in the queue of a place.
pub(super) async fn inspect(place: &Place) -> Result<Inspection, Error> {
    let wire = place.server.dial(NAME).await?;
    let counted = count(&wire, place).await;
    wire.close(CLOSE_LIMIT).await;
    counted
}

async fn count(wire: &Wire, place: &Place) -> Result<Inspection, Error> {
    let ready = topology::existing(wire, place).await?.ok_or_else(|| absent(place))?;
    let dead = Place { queue: dead_queue(&place.queue), ..place.clone() };
    let dead = topology::existing(wire, &dead).await?.unwrap_or(0);
    let told = match management::queue(place).await {
        None => management::Told::default(),
        Some(told) => told?,
    };
    // The plugin counts every few seconds, the broker itself now.
    let (waiting, in_flight) = (u64::from(ready), told.unacked);
    let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(Inspection {
        queue: place.queue.clone(),
        group: None,
        waiting: Some(waiting),
        delayed: None,
        in_flight,
        dead: Some(dead.into()),
        lag: in_flight.map(|in_flight| waiting + in_flight),
        oldest_age_ms: told.oldest_s.map(|oldest| now_s.saturating_sub(oldest) * 1_000),
    })
}

pub(super) fn absent(place: &Place) -> Error {
    Error::configuration(format!("queue '{}' does not exist in vhost '{}'", place.queue, place.server.vhost))
}

/// Tries all that a source or sink needs.
pub(super) async fn check(place: &Place, side: Side) -> Result<Vec<Finding>, Error> {
    let wire = place.server.dial(NAME).await?;
    let looked = topology::check(&wire, place, side).await;
    wire.close(CLOSE_LIMIT).await;
    let Queue { warnings, mut notes, single_active, .. } = looked?;
    if side == Side::Source && !place.single_active && single_active != Some(true) {
        notes.push(format!(
            "order by key holds for one process on queue '{}': over several it needs single-active=true",
            place.queue
        ));
    }
    Ok(warnings.into_iter().map(Finding::Warning).chain(notes.into_iter().map(Finding::Note)).collect())
}
