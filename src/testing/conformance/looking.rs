//! Looking takes nothing: counts, shelves, dead-letter places.

use super::bench::{Bench, GROUP, KEYS, message, name, named};
use super::cases::{Stop, Tried, cases, check, same};
use super::got::names_of;
use super::subject::Place;
use crate::error::{Error, ErrorKind};
use crate::message::{At, Message};
use crate::transport::{Ask, DeadPlace, Inspection, Shelf};

cases! {
    a_measure_is_answered: [];
    inspecting_counts_and_changes_nothing: [];
    a_dead_letter_place_takes_and_shows_whole_messages: [];
    a_shelf_removes_what_it_is_told_and_nothing_else: [];
    looking_into_a_queue_takes_nothing: [];
}

/// What a transport cannot do at all it refuses as a matter of configuration.
fn or_not_declared<T>(what: &str, result: Result<T, Error>) -> Tried<T> {
    result.map_err(|error| match error.kind() {
        ErrorKind::Configuration => Stop::NotDeclared(format!("{what}: {error}")),
        _ => Stop::Fault(error.to_string()),
    })
}

async fn a_measure_is_answered(bench: &mut Bench) -> Tried {
    let place = bench.stocked(5).await?;
    let mut reader = bench.reader(&place).await?;
    reader.tell(Ask::Measure);
    reader.until("the measure", |reader| !reader.measured.is_empty()).await?;
    if let Some(waiting) = reader.measured[0].waiting {
        same("waiting", waiting, 5)?;
    }
    if let Some(delayed) = reader.measured[0].delayed {
        same("delayed", delayed, 0)?;
    }
    reader.close().await.map(|_| ())
}

async fn inspected(bench: &Bench, place: &Place) -> Tried<Inspection> {
    let url = place.source(GROUP)?;
    or_not_declared("inspect", bench.within("inspect", bench.subject.transport.inspect(&url, GROUP)).await?)
}

async fn inspecting_counts_and_changes_nothing(bench: &mut Bench) -> Tried {
    let place = bench.stocked(5).await?;
    inspected(bench, &place).await?;
    let mut reader = bench.reader(&place).await?;
    let some = reader.take(2).await?;
    let seen = inspected(bench, &place).await?;
    let out = reader.got.len() as u64;
    // Who cannot tell what is in flight either counts it among what waits, or leaves it out with what its source has
    // fetched ahead.
    let waiting = if seen.in_flight.is_some() { 5 - out..=5 - out } else { 0..=5 };
    for (what, is, should) in
        [("waiting", seen.waiting, waiting), ("in flight", seen.in_flight, out..=out), ("delayed", seen.delayed, 0..=0)]
    {
        check(is.is_none_or(|is| should.contains(&is)), format_args!("{what}: is {is:?}, should be {should:?}"))?;
    }
    let again = inspected(bench, &place).await?;
    same("counts of a second look", (again.waiting, again.in_flight), (seen.waiting, seen.in_flight))?;
    reader.settle(&some);
    let others = reader.take(3).await?;
    same("attempts and unclean", (others[0].attempts, others[0].unclean), (0, 0))?;
    reader.settle(&others);
    reader.flush().await?;
    reader.counted(5, 0).await?;
    reader.close().await?;
    bench.left(&place, &[]).await
}

/// The place of dead letters of a fresh place, as a place of its own.
fn dead_place(bench: &mut Bench, place: &Place) -> Tried<crate::transport::Url> {
    match bench.subject.transport.dead_letters(&place.source(GROUP)?, GROUP) {
        DeadPlace::At(url) => Ok(url),
        DeadPlace::None => Err(Stop::NotDeclared("it has no place for dead letters".to_owned())),
    }
}

