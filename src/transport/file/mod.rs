//! `file:PATH`: lines of a file, in and out; `file:-` is standard input or output.
//!
//! A line is a payload, which must be JSON, or with `format=record` a whole message
//! (`{"key":…,"payload":…,"headers":[[name,value],…],"timestamp_ms":…,"topic":…}`; what is no UTF-8 stands as
//! `{"base64":…}`). A payload is the line without its line feed: a carriage return before it belongs to the payload.
//! Blank lines are skipped. A line that is no JSON or no record is delivered as it is, marked by
//! [`UNDECODABLE_HEADER`](super::UNDECODABLE_HEADER) with its number; one over `max_message` is delivered empty, marked
//! by [`OVERSIZED_HEADER`](super::OVERSIZED_HEADER), and never read whole.
//!
//! **Source** (`key=`, `group=`, `place=PATH`, `follow=true`, `format=`). With a group it keeps a place: what is
//! settled is synced to `PATH.GROUP.place` (beside the file, or in `$XDG_STATE_HOME/longshore/` where that folder
//! cannot be written) before it is proven, also beyond a line that is not settled. A place that does not fit the file
//! is refused. One source at a time has a place, which the file `….place.lock` beside it shows; that file stays.
//! Without a group it reads from the start each time. It reads to the end, or with `follow=true` goes on when the
//! file grows; it does not notice that another file was put under the name until it is opened again. A last line
//! without a line feed is delivered at the end of a file, when it is followed once its line feed has come; what is
//! written behind one that was delivered so is a line of its own.
//!
//! **Standard input** cannot be read again, so it takes nothing back: told to stop it reads no more and delivers the
//! lines that it has.
//!
//! **Sink** (`declare=`, `format=`). Locks the file for each write, cuts off an unterminated last line and says so,
//! appends what has accumulated, syncs it, confirms it. A write that fails is undone and tried again.

mod lines;
mod place;
mod reader;
mod record;
mod shelf;
mod sink;
mod source;
#[cfg(test)]
mod tests;

pub use sink::SINK_WINDOW;

use super::{
    BoxFuture, Capabilities, DeadPlace, Inspection, KeyFrom, Shelf, Sink, SinkPlan, SinkSpec, Source, SourceHooks,
    SourcePlan, SourceSpec, Transport, Url,
};
use crate::error::{Error, ErrorKind};
use lines::{Decoder, Found, Lines};
use place::{Place, Progress};
use reader::Kind;
use record::Format;
use shelf::{FileShelf, blocking};
use sink::{FileSink, Target};
use source::{FileSource, Opened};
use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The path that means standard input or output.
const STANDARD: &str = "-";
/// What a look into a file shows of one message at most.
const SHELF_MAX_MESSAGE: u64 = 64 << 20;

/// Files of lines.
#[derive(Clone, Default)]
pub struct File {}

fn path(url: &Url) -> Result<&str, Error> {
    if !url.hosts().is_empty() {
        return Err(Error::configuration(format!("'{url}': a file has no host: write file:PATH or file:///PATH")));
    }
    match url.path() {
        "" => {
            Err(Error::configuration(format!("'{url}' names no file: write file:PATH, or file:- for standard input")))
        }
        path => Ok(path),
    }
}

/// What a URL of a source says.
#[derive(Debug, Clone)]
struct SourceOptions {
    path: String,
    group: Option<String>,
    place: Option<String>,
    kind: Kind,
    format: Format,
    key: KeyFrom,
}

impl SourceOptions {
    fn read(url: &Url) -> Result<Self, Error> {
        let path = path(url)?.to_owned();
        let options = url.options();
        let group = options.text("group").map(str::to_owned);
        let place = options.text("place").map(str::to_owned);
        let follow = options.bool("follow").unwrap_or(false);
        let format = Format::named(options.one_of("format", Format::WORDS));
        let key = KeyFrom::parse(options.text("key")).unwrap_or_else(|error| {
            options.wrong(error.to_string());
            KeyFrom::Message
        });
        if key == KeyFrom::RoutingKey {
            options.wrong("option 'key=routing-key': a file has no routing keys".into());
        }
        if let Some(name) = &group
            && (name.is_empty() || name.contains('/'))
        {
            options.wrong(format!("option 'group={name}' cannot be part of a file's name"));
        }
        if place.is_some() && group.is_none() {
            options.wrong("option 'place' is of no use without 'group'".into());
        }
        let kind = match (path.as_str(), follow) {
            (STANDARD, _) => {
                if group.is_some() {
                    options.wrong("option 'group': standard input keeps no place".into());
                }
                if follow {
                    options.wrong("option 'follow': standard input is read until it ends".into());
                }
                Kind::Stream
            }
            (_, true) => Kind::Follow,
            (_, false) => Kind::ToEnd,
        };
        options.finish().map_err(|error| error.of(format_args!("'{url}'")))?;
        Ok(Self { path, group, place, kind, format, key })
    }

