//! What could not be handled.

use crate::run::{Ran, run, run_with, start, until, waiting};
use rustix::process::Signal;
use std::path::Path;

const SOURCE: &str = "file:in.ndjson?key=/k&group=in";

/// A file with two lines that are no JSON, taken to a queue.
fn with_bad_lines() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let lines = "{\"k\":1}\nno json\n{\"k\":2}\n\n[cut\n{\"k\":3}\n";
    std::fs::write(dir.path().join("in.ndjson"), lines).unwrap();
    let ran = run(dir.path(), &["bridge", SOURCE, "local:w.db?queue=good"]).ended(0);
    assert_eq!((ran.count("received"), ran.count("acked"), ran.count("dead_lettered")), (5, 3, 2));
    dir
}

fn dead_letters(dir: &Path, args: &[&str]) -> Ran {
    run(dir, &[&["dead-letters"], args].concat())
}

fn listed(dir: &Path, source: &str) -> Vec<serde_json::Value> {
    dead_letters(dir, &["list", source, "--json"]).ended(0).json()
}

#[test]
fn a_bad_line_is_listed_with_its_number_and_shown_whole() {
    let dir = with_bad_lines();
    let all = listed(dir.path(), SOURCE);
    assert_eq!(all.len(), 2);
    assert_eq!((&all[0]["reason"], &all[0]["worker"]), (&"undecodable".into(), &"bridge".into()));
    assert!(all[0]["error"].as_str().unwrap().starts_with("line 2: "), "{all:?}");
    assert!(all[1]["error"].as_str().unwrap().starts_with("line 5: "), "{all:?}");

    let at = all[1]["at"].as_str().unwrap();
    let shown = dead_letters(dir.path(), &["show", SOURCE, at]).ended(0);
    assert!(shown.stdout.contains("longshore-reason: undecodable\n"), "{}", shown.stdout);
    assert!(shown.stdout.ends_with("\n\n[cut\n"), "{}", shown.stdout);
    assert_eq!(dead_letters(dir.path(), &["show", SOURCE, at, "--json"]).ended(0).json()[0]["payload"], "[cut");
    dead_letters(dir.path(), &["show", SOURCE, "4711"]).ended(1).said("no dead letter '4711'");

    let table = dead_letters(dir.path(), &["list", SOURCE]).ended(0).stdout;
    assert!(table.starts_with("AT") && table.contains("line 5: "), "{table}");
}

#[test]
fn a_filter_says_which() {
    let dir = with_bad_lines();
    let found = |filter: &str| dead_letters(dir.path(), &["list", SOURCE, "--json", "--where", filter]).ended(0).json();
    assert_eq!(found("error~'line 2' and age<1h").len(), 1);
    assert_eq!(found("reason=undecodable and not attempts>0").len(), 2);
    assert_eq!(found("age>1h or reason~timeout").len(), 0);
}

#[test]
fn what_takes_off_needs_a_yes_and_a_dry_run_changes_nothing() {
    let dir = with_bad_lines();
    for act in ["redrive", "discard"] {
        dead_letters(dir.path(), &[act, SOURCE]).ended(64).said("add --yes");
        let dry = dead_letters(dir.path(), &[act, SOURCE, "--dry-run", "--yes"]).ended(0);
        assert_eq!(dry.stdout.lines().count(), 3, "{}", dry.stdout);
    }
    assert_eq!(listed(dir.path(), SOURCE).len(), 2);
}

#[test]
fn discarded_is_what_was_meant_and_no_more() {
    let dir = with_bad_lines();
    let ran = dead_letters(dir.path(), &["discard", SOURCE, "--where", "error~'line 2'", "--yes"]).ended(0);
    assert_eq!((ran.count("received"), ran.count("discarded")), (1, 1));
    let left = listed(dir.path(), SOURCE);
    assert!(left.len() == 1 && left[0]["error"].as_str().unwrap().starts_with("line 5"), "{left:?}");
    dead_letters(dir.path(), &["discard", SOURCE, "--yes"]).ended(0);
    dead_letters(dir.path(), &["list", SOURCE]).ended(0).said("no dead letters in 'file:in.ndjson.dead");
}

#[test]
fn what_the_place_does_not_take_stays_and_is_told() {
    let dir = with_bad_lines();
    let ran = dead_letters(dir.path(), &["redrive", SOURCE, "--yes"]).ended(65).said("the payload is no JSON");
    assert_eq!((ran.count("received"), ran.count("returned")), (2, 2));
    assert_eq!(listed(dir.path(), SOURCE).len(), 2);
}

#[test]
fn a_redrive_that_was_cut_between_the_confirm_and_the_removal_sends_nothing_twice() {
    let dir = with_bad_lines();
    let place = dir.path().join("in.ndjson.dead");
    let before = std::fs::read(&place).unwrap();
    let redrive = ["redrive", SOURCE, "--to", "local:fix.db?queue=fix", "--yes"];
    assert_eq!(dead_letters(dir.path(), &redrive).ended(0).count("acked"), 2);
    assert_eq!(std::fs::read(&place).unwrap(), b"");
    // As if it had been killed before it could take them off.
    std::fs::write(&place, before).unwrap();
    assert_eq!(dead_letters(dir.path(), &redrive).ended(0).count("acked"), 2);
    assert_eq!(waiting(dir.path(), "local:fix.db?queue=fix"), 2);
}

