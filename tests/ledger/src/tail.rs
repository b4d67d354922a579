//! Reading a file of lines that another process is writing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Whole lines of a file, each seen once.
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Tail {
    /// Of a file that may not be there yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, rest: Vec::new() }
    }

    /// Hands over each line that has been finished since the last call; an unfinished one is kept for the next.
    pub fn each(&mut self, mut line: impl FnMut(&str)) -> io::Result<()> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let file = self.file.as_mut().expect("it was opened just now");
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                return Ok(());
            }
            self.rest.extend_from_slice(&chunk[..read]);
            let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            let whole = std::str::from_utf8(&self.rest[..end]).map_err(io::Error::other)?;
            whole.lines().for_each(&mut line);
            self.rest.drain(..=end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_line_is_seen_once_and_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let mut tail = Tail::new(&path);
        let mut seen = Vec::new();
        tail.each(|line| seen.push(line.to_owned())).unwrap();
        let mut file = File::create(&path).unwrap();
        for part in ["one\ntw", "o\n", "three"] {
            file.write_all(part.as_bytes()).unwrap();
            tail.each(|line| seen.push(line.to_owned())).unwrap();
        }
        assert_eq!(seen, ["one", "two"]);
    }
}
