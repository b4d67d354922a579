//! Lines of a stream, with bounded memory, made into messages.

use super::record::{Format, Record, is_json};
use crate::message::{At, Headers, HeadersRef, Slab, SlabBuilder};
use crate::transport::{KeyFrom, OVERSIZED_HEADER, UNDECODABLE_HEADER};
use std::io::{self, Read};
use std::sync::Arc;

/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;
/// A line with `format=record` may be so many times `max_message`, and this much, because of escapes, base64, headers.
const RECORD_FACTOR: u64 = 2;
const RECORD_EXTRA: u64 = 1 << 20;

/// One line, or the beginning of one that is too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Where it begins, in bytes from the start of the file.
    pub(super) start: u64,
    /// Where the next one begins.
    pub(super) end: u64,
    /// Its number; the first is 1.
    pub(super) number: u64,
    /// How many bytes it has without the line feed.
    pub(super) length: u64,
    /// Its bytes without the line feed; `None` when it is longer than the limit.
    pub(super) text: Option<&'a [u8]>,
}

impl Line<'_> {
    pub(super) fn is_blank(&self) -> bool {
        self.text.is_some_and(|text| text.iter().all(u8::is_ascii_whitespace))
    }
}

/// What [`Lines::next`] finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A line that ended with a line feed; [`Lines::line`] shows it.
    Line,
    /// The stream has no more for now.
    Dry,
}

/// Cuts a stream into lines. Holds at most `limit` bytes of one line, and one chunk.
pub(super) struct Lines {
    limit: u64,
    chunk: Box<[u8]>,
    /// What of the chunk is not cut yet.
    rest: std::ops::Range<usize>,
    /// The line so far.
    text: Vec<u8>,
    start: u64,
    length: u64,
    number: u64,
    /// Whether `text` is a whole line that was handed out.
    whole: bool,
}

impl Lines {
    /// Begins at this byte, which is the start of the line of this number.
    pub(super) fn new(start: u64, number: u64, limit: u64) -> Self {
        Self {
            limit,
            chunk: vec![0; CHUNK].into(),
            rest: 0..0,
            text: Vec::new(),
            start,
            length: 0,
            number,
            whole: false,
        }
    }

    /// Whether what was read holds no whole line any more, so that the next call reads.
    pub(super) fn must_read(&self) -> bool {
        !self.chunk[self.rest.clone()].contains(&b'\n')
    }

    /// The next line that is terminated. After `Dry` it may be called again, when there may be more.
    pub(super) fn next(&mut self, from: &mut impl Read) -> io::Result<Found> {
        if std::mem::take(&mut self.whole) {
            self.start += self.length;
            self.length = 0;
            self.number += 1;
            self.text.clear();
        }
        loop {
            let rest = &self.chunk[self.rest.clone()];
            let found = rest.iter().position(|byte| *byte == b'\n');
            let piece = &rest[..found.unwrap_or(rest.len())];
            self.length += piece.len() as u64;
            // Nothing of a line that is too long is kept.
            if self.length <= self.limit {
                self.text.extend_from_slice(piece);
            } else {
                self.text = Vec::new();
            }
            self.rest.start += piece.len();
            if found.is_some() {
                self.rest.start += 1;
                self.length += 1;
                self.whole = true;
                return Ok(Found::Line);
            }
            match from.read(&mut self.chunk) {
                Ok(0) => return Ok(Found::Dry),
                Ok(read) => self.rest = 0..read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The line that was found, or after `Dry` what there is of one that is not terminated.
    pub(super) fn line(&self) -> Line<'_> {
        let length = self.length - u64::from(self.whole);
        Line {
            start: self.start,
            end: self.start + self.length,
            number: self.number,
            length,
            text: (length <= self.limit).then_some(&self.text),
        }
    }

    /// Whether after `Dry` there is a line that is not terminated.
    pub(super) fn last(&self) -> bool {
        self.length > 0 && !self.whole
    }
}

/// How lines become messages.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    pub(super) format: Format,
    pub(super) key: KeyFrom,
    pub(super) max_message: u64,
    pub(super) topic: Arc<str>,
    pub(super) epoch: u32,
}

/// A batch of lines: the messages, and where each ends and its number.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) slab: Slab,
    pub(super) ends: Vec<(u64, u64)>,
}

impl Decoder {
    /// The longest line that is read whole.
    pub(super) fn line_limit(&self) -> u64 {
        match self.format {
            Format::Payload => self.max_message,
            Format::Record => self.max_message.saturating_mul(RECORD_FACTOR).saturating_add(RECORD_EXTRA),
        }
    }

    /// Adds a line as a message; a blank one is none.
    pub(super) fn push(&self, line: &Line<'_>, out: &mut Collected) {
        if line.is_blank() {
            return;
        }
        let at = At { position: line.start, epoch: self.epoch, partition: 0 };
        let Some(text) = line.text else {
            return out.oversized(line, at, line.length, None, Headers::new());
        };
        match self.format {
            Format::Payload => match is_json(text) {
                Ok(()) => {
                    let key = self.key.find(None, None, HeadersRef::default(), Some(text));
                    out.builder.push(key.as_deref(), Some(text), HeadersRef::default(), None).at = at;
                }
                Err(why) => out.undecodable(line, text, at, &why),
            },
            Format::Record => match Record::read(text) {
                Ok((record, headers)) => {
                    let payload = record.payload.as_ref().map(|payload| &*payload.0);
                    let native = record.key.as_ref().map(|key| &*key.0);
                    let key = self.key.find(native, None, headers.as_ref(), payload);
                    match payload {
                        Some(large) if large.len() as u64 > self.max_message => {
                            out.oversized(line, at, large.len() as u64, key.as_deref(), headers.clone());
                            return;
                        }
                        _ => {
                            out.builder.push(key.as_deref(), payload, headers.as_ref(), record.timestamp_ms).at = at;
                        }
                    }
                }
                Err(why) => out.undecodable(line, text, at, &why),
            },
        }
        out.ends.push((line.end, line.number));
    }
}

/// Messages that are being collected.
#[derive(Default)]
pub(super) struct Collected {
    builder: SlabBuilder,
    ends: Vec<(u64, u64)>,
}

impl Collected {
    pub(super) fn len(&self) -> usize {
        self.builder.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.builder.bytes()
    }

    pub(super) fn finish(&mut self, topic: &Arc<str>) -> Batch {
        let all = std::mem::take(self);
        Batch { slab: all.builder.finish(topic.clone()), ends: all.ends }
    }

    fn undecodable(&mut self, line: &Line<'_>, text: &[u8], at: At, why: &str) {
        let mut headers = Headers::new();
        headers.push(UNDECODABLE_HEADER, format!("line {}: {why}", line.number));
        self.builder.push(None, Some(text), headers.as_ref(), None).at = at;
    }

    fn oversized(&mut self, line: &Line<'_>, at: At, size: u64, key: Option<&[u8]>, mut headers: Headers) {
        headers.set(OVERSIZED_HEADER, size.to_string());
        self.builder.push(key, Some(b""), headers.as_ref(), None).at = at;
        self.ends.push((line.end, line.number));
    }
}
