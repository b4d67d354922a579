//! How a source stops: first its intake, then itself, in time and with counts that add up.

use super::bench::{Bench, GROUP, named};
use super::cases::{Tried, cases, check, same};
use super::got::{Got, names_of, sorted_names};
use crate::failure::Tally;
use crate::message::At;
use crate::transport::{Ask, Settlement, Verdict};
use std::time::Duration;

cases! {
    nothing_is_delivered_after_the_intake_has_stopped: [TakesBack];
    a_source_that_cannot_take_back_is_worked_off: [CannotTakeBack];
    what_is_told_before_a_close_is_carried_out: [];
    a_close_delivers_nothing_more: [];
    a_close_while_messages_are_handled_gives_them_back: [Keeps];
    the_counts_of_a_close_add_up: [Keeps];
    a_close_without_time_still_ends: [];
    a_source_and_its_sink_close_at_once: [Keeps];
    a_plan_opens_again: [Keeps];
    a_settlement_for_a_closed_source_is_stale_in_the_next: [Keeps];
}

async fn nothing_is_delivered_after_the_intake_has_stopped(bench: &mut Bench) -> Tried {
    let place = bench.stocked(8).await?;
    let mut reader = bench.reader(&place).await?;
    let running = reader.take(2).await?;
    reader.tell(Ask::StopIntake);
    reader.until("the intake to stop", |reader| reader.intake_stopped).await?;
    let before = reader.got.len();
    reader.demand(100);
    // Settlement goes on.
    reader.settle(&running);
    reader.flush().await?;
    reader.counted(2, 0).await?;
    reader.quiet().await?;
    same("delivered after the intake had stopped", reader.got.len() - before, 0)?;
    reader.close().await?;
    let done = sorted_names(&running);
    let left: Vec<String> = named(0..8).into_iter().filter(|name| !done.contains(name)).collect();
    bench.left(&place, &left).await
}

async fn a_source_that_cannot_take_back_is_worked_off(bench: &mut Bench) -> Tried {
    let place = bench.stocked(8).await?;
    let mut reader = bench.reader(&place).await?;
    let running = reader.take(2).await?;
    reader.tell(Ask::StopIntake);
    let others = reader.take(6).await?;
    let all = [running, others].concat();
    let names = sorted_names(&all);
    same("what was delivered", names, named(0..8))?;
    reader.settle(&all);
    reader.until("the intake to stop", |reader| reader.intake_stopped).await?;
    reader.flush().await?;
    reader.counted(8, 0).await?;
    same("what was open at the close", reader.close().await?, (0, Tally::default()))
}

async fn what_is_told_before_a_close_is_carried_out(bench: &mut Bench) -> Tried {
    let place = bench.stocked(4).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(4).await?;
    reader.settle(&all);
    let (returned, unknown) = reader.close().await?;
    same("returned and unknown", (returned, unknown.total()), (0, 0))?;
    reader.counted(4, 0).await?;
    bench.left(&place, &[]).await
}

async fn a_close_delivers_nothing_more(bench: &mut Bench) -> Tried {
    let place = bench.stocked(8).await?;
    let mut reader = bench.reader(&place).await?;
    let some = reader.take(2).await?;
    reader.settle(&some);
    reader.demand(100);
    let before = reader.got.len();
    reader.close().await?;
    same("delivered after the close was told", reader.got.len() - before, 0)
}

async fn a_close_while_messages_are_handled_gives_them_back(bench: &mut Bench) -> Tried {
    let place = bench.stocked(8).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(6).await?;
    reader.settle(&all[..2]);
    let (returned, _) = reader.close().await?;
    same("returned", returned, reader.got.len() as u64 - 2)?;
    let done = names_of(&all[..2]);
    let left: Vec<String> = named(0..8).into_iter().filter(|name| !done.contains(name)).collect();
    bench.left(&place, &left).await
}

async fn the_counts_of_a_close_add_up(bench: &mut Bench) -> Tried {
    for settled in [0, 3, 5, 7] {
        let place = bench.stocked(9).await?;
        let mut reader = bench.reader(&place).await?;
        let all = reader.take(7).await?;
        reader.settle(&all[..settled / 2]);
        reader.flush().await?;
        reader.settle(&all[settled / 2..settled]);
        let (returned, unknown) = reader.close().await?;
        let sum = reader.proven.total() + reader.stale.total() + returned + unknown.total();
        same(
            format_args!(
                "proven {} + stale {} + returned {returned} + unknown {} of {} delivered, {settled} settled",
                reader.proven.total(),
                reader.stale.total(),
                unknown.total(),
                reader.got.len()
            ),
            sum,
            reader.got.len() as u64,
        )?;
        same("returned", returned, (reader.got.len() - settled) as u64)?;
    }
    Ok(())
}

async fn a_close_without_time_still_ends(bench: &mut Bench) -> Tried {
    let place = bench.stocked(4).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(4).await?;
    reader.settle(&all[..2]);
    let (returned, unknown) = reader.close_by(Duration::ZERO).await?;
    let settled = reader.proven.total() + reader.stale.total() + unknown.total();
    same("settled or unknown, and returned", (settled, returned), (2, 2))
}

async fn a_source_and_its_sink_close_at_once(bench: &mut Bench) -> Tried {
    let place = bench.stocked(4).await?;
    let mut reader = bench.reader(&place).await?;
    let all = reader.take(4).await?;
    reader.settle(&all);
    let mut writer = bench.writer(&place).await?;
    writer.send(named(4..7).iter().map(|name| super::bench::message(name, "a")).collect()).await?;
    let (closed, unconfirmed) = tokio::join!(reader.close(), writer.close());
    same("unconfirmed", unconfirmed?, 0)?;
    same("returned", closed?.0, 0)?;
    reader.counted(4, 0).await?;
    bench.left(&place, &named(4..7)).await
}

async fn a_plan_opens_again(bench: &mut Bench) -> Tried {
    let place = bench.stocked(3).await?;
    let plan = bench.plan(&place, GROUP, &bench.spec())?;
    for crashes in [false, true, false] {
        let mut reader = bench.open(&*plan).await?;
        let one = reader.take(1).await?;
        reader.settle(&one);
        reader.flush().await?;
        if crashes {
            bench.crash(reader).await?;
        } else {
            reader.close().await?;
        }
    }
    bench.left(&place, &[]).await
}

async fn a_settlement_for_a_closed_source_is_stale_in_the_next(bench: &mut Bench) -> Tried {
    let place = bench.stocked(2).await?;
    let mut closed = bench.reader(&place).await?;
    let late = closed.take(2).await?;
    closed.close().await?;
    let mut next = bench.reader(&place).await?;
    let again = next.take(2).await?;
    let same_numbers = late.iter().any(|old| again.iter().any(|new| new.at == old.at));
    let old = |got: &Got| {
        // As in the case of the old epoch: where numbers begin anew, an epoch before this one stands for the old.
        let epoch = if same_numbers { got.at.epoch.wrapping_sub(1) } else { got.at.epoch };
        Settlement { at: At { epoch, ..got.at }, verdict: Verdict::Acked }
    };
    next.tell(Ask::Settle(late.iter().map(old).collect()));
    next.flush().await?;
    next.counted(0, 2).await?;
    check(next.untaken().is_empty(), "something came twice")?;
    next.close().await?;
    bench.left(&place, &named(0..2)).await
}
