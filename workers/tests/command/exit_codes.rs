//! What is wrong, and what a command says and ends with.

use crate::run::{run, run_with};
use std::process::Command;

/// What each of some command lines says, and the code it ends with.
fn all_end(code: i32, lines: &[(&[&str], &str)]) {
    let dir = tempfile::tempdir().unwrap();
    for (args, said) in lines {
        let ran = run(dir.path(), args).ended(code).said(said);
        assert_eq!(ran.stdout, "", "{args:?}");
        assert_eq!(ran.count("received"), 0);
    }
}

#[test]
fn a_wrong_command_line_is_64() {
    all_end(
        64,
        &[
            (&["bridge"], "required arguments"),
            (&["brigde", "a", "b"], "'bridge'"),
            (&["consume", "local:w.db?queue=q", "--limt", "3"], "--limit"),
            (&["consume", "local:w.db?queue=q", "--limit", "many"], "invalid value 'many'"),
            (&["consume", "local:w.db?queue=q", "--until-idle", "soon"], "no duration such as 500ms"),
            (&["consume", "local:w.db?queue=q", "--output", "local:x.db?queue=a"], "longshore bridge"),
            (&["dead-letters", "list", "local:w.db?queue=q", "--where", "reasn~x"], "  reasn~x\n  ^^^^^\n"),
            (&["run"], "unrecognized subcommand"),
        ],
    );
}

#[test]
fn a_command_line_that_lost_its_tail_is_told_to_quote_its_url() {
    all_end(64, &[(&["bridge", "file:in.ndjson?key=/key"], "hint: a shell takes a '&'")]);
}

#[test]
fn a_command_line_that_lost_only_options_to_the_background_is_told_too() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["produce", "local:w.db?queue=q"]).ended(0);
    let in_a_shell = |line: &str| {
        let line = line.replace("longshore", env!("CARGO_BIN_EXE_longshore"));
        let out = Command::new("sh").args(["-c", &line]).current_dir(dir.path()).output().unwrap();
        (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (_, said) = in_a_shell("longshore inspect local:w.db?queue=q&group=g; wait");
    assert!(said.contains("running in the background: a shell takes a '&'"), "{said}");
    let (_, said) = in_a_shell("longshore inspect 'local:w.db?queue=q&group=g'");
    assert!(!said.contains("background"), "{said}");
}

/// What is wrong first depends on the build.
const OF_KAFKA_WITHOUT_A_TOPIC: &str =
    if cfg!(feature = "kafka") { "option 'topic' is missing" } else { "comes with the feature 'kafka'" };

#[test]
fn a_wrong_url_option_or_path_is_78_and_says_what_was_meant() {
    all_end(
        78,
        &[
            (&["consume", "lcoal:w.db?queue=q"], "unknown scheme 'lcoal': did you mean 'local'?"),
            (&["consume", "w.db"], "is no URL such as local:"),
            (&["consume", "kafka://h"], OF_KAFKA_WITHOUT_A_TOPIC),
            (&["consume", "local:w.db?qeue=q"], "unknown option 'qeue': did you mean 'queue'?"),
            (&["consume", "local:w.db?queue=q&claim=1ms"], "option 'claim' is below"),
            (&["consume", "local:w.db?queue=q", "--rate", "0", "--limit", "0"], "'consume' rate must be more than 0"),
            (
                &["bridge", "local:w.db?queue=q", "local:w.db?queue=r", "--concurrency", "0"],
                "concurrency must be at least 1",
            ),
            (&["consume", "file:missing.ndjson"], "file 'missing.ndjson' cannot be read"),
            (&["consume", "local:w.db?queue=q", "--output", "missing/out.ndjson"], "file 'missing/out.ndjson'"),
            (&["consume", "local:w.db?queue=q", "--admin-listen", "8080"], "has no port"),
            (&["inspect", "local:missing.db?queue=q"], "store 'missing.db' does not exist"),
            (&["dead-letters", "list", "local:missing.db?queue=q"], "missing.db"),
            (&["dead-letters", "list", "file:-"], "--dead-letter"),
            (&["dead-letters", "redrive", "local:w.db?queue=q", "--to", "lcoal:x"], "did you mean 'local'?"),
        ],
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["bridge", "local:w.db?qeue=q", "file:out?fromat=record", "--rate", "0"])
        .ended(78)
        .said("did you mean 'queue'?")
        .said("did you mean 'format'?")
        .said("rate must be more than 0");
}

#[test]
fn a_line_of_standard_input_that_is_no_json_is_65_at_once_and_names_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let began = std::time::Instant::now();
    let ran = run_with(dir.path(), &["produce", "local:w.db?queue=q"], "{\"n\":1}\nno json\n{\"n\":2}\n");
    let ran = ran.ended(65).said("error: 'produce': message at 8 has no dead-letter place to go to: line 2: ");
    // Far below the deadline of a stop: nobody waits for what cannot go anywhere.
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    assert_eq!((ran.count("received"), ran.count("acked"), ran.count("abandoned")), (3, 2, 1));
}

#[test]
fn a_password_on_the_command_line_is_warned_about_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(dir.path(), &["consume", "amqp://user:canary@host/?queue=q&prefetch=0"])
        .ended(78)
        .said("the password in 'amqp://user:***@host/?queue=q&prefetch=0'")
        .said("${env:NAME}");
    assert!(!ran.stderr.contains("canary"), "{}", ran.stderr);
}

#[test]
fn help_goes_to_standard_output_with_0() {
    for args in [&["--help"][..], &["bridge", "--help"], &["dead-letters", "redrive", "--help"], &["--version"]] {
        let out = Command::new(env!("CARGO_BIN_EXE_longshore")).args(args).output().unwrap();
        assert_eq!((out.status.code(), out.stderr.len()), (Some(0), 0), "{args:?}");
        assert!(!out.stdout.is_empty());
    }
}
