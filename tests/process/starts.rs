//! A start that is interrupted.

use crate::support::{Puppet, fill, full};
use rustix::process::Signal;
use std::time::Duration;

/// From the first log line on, signals are obeyed; by the end of this the app is up.
const SWEEP: Duration = Duration::from_secs(2);

pub fn a_sigterm_at_any_moment_of_the_start_is_obeyed_and_leaves_no_orphan() {
    let moments = if full() { 100 } else { 10 };
    for moment in 0..moments {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().display();
        let source = format!("local:{store}/orders.db?queue=orders");
        let out = format!("local:{store}/orders.db?queue=shipped");
        fill(folder.path(), &source, 2_000, 50);
        let set = [("SOURCE", source.as_str()), ("OUT", &out), ("LONGSHORE_ADMIN_LISTEN", "127.0.0.1:0")];
        let mut puppet = Puppet::start("starts slowly", &set);
        puppet.first_line();
        let after = SWEEP * moment / moments;
        std::thread::sleep(after);
        let sent = puppet.send(Signal::TERM);
        let ended = puppet.end();
        let took = ended.at - sent;
        ended.exited(0);
        ended.report();
        assert!(took <= Duration::from_secs(2), "{took:?} after a SIGTERM {after:?} behind the first line");
        let mut open: Vec<&str> = ended.stdout.iter().filter_map(|line| line.strip_prefix("@ opened ")).collect();
        open.reverse();
        let closed: Vec<&str> = ended.stdout.iter().filter_map(|line| line.strip_prefix("@ closed ")).collect();
        assert_eq!(open, closed, "what was opened is closed, in reverse, {after:?} behind the first line");
        let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
        let owners: Vec<_> = files.filter(|name| name.to_string_lossy().contains("-owner-")).collect();
        assert!(owners.is_empty(), "{owners:?} are left {after:?} behind the first line");
    }
}
