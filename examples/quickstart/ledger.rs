//! The ledger: what happened in a run, a line each, in a file beside the store.
//!
//! It does not trust the queues that it watches, nor the memory of a process that may be killed: an order is *handled*
//! because a line says so, *waiting* because the store holds it, and *lost* if it was sent and is neither.

use crate::options::Options;
use crate::{NewOrder, Receipt, WINDOW};
use longshore::prelude::*;
use longshore::transport::{Transport, Url, local::Local};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::SystemTime;
use tokio::sync::watch;

/// Writes lines. Each is one `write` to the end of the file, which a killed process has done or not done.
pub struct Ledger {
    file: File,
    options: Options,
    run: u64,
    not_yet_sent: Vec<u32>,
    orders: u32,
    handled: Mutex<HashSet<u32>>,
    /// What this process has still to see: for each order that it is handled, for each receipt that it is mailed.
    left: watch::Sender<HashSet<(Step, u32)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Handled,
    Mailed,
}

impl Ledger {
    /// Opens it, and says how an unfinished run stood. After a finished one a new one begins.
    pub async fn open(options: &Options) -> Result<(Self, Option<Books>), BoxError> {
        let path = options.ledger();
        let opened = File::options().create(true).append(true).read(true).open(&path);
        let mut file = opened.map_err(|error| format!("{}: {error}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("another quickstart works on {}: try --store", options.store.display()).into());
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        if options.reset {
            file.set_len(0)?;
            remove_store(options)?;
        }
        let mut books = Books::gather(options).await?;
        let resumed = books.run != 0 && !books.is_finished();
        if !resumed {
            let run = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64;
            books = Books { run, orders: options.orders, ..Books::default() };
            file.set_len(0)?;
            file.write_all(format!("run {run} {}\nstart\n", options.orders).as_bytes())?;
        } else {
            // The line that was being written when the disk filled up ends here.
            file.write_all(if books.torn { b"\nstart\n" } else { b"start\n" })?;
        }
        let last = books.sent().into_iter().max().unwrap_or(0).max(books.orders);
        let ledger = Self {
            file,
            options: options.clone(),
            run: books.run,
            not_yet_sent: (1..=last).filter(|id| !books.sent().contains(id)).collect(),
            orders: last,
            handled: Mutex::new(books.handled.keys().copied().collect()),
            left: watch::Sender::new(books.left()),
        };
        Ok((ledger, resumed.then_some(books)))
    }

    pub fn run(&self) -> u64 {
        self.run
    }

    pub fn is_endless(&self) -> bool {
        self.options.forever
    }

    /// Orders that no queue has taken yet.
    pub fn not_yet_sent(&self) -> impl Iterator<Item = u32> + Send + use<> {
        let beyond = if self.options.forever { self.orders + 1..u32::MAX } else { 0..0 };
        self.not_yet_sent.clone().into_iter().chain(beyond)
    }

    fn note(&self, line: &str) -> io::Result<()> {
        (&self.file).write_all(line.as_bytes())
    }

    /// The queue has confirmed an order.
    pub fn sent(&self, id: u32) -> io::Result<()> {
        self.note(&format!("sent {id}\n"))
    }

    /// An order was handled; false if it had been before.
    pub fn handled(&self, order: &NewOrder) -> io::Result<bool> {
        let NewOrder { run, id, customer, cents } = order;
        if *run != self.run {
            // Left over from a run whose ledger somebody has deleted.
            return Ok(false);
        }
        let mut handled = self.handled.lock().expect("nothing panics while it holds the lock");
        self.note(&format!("handled {id} {customer} {cents}\n"))?;
        self.done(Step::Handled, *id);
        Ok(handled.insert(*id))
    }

    pub fn mailed(&self, receipt: &Receipt) -> io::Result<()> {
        if receipt.run == self.run {
            self.note(&format!("mailed {}\n", receipt.id))?;
            self.done(Step::Mailed, receipt.id);
        }
        Ok(())
    }

    fn done(&self, step: Step, id: u32) {
        self.left.send_if_modified(|left| left.remove(&(step, id)));
    }

    /// Waits until every order is handled and every receipt mailed.
    pub async fn all_done(&self) {
        // The sender lives as long as the ledger.
        let _ = self.left.subscribe().wait_for(HashSet::is_empty).await;
    }

    pub fn progress(&self) -> String {
        let handled = self.handled.lock().expect("nothing panics while it holds the lock").len();
        format!("{handled} of {} handled", self.orders)
    }

    /// What each customer has bought, from the lines alone; an order that was handled twice counts once.
    pub fn totals(&self) -> io::Result<HashMap<u32, u64>> {
        Ok(Books::read_lines(&self.options)?.totals)
    }
}

impl Resource for Ledger {
    /// Called after every worker has stopped: nothing is noted after this line.
    async fn close(&self) -> Result<(), BoxError> {
        let finished = !self.options.forever && self.left.borrow().is_empty();
        self.note(if finished { "end\nfinished\n" } else { "end\n" })?;
        self.file.sync_all()?;
        Ok(())
    }
}

/// A run as the lines and the store tell it.
#[derive(Default)]
pub struct Books {
    /// 0 where there is none yet.
    run: u64,
    orders: u32,
    starts: u64,
    ends: u64,
    /// A process has ended with nothing left to do, and has said what became of the run.
    finished: bool,
    confirmed: HashSet<u32>,
    /// Each handled order, and how often.
    handled: HashMap<u32, u64>,
    mailed: HashSet<u32>,
    totals: HashMap<u32, u64>,
    torn: bool,
    /// What the store holds: in the queue of orders, among its dead letters, in the queue of receipts.
    in_queue: HashSet<u32>,
    dead: HashSet<u32>,
    receipts: HashSet<u32>,
}

impl Books {
    /// Reads the ledger and the store when no app runs.
    pub fn read(options: &Options) -> Result<Self, BoxError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(Self::gather(options))
    }

    async fn gather(options: &Options) -> Result<Self, BoxError> {
        let mut books = Self::read_lines(options)?;
        books.in_queue = books.ids_in(options, "orders").await?;
        books.dead = books.ids_in(options, "orders.quickstart.dead").await?;
        books.receipts = books.ids_in(options, "receipts").await?;
        Ok(books)
    }

    fn read_lines(options: &Options) -> io::Result<Self> {
        let mut books = Self::default();
        let text = match std::fs::read_to_string(options.ledger()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(books),
            text => text?,
        };
        books.torn = !text.is_empty() && !text.ends_with('\n');
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().for_each(|line| books.take(line).unwrap_or_default());
        Ok(books)
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let what = words.next()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        match what {
            "run" => (self.run, self.orders) = (number()?, number()? as u32),
            "start" => self.starts += 1,
            "end" => self.ends += 1,
            "finished" => self.finished = true,
            "sent" => drop(self.confirmed.insert(number()? as u32)),
            "mailed" => drop(self.mailed.insert(number()? as u32)),
            "handled" => {
                let (id, customer, cents) = (number()? as u32, number()? as u32, number()?);
                let times = self.handled.entry(id).or_default();
                *times += 1;
                if *times == 1 {
                    *self.totals.entry(customer).or_default() += cents;
                }
            }
            _ => {}
        }
        Some(())
    }

    /// The orders of this run that a queue of the store holds.
    async fn ids_in(&self, options: &Options, queue: &str) -> Result<HashSet<u32>, BoxError> {
        #[derive(Deserialize)]
        struct Named {
            run: u64,
            id: u32,
        }
        let mut ids = HashSet::new();
        if !options.store.exists() {
            return Ok(ids);
        }
        let url = Url::parse(&options.url(queue))?;
        let mut shelf = match Local::default().shelf(&url).await {
            Ok(shelf) => shelf,
            // Nobody has declared that queue yet.
            Err(error) if error.to_string().contains("does not exist") => return Ok(ids),
            Err(error) => return Err(error.into()),
        };
        loop {
            let messages = shelf.read(1_000).await?;
            if messages.is_empty() {
                return Ok(ids);
            }
            let named = messages.iter().filter_map(|message| serde_json::from_slice(message.payload()?).ok());
            ids.extend(named.filter(|named: &Named| named.run == self.run).map(|named| named.id));
        }
    }

    /// What was sent: confirmed; or it is there, and only the line that says so is missing.
    fn sent(&self) -> HashSet<u32> {
        let handled = self.handled.keys();
        self.confirmed.iter().chain(handled).chain(&self.in_queue).chain(&self.dead).copied().collect()
    }

    fn waiting(&self) -> usize {
        self.in_queue.iter().filter(|id| !self.handled.contains_key(id)).count()
    }

    fn dead(&self) -> usize {
        self.dead.iter().filter(|id| !self.handled.contains_key(id) && !self.in_queue.contains(id)).count()
    }

    fn duplicated(&self) -> u64 {
        self.handled.values().map(|times| times - 1).sum()
    }

    /// Processes of this run that were killed, each of which may have made a window of orders come again.
    fn unclean(&self) -> u64 {
        self.starts - self.ends.min(self.starts)
    }

    /// What is still to come, of what has not gone astray.
    fn left(&self) -> HashSet<(Step, u32)> {
        let sent = self.sent();
        let unsent = (1..=self.orders).filter(|id| !sent.contains(id));
        let mut left = HashSet::new();
        for id in unsent.chain(self.in_queue.iter().copied()) {
            left.extend([(Step::Handled, id), (Step::Mailed, id)]);
        }
        left.extend(self.receipts.iter().map(|id| (Step::Mailed, *id)));
        left
    }

    pub fn is_finished(&self) -> bool {
        self.finished
    }

    pub fn lost(&self) -> usize {
        self.sent().len() - self.handled.len() - self.waiting() - self.dead()
    }

    /// `412 done, 588 waiting`
    pub fn standing(&self) -> String {
        let unsent = self.orders as usize - self.sent().iter().filter(|id| **id <= self.orders).count();
        let unsent = if unsent > 0 { format!(", {unsent} yet to be placed") } else { String::new() };
        format!("{} done, {} waiting{unsent}", self.handled.len(), self.waiting())
    }
}

/// `ledger: sent 1000, handled 1000, waiting 0, duplicated 0, lost 0, bound 64`
impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dead() > 0 {
            writeln!(f, "dead letters: {}", self.dead())?;
        }
        write!(
            f,
            "ledger: sent {}, handled {}, waiting {}, duplicated {}, lost {}, bound {}",
            self.sent().len(),
            self.handled.len(),
            self.waiting(),
            self.duplicated(),
            self.lost(),
            u64::from(WINDOW) * self.unclean().max(1),
        )
    }
}

/// Removes the store: its database, and what lies beside it under its name.
fn remove_store(options: &Options) -> io::Result<()> {
    let (Some(folder), Some(name)) = (options.store.parent(), options.store.file_name()) else { return Ok(()) };
    let name = name.to_string_lossy().into_owned();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let of_store = [format!("{name}-wal"), format!("{name}-shm"), name.clone()].contains(&file);
        if of_store || file.starts_with(&format!("{name}-owner-")) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
