//! What cannot be run is refused early, completely and with the code that says why.

use crate::support::{Puppet, command};
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

pub fn everything_that_is_wrong_is_told_at_once_with_78() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let began = Instant::now();
    let set = [("LONGSHORE_ADMIN_LISTEN", address.as_str()), ("SHUTDOWN_TIMEOUT", "soon")];
    let ended = Puppet::start("is all wrong", &set).end();
    ended.exited(78);
    assert!(ended.at - began <= Duration::from_secs(2), "{:?}", ended.at - began);
    let told = |words: &[&str]| ended.stderr.iter().any(|line| words.iter().all(|word| line.contains(word)));
    for words in [
        ["'ship'", "name of two actors"],
        ["'pack'", "To<Shipped>"],
        ["'bill'", "Res<Nowhere>"],
        ["'count'", "lokal"],
        ["'count'", "did you mean 'local'"],
        ["'weigh'", "concurrency"],
        ["'weigh'", "capacity"],
        ["'mark'", "did you mean 'capacity'"],
        ["admin.listen", &address],
        ["SHUTDOWN_TIMEOUT", "soon"],
    ] {
        assert!(told(&words), "no line with {words:?} in\n{}", ended.log());
    }
    assert!(ended.stdout.is_empty(), "{:?}", ended.stdout);
}

pub fn bad_input_without_a_dead_letter_place_ends_with_65() {
    let mut command = command("reads lines");
    command.env("SOURCE", "file:-").stdin(Stdio::piped());
    let mut puppet = Puppet::of(command);
    let mut stdin = puppet.stdin();
    stdin.write_all(b"{\"n\":1}\n").unwrap();
    // What has not been started when the bad line is found is not started any more.
    puppet.hear("started 1");
    stdin.write_all(b"this is no JSON\n").unwrap();
    let ended = puppet.end();
    ended.exited(65);
    ended.names("ship");
    assert_eq!(ended.stdout, ["@ opened db", "@ started 1", "@ closed db"]);
    let report = ended.report();
    assert_eq!((&report["total"]["acked"], &report["total"]["abandoned"]), (&1.into(), &1.into()), "{report}");
}

pub fn a_resource_that_cannot_be_opened_ends_with_1_and_the_earlier_ones_close() {
    let ended = Puppet::start("cannot open", &[]).end();
    ended.exited(1);
    ended.names("resource 'cache': could not be opened: no such host");
    assert_eq!(ended.stdout, ["@ opened db", "@ closed db"]);
}

pub fn a_service_that_cannot_be_kept_alive_drains_the_app_and_ends_with_70() {
    let ended = Puppet::start("keeps dying", &[]).end();
    ended.exited(70);
    let died = ended.stdout.iter().filter(|line| *line == "@ died").count();
    assert_eq!(died, 6, "once, and five restarts");
    assert_eq!(ended.stdout.last().unwrap(), "@ closed db");
    assert!(ended.actor("watch")["error"].as_str().unwrap().contains("socket gone"));
}
