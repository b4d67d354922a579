//! Who owns what: one owner at a time for a message and for a key, and an heir when it dies.

use super::bench::{Bench, GROUP, message};
use super::cases::{Tried, cases, check, same};
use super::got::{names_of, names_of_key, sorted_names};

cases! {
    a_waiting_consumer_inherits_from_a_dead_one: [Shared, Keeps];
    a_key_stays_with_its_owner_until_it_is_settled: [Shared, OrderedAcross];
    a_key_goes_on_in_order_when_its_owner_dies: [Shared, OrderedAcross, Keeps];
    a_lost_ownership_is_told_and_its_settlements_are_stale: [Lapse, Keeps];
}

async fn a_waiting_consumer_inherits_from_a_dead_one(bench: &mut Bench) -> Tried {
    let place = bench.stocked(4).await?;
    let mut dying = bench.reader(&place).await?;
    let held = dying.take(4).await?;
    let mut heir = dying.alongside(bench.reader(&place)).await?;
    heir.demand(4);
    dying.alongside(heir.quiet()).await?;
    if !bench.source.partitions {
        same("what the heir had of a living owner", names_of(&heir.got), Vec::new())?;
    }
    bench.crash(dying).await?;
    let got = heir.take(4).await?;
    same("what the heir got", sorted_names(&got), sorted_names(&held))?;
    heir.settle(&got);
    heir.flush().await?;
    heir.close().await?;
    bench.left(&place, &[]).await
}

/// Three messages of each of two keys.
async fn two_keys(bench: &mut Bench) -> Tried<super::Place> {
    let place = bench.place();
    let messages = ["a0", "b0", "a1", "b1", "a2", "b2"].map(|name| message(name, &name[..1]));
    bench.publish(&place, messages.to_vec()).await?;
    Ok(place)
}

async fn a_key_stays_with_its_owner_until_it_is_settled(bench: &mut Bench) -> Tried {
    let place = two_keys(bench).await?;
    let mut spec = bench.spec();
    spec.by_key = true;
    let mut owner = bench.reader_as(&place, GROUP, &spec).await?;
    let held = owner.take(1).await?;
    let key = held[0].sent_key();
    let mut other = owner.alongside(bench.reader_as(&place, GROUP, &spec)).await?;
    other.demand(10);
    owner.alongside(other.quiet()).await?;
    let overlap = names_of_key(&other.got, &key);
    check(overlap.is_empty(), format_args!("{overlap:?} came to another while {} was unsettled", held[0].name))?;
    owner.settle(&held);
    other.alongside(owner.close()).await?;
    // The whole key goes over, behind what is settled.
    other.until("the rest of the key", |other| names_of_key(&other.got, &key).len() >= 2).await?;
    same("the rest of the key", names_of_key(&other.got, &key), vec![format!("{key}1"), format!("{key}2")])?;
    other.close().await.map(|_| ())
}

async fn a_key_goes_on_in_order_when_its_owner_dies(bench: &mut Bench) -> Tried {
    let place = two_keys(bench).await?;
    let mut spec = bench.spec();
    spec.by_key = true;
    let mut owner = bench.reader_as(&place, GROUP, &spec).await?;
    let key = owner.take(1).await?[0].sent_key();
    let mut heir = owner.alongside(bench.reader_as(&place, GROUP, &spec)).await?;
    heir.demand(10);
    owner.alongside(heir.quiet()).await?;
    bench.crash(owner).await?;
    heir.until("the dead owner's key", |heir| names_of_key(&heir.got, &key).len() >= 3).await?;
    let should: Vec<String> = (0..3).map(|n| format!("{key}{n}")).collect();
    same("the dead owner's key", names_of_key(&heir.got, &key), should)?;
    heir.close().await.map(|_| ())
}

async fn a_lost_ownership_is_told_and_its_settlements_are_stale(bench: &mut Bench) -> Tried {
    let place = bench.stocked(3).await?;
    let mut reader = bench.reader(&place).await?;
    let held = reader.take(3).await?;
    let lapse = bench.subject.lapse.as_ref().map(|lapse| lapse(&place)).expect("the case needs it");
    reader.alongside(bench.within("the end of the ownership", lapse)).await?;
    let covered = |lost: &[crate::transport::Ownership]| held.iter().all(|got| lost.iter().any(|o| o.covers(got.at)));
    reader.until("the loss to be told", |reader| covered(&reader.lost)).await?;
    reader.settle(&held);
    reader.flush().await?;
    reader.counted(0, 3).await?;
    let again = reader.take(3).await?;
    same("what came again", sorted_names(&again), sorted_names(&held))?;
    let fresh = again.iter().all(|got| !reader.lost.iter().any(|lost| lost.covers(got.at)));
    check(fresh, "what came again bears an epoch that is lost")?;
    reader.settle(&again);
    reader.flush().await?;
    reader.counted(3, 3).await?;
    reader.close().await?;
    bench.left(&place, &[]).await
}
