//! Several processes on one `local` file: one dies, one stops answering, and nothing is lost.
//!
//! Each handler notes what it does in a file that only grows, so that it outlives whoever is killed.

#[path = "../support/child.rs"]
mod support;

use libtest_mimic::{Arguments, Trial};
use longshore::prelude::*;
use longshore::transport::local::Local;
use longshore::transport::{Transport, Url};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use support::{PATIENCE, Puppet, fill, full, given};

/// How long a claim lasts that nobody renews.
const CLAIM: Duration = Duration::from_secs(4);
const KEYS: u64 = 40;
/// Messages that one process may have unsettled, and so what its death may do twice.
const LOOK_AHEAD: u32 = 16;

fn main() -> ExitCode {
    if let Some(code) = support::child(&[("worker", worker)]) {
        return code;
    }
    let all = vec![Trial::test("a_killed_process_frees_its_claims_at_once_and_a_stopped_one_when_they_expire", || {
        a_killed_process_frees_its_claims_at_once_and_a_stopped_one_when_they_expire();
        Ok(())
    })];
    libtest_mimic::run(&Arguments::from_args(), all).exit_code()
}

#[derive(Deserialize)]
struct Line {
    n: u64,
}

/// The clock that all processes share, in milliseconds.
fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

fn worker() -> ExitCode {
    let effects = Arc::new(OpenOptions::new().append(true).create(true).open(given("EFFECTS")).expect("a file"));
    let ship = move |Json(line): Json<Line>| {
        let effects = effects.clone();
        let note = move |what: &str| {
            // One write each: lines of several processes stay whole.
            let line = format!("{what} {} {} {}\n", line.n, std::process::id(), now_ms());
            (&*effects).write_all(line.as_bytes()).map_err(Failure::retry)
        };
        async move {
            note("begun")?;
            tokio::time::sleep(Duration::from_millis(10 + line.n * 7 % 30)).await;
            note("done")
        }
    };
    let ship = Consumer::new("ship", given("SOURCE"), ship).concurrency(8).look_ahead(LOOK_AHEAD);
    App::from_env("orders").consumer(ship).run()
}

#[derive(Debug, Clone, Copy)]
struct Effect {
    done: bool,
    n: u64,
    pid: u32,
    at_ms: u64,
}

/// All that were noted so far; a line that is being written is none yet.
fn effects(path: &Path) -> Vec<Effect> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    let read = |line: &str| {
        let mut words = line.split(' ');
        let done = words.next()? == "done";
        let mut number = || words.next()?.parse::<u64>().ok();
        Some(Effect { done, n: number()?, pid: number()? as u32, at_ms: number()? })
    };
    whole.lines().map(|line| read(line).unwrap_or_else(|| panic!("no effect: {line}"))).collect()
}

/// What that process has begun and not done.
fn unfinished(effects: &[Effect], pid: u32) -> BTreeSet<u64> {
    let of = |done: bool| {
        effects.iter().filter(move |one| one.pid == pid && one.done == done).map(|one| one.n).collect::<BTreeSet<_>>()
    };
    &of(false) - &of(true)
}

