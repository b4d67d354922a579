//! When a command ends by itself.

use crate::run::{run, run_with, start, start_unread, waiting};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::{Duration, Instant};

const QUEUE: &str = "local:w.db?queue=q&group=g";

fn filled(lines: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..lines).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    run_with(dir.path(), &["produce", "local:w.db?queue=q"], &text).ended(0);
    dir
}

fn path(dir: &tempfile::TempDir) -> &Path {
    dir.path()
}

#[test]
fn a_limit_takes_so_many_and_leaves_the_rest() {
    let dir = filled(50);
    let ran = run(path(&dir), &["consume", QUEUE, "--limit", "7"]).ended(0);
    assert_eq!((ran.stdout.lines().count(), ran.count("acked")), (7, 7));
    assert_eq!(waiting(path(&dir), QUEUE), 43);
}

#[test]
fn until_idle_ends_once_everything_is_taken_and_not_before() {
    let dir = filled(20);
    let ran = run(path(&dir), &["consume", QUEUE, "--until-idle", "300ms", "--rate", "40"]).ended(0);
    assert_eq!(
        ran.json().iter().map(|line| line["n"].as_u64().unwrap()).collect::<Vec<_>>(),
        (0..20).collect::<Vec<_>>()
    );
    // Again with nothing there.
    assert_eq!(run(path(&dir), &["consume", QUEUE, "--until-idle", "300ms"]).ended(0).count("received"), 0);
}

#[test]
fn a_rate_is_not_exceeded() {
    let dir = filled(0);
    let text = "{}\n".repeat(20);
    let began = Instant::now();
    run_with(path(&dir), &["produce", "local:w.db?queue=q", "--rate", "20"], &text).ended(0);
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(waiting(path(&dir), QUEUE), 20);
}

#[test]
fn whoever_stops_reading_ends_it_cleanly_and_the_rest_stays() {
    let dir = filled(400);
    let mut started = start_unread(path(&dir), &["consume", QUEUE, "--rate", "100"]);
    let mut out = BufReader::new(started.child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "{\"n\":0}\n");
    drop(out);
    let ran = started.end().ended(0).said("standard output was closed by whoever read it");
    let taken = ran.count("acked");
    assert!((1..400).contains(&taken), "{taken}");
    assert_eq!(waiting(path(&dir), QUEUE), 400 - taken as u64);
}

#[test]
fn an_answer_that_nobody_reads_is_no_failure() {
    let dir = filled(1);
    let mut started = start_unread(path(&dir), &["inspect", QUEUE]);
    drop(started.child.stdout.take());
    // Whether it has written before or after that.
    started.end().ended(0);
}

#[test]
fn an_interrupt_ends_it_with_0_and_its_counts() {
    let dir = filled(3);
    let started = start(path(&dir), &["consume", QUEUE]);
    started.ready();
    started.signal(Signal::INT);
    started.end().ended(0);
}

#[test]
fn whoever_interrupts_again_and_again_gets_out_with_130_and_the_counts() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{{\"pad\":\"{}\"}}\n", "x".repeat(1_000)).repeat(200);
    run_with(path(&dir), &["produce", "local:w.db?queue=q"], &text).ended(0);
    // Nobody reads: more than a pipe holds is on its way and cannot be confirmed.
    let mut started = start_unread(path(&dir), &["consume", QUEUE]);
    started.ready();
    crate::run::until(|| {
        let all = run(path(&dir), &["inspect", QUEUE, "--json"]).ended(0).json();
        all[0]["in_flight"].as_u64().is_some_and(|in_flight| in_flight > 100)
    });
    let stdout = started.child.stdout.take();
    crate::run::until(|| {
        started.signal(Signal::INT);
        started.child.try_wait().unwrap().is_some()
    });
    drop(stdout);
    let ran = started.end();
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert_eq!(waiting(path(&dir), QUEUE) as i64, 200 - ran.count("acked"));
}

#[test]
fn standard_input_is_handled_to_the_last_line_that_was_read_when_it_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut started = start(dir.path(), &["produce", "local:w.db?queue=q"]);
    started.ready();
    started.child.stdin.as_mut().unwrap().write_all(b"{\"n\":1}\n{\"n\":2}\n").unwrap();
    crate::run::until(|| waiting(dir.path(), QUEUE) == 2);
    started.signal(Signal::TERM);
    let ran = started.end().ended(0);
    assert_eq!((ran.count("received"), ran.count("acked")), (2, 2));
}

#[test]
fn a_group_that_nobody_named_is_told() {
    let dir = filled(1);
    run(path(&dir), &["consume", "local:w.db?queue=q", "--limit", "1"]).ended(0).said("it is 'longshore'");
}

#[test]
fn a_command_listens_only_where_it_is_told_to() {
    let dir = filled(1);
    let quiet = run(path(&dir), &["consume", QUEUE, "--limit", "1"]).ended(0);
    assert!(!quiet.stderr.contains("admin_listening"), "{}", quiet.stderr);
    let dir = filled(1);
    run(path(&dir), &["consume", QUEUE, "--limit", "1", "--admin-listen", "127.0.0.1:0"])
        .ended(0)
        .said("admin_listening");
}
