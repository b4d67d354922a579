//! From a file through a durable queue into a file, stopped in the middle.

use crate::run::{Ran, run, start, until, waiting};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::Path;

const QUEUE: &str = "local:w.db?queue=webhooks&group=a";

/// Lines by key, in order.
fn by_key(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.split_terminator('\n') {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        all.entry(value["key"].to_string()).or_default().push(line.to_owned());
    }
    all
}

/// Runs a command three times: stopped twice once `reached` says how far it is, then to its end.
fn stopped_twice(dir: &Path, args: &[&str], steps: [u64; 2], reached: impl Fn() -> u64) -> Vec<Ran> {
    let mut runs = Vec::new();
    for step in steps {
        let started = start(dir, args);
        started.ready();
        until(|| reached() >= step);
        started.signal(Signal::TERM);
        runs.push(started.end().ended(0));
    }
    runs.push(run(dir, args).ended(0));
    runs
}

fn sum(runs: &[Ran], name: &str) -> i64 {
    runs.iter().map(|ran| ran.count(name)).sum()
}

/// The main job of the command line, on lines of any kind that have a `key`.
fn goes_through_whole(lines: &str, rate: &str) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("in.ndjson"), lines).unwrap();
    let many = lines.lines().count() as u64;
    let third = many / 3;

    let bridge = [
        "bridge",
        "file:in.ndjson?key=/key&group=in",
        "local:w.db?queue=webhooks",
        "--rate",
        rate,
        "--until-idle",
        "1s",
    ];
    let runs = stopped_twice(dir, &bridge, [third, 2 * third], || waiting(dir, QUEUE));
    assert_eq!(sum(&runs, "acked"), many as i64);
    assert!(runs.iter().all(|ran| ran.count("acked") > 0), "each run had its part");
    assert_eq!(waiting(dir, QUEUE), many);

    let consume = ["consume", QUEUE, "--output", "out.ndjson", "--rate", rate, "--until-idle", "500ms"];
    let written = || std::fs::read_to_string(dir.join("out.ndjson")).map_or(0, |out| out.lines().count() as u64);
    let runs = stopped_twice(dir, &consume, [third, 2 * third], written);
    assert_eq!(sum(&runs, "acked"), many as i64);
    assert_eq!(waiting(dir, QUEUE), 0);

    let out = std::fs::read_to_string(dir.join("out.ndjson")).unwrap();
    assert_eq!(by_key(&out), by_key(lines));
    assert_eq!(out.len(), lines.len());
}

#[test]
fn what_is_stopped_twice_in_the_middle_arrives_once_byte_for_byte_and_in_order_by_key() {
    let lines: String = (0..120)
        // Blanks, escapes and numbers as they were written.
        .map(|n| format!("{{ \"key\" : \"k{}\",\"n\": {n}.0, \"text\":\"\\u00e9 {}\"}}\n", n % 7, "x".repeat(n * 10)))
        .collect();
    goes_through_whole(&lines, "150");
}

#[test]
fn real_webhooks_arrive_once_byte_for_byte_and_in_order_by_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/github-webhooks.ndjson");
    match std::fs::read_to_string(&path) {
        Ok(lines) => goes_through_whole(&lines, "250"),
        Err(error) => eprintln!("not run: {} cannot be read: {error}", path.display()),
    }
}

#[test]
fn a_message_keeps_key_headers_and_time_on_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let record = r#"{"key":"k","payload":"a\nb","headers":[["h","1"],["h","2"]],"timestamp_ms":17,"topic":"t"}"#;
    std::fs::write(dir.path().join("in"), format!("{record}\n")).unwrap();
    run(dir.path(), &["produce", "local:w.db?queue=q", "file:in?format=record"]).ended(0);
    let ran =
        run(dir.path(), &["consume", "local:w.db?queue=q", "-o", "file:-?format=record", "--limit", "1"]).ended(0);
    let out = &ran.json()[0];
    assert_eq!((&out["key"], &out["payload"], &out["timestamp_ms"]), (&"k".into(), &"a\nb".into(), &17.into()));
    assert_eq!(out["headers"], serde_json::json!([["h", "1"], ["h", "2"]]));
}
