//! Effects: what a handler did, as a line, and the worker's connection to the collector.

use crate::ids::Id;
use longshore::prelude::{BoxError, Failure, Resource};
use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// Reports that wait to be written, at most; handlers wait beyond it.
const WAITING: usize = 4_096;
/// Reports that are written in one go.
const TOGETHER: usize = 256;

/// What one handler run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    /// The message.
    pub id: Id,
    /// Which handler start it was, as the handler was told.
    pub attempt: u32,
    /// Whether the message came from the source as one that was delivered before.
    pub redelivered: bool,
    /// The worker's process.
    pub pid: u32,
    /// Which start of the worker it was.
    pub boot: u32,
    /// Whether payload and key were what they were when they were sent.
    pub whole: bool,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, attempt, redelivered, pid, boot, whole } = self;
        let whole = if *whole { "whole" } else { "damaged" };
        write!(f, "{id} {attempt} {} {pid} {boot} {whole}", u8::from(*redelivered))
    }
}

impl FromStr for Effect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let mut words = text.split(' ');
            let id = words.next()?.parse().ok()?;
            let mut number = || words.next()?.parse::<u32>().ok();
            let (attempt, redelivered, pid, boot) = (number()?, number()? != 0, number()?, number()?);
            let whole = match words.next()? {
                "whole" => true,
                "damaged" => false,
                _ => return None,
            };
            words.next().is_none().then_some(Self { id, attempt, redelivered, pid, boot, whole })
        };
        read().ok_or_else(|| format!("'{text}' is no effect"))
    }
}

/// A line of the collector's file: when it was written down, in milliseconds, and the effect.
pub fn stamped(line: &str) -> Result<(u64, Effect), String> {
    let (stamp, effect) = line.split_once(' ').ok_or_else(|| format!("'{line}' has no time"))?;
    Ok((stamp.parse().map_err(|_| format!("'{stamp}' is no time"))?, effect.parse()?))
}

type Report = (Effect, oneshot::Sender<()>);
/// Whom the collector owes a count, oldest first.
type Owed = Mutex<VecDeque<oneshot::Sender<()>>>;

/// The connection to the collector; reports are pipelined.
pub struct Effects {
    reports: mpsc::Sender<Report>,
}

impl Effects {
    /// Connects.
    pub async fn open(collector: PathBuf) -> Result<Self, BoxError> {
        let (from, to) = UnixStream::connect(collector).await?.into_split();
        let (reports, waiting) = mpsc::channel(WAITING);
        let owed = Owed::default();
        tokio::spawn(async move {
            // The end of one is the end of both: whoever waits then is told, by what is dropped.
            tokio::select! {
                () = write(waiting, to, &owed) => {}
                () = read(from, &owed) => {}
            }
            clear(&owed);
        });
        Ok(Self { reports })
    }

    /// Returns when the effect is on record.
    ///
    /// A dropped call may have reported.
    pub async fn report(&self, effect: Effect) -> Result<(), Failure> {
        let (tell, told) = oneshot::channel();
        let gone = || Failure::retry("the collector is gone");
        self.reports.send((effect, tell)).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())
    }
}

async fn write(mut waiting: mpsc::Receiver<Report>, mut to: OwnedWriteHalf, owed: &Owed) {
    let (mut reports, mut lines) = (Vec::with_capacity(TOGETHER), Vec::new());
    while waiting.recv_many(&mut reports, TOGETHER).await > 0 {
        lines.clear();
        {
            let mut owed = owed.lock().expect("nothing panics while it holds the lock");
            for (effect, tell) in reports.drain(..) {
                lines.extend_from_slice(format!("{effect}\n").as_bytes());
                owed.push_back(tell);
            }
        }
        if to.write_all(&lines).await.is_err() {
            return;
        }
    }
}

async fn read(mut from: OwnedReadHalf, owed: &Owed) {
    while let Ok(count) = from.read_u32_le().await {
        let mut owed = owed.lock().expect("nothing panics while it holds the lock");
        for tell in (0..count).map_while(|_| owed.pop_front()) {
            // A handler whose future was dropped does not wait any more.
            let _ = tell.send(());
        }
    }
}

fn clear(owed: &Owed) {
    owed.lock().expect("nothing panics while it holds the lock").clear();
}

impl Resource for Effects {
    async fn close(&self) -> Result<(), BoxError> {
        // Every handler has waited for its count.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_read_back_as_it_was_written() {
        let id = Id { run: 1, producer: 0, key: 9, seq: 3 };
        for (redelivered, whole) in [(true, false), (false, true)] {
            let effect = Effect { id, attempt: 2, redelivered, pid: 77, boot: 5, whole };
            assert_eq!(stamped(&format!("123 {effect}")), Ok((123, effect)));
        }
        assert!(stamped("123 00000001-0-9-3 2 1 77 5").is_err());
    }
}
