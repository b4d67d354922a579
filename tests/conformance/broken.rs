//! The proof of the suite: it passes what is honest, and names what is broken.
//!
//! Time stands still but for waits, so a case that waits in vain costs nothing.

use crate::reference::{Fault, Manner, Reference};
use longshore::testing::conformance::{self, Place, Report, Subject};
use std::time::Duration;

fn subject(manner: Manner, fault: Option<Fault>) -> Subject {
    let transport = Reference::new(manner, fault);
    let mut count = 0;
    let revoker = transport.clone();
    Subject::new(format!("{manner:?} with {fault:?}"), transport, move |_| {
        count += 1;
        Place::new(format!("reference:q{count}"), format!("reference:q{count}?group={{group}}"))
    })
    .patience(Duration::from_secs(5))
    .lapse(move |place| {
        let queue = place.sink().expect("the place has a sink").path().to_owned();
        revoker.revoke(&queue);
        Box::pin(std::future::ready(()))
    })
}

async fn with(fault: Fault) -> Report {
    conformance::run(subject(Manner::Queue, Some(fault))).await
}

#[tokio::test(start_paused = true)]
async fn an_honest_queue_passes_every_case_but_those_of_other_manners() {
    let report = conformance::run(subject(Manner::Queue, None)).await;
    report.assert();
    println!("{report}");
}
#[tokio::test(start_paused = true)]
async fn dump() {
    use Fault::*;
    for manner in [Manner::Finite, Manner::Fleeting] {
        println!("{}", conformance::run(subject(manner, None)).await);
    }
    for fault in [
        AcksEarly,
        ForgetsReturns,
        ReturnsToTheTail,
        DeliversAfterStop,
        DeliversAfterClose,
        SettlesStale,
        HidesStale,
        IgnoresDemand,
        IgnoresBytes,
        IgnoresPause,
        FlushesEarly,
        LosesOnCancel,
        LosesConfirmOnCancel,
        ConfirmsEarly,
        ForgetsAtClose,
        BuriesTheDead,
        IgnoresDelay,
        ForgetsAttempts,
        ForgetsMarks,
        SharesKeys,
        MixesGroups,
        Miscounts,
        HidesLoss,
        ForgetsIds,
        MergesHeaders,
        TakesByLooking,
    ] {
        let report = with(fault).await;
        println!(
            "{fault:?}: {:#?}",
            report.cases().iter().filter(|(n, _)| report.failed().contains(n)).collect::<Vec<_>>()
        );
    }
}
#[tokio::test(start_paused = true)]
async fn one() {
    println!(
        "{}",
        conformance::run(subject(Manner::Queue, None).only("a_dropped_wait_of_a_source_loses_and_doubles_nothing"))
            .await
    );
}
