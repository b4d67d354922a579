//! What is settled is done with; what is settled under an ownership that is over changes nothing.

use super::bench::{Bench, named};
use super::cases::{Tried, cases, check, same};
use super::got::{names_of, sorted_names};
use crate::failure::Tally;
use crate::message::At;
use crate::transport::{Ask, Settlement, Verdict};

cases! {
    whatever_is_settled_does_not_come_again: [];
    a_settlement_needs_no_flush: [];
    a_flush_ends_after_what_it_proves: [];
    what_a_flush_proves_survives_a_crash: [Keeps];
    a_later_message_may_settle_first: [Keeps, OneByOne];
    a_settlement_told_twice_counts_once: [];
    a_settlement_of_an_old_epoch_changes_nothing: [Keeps];
    a_settlement_after_a_return_changes_nothing: [GivesBack];
}

async fn whatever_is_settled_does_not_come_again(bench: &mut Bench) -> Tried {
    let place = bench.stocked(4).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(4).await?;
    reader.settle_as(&all[..2], Verdict::Acked);
    reader.settle_as(&all[2..3], Verdict::DeadLettered);
    reader.settle_as(&all[3..], Verdict::Discarded);
    reader.counted(4, 0).await?;
    same("proven", reader.proven, Tally { acked: 2, retried: 0, dead_lettered: 1, discarded: 1 })?;
    same("stale", reader.stale, Tally::default())?;
    reader.close().await?;
    bench.left(&place, &[]).await
}

async fn a_settlement_needs_no_flush(bench: &mut Bench) -> Tried {
    let place = bench.stocked(3).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(3).await?;
    reader.settle(&all);
    reader.until("the settlements to be proven", |reader| reader.proven.total() == 3).await?;
    reader.close().await.map(|_| ())
}

async fn a_flush_ends_after_what_it_proves(bench: &mut Bench) -> Tried {
    let place = bench.stocked(4).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(4).await?;
    reader.settle(&all[..3]);
    reader.flush().await?;
    reader.counts_are(3, 0)?;
    reader.settle(&all[3..]);
    // Twice, as an impatient drain would.
    reader.flush().await?;
    reader.flush().await?;
    reader.counts_are(4, 0)?;
    reader.close().await.map(|_| ())
}

async fn what_a_flush_proves_survives_a_crash(bench: &mut Bench) -> Tried {
    let place = bench.stocked(6).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(6).await?;
    // The first ones of each key, so that a transport that settles by prefix can prove them all.
    reader.settle(&all[..3]);
    reader.flush().await?;
    let (proven, others) = (names_of(&all[..3]), sorted_names(&all[3..]));
    bench.crash(reader).await?;
    let again = sorted_names(&bench.rest(&place).await?);
    let gone = again.iter().all(|name| !proven.contains(name));
    check(gone, format_args!("{proven:?} were proven, {again:?} came again"))?;
    same("what was not settled and came again", again, others)
}

async fn a_later_message_may_settle_first(bench: &mut Bench) -> Tried {
    let place = bench.stocked(5).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(5).await?;
    let (mut settled, mut open) = (Vec::new(), Vec::new());
    all.into_iter().enumerate().for_each(|(n, got)| if n == 2 || n == 4 { settled.push(got) } else { open.push(got) });
    settled.reverse();
    for one in &settled {
        reader.settle(std::slice::from_ref(one));
    }
    reader.flush().await?;
    reader.counted(2, 0).await?;
    bench.crash(reader).await?;
    let open = sorted_names(&open);
    bench.left(&place, &open).await
}

async fn a_settlement_told_twice_counts_once(bench: &mut Bench) -> Tried {
    let place = bench.stocked(2).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(2).await?;
    reader.settle(&all[..1]);
    reader.settle(&all[..1]);
    reader.flush().await?;
    reader.counted(1, 1).await?;
    reader.settle(&all[..1]);
    reader.flush().await?;
    reader.counted(1, 2).await?;
    reader.settle(&all[1..]);
    reader.flush().await?;
    reader.counted(2, 2).await?;
    reader.close().await?;
    bench.left(&place, &[]).await
}

async fn a_settlement_of_an_old_epoch_changes_nothing(bench: &mut Bench) -> Tried {
    let place = bench.stocked(1).await?;
    let mut dead = bench.reader(&place).await?;
    let old = dead.take(1).await?[0].at;
    bench.crash(dead).await?;
    let mut heir = bench.reader(&place).await?;
    let new = heir.take(1).await?;
    // A transport may number its epochs for each source anew; then an epoch before this one stands for the old.
    let old = if old == new[0].at { At { epoch: old.epoch.wrapping_sub(1), ..old } } else { old };
    heir.tell(Ask::Settle(vec![Settlement { at: old, verdict: Verdict::Acked }]));
    heir.flush().await?;
    heir.counted(0, 1).await?;
    bench.crash(heir).await?;
    bench.left(&place, &named(0..1)).await
}

async fn a_settlement_after_a_return_changes_nothing(bench: &mut Bench) -> Tried {
    let place = bench.stocked(3).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(3).await?;
    reader.demand(0);
    reader.give_back(&all);
    reader.settle(&all);
    reader.flush().await?;
    reader.counted(0, 3).await?;
    reader.close().await?;
    bench.left(&place, &named(0..3)).await
}
