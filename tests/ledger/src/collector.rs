//! The collector: a process of its own that writes down what handlers report, and outlives every worker.
//!
//! A worker sends lines; each is stamped with the time, appended to the file, then counted back. A handler that has
//! its count knows that its effect is on record, whatever becomes of its process.

use crate::clock::now_ms;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::exit;
use std::sync::Arc;

/// What it says on stdout when workers may connect.
pub const LISTENING: &str = "listening";
/// Bytes read from a worker at a time.
const CHUNK: usize = 64 << 10;

/// Listens until stdin ends, which it does with whoever started it.
pub fn run(listen: &Path, file: &Path) -> io::Result<()> {
    let file = Arc::new(OpenOptions::new().create(true).append(true).open(file)?);
    let listener = UnixListener::bind(listen)?;
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        exit(0);
    });
    println!("{LISTENING}");
    for worker in listener.incoming() {
        let (worker, file) = (worker?, file.clone());
        std::thread::spawn(move || {
            if let Err(error) = serve(worker, &file) {
                // A worker that is killed resets its connection. Anything else makes the books worthless.
                if error.kind() != io::ErrorKind::ConnectionReset && error.kind() != io::ErrorKind::BrokenPipe {
                    eprintln!("error: the collector cannot go on: {error}");
                    exit(1);
                }
            }
        });
    }
    Ok(())
}

/// Writes down what one worker reports. The last line of one that was killed may be torn: nobody was told that it is
/// on record, and it is left out.
fn serve(mut worker: UnixStream, mut file: &File) -> io::Result<()> {
    let mut lines = Vec::with_capacity(2 * CHUNK);
    let mut chunk = vec![0; CHUNK];
    let mut stamped = Vec::with_capacity(2 * CHUNK);
    loop {
        let read = worker.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        lines.extend_from_slice(&chunk[..read]);
        let Some(end) = lines.iter().rposition(|byte| *byte == b'\n') else { continue };
        let stamp = now_ms();
        let mut count = 0u32;
        stamped.clear();
        for line in lines[..end].split(|byte| *byte == b'\n') {
            write!(stamped, "{stamp} ")?;
            stamped.extend_from_slice(line);
            stamped.push(b'\n');
            count += 1;
        }
        // One write to the end of the file, so that lines of several workers stay whole.
        file.write_all(&stamped)?;
        lines.drain(..=end);
        worker.write_all(&count.to_le_bytes())?;
    }
}