    fn places(&self, group: &str) -> Vec<PathBuf> {
        place::paths(Path::new(&self.path), group, self.place.as_deref())
    }

    fn open_file(&self) -> Result<std::fs::File, Error> {
        let wrong = |error| Error::configuration(format!("file '{}' cannot be read", self.path)).caused_by(error);
        if self.kind == Kind::Stream {
            return io::stdin().as_fd().try_clone_to_owned().map(Into::into).map_err(wrong);
        }
        // Asked before it is opened: to open a pipe waits for its other end.
        if !std::fs::metadata(&self.path).map_err(wrong)?.is_file() {
            let text = format!("'{}' is no regular file; a stream is read by file:- as standard input", self.path);
            return Err(Error::configuration(text));
        }
        OpenOptions::new().read(true).open(&self.path).map_err(wrong)
    }

    fn open(&self) -> Result<Opened, Error> {
        let file = self.open_file()?;
        let Some(group) = &self.group else {
            if self.kind != Kind::Stream {
                tracing::info!(file = %self.path, "no group: the file is read from its start, and no place is kept");
            }
            return Ok(Opened { file, place: None, progress: Progress::default() });
        };
        let place = Place::open(Path::new(&self.path), &self.places(group))?;
        let progress = place.load(&file)?;
        Ok(Opened { file, place: Some(place), progress })
    }
}

struct FileSourcePlan {
    options: SourceOptions,
    max_message: u64,
    /// Rises with each opening, so that a settlement of an earlier one is known.
    epoch: AtomicU32,
}

impl SourcePlan for FileSourcePlan {
    fn capabilities(&self) -> Capabilities {
        let regular = self.options.kind != Kind::Stream;
        let keeps_place = self.options.group.is_some();
        Capabilities {
            durable: keeps_place,
            // One source alone can have a place.
            ordered_across_processes: keeps_place,
            keys: self.options.format == Format::Record,
            settles_one_by_one: true,
            bytes_bounded: true,
            takes_back: regular,
            groups: regular,
            replays: regular,
            finite: self.options.kind != Kind::Follow,
            batch: 256,
            ..Capabilities::default()
        }
    }

    fn group(&self) -> Option<&str> {
        self.options.group.as_deref()
    }

    fn open(&self, _hooks: SourceHooks) -> BoxFuture<'_, Result<Box<dyn Source>, Error>> {
        Box::pin(async move {
            let options = self.options.clone();
            let topic: Arc<str> = options.path.as_str().into();
            let decoder = Decoder {
                format: options.format,
                key: options.key.clone(),
                max_message: self.max_message,
                topic: topic.clone(),
                epoch: self.epoch.fetch_add(1, Ordering::Relaxed),
            };
            let kind = options.kind;
            let opened = blocking(move || options.open()).await?;
            Ok(Box::new(FileSource::new(opened, topic, kind, decoder)?) as Box<dyn Source>)
        })
    }
}

struct FileSinkPlan {
    path: String,
    declare: bool,
    format: Format,
}

impl FileSinkPlan {
    fn is_standard(&self) -> bool {
        self.path == STANDARD
    }
}

impl SinkPlan for FileSinkPlan {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: !self.is_standard(),
            keys: self.format == Format::Record,
            bytes_bounded: true,
            batch: 256,
            ..Capabilities::default()
        }
    }

    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Sink>, Error>> {
        Box::pin(async move {
            let target = if self.is_standard() {
                Target::Stdout
            } else {
                let (path, declare) = (PathBuf::from(&self.path), self.declare);
                blocking(move || check_sink(&path, declare)).await?;
                Target::File { path: self.path.clone().into(), declare }
            };
            let started = FileSink::start(target, self.format).map_err(|error| {
                Error::new(ErrorKind::Start, format!("no thread to write file '{}'", self.path)).caused_by(error)
            })?;
            Ok(Box::new(started) as Box<dyn Sink>)
        })
    }
}

