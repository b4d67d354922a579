//! The file: found, checked, made, migrated, and written in turns.

use super::neighbours::{FileId, Neighbourhoods, Neighbours};
use super::statements as sql;
use super::{filesystem, owner};
use crate::error::{Error, ErrorKind};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one transaction waits for another process's write lock before it says that the store is locked.
pub(super) const BUSY_PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries for the write lock; the wait grows from the first to the second.
const BUSY_NAPS: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(5));

/// A store up to this size is checked page by page when it is opened (about 10 ms); a larger one when it is read.
const CHECKED_BYTES: u64 = 16 << 20;

/// Statements that a connection keeps prepared: about a dozen for each queue that is used.
const CACHED_STATEMENTS: usize = 256;

const LOCKED: &str = "is locked by another program";

/// A store, as one source, sink or shelf has it open.
pub(super) struct Store {
    path: PathBuf,
    file: FileId,
    neighbours: Arc<Neighbours>,
}

/// The connection of a process to a store.
pub(super) struct Writer {
    connection: Connection,
    /// Whether commits wait for the disk now.
    waits_for_disk: bool,
}

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// To write; made where it is absent.
    Declare,
    /// To write; must be there.
    Write,
    /// To look, and to change nothing.
    Read,
}

impl Store {
    /// Opens a store, or makes it; blocks.
    pub(super) fn open(path: &Path, access: Access, all: &Neighbourhoods, patience: Duration) -> Result<Self, Error> {
        let shown = path.display();
        check_place(path, access)?;
        if !path.exists() {
            if access != Access::Declare {
                return Err(Error::configuration(format!("store '{shown}' does not exist")));
            }
            create(path)?;
        }
        let path =
            fs::canonicalize(path).map_err(|why| Error::configuration(format!("store '{shown}'")).caused_by(why))?;
        let meta =
            fs::metadata(&path).map_err(|why| Error::configuration(format!("store '{shown}'")).caused_by(why))?;
        if meta.len() == 0 {
            return Err(Error::new(
                ErrorKind::Start,
                format!("store '{shown}' is damaged: it is empty; remove the file to begin a new store"),
            ));
        }
        let file = (meta.dev(), meta.ino());
        // Who only looks has a connection of its own, which cannot write.
        let neighbours = if access == Access::Read { Arc::default() } else { all.of(file) };
        let store = Self { path, file, neighbours };
        let mut turn = store.neighbours.turn();
        if turn.writer.is_none() {
            *turn.writer = Some(connect(&store.path, access, meta.len(), patience.min(BUSY_PATIENCE))?);
        }
        drop(turn);
        Ok(store)
    }

    /// One transaction, in its turn. With `durable` its commit has reached the disk when this returns.
    ///
    /// An error changed nothing. It is retryable unless the store is damaged, gone, or not to be written.
    pub(super) fn write<T>(
        &self,
        durable: bool,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let mut turn = self.neighbours.turn();
        // A file that was moved away would take confirms for messages that nobody will ever read.
        if !self.is_there() {
            return Err(Error::new(
                ErrorKind::Start,
                format!("store '{}' was removed or replaced while it was open", self.path.display()),
            ));
        }
        let writer = turn.writer.as_mut().expect("it was opened with the store");
        writer.write(durable, work).map_err(|why| explain(&self.path, why))
    }

    /// One consistent look, in its turn.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, Error> {
        let mut turn = self.neighbours.turn();
        let writer = turn.writer.as_mut().expect("it was opened with the store");
        let seen = (|| {
            let tx = Transaction::new(&mut writer.connection, TransactionBehavior::Deferred)?;
            look(&tx)
        })();
        seen.map_err(|why| explain(&self.path, why))
    }

    /// A number that changes when another process has committed.
    pub(super) fn data_version(&self) -> Result<i64, Error> {
        let turn = self.neighbours.turn();
        let writer = turn.writer.as_ref().expect("it was opened with the store");
        let version = writer
            .connection
            .prepare_cached(sql::DATA_VERSION)
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)));
        version.map_err(|why| explain(&self.path, why))
    }

    fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn neighbours(&self) -> &Arc<Neighbours> {
        &self.neighbours
    }

    /// Lets the file grow no further, as a full disk does; 0 sets it free again.
    #[cfg(test)]
    pub(super) fn bound_pages(&self, pages: i64) {
        let most = if pages == 0 { 1_073_741_823 } else { pages };
        let turn = self.neighbours.turn();
        let connection = &turn.writer.as_ref().unwrap().connection;
        let _: i64 = connection.query_row(&format!("PRAGMA max_page_count = {most}"), [], |row| row.get(0)).unwrap();
    }
}

