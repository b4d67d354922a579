//! A key keeps its order, also when its messages come again.

use super::bench::{Bench, KEYS, name, named};
use super::cases::{Tried, cases, same};
use super::got::{Got, names_of, names_of_key};

cases! {
    a_key_keeps_its_order: [];
    a_queue_keeps_its_order: [Partless];
    what_is_given_back_comes_in_its_old_order: [GivesBack];
    what_a_close_gives_back_comes_in_its_old_order: [GivesBack];
    what_a_crash_leaves_comes_in_its_old_order: [Keeps];
    positions_rise_within_an_epoch_and_a_partition: [];
}

/// Stops the case unless each key's messages of a stock of `count` came in the order in which they were published,
/// all from number `from` on.
fn in_order(all: &[Got], from: usize, count: usize) -> Tried {
    for (at, key) in KEYS.iter().enumerate() {
        let should: Vec<String> = (from..count).filter(|n| n % KEYS.len() == at).map(name).collect();
        same(format_args!("key '{key}'"), names_of_key(all, key), should)?;
    }
    Ok(())
}

async fn a_key_keeps_its_order(bench: &mut Bench) -> Tried {
    let place = bench.stocked(30).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(30).await?;
    in_order(&all, 0, 30)?;
    reader.settle(&all);
    reader.close().await.map(|_| ())
}

async fn a_queue_keeps_its_order(bench: &mut Bench) -> Tried {
    let place = bench.stocked(30).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(30).await?;
    same("what arrived", names_of(&all), named(0..30))?;
    reader.settle(&all);
    reader.close().await.map(|_| ())
}

async fn what_is_given_back_comes_in_its_old_order(bench: &mut Bench) -> Tried {
    let place = bench.stocked(12).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(9).await?;
    let (done, mut open): (Vec<Got>, Vec<Got>) = all.into_iter().partition(|got| got.name < name(3));
    reader.settle(&done);
    // In whatever order it is said, and not all at once.
    open.reverse();
    reader.give_back(&open[..2]);
    reader.give_back(&open[2..]);
    let again = reader.take(9).await?;
    in_order(&again, 3, 12)?;
    reader.settle(&again);
    reader.flush().await?;
    reader.close().await?;
    bench.left(&place, &[]).await
}

async fn what_a_close_gives_back_comes_in_its_old_order(bench: &mut Bench) -> Tried {
    let place = bench.stocked(12).await?;
    let mut reader = bench.reader(&place).await?;
    reader.take(9).await?;
    reader.close().await?;
    in_order(&bench.rest(&place).await?, 0, 12)
}

async fn what_a_crash_leaves_comes_in_its_old_order(bench: &mut Bench) -> Tried {
    let place = bench.stocked(12).await?;
    let mut reader = bench.reader(&place).await?;
    reader.take(9).await?;
    bench.crash(reader).await?;
    in_order(&bench.rest(&place).await?, 0, 12)
}

async fn positions_rise_within_an_epoch_and_a_partition(bench: &mut Bench) -> Tried {
    let place = bench.stocked(12).await?;
    let mut reader = bench.reader(&place).await?;
    let all = [reader.take(5).await?, reader.take(7).await?].concat();
    let mut before: Option<&Got> = None;
    for got in &all {
        if let Some(before) = before.filter(|at| at.at.partition == got.at.partition && at.at.epoch == got.at.epoch) {
            let rises = before.at.position < got.at.position;
            super::cases::check(rises, format_args!("{:?} came after {:?}", got.at, before.at))?;
        }
        before = Some(got);
    }
    reader.settle(&all);
    reader.close().await.map(|_| ())
}
