//! What hangs, blocks or leaks does not keep the process.

use crate::support::{Ended, Puppet, fill};
use rustix::process::Signal;
use std::time::Duration;

/// An idle app is gone this soon, whatever it leaked.
const IDLE: Duration = Duration::from_secs(2);

pub fn a_blocked_executor_ends_by_the_deadline_and_names_worker_and_message() {
    let folder = tempfile::tempdir().unwrap();
    let source = format!("local:{}/orders.db?queue=orders", folder.path().display());
    fill(folder.path(), &source, 4, 4);
    let mut puppet = Puppet::start("blocks", &[("SOURCE", &source), ("SHUTDOWN_TIMEOUT", "1s")]);
    puppet.hear("blocked");
    let sent = puppet.send(Signal::TERM);
    let ended = puppet.end();
    let took = ended.at - sent;
    ended.exited(75);
    assert!(took <= Duration::from_secs(2), "deadline and a second, not {took:?}\n{}", ended.log());
    for wanted in [
        "the deadline passed and the process still lives: exit 75",
        "consumer ship: ",
        "message at position ",
        "holds its thread since",
        "resource db: ready",
        "thread ",
    ] {
        ended.names(wanted);
    }
}

/// Waits until it is ready, terminates it, and gives how it ended and how long that took.
fn terminated(role: &str) -> (Ended, Duration) {
    let mut puppet = Puppet::start(role, &[]);
    puppet.event("ready");
    let sent = puppet.send(Signal::TERM);
    let ended = puppet.end();
    let took = ended.at - sent;
    (ended, took)
}

pub fn a_leaked_endless_thread_holds_nobody_up() {
    let (ended, took) = terminated("leaks a thread");
    ended.exited(0);
    assert!(took <= IDLE, "{took:?}");
    assert_eq!(ended.stdout, ["@ opened db", "@ closed cache", "@ closed db"]);
}

pub fn a_task_asleep_and_a_blocking_call_that_never_returns_hold_nobody_up() {
    let (ended, took) = terminated("leaks tasks");
    ended.exited(0);
    assert!(took <= IDLE, "{took:?}");
    assert_eq!(ended.stdout, ["@ opened db", "@ closed cache", "@ closed db"]);
}

pub fn a_close_that_hangs_is_named_and_the_others_still_close() {
    let (ended, took) = terminated("hangs at close");
    // Every message was settled: that a resource did not say goodbye is reported, and no reason to try again.
    ended.exited(0);
    assert!(took <= Duration::from_secs(6), "{took:?}");
    assert_eq!(ended.stdout[3..], ["@ closed pool", "@ closed db"]);
    assert_eq!(ended.actor("cache")["stopped"], "hung");
    assert_eq!(ended.actor("db")["stopped"], "properly");
}

pub fn a_close_that_fails_is_named_and_the_others_still_close() {
    let (ended, took) = terminated("fails at close");
    assert!(took <= IDLE, "{took:?}");
    assert_eq!(ended.stdout[3..], ["@ closed pool", "@ closed db"]);
    let cache = ended.actor("cache");
    assert_eq!(cache["stopped"], "failed");
    assert!(cache["error"].as_str().unwrap().contains("disk gone"), "{cache}");
}

pub fn a_slow_close_is_waited_for_and_warned_about() {
    let (ended, took) = terminated("closes slowly");
    ended.exited(0);
    assert!(took >= Duration::from_millis(2_300) && took <= Duration::from_secs(6), "{took:?}");
    assert_eq!(ended.stdout[3..], ["@ closed pool", "@ closed db"]);
    assert_eq!(ended.actor("cache")["stopped"], "slowly");
    ended.names("slow to close");
}

pub fn a_handler_that_outlives_the_deadline_is_named_and_its_message_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let source = format!("local:{}/orders.db?queue=orders", folder.path().display());
    fill(folder.path(), &source, 3, 3);
    let set = [("SOURCE", source.as_str()), ("SHUTDOWN_TIMEOUT", "1s"), ("HANDLE_MS", "60000")];
    let mut puppet = Puppet::start("works", &set);
    for _ in 0..3 {
        puppet.hear("started");
    }
    let sent = puppet.send(Signal::TERM);
    let ended = puppet.end();
    let took = ended.at - sent;
    ended.exited(75);
    assert!(took <= Duration::from_secs(2), "{took:?}");
    let report = ended.report();
    assert_eq!((&report["total"]["received"], &report["total"]["returned"]), (&3.into(), &3.into()), "{report}");
    let stuck = report["stuck"].as_array().unwrap();
    assert_eq!(stuck.len(), 3, "{report}");
    assert!(stuck.iter().all(|one| one["worker"] == "ship"), "{report}");
    assert_eq!(ended.stdout.last().unwrap(), "@ closed db");
}
