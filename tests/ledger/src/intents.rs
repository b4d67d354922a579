//! The producer's log: what it meant to send, and what it was told became of it.

use crate::ids::Id;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// What became of a send, as far as its producer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It is about to be sent.
    Intent,
    /// Its destination has confirmed it.
    Ok,
    /// It was not sent.
    Failed,
    /// It was sent, and the confirm failed: the destination may have it.
    Unknown,
}

impl Word {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Intent, "intent"), (Self::Ok, "ok"), (Self::Failed, "failed"), (Self::Unknown, "unknown")];
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = Self::ALL.iter().find(|(word, _)| word == self).expect("every word has a name");
        f.write_str(name)
    }
}

/// Reads a line of the log.
pub fn entry(line: &str) -> Result<(Word, Id), String> {
    let (name, id) = line.split_once(' ').ok_or_else(|| format!("'{line}' is no entry"))?;
    let word = Word::ALL.iter().find(|(_, known)| *known == name).ok_or_else(|| format!("'{name}' is no word"))?;
    Ok((word.0, id.parse()?))
}

/// Writes the log: intents before anything is sent, words soon after they are known.
pub struct Intents {
    file: File,
    buffer: Vec<u8>,
}

impl Intents {
    /// Opens a log to append to.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().create(true).append(true).open(path)?, buffer: Vec::new() })
    }

    /// Notes an entry, to be written by [`Intents::write`].
    pub fn note(&mut self, word: Word, id: Id) {
        writeln!(self.buffer, "{word} {id}").expect("memory takes everything");
    }

    /// Writes what was noted, in one go.
    pub fn write(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("intents");
        let id = Id { run: 1, producer: 0, key: 9, seq: 3 };
        let mut log = Intents::open(&path).unwrap();
        Word::ALL.iter().for_each(|(word, _)| log.note(*word, id));
        log.write().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let read: Vec<_> = text.lines().map(|line| entry(line).unwrap()).collect();
        assert_eq!(read, Word::ALL.map(|(word, _)| (word, id)));
        assert!(entry("maybe 00000001-0-9-3").is_err());
    }
}