/// Fails for what no patience can mend, without waiting for the lock.
fn check_sink(path: &Path, declare: bool) -> Result<(), Error> {
    let name = path.display();
    if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err(Error::configuration(format!("'{name}' is no regular file; file:- writes to standard output")));
    }
    let opened = OpenOptions::new().read(true).append(true).create(declare).open(path);
    opened.and_then(|_| if declare { place::sync_folder(path) } else { Ok(()) }).map_err(|error| {
        let absent = error.kind() == io::ErrorKind::NotFound && !declare;
        let why = if absent { "is absent and may not be declared" } else { "cannot be written" };
        Error::configuration(format!("file '{name}' {why}")).caused_by(error)
    })
}

impl Transport for File {
    fn schemes(&self) -> &'static [&'static str] {
        &["file"]
    }

    fn source(&self, url: &Url, spec: &SourceSpec) -> Result<Box<dyn SourcePlan>, Error> {
        let options = SourceOptions::read(url)?;
        Ok(Box::new(FileSourcePlan { options, max_message: spec.max_message, epoch: AtomicU32::new(1) }))
    }

    fn sink(&self, url: &Url, _spec: &SinkSpec) -> Result<Box<dyn SinkPlan>, Error> {
        let path = path(url)?.to_owned();
        let options = url.options();
        let declare = options.bool("declare").unwrap_or(true);
        let format = Format::named(options.one_of("format", Format::WORDS));
        options.finish().map_err(|error| error.of(format_args!("'{url}'")))?;
        Ok(Box::new(FileSinkPlan { path, declare, format }))
    }

    fn dead_letters(&self, url: &Url, _group: &str) -> DeadPlace {
        match url.path() {
            STANDARD | "" => DeadPlace::None,
            path => DeadPlace::At(url.with(format!("{path}.dead"), &[("format", "record")])),
        }
    }

    fn inspect<'a>(&'a self, url: &'a Url, _group: &'a str) -> BoxFuture<'a, Result<Inspection, Error>> {
        Box::pin(async move {
            let options = SourceOptions::read(url)?;
            if options.kind == Kind::Stream {
                return Err(Error::configuration("standard input cannot be inspected"));
            }
            blocking(move || inspect(&options)).await
        })
    }

    fn shelf<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<Box<dyn Shelf>, Error>> {
        Box::pin(async move {
            let options = SourceOptions::read(url)?;
            if options.kind == Kind::Stream {
                return Err(Error::configuration("standard input cannot be looked into without taking it"));
            }
            let path = PathBuf::from(&options.path);
            let decoder = Decoder {
                format: options.format,
                key: options.key,
                max_message: SHELF_MAX_MESSAGE,
                topic: options.path.as_str().into(),
                epoch: 0,
            };
            let wrong =
                |error| Error::configuration(format!("file '{}' cannot be read", options.path)).caused_by(error);
            let shelf = blocking(move || FileShelf::open(path, decoder)).await.map_err(wrong)?;
            Ok(Box::new(shelf) as Box<dyn Shelf>)
        })
    }
}

/// Counts the lines that the group has not settled, and those of the dead-letter file.
fn inspect(options: &SourceOptions) -> Result<Inspection, Error> {
    let wrong = |error| Error::configuration(format!("file '{}' cannot be read", options.path)).caused_by(error);
    let mut file = options.open_file()?;
    let mut progress = Progress::default();
    if let Some(group) = &options.group {
        let places = options.places(group);
        if let Some(path) = places.iter().find(|path| path.exists()) {
            progress = place::load(path, Path::new(&options.path), &file)?;
        }
    }
    let unsettled = progress.unsettled.len() as u64;
    let behind = count_lines(&mut file, progress.frontier, options.format).map_err(wrong)?;
    let dead = match std::fs::File::open(format!("{}.dead", options.path)) {
        Ok(mut dead) => count_lines(&mut dead, 0, Format::Record).map_err(wrong)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(wrong(error)),
    };
    Ok(Inspection {
        queue: options.path.clone(),
        group: options.group.clone(),
        waiting: Some(unsettled + behind),
        delayed: Some(0),
        // Of another process's handlers the place says nothing.
        in_flight: None,
        dead: Some(dead),
        lag: Some(unsettled + behind),
        oldest_age_ms: None,
    })
}

/// Lines from this byte on that are not blank.
fn count_lines(file: &mut std::fs::File, from: u64, format: Format) -> io::Result<u64> {
    file.seek(SeekFrom::Start(from))?;
    let decoder = Decoder { format, key: KeyFrom::Message, max_message: 4096, topic: "".into(), epoch: 0 };
    let mut lines = Lines::new(from, 1, decoder.line_limit());
    let mut count = 0;
    loop {
        let found = lines.next(file)?;
        let line = lines.line();
        count += u64::from(!line.is_blank() && line.length > 0);
        if found == Found::Dry {
            return Ok(count);
        }
    }
}
