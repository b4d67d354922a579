//! The audit at the end of a run: what the queues still have, and what the books come to.

use crate::ids::Id;
use crate::queue::{self, Counts};
use crate::report::Outcome;
use crate::verify::Books;
use crate::world::{Trouble, World};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long the counts of a broker may lag behind.
const COUNTS_LAG: Duration = Duration::from_secs(20);
/// How often the broker is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Looks into the queues, and compares everything.
pub fn verify(world: &World, queues: &[String], outcome: &mut Outcome) -> Result<(), Trouble> {
    let folder = &world.setup.folder;
    let of_queue = |error: longshore::Error| Trouble(error.to_string());
    let counts = if world.has_broker() { counts_of_broker(world)? } else { counts_of_transport(queues)? };
    let (mut dead, mut left) = (String::new(), String::new());
    let lines = |ids: Vec<Id>| ids.iter().map(|id| format!("{id}\n")).collect::<String>();
    for queue in queues {
        if counts.dead > 0 {
            dead += &lines(queue::dead(queue).map_err(of_queue)?);
        }
        if counts.unsettled > 0 {
            left += &lines(queue::left(queue).map_err(of_queue)?);
        }
    }
    fs::write(folder.join("dead"), dead)?;
    fs::write(folder.join("left"), left)?;
    let books = Books::read(folder)?;
    outcome.found(books.findings(), counts);
    Ok(())
}

fn counts_of_transport(queues: &[String]) -> Result<Counts, Trouble> {
    let mut sum = Counts::default();
    for queue in queues {
        let counts = queue::count(queue).map_err(|error| Trouble(error.to_string()))?;
        sum.unsettled += counts.unsettled;
        sum.dead += counts.dead;
    }
    Ok(sum)
}

/// Ready and unacked messages of this run's queues, once the broker's counts have caught up.
fn counts_of_broker(world: &World) -> Result<Counts, Trouble> {
    let began = Instant::now();
    let prefix = format!("ledger-{:08x}-", world.setup.run);
    loop {
        let mut counts = Counts::default();
        for (name, ready, unacked) in world.broker()?.queues(["messages_ready", "messages_unacknowledged"])? {
            if name.starts_with(&prefix) {
                *if name.ends_with(".dead") { &mut counts.dead } else { &mut counts.unsettled } += ready + unacked;
            }
        }
        if counts == Counts::default() || began.elapsed() > COUNTS_LAG {
            return Ok(counts);
        }
        sleep(ASK_EVERY);
    }
}
