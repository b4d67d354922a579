//! The proof of the suite: it passes what is honest, and names what is broken.
//!
//! Time stands still but for waits, so a case that waits in vain costs nothing.

use crate::reference::{Fault, Manner, Reference};
use longshore::testing::conformance::{self, Place, Report, Subject};
use std::collections::BTreeSet;
use std::time::Duration;

async fn run(manner: Manner, fault: Option<Fault>) -> Report {
    let transport = Reference::new(manner, fault);
    let revoker = transport.clone();
    let mut count = 0;
    let subject = Subject::new(format!("{manner:?} with {fault:?}"), transport, move |_| {
        count += 1;
        Place::new(format!("reference:q{count}"), format!("reference:q{count}?group={{group}}"))
    });
    let lapse = move |place: &Place| -> longshore::transport::BoxFuture<'static, ()> {
        let queue = place.sink().expect("the place has a sink").path().to_owned();
        revoker.revoke(&queue);
        Box::pin(std::future::ready(()))
    };
    conformance::run(subject.patience(Duration::from_secs(5)).lapse(lapse)).await
}

/// Each fault, in a transport of that manner, and the cases that fail by it.
const FAULTS: &[(Manner, Fault, &[&str])] = &[
    (
        Manner::Queue,
        Fault::AcksEarly,
        &[
            "what_a_flush_proves_survives_a_crash",
            "a_later_message_may_settle_first",
            "a_settlement_of_an_old_epoch_changes_nothing",
            "what_was_not_settled_comes_again_after_a_close",
            "what_was_not_settled_comes_again_after_a_crash",
            "a_message_that_outlives_two_owners_is_a_suspect",
            "an_orderly_end_makes_no_suspect",
            "a_mark_outlives_a_crash",
            "what_a_close_gives_back_comes_in_its_old_order",
            "what_a_crash_leaves_comes_in_its_old_order",
            "a_waiting_consumer_inherits_from_a_dead_one",
            "a_key_goes_on_in_order_when_its_owner_dies",
            "a_close_while_messages_are_handled_gives_them_back",
            "a_settlement_for_a_closed_source_is_stale_in_the_next",
        ],
    ),
    (
        Manner::Queue,
        Fault::ForgetsReturns,
        &[
            "a_settlement_after_a_return_changes_nothing",
            "what_is_given_back_comes_again",
            "an_orderly_end_makes_no_suspect",
            "what_is_given_back_comes_in_its_old_order",
        ],
    ),
    (Manner::Queue, Fault::ReturnsToTheTail, &["what_is_given_back_comes_in_its_old_order"]),
    (Manner::Queue, Fault::DeliversAfterStop, &["nothing_is_delivered_after_the_intake_has_stopped"]),
    (Manner::Queue, Fault::DeliversAfterClose, &["a_close_delivers_nothing_more"]),
    (
        Manner::Queue,
        Fault::SettlesStale,
        &[
            "a_settlement_of_an_old_epoch_changes_nothing",
            "a_settlement_after_a_return_changes_nothing",
            "a_lost_ownership_is_told_and_its_settlements_are_stale",
            "a_settlement_for_a_closed_source_is_stale_in_the_next",
        ],
    ),
    (
        Manner::Queue,
        Fault::HidesStale,
        &[
            "a_settlement_told_twice_counts_once",
            "a_settlement_of_an_old_epoch_changes_nothing",
            "a_settlement_after_a_return_changes_nothing",
            "a_lost_ownership_is_told_and_its_settlements_are_stale",
            "a_settlement_for_a_closed_source_is_stale_in_the_next",
        ],
    ),
    (
        Manner::Queue,
        Fault::IgnoresDemand,
        &[
            "no_more_messages_come_than_were_asked_for",
            "what_is_asked_for_replaces_what_was_asked_before",
            "no_more_bytes_come_than_were_asked_for",
            "a_message_over_the_bytes_comes_alone",
            "what_is_given_back_comes_in_its_old_order",
        ],
    ),
    (
        Manner::Queue,
        Fault::IgnoresBytes,
        &["no_more_bytes_come_than_were_asked_for", "a_message_over_the_bytes_comes_alone"],
    ),
    (Manner::Queue, Fault::IgnoresPause, &["a_paused_source_delivers_nothing_and_settles_on"]),
    (Manner::Queue, Fault::FlushesEarly, &["a_flush_ends_after_what_it_proves"]),
    (Manner::Queue, Fault::LosesOnCancel, &["a_dropped_wait_of_a_source_loses_and_doubles_nothing"]),
    (Manner::Queue, Fault::LosesConfirmOnCancel, &["a_dropped_wait_of_a_sink_loses_no_confirm"]),
    (Manner::Queue, Fault::ConfirmsEarly, &["a_confirmed_message_outlives_its_sink"]),
    (
        Manner::Queue,
        Fault::ForgetsAtClose,
        &["a_closing_sink_stores_and_confirms_what_it_was_sent", "a_source_and_its_sink_close_at_once"],
    ),
    (
        Manner::Queue,
        Fault::BuriesTheDead,
        &[
            "what_a_flush_proves_survives_a_crash",
            "a_later_message_may_settle_first",
            "a_settlement_of_an_old_epoch_changes_nothing",
            "what_was_not_settled_comes_again_after_a_crash",
            "a_message_that_outlives_two_owners_is_a_suspect",
            "a_mark_outlives_a_crash",
            "what_a_crash_leaves_comes_in_its_old_order",
            "a_waiting_consumer_inherits_from_a_dead_one",
            "a_key_goes_on_in_order_when_its_owner_dies",
        ],
    ),
    (Manner::Queue, Fault::IgnoresDelay, &["a_retry_waits_its_delay_and_holds_nobody_up"]),
    (
        Manner::Queue,
        Fault::ForgetsAttempts,
        &["what_is_retried_comes_again_with_its_attempts", "a_retry_outlives_a_crash"],
    ),
    (Manner::Queue, Fault::ForgetsMarks, &["a_mark_outlives_a_crash"]),
    (
        Manner::Queue,
        Fault::SharesKeys,
        &["a_key_stays_with_its_owner_until_it_is_settled", "a_key_goes_on_in_order_when_its_owner_dies"],
    ),
    (Manner::Queue, Fault::MixesGroups, &["groups_each_see_every_message"]),
    (
        Manner::Queue,
        Fault::Miscounts,
        &[
            "a_close_while_messages_are_handled_gives_them_back",
            "the_counts_of_a_close_add_up",
            "a_close_without_time_still_ends",
        ],
    ),
    (Manner::Queue, Fault::HidesLoss, &["a_lost_ownership_is_told_and_its_settlements_are_stale"]),
    (Manner::Queue, Fault::ForgetsIds, &["an_id_that_waits_or_is_in_flight_is_stored_once"]),
    (
        Manner::Queue,
        Fault::MergesHeaders,
        &[
            "headers_come_back_in_order_with_repeats_and_any_value",
            "a_dead_letter_place_takes_and_shows_whole_messages",
        ],
    ),
    (
        Manner::Queue,
        Fault::TakesByLooking,
        &["a_shelf_removes_what_it_is_told_and_nothing_else", "looking_into_a_queue_takes_nothing"],
    ),
    (Manner::Queue, Fault::TakesAnyOption, &["an_unknown_option_is_refused_by_its_name"]),
    (
        Manner::Queue,
        Fault::ConfirmsTwice,
        &[
            "every_message_is_confirmed_once",
            "a_flush_waits_for_every_confirm",
            "a_closing_sink_stores_and_confirms_what_it_was_sent",
            "a_sink_that_drains_stores_what_it_was_sent",
            "a_dropped_wait_of_a_sink_loses_no_confirm",
        ],
    ),
    (Manner::Queue, Fault::FlushesBeforeStoring, &["a_flush_waits_for_every_confirm"]),
    (Manner::Queue, Fault::DropsWhenDraining, &["a_sink_that_drains_stores_what_it_was_sent"]),
    (
        Manner::Queue,
        Fault::MixesQueues,
        &[
            "an_id_that_waits_or_is_in_flight_is_stored_once",
            "several_queues_do_not_mix",
            "a_dead_letter_place_takes_and_shows_whole_messages",
            "a_shelf_removes_what_it_is_told_and_nothing_else",
        ],
    ),
    (Manner::Queue, Fault::CutsPayloads, &["a_payload_comes_back_byte_for_byte"]),
    (
        Manner::Queue,
        Fault::MakesText,
        &["any_bytes_come_back_as_they_were", "a_dead_letter_place_takes_and_shows_whole_messages"],
    ),
    (
        Manner::Queue,
        Fault::DropsKeys,
        &[
            "any_bytes_come_back_as_they_were",
            "keys_come_back_and_absent_ones_stay_absent",
            "a_tombstone_is_not_an_empty_payload",
            "a_key_stays_with_its_owner_until_it_is_settled",
            "a_key_goes_on_in_order_when_its_owner_dies",
            "a_dead_letter_place_takes_and_shows_whole_messages",
        ],
    ),
    (
        Manner::Queue,
        Fault::FillsTombstones,
        &["a_tombstone_is_not_an_empty_payload", "a_dead_letter_place_takes_and_shows_whole_messages"],
    ),
    (Manner::Queue, Fault::ForgetsTime, &["a_timestamp_comes_back"]),
    (Manner::Queue, Fault::IgnoresLimit, &["a_payload_over_the_limit_comes_empty_and_marked"]),
    (Manner::Queue, Fault::MissesNews, &["what_is_published_to_an_open_source_arrives"]),
    (
        Manner::Queue,
        Fault::SharesDeliveries,
        &[
            "consumers_of_a_group_share_its_messages",
            "a_waiting_consumer_inherits_from_a_dead_one",
            "a_key_stays_with_its_owner_until_it_is_settled",
        ],
    ),
    (
        Manner::Queue,
        Fault::ProvesOnDemand,
        &[
            "whatever_is_settled_does_not_come_again",
            "a_settlement_needs_no_flush",
            "what_is_retried_comes_again_with_its_attempts",
            "errors_then_success_is_one_success",
        ],
    ),
    (
        Manner::Queue,
        Fault::ForgetsProofs,
        &[
            "what_is_told_before_a_close_is_carried_out",
            "the_counts_of_a_close_add_up",
            "a_close_without_time_still_ends",
            "a_source_and_its_sink_close_at_once",
        ],
    ),
    (
        Manner::Queue,
        Fault::Reverses,
        &[
            "a_key_keeps_its_order",
            "a_queue_keeps_its_order",
            "what_is_given_back_comes_in_its_old_order",
            "positions_rise_within_an_epoch_and_a_partition",
            "a_key_stays_with_its_owner_until_it_is_settled",
            "a_key_goes_on_in_order_when_its_owner_dies",
        ],
    ),
    (Manner::Queue, Fault::HangsWithoutTime, &["a_close_without_time_still_ends"]),
    (Manner::Queue, Fault::OpensOnce, &["a_plan_opens_again"]),
    (Manner::Queue, Fault::NeverMeasures, &["a_measure_is_answered"]),
    (Manner::Queue, Fault::CountsWrongly, &["inspecting_counts_and_changes_nothing"]),
    (Manner::Queue, Fault::ForgetsDeaths, &["a_message_that_outlives_two_owners_is_a_suspect"]),
    (Manner::Queue, Fault::SuspectsEverybody, &["an_orderly_end_makes_no_suspect"]),
    (Manner::Finite, Fault::EndsEarly, &["a_finite_source_ends_once_and_after_its_last_message"]),
    (
        Manner::Finite,
        Fault::NeverEnds,
        &["a_finite_source_ends_once_and_after_its_last_message", "an_empty_finite_source_ends"],
    ),
    (Manner::Finite, Fault::CountsTooLow, &["a_delivery_count_is_never_too_low"]),
    (Manner::Fleeting, Fault::StopsShort, &["a_source_that_cannot_take_back_is_worked_off"]),
];

