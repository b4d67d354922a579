//! From a file through a durable queue into a file, stopped in the middle.

use crate::run::{Ran, run, start, until, waiting};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::Path;

/// The same queue, as what is written to and as what is read from.
struct Queue<'a> {
    sink: &'a str,
    source: &'a str,
}

const LOCAL: Queue<'_> = Queue { sink: "local:w.db?queue=webhooks", source: "local:w.db?queue=webhooks&group=a" };

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
fn goes_through_whole(lines: &str, rate: &str, queue: &Queue<'_>) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("in.ndjson"), lines).unwrap();
    let many = lines.lines().count() as u64;
    let third = many / 3;

    let from = "file:in.ndjson?key=/key&group=in";
    let bridge = ["bridge", from, queue.sink, "--rate", rate, "--until-idle", "1s"];
    let runs = stopped_twice(dir, &bridge, [third, 2 * third], || waiting(dir, queue.source));
    assert_eq!(sum(&runs, "acked"), many as i64);
    assert!(runs.iter().all(|ran| ran.count("acked") > 0), "each run had its part");
    assert_eq!(waiting(dir, queue.source), many);

    let consume = ["consume", queue.source, "--output", "out.ndjson", "--rate", rate, "--until-idle", "500ms"];
    let written = || std::fs::read_to_string(dir.join("out.ndjson")).map_or(0, |out| out.lines().count() as u64);
    let runs = stopped_twice(dir, &consume, [third, 2 * third], written);
    assert_eq!(sum(&runs, "acked"), many as i64);
    assert_eq!(waiting(dir, queue.source), 0);

    let out = std::fs::read_to_string(dir.join("out.ndjson")).unwrap();
    same_by_key(&out, lines);
    assert_eq!(out.len(), lines.len());
}

/// Says where the lines of a key are not what they were, instead of printing them all.
#[track_caller]
fn same_by_key(out: &str, lines: &str) {
    let (out, lines) = (by_key(out), by_key(lines));
    assert_eq!(out.keys().collect::<Vec<_>>(), lines.keys().collect::<Vec<_>>());
    for (key, wanted) in &lines {
        let came: Vec<_> = out[key].iter().map(|line| wanted.iter().position(|wanted| wanted == line)).collect();
        let wrong: Vec<_> = came.iter().enumerate().filter(|(at, place)| **place != Some(*at)).collect();
        assert!(wrong.is_empty(), "of key {key}, (came as, is line): {wrong:?}");
        assert_eq!(came.len(), wanted.len(), "of key {key}");
    }
}

/// Lines of seven keys; blanks, escapes and numbers are to stay as they were written.
fn made_lines(many: usize) -> String {
    let line = |n: usize| {
        let text = "x".repeat(n % 120 * 10);
        format!("{{ \"key\" : \"k{}\",\"n\": {n}.0, \"text\":\"\\u00e9 {text}\"}}\n", n % 7)
    };
    (0..many).map(line).collect()
}

/// Lines of a file that lies beside the project on the machines of those who develop it.
fn real_lines(name: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    std::fs::read_to_string(&path)
        .inspect_err(|error| eprintln!("NOT DONE: {} cannot be read: {error}", path.display()))
        .ok()
}

#[test]
fn what_is_stopped_twice_in_the_middle_arrives_once_byte_for_byte_and_in_order_by_key() {
    goes_through_whole(&made_lines(120), "150", &LOCAL);
}

#[test]
fn real_webhooks_arrive_once_byte_for_byte_and_in_order_by_key() {
    if let Some(lines) = real_lines("github-webhooks.ndjson") {
        goes_through_whole(&lines, "250", &LOCAL);
    }
}

/// The same by way of RabbitMQ, on a queue of this type.
#[cfg(feature = "amqp")]
fn goes_through_rabbitmq(kind: &str) {
    let Some(broker) = crate::broker::shared() else { return };
    let url = format!("{}?queue={}&type={kind}", broker.url(), broker.fresh("quakes"));
    let lines = real_lines("earthquakes.ndjson").unwrap_or_else(|| made_lines(1_200));
    goes_through_whole(&lines, "600", &Queue { sink: &url, source: &url });
}

#[cfg(feature = "amqp")]
#[test]
fn earthquakes_go_through_a_quorum_queue_whole_and_in_order_by_key() {
    goes_through_rabbitmq("quorum");
}

#[cfg(feature = "amqp")]
#[test]
fn earthquakes_go_through_a_classic_queue_whole_and_in_order_by_key() {
    goes_through_rabbitmq("classic");
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