async fn dead_letters(bench: &mut Bench, letters: Vec<Message>) -> Tried<(Place, Box<dyn Shelf>)> {
    let place = bench.stocked(2).await?;
    let url = dead_place(bench, &place)?;
    let plan = bench.subject.transport.sink(&url, &bench.sink_spec())?;
    let sink = bench.within("the sink of the dead letters to open", plan.open()).await??;
    let mut writer = super::writer::Writer::new(sink, bench.subject.patience);
    writer.publish(letters).await?;
    writer.close().await?;
    let shelf = bench.within("the shelf to open", bench.subject.transport.shelf(&url)).await??;
    Ok((place, shelf))
}

/// Everything on a shelf, read in small parts.
async fn read(bench: &Bench, shelf: &mut Box<dyn Shelf>) -> Tried<Vec<(Message, At)>> {
    let mut all = Vec::new();
    loop {
        let part = bench.within("the shelf to be read", shelf.read(2)).await??;
        if part.is_empty() {
            return Ok(all);
        }
        check(part.len() <= 2, format_args!("{} came, 2 were asked for", part.len()))?;
        all.extend(part.iter().map(|message| (message.to_message(), message.head().at)));
        check(all.len() < 1_000, "the shelf does not end")?;
    }
}

async fn a_dead_letter_place_takes_and_shows_whole_messages(bench: &mut Bench) -> Tried {
    let mut letters: Vec<Message> = (0..3).map(|n| message(&name(n), KEYS[n])).collect();
    letters[1] = Message::new(vec![0, 255, b'\n']).with_key("b").with_header("longshore-reason", "undecodable");
    letters[2] = Message::tombstone("c").with_header("h", "1").with_header("h", "2");
    let (place, mut shelf) = dead_letters(bench, letters.clone()).await?;
    let shown: Vec<Message> = read(bench, &mut shelf).await?.into_iter().map(|(message, _)| message).collect();
    same("how many are shown", shown.len(), 3)?;
    for (is, should) in shown.iter().zip(&letters) {
        same("a letter", (&is.key, &is.payload, &is.headers), (&should.key, &should.payload, &should.headers))?;
    }
    drop(shelf);
    bench.left(&place, &named(0..2)).await
}

async fn a_shelf_removes_what_it_is_told_and_nothing_else(bench: &mut Bench) -> Tried {
    let letters = (0..5).map(|n| message(&name(n), "a")).collect();
    let (place, mut shelf) = dead_letters(bench, letters).await?;
    let all = read(bench, &mut shelf).await?;
    let two = vec![all[1].1, all[3].1];
    same("removed", bench.within("the removal", shelf.remove(two.clone())).await??, 2)?;
    same("removed again", bench.within("the removal", shelf.remove(two)).await??, 0)?;
    drop(shelf);
    let url = dead_place(bench, &place)?;
    let mut shelf = bench.within("the shelf to open", bench.subject.transport.shelf(&url)).await??;
    let left: Vec<Message> = read(bench, &mut shelf).await?.into_iter().map(|(message, _)| message).collect();
    let should: Vec<Message> = [0, 2, 4].map(|n| message(&name(n), "a")).to_vec();
    let payloads = |all: Vec<Message>| -> Vec<_> { all.into_iter().map(|message| message.payload).collect() };
    same("what is left on the shelf", payloads(left), payloads(should))?;
    bench.left(&place, &named(0..2)).await
}

async fn looking_into_a_queue_takes_nothing(bench: &mut Bench) -> Tried {
    let place = bench.stocked(4).await?;
    let url = place.source(GROUP)?;
    let opened = bench.within("the shelf to open", bench.subject.transport.shelf(&url)).await?;
    let mut shelf = or_not_declared("shelf", opened)?;
    let shown = read(bench, &mut shelf).await?;
    same("how many are shown", shown.len(), 4)?;
    drop(shelf);
    let all = bench.rest(&place).await?;
    same("what comes afterwards", names_of(&all), named(0..4))?;
    same("attempts", all[0].attempts, 0)?;
    // Where nothing is made of it, a broker may count a look as a delivery.
    same("unclean", all[0].unclean, if bench.source.poison_protection { 0 } else { all[0].unclean })
}