/// Opens a connection, checks that there is a store, migrates it, and sets the connection up.
fn connect(path: &Path, access: Access, bytes: u64, patience: Duration) -> Result<Writer, Error> {
    let told = |why| explain(path, why);
    let flags = match access {
        Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Access::Declare | Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
    } | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(told)?;
    connection.busy_handler(Some(nap_briefly as fn(i32) -> bool)).map_err(told)?;
    let mut writer = Writer { connection, waits_for_disk: true };
    let until = Instant::now() + patience;
    // A lock that is held while another process recovers or migrates is worth a second look.
    loop {
        match writer.prepare(path, bytes, access) {
            Err(error) if error.is_retryable() && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(at_start(error)),
            Ok(()) => break,
        }
    }
    writer.connection.busy_handler(Some(nap as fn(i32) -> bool)).map_err(told)?;
    Ok(writer)
}

impl Writer {
    fn prepare(&mut self, path: &Path, bytes: u64, access: Access) -> Result<(), Error> {
        let told = |why| explain(path, why);
        let shown = path.display();
        let application: i32 = pragma(&self.connection, "application_id").map_err(told)?;
        let version: i32 = pragma(&self.connection, "user_version").map_err(told)?;
        if application != sql::APPLICATION_ID {
            return Err(Error::configuration(format!("'{shown}' is a database of another program, not a store")));
        }
        if version > sql::VERSION {
            return Err(Error::configuration(format!(
                "store '{shown}' has schema {version}, newer than schema {} of this build",
                sql::VERSION
            )));
        }
        if bytes <= CHECKED_BYTES {
            let verdict: String = pragma(&self.connection, "quick_check(1)").map_err(told)?;
            if verdict != "ok" {
                return Err(damaged(path).caused_by(verdict));
            }
        }
        if access == Access::Read {
            if version != sql::VERSION {
                return Err(Error::configuration(format!(
                    "store '{shown}' has the older schema {version}; it is migrated when a source or sink opens it"
                )));
            }
            return Ok(());
        }
        let mode: String =
            self.connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(told)?;
        if mode != "wal" {
            return Err(Error::configuration(format!("store '{shown}' cannot keep a write-ahead log here")));
        }
        self.connection.execute_batch(sql::CONNECTION).map_err(told)?;
        self.connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        if version < sql::VERSION {
            self.write(true, |tx| migrate(tx, sql::VERSION)).map_err(told)?;
            tracing::info!(event = "store_migrated", store = %shown, from = version, to = sql::VERSION);
        }
        Ok(())
    }

    fn write<T>(
        &mut self,
        durable: bool,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if durable != self.waits_for_disk {
            self.connection.execute_batch(if durable { sql::FULL } else { sql::NORMAL })?;
            self.waits_for_disk = durable;
        }
        let tx = Transaction::new(&mut self.connection, TransactionBehavior::Immediate)?;
        let done = work(&tx)?;
        tx.commit()?;
        Ok(done)
    }
}

/// Sleeps a little before the next try for the lock; gives up after about [`BUSY_PATIENCE`].
fn nap(tries: i32) -> bool {
    nap_up_to(tries, BUSY_PATIENCE)
}

fn nap_briefly(tries: i32) -> bool {
    nap_up_to(tries, Duration::from_millis(50))
}

