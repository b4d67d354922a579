//! No secret is told, whatever fails and however much is logged.

use crate::stops::{admin, http};
use crate::support::Puppet;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustix::process::Signal;

const SECRET: &str = "s3cret/c4nary+1";
const ESCAPED: &str = "s3cret%2Fc4nary%2B1";

/// Every form in which it could leak; base64 with whatever stands before it.
fn forms() -> Vec<String> {
    let mut forms = vec![SECRET.to_owned(), ESCAPED.to_owned(), ESCAPED.to_lowercase(), "c4nary".to_owned()];
    for text in [SECRET.to_owned(), format!("user:{SECRET}"), format!("{SECRET}\n"), format!("\0user\0{SECRET}")] {
        forms.push(STANDARD.encode(&text).trim_end_matches('=').to_owned());
        forms.push(URL_SAFE_NO_PAD.encode(&text));
    }
    forms
}

#[track_caller]
fn tells_nothing(of: &str, said: &str) {
    for form in forms() {
        assert!(!said.contains(&form), "{of} tells '{form}'\n{said}");
    }
}

pub fn no_secret_of_a_url_appears_in_any_failure() {
    // A broker that is nowhere, or a scheme that is not in this build.
    let nowhere = if cfg!(feature = "amqp") { 69 } else { 78 };
    let nowhere_of_kafka = if cfg!(feature = "kafka") { 69 } else { 78 };
    for (url, code) in [
        (format!("amqp://user:{ESCAPED}@127.0.0.1:1/v?queue=q"), nowhere),
        (format!("amqp://user:{SECRET}@h:1/v?queue=q"), 78),
        (format!("kafka://user:{ESCAPED}@127.0.0.1:1?topic=q"), nowhere_of_kafka),
        (format!("kafka://user:{ESCAPED}@127.0.0.1:1?topic=q&auth=scram-sha-512"), nowhere_of_kafka),
        (format!("kafkas://user:{ESCAPED}@127.0.0.1:1?topic=q&ssl.key.password={SECRET}"), nowhere_of_kafka),
        (format!("kafka://user:{SECRET}@h:1?topic=q"), 78),
        (format!("kafka://user@h:1?topic=q&sasl.password={SECRET}"), 78),
        (format!("kafka://h:1?topic=q&ssl.key.pasword={SECRET}"), 78),
        ("kafka://user:${env:CANARY}@127.0.0.1:1?topic=q".to_owned(), nowhere_of_kafka),
        (format!("nosuch://user:{ESCAPED}@h/v?queue=q"), 78),
        (format!("local://user:{ESCAPED}@h/x.db?queue=q"), 78),
        (format!("local://user:{SECRET}@h/x.db?qeue=q"), 78),
        (format!("memory://user:{ESCAPED}@h/q"), 78),
        (format!("memory://user:{ESCAPED}@h/q?capacity=-1"), 78),
        (format!("file://user:{ESCAPED}@h/x.ndjson"), 78),
        (format!("amqp:/user:{ESCAPED}@h/v"), 78),
        (format!("user:{ESCAPED}@h/v"), 78),
        (format!("amqp://user:{ESCAPED}@h/%ff"), 78),
        ("amqp://user:${env:CANARY}@127.0.0.1:1/v?queue=q".to_owned(), nowhere),
        ("memory://user:${env:CANARY}@h/v?queue=q".to_owned(), 78),
    ] {
        let set =
            [("URL", url.as_str()), ("CANARY", SECRET), ("LONGSHORE_LOG", "trace"), ("LONGSHORE_START_PATIENCE", "1s")];
        let ended = Puppet::start("has secrets", &set).end();
        ended.exited(code);
        tells_nothing(&url, &ended.log());
        assert!(ended.stderr.iter().any(|line| line.contains("'ship")), "it is told who has it\n{}", ended.log());
    }
}

pub fn no_secret_of_a_configuration_file_appears_in_any_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("longshore.toml");
    for text in [
        format!("[workers.ship]\nsource = \"nosuch://user:{ESCAPED}@h/v\""),
        format!("[workers.shop]\nsource = \"amqp://user:{ESCAPED}@h/v\""),
        format!("[workers.ship]\nsource = \"amqp://user:{ESCAPED}@h/v"),
        format!("[workers.ship]\nsource = [\"amqp://user:{ESCAPED}@h/v\"]"),
        format!("[workers.ship]\nsorce = \"amqp://user:{ESCAPED}@h/v\""),
        format!("[workers.ship]\nconcurrency = \"amqp://user:{ESCAPED}@h/v\""),
    ] {
        std::fs::write(&path, &text).unwrap();
        let set = [("URL", "memory:orders"), ("LONGSHORE_CONFIG", path.to_str().unwrap()), ("LONGSHORE_LOG", "trace")];
        let ended = Puppet::start("has secrets", &set).end();
        ended.exited(78);
        tells_nothing(&text, &ended.log());
    }
}

pub fn no_admin_token_appears_in_the_log() {
    let set =
        [("LONGSHORE_ADMIN_TOKEN", SECRET), ("LONGSHORE_ADMIN_LISTEN", "127.0.0.1:0"), ("LONGSHORE_LOG", "trace")];
    let mut puppet = Puppet::start("closes slowly", &set);
    let address = admin(&mut puppet);
    puppet.event("ready");
    let mut answers = String::new();
    for token in ["", "wrong", &SECRET[1..], SECRET] {
        let ask = format!("POST /shutdown HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n");
        answers += &http(address, &ask).unwrap();
    }
    assert!(answers.contains("shutdown_initiated"), "{answers}");
    puppet.send(Signal::TERM);
    let ended = puppet.end();
    ended.exited(0);
    tells_nothing("the log", &ended.log());
    tells_nothing("an answer", &answers);
}
