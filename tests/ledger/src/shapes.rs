//! The shapes of runs: what is done to a world, from its first message to the last stop.

use crate::clock::now_ms;
use crate::exits::Exit;
use crate::faults::{Fault, Healed};
use crate::scenario::{Scenario, Shape};
use crate::seen::RESUME;
use crate::setup::Carrier;
use crate::world::{Trouble, World};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Faults strike between these shares of the messages, so that there are some before the first and after the last.
const FIRST: f64 = 0.03;
const LAST: f64 = 0.85;
/// About how long a fault of the broker takes with what it costs, by which the producer is held back: it is to be at
/// work when the broker is ill-treated.
const FAULT_TAKES: Duration = Duration::from_secs(3);
/// How slow handlers are that fill a window, and how many run.
pub const SLOW: &str = "200ms..400ms";
pub const SLOW_CONCURRENCY: u32 = 16;
/// How often the broker is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// What a broker takes to hear of everything that was acked before it is killed.
const QUIET: Duration = Duration::from_secs(2);

/// Does to a world what its scenario says.
pub fn live(world: &mut World, scenario: &Scenario, queue: &str) -> Result<(), Trouble> {
    match scenario.shape {
        Shape::Traffic(fault) => traffic(world, scenario, fault),
        Shape::QueueDeleted => queue_deleted(world, scenario, queue),
        Shape::FullWindow => full_window(world, scenario),
    }
}

/// Messages flow, and at random points of their progress the fault strikes.
fn traffic(world: &mut World, scenario: &Scenario, fault: Fault) -> Result<(), Trouble> {
    let messages = scenario.messages;
    let seconds = FAULT_TAKES.as_secs_f64() * f64::from(scenario.times.max(1)) + scenario.outage.as_secs_f64();
    world.produce(messages, fault.is_of_broker().then(|| f64::from(messages) / seconds))?;
    world.begin(Carrier::Worker)?;
    if fault.needs_bridge() {
        world.begin(Carrier::Bridge)?;
    }
    let share = |random: &mut fastrand::Rng| FIRST + (LAST - FIRST) * random.f64();
    let mut points: Vec<usize> =
        (0..scenario.times).map(|_| (f64::from(messages) * share(&mut world.random)) as usize).collect();
    points.sort_unstable();
    for point in points {
        world.wait_for(point)?;
        world.wait_for_age(fault.needs_age())?;
        world.pause();
        world.seen.faults += 1;
        let healed = fault.strike(world, scenario.outage)?;
        // Some of the last may never be confirmed, and so never come.
        world.resumed(healed, (f64::from(messages) * LAST) as u32)?;
    }
    world.produced()?;
    if fault == Fault::StopWhileDown {
        stop_idle_while_down(world)?;
    }
    if fault.needs_bridge() {
        world.terminate(Carrier::Bridge, Exit::Drained)?;
    }
    world.terminate(Carrier::Worker, Exit::Drained)
}

/// Nothing was unsettled when the connection was lost: the worker ends with 0 though the broker is down.
fn stop_idle_while_down(world: &mut World) -> Result<(), Trouble> {
    let mut done = 0;
    while world.done() > done {
        done = world.done();
        sleep(QUIET);
        world.wait_for(done)?;
    }
    world.kill_broker()?;
    world.pause();
    world.terminate(Carrier::Worker, Exit::Drained)?;
    world.broker()?.restart()?;
    world.begin(Carrier::Worker)
}

/// The empty queue is deleted; the worker declares it anew, and messages flow.
fn queue_deleted(world: &mut World, scenario: &Scenario, queue: &str) -> Result<(), Trouble> {
    world.begin(Carrier::Worker)?;
    let each = scenario.messages / (scenario.times + 1);
    for round in 0..=scenario.times {
        world.produce(each, None)?;
        world.produced()?;
        world.wait_for((each * (round + 1)) as usize)?;
        if round == scenario.times {
            break;
        }
        // The broker prints no column twice.
        wait_for_queue(world, queue, |_, unsettled| unsettled == 0, ["consumers", "messages"])?;
        world.seen.faults += 1;
        world.broker()?.ctl(&["-q", "delete_queue", queue])?;
        let at_ms = now_ms();
        // Nobody publishes now: who declares it is the worker.
        wait_for_queue(world, queue, |consumers, _| consumers > 0, ["consumers", "messages"])?;
        world.seen.resume_took(now_ms() - at_ms);
    }
    world.terminate(Carrier::Worker, Exit::Drained)
}

fn wait_for_queue(
    world: &World,
    queue: &str,
    is_so: impl Fn(u64, u64) -> bool,
    columns: [&str; 2],
) -> Result<(), Trouble> {
    let began = Instant::now();
    loop {
        let queues = world.broker()?.queues(columns)?;
        if queues.iter().any(|(name, first, second)| name == queue && is_so(*first, *second)) {
            return Ok(());
        }
        if began.elapsed() > RESUME * 2 {
            return Err(Trouble(format!("queue '{queue}' is not as it should be: {columns:?} of {queues:?}")));
        }
        sleep(ASK_EVERY);
    }
}

/// A worker whose window is full of messages that wait for slow handlers is stopped and started.
fn full_window(world: &mut World, scenario: &Scenario) -> Result<(), Trouble> {
    world.produce(scenario.messages, None)?;
    world.produced()?;
    for _ in 0..scenario.times {
        world.begin(Carrier::Worker)?;
        // The first of a window are done: the rest of it has arrived.
        let healed = Healed { at_ms: now_ms(), shown_by: SLOW_CONCURRENCY };
        world.resumed(healed, scenario.messages)?;
        world.pause();
        world.seen.faults += 1;
        world.terminate(Carrier::Worker, Exit::Drained)?;
    }
    Ok(())
}