fn nap_up_to(tries: i32, patience: Duration) -> bool {
    let (shortest, longest) = BUSY_NAPS;
    if longest * u32::try_from(tries).unwrap_or(0) > patience {
        return false;
    }
    let growing = shortest * 2u32.saturating_pow(u32::try_from(tries).unwrap_or(0).min(10));
    // Jitter, so that two waiting processes do not keep step.
    std::thread::sleep(growing.min(longest).mul_f64(0.5 + fastrand::f64() / 2.0));
    true
}

/// Looks at where the store is to lie. The database file itself is never opened here: closing a descriptor of it
/// would drop the locks that SQLite holds in this process.
fn check_place(path: &Path, access: Access) -> Result<(), Error> {
    let shown = path.display();
    if path.as_os_str().is_empty() {
        return Err(Error::configuration("a local store needs a path, such as local:orders.db?queue=orders"));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if path.is_dir() {
        return Err(Error::configuration(format!("store '{shown}' is a folder")));
    }
    if !folder.is_dir() {
        return Err(Error::configuration(format!("store '{shown}': there is no folder '{}'", folder.display())));
    }
    if let Some(network) = filesystem::network_name(folder) {
        return Err(Error::configuration(format!(
            "store '{shown}' lies on a network file system ({network}), whose locks do not protect it; use a local disk"
        )));
    }
    if path.exists() {
        let wanted = match access {
            Access::Read => rustix::fs::Access::READ_OK,
            _ => rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK,
        };
        rustix::fs::access(path, wanted).map_err(|why| {
            Error::configuration(format!("store '{shown}' cannot be read and written"))
                .caused_by(std::io::Error::from(why))
        })?;
    }
    Ok(())
}

/// Makes a new store whole beside its place, then links it there: nobody ever sees half of one, and of two that make
/// it at once, one wins and both use it.
fn create(path: &Path) -> Result<(), Error> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!("-new-{}", uuid::Uuid::new_v4().simple()));
    let fresh = PathBuf::from(fresh);
    let made = make(&fresh).map_err(|why| explain(path, why)).and_then(|()| {
        let linked = fs::File::open(&fresh).and_then(|file| file.sync_all()).and_then(|()| fs::hard_link(&fresh, path));
        match linked {
            Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(why) => Err(Error::configuration(format!("store '{}' cannot be made", path.display())).caused_by(why)),
            Ok(()) => Ok(()),
        }
    });
    let _ = fs::remove_file(&fresh);
    for end in ["-wal", "-shm", "-journal"] {
        let mut left = fresh.as_os_str().to_owned();
        left.push(end);
        let _ = fs::remove_file(left);
    }
    made.map_err(at_start)?;
    let folder = fs::canonicalize(path).ok().and_then(|path| path.parent().map(Path::to_owned));
    if let Some(folder) = folder.and_then(|folder| fs::File::open(folder).ok()) {
        let _ = folder.sync_all();
    }
    Ok(())
}

fn make(fresh: &Path) -> rusqlite::Result<()> {
    let mut connection = Connection::open(fresh)?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    migrate(&tx, sql::VERSION)?;
    tx.pragma_update(None, "application_id", sql::APPLICATION_ID)?;
    tx.commit()?;
    // The last connection to close puts the log into the file and removes it.
    connection.close().map_err(|(_, why)| why)
}

/// Brings a store from the version it has to `to`, inside one transaction.
pub(super) fn migrate(tx: &Transaction<'_>, to: i32) -> rusqlite::Result<()> {
    let from: i32 = pragma(tx, "user_version")?;
    for step in sql::STEPS.iter().take(to as usize).skip(usize::try_from(from).unwrap_or(0)) {
        tx.execute_batch(step)?;
    }
    if from < to {
        tx.pragma_update(None, "user_version", to)?;
    }
    Ok(())
}

fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> rusqlite::Result<T> {
    connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

/// The id of a queue; `None` where it is absent.
pub(super) fn find_queue(tx: &Transaction<'_>, name: &str) -> rusqlite::Result<Option<i64>> {
    tx.prepare_cached(sql::QUEUE)?.query_row([name], |row| row.get(0)).optional()
}

/// The id of a group; `None` where it is absent.
pub(super) fn find_group(tx: &Transaction<'_>, queue: i64, name: &str) -> rusqlite::Result<Option<i64>> {
    tx.prepare_cached(sql::GROUP)?.query_row(params![queue, name], |row| row.get(0)).optional()
}

/// What a URL names inside a store.
pub(super) struct Declared {
    pub(super) queue: i64,
    pub(super) group: Option<i64>,
}

/// Finds queue and group, makes what is absent if `declare`, and takes over a retention that is given.
pub(super) fn declare(
    store: &Store,
    queue: &str,
    group: Option<&str>,
    retain: Option<Duration>,
    may_create: bool,
) -> Result<Declared, Error> {
    let absent = |what: &str, name: &str, path: &Path| {
        Error::configuration(format!("{what} '{name}' does not exist in store '{}' and declare=false", path.display()))
    };
    let path = store.path().to_owned();
    let found = store.read(|tx| {
        let Some(id) = find_queue(tx, queue)? else { return Ok((None, None)) };
        Ok((Some(id), group.map(|group| find_group(tx, id, group)).transpose()?.flatten()))
    })?;
    let missing = found.0.is_none() || (group.is_some() && found.1.is_none());
    if missing && !may_create {
        return Err(match (found.0, group) {
            (Some(_), Some(group)) => absent("group", group, &path),
            _ => absent("queue", queue, &path),
        });
    }
    if let (Some(id), false, None) = (found.0, missing, retain) {
        return Ok(Declared { queue: id, group: found.1 });
    }
    store
        .write(true, |tx| {
            let id = match find_queue(tx, queue)? {
                Some(id) => id,
                None => {
                    tx.execute(sql::ADD_QUEUE, [queue])?;
                    let id = tx.last_insert_rowid();
                    tx.execute_batch(&sql::create_table(id))?;
                    id
                }
            };
            if let Some(retain) = retain {
                tx.execute(sql::SET_RETENTION, params![id, owner::millis(retain)])?;
            }
            let group = match group {
                None => None,
                Some(name) => Some(match find_group(tx, id, name)? {
                    Some(group) => group,
                    None => {
                        tx.execute(sql::ADD_GROUP, params![id, name])?;
                        tx.last_insert_rowid()
                    }
                }),
            };
            Ok(Declared { queue: id, group })
        })
        .map_err(at_start)
}

/// A lock that outlasts the patience of a start is the operator's to find; a full disk stays what it is.
fn at_start(error: Error) -> Error {
    let text = error.to_string();
    if text.contains(LOCKED) { Error::configuration(text) } else { error }
}

fn damaged(path: &Path) -> Error {
    Error::new(ErrorKind::Start, format!("store '{}' is damaged; it is left as it is", path.display()))
}

/// What SQLite says, as this library says it.
fn explain(path: &Path, why: rusqlite::Error) -> Error {
    let shown = path.display();
    let code = why.sqlite_error_code();
    let error = match code {
        Some(ErrorCode::DatabaseCorrupt) => damaged(path),
        Some(ErrorCode::NotADatabase) => {
            Error::new(ErrorKind::Start, format!("store '{shown}' is damaged or no store at all; it is left as it is"))
        }
        Some(ErrorCode::DiskFull) => Error::new(ErrorKind::Io, format!("store '{shown}': no space left")),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            Error::new(ErrorKind::Io, format!("store '{shown}' {LOCKED}"))
        }
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::SchemaChanged,
        ) => Error::new(ErrorKind::Io, format!("store '{shown}' cannot be read or written")),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            Error::configuration(format!("store '{shown}' cannot be opened to be written"))
        }
        _ => Error::new(ErrorKind::Start, format!("store '{shown}'")),
    };
    error.caused_by(why)
}

/// Removes what owners left behind that ended before they registered.
pub(super) fn tidy(store: &Store) -> Result<(), Error> {
    let names = store.read(|tx| {
        let mut statement = tx.prepare_cached(sql::OTHER_OWNERS)?;
        statement.query_map([-1], |row| row.get::<_, String>(1))?.collect::<rusqlite::Result<Vec<_>>>()
    })?;
    owner::tidy(store.path(), &names);
    Ok(())
}
