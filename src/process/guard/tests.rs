//! Each test runs itself again as a child process, and sends that child real signals.

use super::*;
use crate::process::board::{ActorSpec, Doing};
use rustix::process::{Pid, Signal as Kill, kill_process};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};

const CHILD: &str = "LONGSHORE_GUARD_CHILD";

/// No child lives longer, whatever is broken.
const CHILD_LIFE: Duration = Duration::from_secs(30);

struct Parent {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Parent {
    /// In the child, lives that life and never returns; in the parent, starts the child and waits until it says
    /// `ready`.
    fn of(name: &str, life: fn()) -> Self {
        if std::env::var_os(CHILD).is_some() {
            std::thread::spawn(|| {
                std::thread::sleep(CHILD_LIFE);
                low_level::exit(99);
            });
            life();
            low_level::exit(0);
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("process::guard::tests::{name}"), "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut parent = Self { child, stdout, stderr };
        parent.await_said("ready");
        parent
    }

    fn await_said(&mut self, wanted: &str) {
        let mut line = String::new();
        // libtest may leave its own words before ours on the line.
        while !line.trim_end().ends_with(wanted) {
            line.clear();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "the child ended before it said '{wanted}'");
        }
    }

    fn send(&self, signal: Kill) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn stderr_until(&mut self, wanted: &str) -> String {
        let mut all = String::new();
        while !all.contains(wanted) {
            assert_ne!(self.stderr.read_line(&mut all).unwrap(), 0, "no '{wanted}' in\n{all}");
        }
        all
    }