/// They ask for so little that whatever fails them fails nearly every other case as well.
const GROUND: [&str; 2] = ["what_is_published_arrives_once", "a_new_subscriber_sees_old_messages"];

#[tokio::test(start_paused = true)]
async fn an_honest_transport_of_any_manner_passes_and_every_case_is_passed_by_one() {
    let mut passed = BTreeSet::new();
    for manner in [Manner::Queue, Manner::Finite, Manner::Fleeting] {
        let report = run(manner, None).await;
        report.assert();
        passed.extend(report.passed());
    }
    assert_eq!(passed, conformance::names().collect());
}

#[tokio::test(start_paused = true)]
async fn each_fault_fails_the_cases_that_name_it_and_no_other() {
    for (manner, fault, should) in FAULTS {
        let report = run(*manner, Some(*fault)).await;
        assert_eq!(report.failed(), *should, "{report}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_case_can_fail() {
    let singled_out: BTreeSet<&str> = FAULTS.iter().flat_map(|(_, _, cases)| *cases).copied().collect();
    let others: Vec<&str> = conformance::names().filter(|name| !singled_out.contains(name)).collect();
    assert_eq!(others, GROUND);
    let report = run(Manner::Queue, Some(Fault::ForgetsThePast)).await;
    assert!(GROUND.iter().all(|case| report.failed().contains(case)), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_breaks_its_promises_fails_and_says_where() {
    let text = run(Manner::Queue, Some(Fault::ForgetsReturns)).await.to_string();
    assert!(text.contains("FAILED        what_is_given_back_comes_again\n"), "{text}");
    assert!(text.contains("waited 5s for 2 more messages in vain"), "{text}");
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "FAILED        a_mark_outlives_a_crash")]
async fn a_failed_report_panics_with_its_list() {
    run(Manner::Queue, Some(Fault::ForgetsMarks)).await.assert();
}
