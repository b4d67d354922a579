//! The ledger finds what it is there to find: a bug is planted into the worker, and the run does not hold. Without a
//! bug it does.

use serde_json::Value;
use std::process::Command;

/// Enough for a bug that happens once in 500 messages to happen, and for some to be left after the last fault.
const MESSAGES: &str = "20000";
/// Few, so that messages of one key meet.
const KEYS: &str = "50";

/// Runs a scenario on the embedded queue: whether it held, and what did not.
fn run(scenario: &str, plant: Option<&str>) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore-ledger"));
    command.args(["run", "--by", "local", "--scenario", scenario, "--json", "--repeat", "2"]);
    command.args(["--messages", MESSAGES, "--keys", KEYS, "--folder"]).arg(folder.path());
    command.args(plant.map(|plant| format!("--plant={plant}")));
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let outcome: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said}"));
    let held = outcome["holds"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(if held { 0 } else { 1 }), "the exit code says whether it held");
    (held, outcome["seen"]["broken"].to_string())
}

#[track_caller]
fn finds(scenario: &str, plant: &str, wanted: &str) {
    let (held, broken) = run(scenario, Some(plant));
    assert!(!held && broken.contains(wanted), "{plant}: {wanted} is not in {broken}");
}

#[track_caller]
fn holds(scenario: &str) {
    let (held, broken) = run(scenario, None);
    assert!(held, "{broken}");
}

#[test]
fn a_worker_that_stops_well_holds_everything() {
    holds("sigterm");
}

#[test]
fn a_worker_that_is_killed_repeats_no_more_than_its_window() {
    holds("sigkill");
}

#[test]
fn a_full_window_goes_back_untouched() {
    holds("full-window");
}

#[test]
fn a_bridge_that_stops_well_holds_everything() {
    holds("bridge-stops");
}

#[test]
fn an_ack_before_the_handler_is_found_as_a_loss() {
    finds("sigkill", "ack-before-handler", "lost");
}

#[test]
fn an_ack_without_the_handler_is_found_as_a_loss() {
    finds("sigterm", "skip-effect", "lost");
}

#[test]
fn a_message_that_is_handled_twice_is_found() {
    finds("sigterm", "effect-twice", "published again");
}

#[test]
fn a_key_out_of_order_is_found() {
    finds("sigterm", "no-order", "out of order");
}

#[test]
fn a_damaged_payload_is_found() {
    finds("sigterm", "damage", "damaged");
}

#[test]
fn an_end_after_the_deadline_is_found() {
    // One stop is late, the last: each takes its time.
    finds("sigkill", "linger-at-the-end", "to end, deadline");
}

#[test]
fn a_wrong_exit_code_is_found() {
    finds("sigterm", "wrong-exit", "exit 75");
}
