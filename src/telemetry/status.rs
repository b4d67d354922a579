//! The line that stays below the log lines of a terminal: drawn again after each of them.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// To the start of the line, and what stands there is gone.
const CLEAR: &[u8] = b"\r\x1b[K";

/// What is shown now; empty: nothing.
static SHOWN: Mutex<String> = Mutex::new(String::new());

fn shown() -> MutexGuard<'static, String> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows a line on stderr, which has to be a terminal, instead of the one before. It stays below whatever is logged
/// by what [`install`](super::logs::install) has set up, until [`clear_status`]. Control characters are left out.
pub fn show_status(line: &str) {
    let mut shown = shown();
    *shown = line.chars().filter(|each| !each.is_control()).collect();
    draw(&mut io::stderr().lock(), &[CLEAR, shown.as_bytes()]);
}

/// Takes the status line away, where there is one.
pub fn clear_status() {
    let mut shown = shown();
    if !std::mem::take(&mut *shown).is_empty() {
        draw(&mut io::stderr().lock(), &[CLEAR]);
    }
}

/// A terminal that is gone is nobody's loss here.
fn draw(out: &mut impl Write, parts: &[&[u8]]) {
    let _ = out.write_all(&parts.concat());
    let _ = out.flush();
}

/// Writes above the status line.
pub(super) struct AboveStatus<W>(pub(super) W);

impl<W: Write> Write for AboveStatus<W> {
    /// A log line comes as one write.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if crate::process::is_leaving() {
            // What the process says last, the counts, stays the last that it says.
            return Ok(bytes.len());
        }
        let shown = shown();
        if shown.is_empty() {
            self.0.write_all(bytes)?;
        } else {
            self.0.write_all(&[CLEAR, bytes, shown.as_bytes()].concat())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_takes_the_place_of_the_status_which_comes_again_below_it() {
        let mut page = Vec::new();
        *shown() = "12/s".to_owned();
        AboveStatus(&mut page).write_all(b"INFO x\n").unwrap();
        shown().clear();
        AboveStatus(&mut page).write_all(b"INFO y\n").unwrap();
        assert_eq!(page, b"\r\x1b[KINFO x\n12/sINFO y\n");
    }
}