    fn end(mut self) -> (ExitStatus, String) {
        let mut stderr = String::new();
        self.stderr.read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap(), stderr)
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(word: &str) {
    println!("\n{word}");
}

fn board() -> Arc<Board> {
    let board = Board::new("orders");
    board.register(vec![
        ActorSpec { name: "db".into(), kind: "resource", lanes: 0, slots: 0 },
        ActorSpec { name: "ship".into(), kind: "consumer", lanes: 2, slots: 4 },
        ActorSpec { name: "gone".into(), kind: "producer", lanes: 0, slots: 0 },
    ]);
    board.actor(0).enter(Doing::Ready, 0);
    board.actor(1).enter(Doing::Ready, 0);
    board.actor(2).enter(Doing::Stopped, 0);
    Arc::new(board)
}

/// Every thread of the runtime is in a handler that loops for ever.
fn blocked(stop_deadline: Duration) {
    let board = board();
    let (guard, mut signals) = Guard::start(board.clone(), stop_deadline).unwrap();
    guard.keep();
    std::thread::spawn(move || {
        while let Some(signal) = signals.blocking_recv() {
            say(&format!("{signal:?}"));
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (stuck, all_stuck) = std::sync::mpsc::channel();
    for lane in 0..2 {
        let (board, stuck) = (board.clone(), stuck.clone());
        runtime.spawn(async move {
            board.actor(1).lane(lane).polling(4_711 + lane as u64, 1, 0, 3, board.now_ms());
            stuck.send(()).unwrap();
            loop {
                std::hint::spin_loop();
            }
        });
    }
    all_stuck.recv().unwrap();
    all_stuck.recv().unwrap();
    say("ready");
    std::thread::park_timeout(CHILD_LIFE);
}

#[test]
fn a_blocked_executor_ends_within_the_deadline_and_a_second_and_names_worker_and_message() {
    const DEADLINE: Duration = Duration::from_millis(500);
    let parent =
        Parent::of("a_blocked_executor_ends_within_the_deadline_and_a_second_and_names_worker_and_message", || {
            blocked(DEADLINE)
        });
    let sent = Instant::now();
    parent.send(Kill::TERM);
    let (status, stderr) = parent.end();
    let took = sent.elapsed();
    assert_eq!(status.code(), Some(75), "{stderr}");
    assert!(took >= DEADLINE && took <= DEADLINE + Duration::from_secs(1), "{took:?}");
    for wanted in [
        "longshore orders: the deadline passed and the process still lives: exit 75",
        "consumer ship: ready for",
        "message at position 4711 (partition 0, epoch 1, attempt 3) in lane 0 holds its thread since",
        "message at position 4712",
        "longshore-guard: running",
    ] {
        assert!(stderr.contains(wanted), "no '{wanted}' in\n{stderr}");
    }
    assert!(!stderr.contains("gone"), "{stderr}");
}

#[test]
fn a_second_sigint_that_nobody_answers_ends_by_itself_with_130() {
    let mut parent = Parent::of("a_second_sigint_that_nobody_answers_ends_by_itself_with_130", || {
        blocked(Duration::from_secs(20));
    });
    parent.send(Kill::INT);
    parent.await_said("Interrupt");
    parent.send(Kill::INT);
    let (status, stderr) = parent.end();
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("a second SIGINT came and the process still lives"), "{stderr}");
}

#[test]
fn a_third_sigint_exits_130_now() {
    let mut parent = Parent::of("a_third_sigint_exits_130_now", || blocked(Duration::from_secs(20)));
    for _ in 0..2 {
        parent.send(Kill::INT);
        parent.await_said("Interrupt");
    }
    parent.send(Kill::INT);
    let (status, stderr) = parent.end();
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("a third SIGINT came"), "it did not wait for the second's time: {stderr}");
}

#[test]
fn a_second_sigterm_does_not_cut_the_deadline_short() {
    let mut parent = Parent::of("a_second_sigterm_does_not_cut_the_deadline_short", || blocked(Duration::from_secs(2)));
    let first = Instant::now();
    parent.send(Kill::TERM);
    parent.await_said("Terminate");
    parent.send(Kill::TERM);
    parent.await_said("Terminate");
    let (status, stderr) = parent.end();
    let took = first.elapsed();
    assert_eq!(status.code(), Some(75), "{stderr}");
    assert!(took >= Duration::from_secs(2), "{took:?}");
}

/// Everything is well; the process ends by itself on SIGTERM.
fn healthy() {
    let board = board();
    let (guard, mut signals) = Guard::start(board.clone(), Duration::from_secs(20)).unwrap();
    let lane = board.actor(1).lane(1);
    lane.slot(3).set(99, 1, 0, 1, board.now_ms());
    board.actor(1).cells.awaiting_confirms.store(17, Release);
    say("ready");
    assert_eq!(signals.blocking_recv(), Some(Signal::Terminate));
    drop(guard);
}

#[test]
fn sigquit_and_sigusr1_dump_what_runs_and_the_process_goes_on() {
    let mut parent = Parent::of("sigquit_and_sigusr1_dump_what_runs_and_the_process_goes_on", healthy);
    for signal in [Kill::QUIT, Kill::USR1] {
        parent.send(signal);
        let dump = parent.stderr_until("end of dump");
        for wanted in [
            "resource db: ready for",
            "0 in flight, 17 confirms awaited",
            "message at position 99 (partition 0, epoch 1, attempt 1) in lane 1 waits since",
            "producer gone: stopped",
            "longshore-guard: running",
        ] {
            assert!(dump.contains(wanted), "no '{wanted}' in\n{dump}");
        }
    }
    parent.send(Kill::TERM);
    let (status, stderr) = parent.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[test]
fn a_deadline_armed_without_a_signal_is_kept_with_the_code_of_its_cause() {
    let parent = Parent::of("a_deadline_armed_without_a_signal_is_kept_with_the_code_of_its_cause", || {
        let (guard, _signals) = Guard::start(board(), Duration::from_secs(20)).unwrap();
        let deadline = guard.keep();
        assert_eq!(deadline.left(), None);
        deadline.arm(Instant::now() + Duration::from_millis(50), 70);
        deadline.arm(Instant::now() + Duration::from_secs(20), 0);
        assert!(deadline.left() <= Some(Duration::from_millis(50)));
        say("ready");
        std::thread::park_timeout(CHILD_LIFE);
    });
    let (status, stderr) = parent.end();
    assert_eq!(status.code(), Some(70), "{stderr}");
}

#[test]
fn every_guard_of_a_process_gets_every_signal_and_a_disarmed_one_lets_it_live() {
    let name = "every_guard_of_a_process_gets_every_signal_and_a_disarmed_one_lets_it_live";
    let parent = Parent::of(name, || {
        let mut guards: Vec<_> = (0..3).map(|_| Guard::start(board(), Duration::from_millis(500)).unwrap()).collect();
        drop(guards.pop());
        say("ready");
        for (guard, signals) in &mut guards {
            assert_eq!(signals.blocking_recv(), Some(Signal::Terminate));
            guard.deadline().disarm();
            assert_eq!(guard.deadline().left(), None);
        }
    });
    parent.send(Kill::TERM);
    let (status, stderr) = parent.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
}
