//! Ctrl+C at a terminal: the byte goes in at one end, and the kernel makes the signal.

use crate::support::{PATIENCE, command_by, fill};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{Read, Write};
use std::process::Child;
use std::sync::mpsc;
use std::time::{Duration, Instant};

struct Terminal {
    keyboard: File,
    shown: mpsc::Receiver<Vec<u8>>,
    screen: String,
    child: Child,
}

impl Terminal {
    /// A child in a session of its own whose terminal this is.
    fn start(role: &str, set: &[(&str, &str)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let slave = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mut command = command_by("setsid", &["--ctty"], role);
        command.envs(set.iter().copied()).env("TERM", "xterm");
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let child = command.spawn().expect("setsid of util-linux");
        // What is left of the command holds the child's end, which would keep the screen from ending.
        drop(command);
        let keyboard = File::from(master);
        let mut from = keyboard.try_clone().unwrap();
        let (tell, shown) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            // EIO once nobody has the other end.
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                let _ = tell.send(bytes[..read].to_vec());
            }
        });
        Self { keyboard, shown, screen: String::new(), child }
    }

    fn see(&mut self, wanted: &str) {
        while !self.screen.contains(wanted) {
            let bytes = self.shown.recv_timeout(PATIENCE);
            let bytes = bytes.unwrap_or_else(|why| panic!("no '{wanted}', {why}: {}", self.screen));
            self.screen += &String::from_utf8_lossy(&bytes);
        }
    }

    /// Presses Ctrl+C once; the exit code, how long it took, and all that was shown.
    fn interrupted(mut self) -> (Option<i32>, Duration, String) {
        let pressed = Instant::now();
        self.keyboard.write_all(b"\x03").unwrap();
        let status = self.child.wait().unwrap();
        let took = pressed.elapsed();
        while let Ok(bytes) = self.shown.recv_timeout(PATIENCE) {
            self.screen += &String::from_utf8_lossy(&bytes);
        }
        (status.code(), took, std::mem::take(&mut self.screen))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn one_ctrl_c_at_a_terminal_ends_an_idle_app_with_a_table() {
    let mut terminal = Terminal::start("fails at close", &[]);
    terminal.see("actors are ready");
    let (code, took, screen) = terminal.interrupted();
    assert_eq!(code, Some(0), "{screen}");
    assert!(took <= Duration::from_secs(2), "{took:?}");
    for wanted in ["orders stopped by sigint in ", ", exit 0", "received  acked", "resource cache: failed"] {
        assert!(screen.contains(wanted), "no '{wanted}' in\n{screen}");
    }
    assert!(!screen.contains("shutdown_report") && !screen.contains("{\""), "no JSON for eyes\n{screen}");
}

pub fn one_ctrl_c_at_a_terminal_lets_running_handlers_finish() {
    let folder = tempfile::tempdir().unwrap();
    let source = format!("local:{}/orders.db?queue=orders", folder.path().display());
    fill(folder.path(), &source, 8, 8);
    let mut terminal = Terminal::start("works", &[("SOURCE", &source), ("HANDLE_MS", "700")]);
    for n in 0..8 {
        terminal.see(&format!("@ started {n}"));
    }
    let (code, _, screen) = terminal.interrupted();
    assert_eq!(code, Some(0), "{screen}");
    assert_eq!(screen.matches("@ finished").count(), 8, "{screen}");
    assert!(screen.contains("orders stopped by sigint in "), "{screen}");
}
