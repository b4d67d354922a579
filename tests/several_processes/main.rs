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
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use support::{PATIENCE, Puppet, fill, full, given};
use tempfile::TempDir;

/// How long a claim lasts that nobody renews.
const CLAIM: Duration = Duration::from_secs(4);
const KEYS: u64 = 40;
/// Messages that one process may have unsettled, and so what its death may do twice.
const LOOK_AHEAD: u32 = 16;

fn main() -> ExitCode {
    if let Some(code) = support::child(&[("worker", worker)]) {
        return code;
    }
    let all = [
        Trial::test("a_killed_process_frees_its_claims_at_once_and_a_stopped_one_when_they_expire", || {
            a_killed_process_frees_its_claims_at_once_and_a_stopped_one_when_they_expire();
            Ok(())
        }),
        Trial::test("a_process_stopped_in_the_middle_of_a_commit_holds_up_the_others_and_loses_nothing", || {
            a_process_stopped_in_the_middle_of_a_commit_holds_up_the_others_and_loses_nothing();
            Ok(())
        }),
    ];
    let mut arguments = Arguments::from_args();
    // Each has three busy processes of its own.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, all.into()).exit_code()
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

/// Messages in a store, and a file for what is done with them.
struct Scene {
    _folder: TempDir,
    messages: u64,
    source: String,
    noted: PathBuf,
}

impl Scene {
    fn with(messages: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let noted = folder.path().join("effects");
        let source = format!("local:{}/orders.db?queue=orders&claim={}s", folder.path().display(), CLAIM.as_secs());
        fill(folder.path(), &source, messages as usize, KEYS as usize);
        Self { _folder: folder, messages, source, noted }
    }

    fn start(&self) -> Puppet {
        let set = [("SOURCE", self.source.as_str()), ("EFFECTS", self.noted.to_str().unwrap())];
        let mut puppet = Puppet::start("worker", &[set.as_slice(), &[("SHUTDOWN_TIMEOUT", "5s")]].concat());
        puppet.event("ready");
        puppet
    }

    /// Three processes, each with some messages done and others begun.
    fn three_at_work(&self) -> [Puppet; 3] {
        let three = [self.start(), self.start(), self.start()];
        let at_work = |seen: &[Effect], pid: u32| {
            seen.iter().filter(|one| one.done && one.pid == pid).count() >= 30 && !unfinished(seen, pid).is_empty()
        };
        let pids = three.each_ref().map(Puppet::pid);
        self.wait_until("three at work", |seen| pids.iter().all(|&pid| at_work(seen, pid)));
        three
    }

    /// Looks at the effects until they satisfy.
    fn wait_until(&self, what: &str, satisfied: impl Fn(&[Effect]) -> bool) -> Vec<Effect> {
        let began = Instant::now();
        loop {
            let seen = effects(&self.noted);
            if satisfied(&seen) {
                return seen;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}, {} effects", seen.len());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn all_done(&self) -> Vec<Effect> {
        self.wait_until("every message done", |seen| {
            let done: BTreeSet<u64> = seen.iter().filter(|one| one.done).map(|one| one.n).collect();
            done.len() as u64 == self.messages
        })
    }

    /// Nothing is lost and nothing waits, the order by key was held, and at most so many were done twice.
    fn assert_whole(&self, twice: u64) {
        let seen = self.all_done();
        assert_order_by_key(&seen);
        let done = seen.iter().filter(|one| one.done).count() as u64;
        assert!(done - self.messages <= twice, "{} twice", done - self.messages);
        let url = Url::parse(&self.source).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let left = runtime.block_on(async { Local::default().inspect(&url, "orders").await.unwrap() });
        assert_eq!((left.lag, left.in_flight, left.dead), (Some(0), Some(0), Some(0)), "{left:?}");
    }
}

/// Whether that process has the write lock of a store: byte 120 of its `-shm` file.
fn is_committing(pid: u32) -> bool {
    let locks = std::fs::read_to_string("/proc/locks").expect("locks can be read");
    let of_writer = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.len() == 8 && words[3] == "WRITE" && words[4] == pid.to_string() && words[6] == "120"
    };
    locks.lines().any(of_writer)
}

/// Stops a process in the middle of a commit, or between two; when that was.
fn stop(puppet: &Puppet, committing: bool) -> u64 {
    let began = Instant::now();
    loop {
        puppet.send(Signal::STOP);
        // What it was doing in the kernel comes to its end first.
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", puppet.pid())).expect("it is there");
        while !stat().rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let stopped_ms = now_ms();
        if is_committing(puppet.pid()) == committing {
            return stopped_ms;
        }
        assert!(began.elapsed() < PATIENCE, "never stopped with committing = {committing}");
        puppet.send(Signal::CONT);
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn a_killed_process_frees_its_claims_at_once_and_a_stopped_one_when_they_expire() {
    let scene = Scene::with(if full() { 10_000 } else { 2_500 });
    let [killed, stopped, well] = scene.three_at_work();
    let (killed_pid, stopped_pid) = (killed.pid(), stopped.pid());
    // One that is stopped in a commit is another story, told below.
    let stopped_ms = stop(&stopped, false);
    killed.send(Signal::KILL);
    let killed_ms = now_ms();
    assert_eq!(killed.end().code(), -1);
    // Neither of them writes any more: what they have begun and not done is what they hold, at least.
    let seen = effects(&scene.noted);
    let (of_killed, of_stopped) = (unfinished(&seen, killed_pid), unfinished(&seen, stopped_pid));
    assert!(!of_stopped.is_empty() && !of_killed.is_empty(), "they were stopped at work: {of_killed:?} {of_stopped:?}");

    let seen = scene.all_done();
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
    scene.wait_until("what was stopped ends", |seen| unfinished(seen, stopped_pid).is_empty());
    for puppet in [stopped, well] {
        puppet.send(Signal::TERM);
        let ended = puppet.end();
        ended.exited(0);
        ended.report();
    }
    scene.assert_whole(2 * u64::from(LOOK_AHEAD));
}

/// Nobody can take SQLite's write lock from a process that lives. What is promised is that it is said, that it keeps
/// nobody from ending in time, and that nothing is lost by it.
fn a_process_stopped_in_the_middle_of_a_commit_holds_up_the_others_and_loses_nothing() {
    let scene = Scene::with(if full() { 5_000 } else { 1_500 });
    let [stopped, mut waits, ends] = scene.three_at_work();
    stop(&stopped, true);
    waits.log("is locked by another program");
    let sent = ends.send(Signal::TERM);
    let ended = ends.end();
    let took = ended.at - sent;
    assert!(took <= Duration::from_secs(6), "deadline and a second, not {took:?}\n{}", ended.log());
    ended.exited(75);
    ended.report();
    stopped.send(Signal::CONT);
    scene.all_done();
    for puppet in [stopped, waits] {
        puppet.send(Signal::TERM);
        let ended = puppet.end();
        ended.exited(0);
        ended.report();
    }
    // The one that ended could not write what it had settled.
    scene.assert_whole(3 * u64::from(LOOK_AHEAD));
}