/// Looks at the effects until they satisfy.
fn wait_until(path: &Path, what: &str, satisfied: impl Fn(&[Effect]) -> bool) -> Vec<Effect> {
    let began = Instant::now();
    loop {
        let seen = effects(path);
        if satisfied(&seen) {
            return seen;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}, {} effects", seen.len());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Per key, each new maximum is the old one + 1, and its predecessor was done when it began. Rewinds are allowed.
fn assert_order_by_key(effects: &[Effect]) {
    let (mut last, mut done) = (BTreeMap::new(), BTreeSet::new());
    for effect in effects {
        if effect.done {
            done.insert(effect.n);
            continue;
        }
        let next = last.entry(effect.n % KEYS).or_insert(effect.n % KEYS);
        if effect.n >= *next {
            assert_eq!(effect.n, *next, "a message of its key was left out: {effect:?}");
            let before = effect.n.checked_sub(KEYS);
            assert!(before.is_none_or(|before| done.contains(&before)), "before its predecessor was done: {effect:?}");
            *next += KEYS;
        }
    }
}

fn a_killed_process_frees_its_claims_at_once_and_a_stopped_one_when_they_expire() {
    let messages: u64 = if full() { 10_000 } else { 2_500 };
    let folder = tempfile::tempdir().unwrap();
    let noted = folder.path().join("effects");
    let source = format!("local:{}/orders.db?queue=orders&claim={}s", folder.path().display(), CLAIM.as_secs());
    fill(folder.path(), &source, messages as usize, KEYS as usize);
    let set = [("SOURCE", source.as_str()), ("EFFECTS", noted.to_str().unwrap())];
    let start = || {
        let mut puppet = Puppet::start("worker", &set);
        puppet.event("ready");
        puppet
    };
    let (killed, stopped, well) = (start(), start(), start());
    let (killed_pid, stopped_pid) = (killed.pid(), stopped.pid());
    let at_work = |seen: &[Effect], pid: u32| {
        seen.iter().filter(|one| one.done && one.pid == pid).count() >= 30 && !unfinished(seen, pid).is_empty()
    };
    wait_until(&noted, "three at work", |seen| {
        [killed_pid, stopped_pid, well.pid()].iter().all(|&pid| at_work(seen, pid))
    });
    stopped.send(Signal::STOP);
    let stopped_ms = now_ms();
    killed.send(Signal::KILL);
    let killed_ms = now_ms();
    assert_eq!(killed.end().code(), -1);
    // Neither of them writes any more: what they have begun and not done is what they hold, at least.
    let seen = effects(&noted);
    let (of_killed, of_stopped) = (unfinished(&seen, killed_pid), unfinished(&seen, stopped_pid));
    assert!(!of_stopped.is_empty() && !of_killed.is_empty(), "they were stopped at work: {of_killed:?} {of_stopped:?}");

    let all_done = |seen: &[Effect]| {
        let done: BTreeSet<u64> = seen.iter().filter(|one| one.done).map(|one| one.n).collect();
        done.len() as u64 == messages
    };
    let seen = wait_until(&noted, "every message done", all_done);
    let taken_over = |n: &u64, from: u32| {
        let by_another = |one: &&Effect| !one.done && one.n == *n && one.pid != from;
        seen.iter().find(by_another).unwrap_or_else(|| panic!("nobody took {n} over")).at_ms
    };
    let waits = |these: &BTreeSet<u64>, from: u32, since: u64| -> Vec<Duration> {
        these.iter().map(|n| Duration::from_millis(taken_over(n, from).saturating_sub(since))).collect()
    };
    let of_the_dead = waits(&of_killed, killed_pid, killed_ms);
    let of_the_silent = waits(&of_stopped, stopped_pid, stopped_ms);
    eprintln!("taken over from the killed after {of_the_dead:?}, from the stopped after {of_the_silent:?}");
    assert!(of_the_dead.iter().all(|wait| *wait <= CLAIM / 2), "at once, not when they expire: {of_the_dead:?}");
    // Claims are renewed at a third of their time.
    let soonest = CLAIM * 2 / 3 - Duration::from_millis(100);
    assert!(of_the_silent.iter().all(|wait| *wait >= soonest), "not before they expire: {of_the_silent:?}");
    assert!(of_the_silent.iter().all(|wait| *wait <= CLAIM * 3), "soon after they expire: {of_the_silent:?}");

    // The silent one comes back, finishes what it had begun, and none of that counts any more.
    stopped.send(Signal::CONT);
    wait_until(&noted, "what was stopped ends", |seen| unfinished(seen, stopped_pid).is_empty());
    for puppet in [stopped, well] {
        puppet.send(Signal::TERM);
        let ended = puppet.end();
        ended.exited(0);
        ended.report();
    }
    let seen = effects(&noted);
    assert_order_by_key(&seen);
    let done = seen.iter().filter(|one| one.done).count() as u64;
    assert!(done - messages <= 2 * u64::from(LOOK_AHEAD), "{} twice", done - messages);
    let url = Url::parse(&source).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let left = runtime.block_on(async { Local::default().inspect(&url, "orders").await.unwrap() });
    assert_eq!((left.lag, left.in_flight, left.dead), (Some(0), Some(0), Some(0)), "{left:?}");
}