#[test]
fn a_dead_letter_goes_back_to_where_it_came_from_and_can_die_again() {
    let dir = with_bad_lines();
    let dir = dir.path();
    dead_letters(dir, &["redrive", SOURCE, "--to", "local:w.db?queue=q", "--limit", "1", "--yes"]).ended(0);
    // A line of a file has to be JSON, so the queue's message dies in its own place.
    let queue = "local:w.db?queue=q&group=g";
    let consume = ["consume", queue, "--output", "out", "--until-idle", "300ms"];
    assert_eq!(run(dir, &consume).ended(0).count("dead_lettered"), 1);
    let dead = &listed(dir, queue)[0];
    assert_eq!(dead["reason"], "unrepresentable");
    assert_eq!(dead["redriven_from"], "file:in.ndjson.dead?format=record");
    let first_id = dead["id"].as_str().unwrap().to_owned();

    let ran =
        dead_letters(dir, &["redrive", queue, "--where", "redriven-from~dead", "--rate", "100", "--yes"]).ended(0);
    assert_eq!((ran.count("received"), ran.count("acked")), (1, 1));
    assert_eq!(listed(dir, queue).len(), 0);
    let record = ["consume", queue, "--output", "file:-?format=record", "--until-idle", "300ms"];
    let back = &run(dir, &record).ended(0).json()[0];
    assert_eq!(back["payload"], "no json");
    let headers = back["headers"].as_array().unwrap();
    let names: Vec<&str> = headers.iter().map(|header| header[0].as_str().unwrap()).collect();
    assert_eq!(names, ["longshore-first-seen", "longshore-id", "longshore-redriven-from"], "{back}");
    assert_eq!(headers[2][1], "local:w.db?queue=q.g.dead");
    assert_ne!(headers[1][1], first_id.as_str());
}

#[test]
fn a_redrive_reaches_the_group_whose_message_another_group_still_holds() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // One message with an id and no line of its own, for two groups.
    let record = r#"{"payload":"no json","headers":[["longshore-id","a7"]]}"#;
    for group in ["one", "two"] {
        run(dir, &["consume", &format!("local:w.db?queue=q&group={group}"), "--until-idle", "100ms"]).ended(0);
    }
    run_with(dir, &["produce", "local:w.db?queue=q", "file:-?format=record"], &format!("{record}\n")).ended(0);
    let one = "local:w.db?queue=q&group=one";
    assert_eq!(run(dir, &["consume", one, "-o", "out", "--until-idle", "300ms"]).ended(0).count("dead_lettered"), 1);
    assert_eq!(waiting(dir, one), 0);
    dead_letters(dir, &["redrive", one, "--yes"]).ended(0);
    // The queue still holds id a7 for group two, and must not take this one for it.
    assert_eq!(waiting(dir, one), 1);
}

#[test]
fn dead_letters_of_standard_input_go_where_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let bridge = ["bridge", "file:-", "local:w.db?queue=q", "--dead-letter", "file:bad"];
    let ran = run_with(dir, &bridge, "{}\noops\n").ended(0);
    assert_eq!((ran.count("acked"), ran.count("dead_lettered")), (1, 1));
    let ran = dead_letters(dir, &["list", "file:-", "--dead-letter", "file:bad", "--json"]).ended(0);
    assert!(ran.json()[0]["error"].as_str().unwrap().starts_with("line 2: "));
}

#[test]
fn a_redrive_that_is_stopped_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let lines: String = (0..60).map(|n| format!("no json {n}\n")).collect();
    let bridge = ["bridge", "file:-", "local:w.db?queue=q", "--dead-letter", "local:w.db?queue=bad"];
    assert_eq!(run_with(dir, &bridge, &lines).ended(0).count("dead_lettered"), 60);

    let to = "local:w.db?queue=again&group=g";
    let place = ["file:-", "--dead-letter", "local:w.db?queue=bad", "--to", to, "--yes"];
    let started = start(dir, &[&["dead-letters", "redrive", "--rate", "40"], &place[..]].concat());
    until(|| waiting(dir, to) > 0);
    started.signal(Signal::TERM);
    let first = started.end().ended(0).count("acked");
    assert!((1..60).contains(&first), "{first}");
    let rest = run(dir, &[&["dead-letters", "redrive"], &place[..]].concat()).ended(0).count("acked");
    assert_eq!((first + rest, waiting(dir, to)), (60, 60));
}

#[test]
fn what_was_too_large_to_be_kept_is_not_sent_again_empty() {
    let dir = tempfile::tempdir().unwrap();
    let record = r#"{"payload":"","headers":[["longshore-oversized","99000000"],["longshore-reason","oversized"]]}"#;
    std::fs::write(dir.path().join("in.ndjson.dead"), format!("{record}\n")).unwrap();
    std::fs::write(dir.path().join("in.ndjson"), "").unwrap();
    let redrive = ["redrive", SOURCE, "--to", "local:w.db?queue=q", "--yes"];
    let ran = dead_letters(dir.path(), &redrive).ended(65).said("its payload was too large to be kept");
    assert_eq!(ran.count("returned"), 1);
    assert_eq!((listed(dir.path(), SOURCE).len(), waiting(dir.path(), "local:w.db?queue=q")), (1, 0));
}
