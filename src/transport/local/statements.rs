//! Every SQL statement of the room, so that a benchmark can run the same ones bare.
//!
//! A queue has a table of its own, whose rowid is the order of the messages: no index is needed to read it. What a
//! group has not touched lies above its `cursor`. Below it, a message is settled unless one of two tables says that
//! it is not: `ranges` (what an owner claimed in one go, with a bit for each row that is done) and `pending` (rows
//! that came back, wait for their delay, or carry a count). So a claim of a whole batch is one row, and settling it
//! is one update of that row.

/// `PRAGMA application_id` of a store.
pub const APPLICATION_ID: i32 = 0x4c53_4851;

/// `PRAGMA user_version` of the schema that this build reads and writes.
pub const VERSION: i32 = 2;

/// How a store gets from each version to the next; version 0 is an empty file.
pub const STEPS: [&str; VERSION as usize] = [V1, V2];

const V1: &str = "
CREATE TABLE queues (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    next INTEGER NOT NULL DEFAULT 1          -- the id of the next message; ids are never used twice
);
CREATE TABLE groups (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue INTEGER NOT NULL,
    name TEXT NOT NULL,
    cursor INTEGER NOT NULL DEFAULT 0,       -- messages above it were never claimed
    UNIQUE (queue, name)
);
CREATE TABLE owners (
    id INTEGER PRIMARY KEY AUTOINCREMENT,    -- never used twice: a claim is looked up by it
    name TEXT NOT NULL UNIQUE,               -- end of the name of the lock file
    boot TEXT NOT NULL,                      -- boot id to which renewed_ms belongs
    renewed_ms INTEGER NOT NULL,             -- boot time clock
    claim_ms INTEGER NOT NULL                -- free when not renewed for so long
);
CREATE TABLE ranges (
    grp INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    done BLOB NOT NULL,                      -- a bit for each id from first: set where the owner does not hold it
    PRIMARY KEY (grp, first)
) WITHOUT ROWID;
CREATE INDEX ranges_owner ON ranges (owner);
CREATE TABLE pending (
    grp INTEGER NOT NULL,
    id INTEGER NOT NULL,
    owner INTEGER,                           -- NULL: free
    due_ms INTEGER NOT NULL,                 -- wall clock; 0: at once, in its old order
    attempts INTEGER NOT NULL,
    PRIMARY KEY (grp, id)
) WITHOUT ROWID;
CREATE INDEX pending_free ON pending (grp, due_ms, id) WHERE owner IS NULL;
CREATE INDEX pending_owner ON pending (owner) WHERE owner IS NOT NULL;
";

/// Retention of a queue, and how often an owner of a message ended without giving it back.
const V2: &str = "
ALTER TABLE queues ADD COLUMN retain_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pending ADD COLUMN unclean INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pending ADD COLUMN marks INTEGER NOT NULL DEFAULT 0;
";

/// What every connection sets. The WAL is checkpointed at 16 MiB, and cut back to 64 MiB after a burst.
pub const CONNECTION: &str = "
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 4096;
PRAGMA journal_size_limit = 67108864;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -8192;
";

/// Commits wait for the disk.
pub const FULL: &str = "PRAGMA synchronous = FULL";
/// Commits do not wait for the disk: for claims, which end with a power cut anyway.
pub const NORMAL: &str = "PRAGMA synchronous = NORMAL";
/// Changes when another connection has committed.
pub const DATA_VERSION: &str = "PRAGMA data_version";

/// Parameters: name.
pub const QUEUE: &str = "SELECT id FROM queues WHERE name = ?1";
/// Parameters: name.
pub const ADD_QUEUE: &str = "INSERT INTO queues (name) VALUES (?1)";
/// Parameters: queue, milliseconds.
pub const SET_RETENTION: &str = "UPDATE queues SET retain_ms = ?2 WHERE id = ?1 AND retain_ms <> ?2";
/// Parameters: queue.
pub const RETENTION: &str = "SELECT retain_ms FROM queues WHERE id = ?1";
/// Parameters: queue, name.
pub const GROUP: &str = "SELECT id FROM groups WHERE queue = ?1 AND name = ?2";
/// Parameters: queue, name.
pub const ADD_GROUP: &str = "INSERT INTO groups (queue, name) VALUES (?1, ?2)";
/// Parameters: queue.
pub const GROUPS: &str = "SELECT id, cursor FROM groups WHERE queue = ?1";
/// Parameters: group.
pub const CURSOR: &str = "SELECT cursor FROM groups WHERE id = ?1";
/// Parameters: group, cursor.
pub const SET_CURSOR: &str = "UPDATE groups SET cursor = ?2 WHERE id = ?1";
/// Parameters: queue.
pub const NEXT: &str = "SELECT next FROM queues WHERE id = ?1";
/// Parameters: queue, next.
pub const SET_NEXT: &str = "UPDATE queues SET next = ?2 WHERE id = ?1";

/// Parameters: name, boot id, now, claim.
pub const ADD_OWNER: &str = "INSERT INTO owners (name, boot, renewed_ms, claim_ms) VALUES (?1, ?2, ?3, ?4)";
/// Parameters: owner.
pub const OWNER: &str = "SELECT 1 FROM owners WHERE id = ?1";
/// Parameters: owner, now.
pub const RENEW: &str = "UPDATE owners SET renewed_ms = ?2 WHERE id = ?1";
/// Parameters: owner to leave out.
pub const OTHER_OWNERS: &str = "SELECT id, name, boot, renewed_ms, claim_ms FROM owners WHERE id <> ?1";
/// Parameters: owner, renewed as it was seen. A renewal in between keeps the owner.
pub const REMOVE_OWNER: &str = "DELETE FROM owners WHERE id = ?1 AND renewed_ms = ?2";
/// Parameters: owner.
pub const REMOVE_SELF: &str = "DELETE FROM owners WHERE id = ?1";

/// Parameters: group, first, last, owner, done.
pub const ADD_RANGE: &str = "INSERT INTO ranges (grp, first, last, owner, done) VALUES (?1, ?2, ?3, ?4, ?5)";
/// Parameters: group, first, done.
pub const SET_RANGE: &str = "UPDATE ranges SET done = ?3 WHERE grp = ?1 AND first = ?2";
/// Parameters: group, first.
pub const REMOVE_RANGE: &str = "DELETE FROM ranges WHERE grp = ?1 AND first = ?2";
/// Parameters: group, from, to.
pub const RANGES_BETWEEN: &str = "SELECT first, last, done FROM ranges WHERE grp = ?1 AND first <= ?3 AND last >= ?2";
/// Parameters: group, owner to leave out.
pub const RANGES_OF_OTHERS: &str = "SELECT first, last, done, owner FROM ranges WHERE grp = ?1 AND owner <> ?2";
/// Parameters: owner.
pub const RANGES_OF: &str = "
SELECT grp, queue, first, last, done FROM ranges JOIN groups ON groups.id = ranges.grp WHERE owner = ?1";
/// Parameters: owner.
pub const REMOVE_RANGES_OF: &str = "DELETE FROM ranges WHERE owner = ?1";

/// Parameters: group, from, to.
pub const PENDING_BETWEEN: &str = "SELECT id FROM pending WHERE grp = ?1 AND id BETWEEN ?2 AND ?3";
/// Parameters: group, owner to leave out.
pub const PENDING_OF_OTHERS: &str = "
SELECT id, owner FROM pending INDEXED BY pending_owner WHERE grp = ?1 AND owner IS NOT NULL AND owner <> ?2";
/// Parameters: group, id, owner.
pub const TAKE_PENDING: &str = "UPDATE pending SET owner = ?3 WHERE grp = ?1 AND id = ?2";
/// Parameters: group, id.
pub const REMOVE_PENDING: &str = "DELETE FROM pending WHERE grp = ?1 AND id = ?2";
/// Parameters: owner.
pub const FREE_PENDING_OF: &str = "UPDATE pending SET owner = NULL, due_ms = 0, unclean = unclean + 1 WHERE owner = ?1";
/// Parameters: queue, id.
pub const REMOVE_PENDING_EVERYWHERE: &str = "
DELETE FROM pending WHERE grp IN (SELECT id FROM groups WHERE queue = ?1) AND id = ?2";
/// Parameters: group, now.
pub const ANY_DUE: &str = "SELECT 1 FROM pending WHERE grp = ?1 AND owner IS NULL AND due_ms <= ?2 LIMIT 1";
/// Parameters: group, now.
pub const NEXT_DUE: &str =
    "SELECT due_ms FROM pending WHERE grp = ?1 AND owner IS NULL AND due_ms > ?2 ORDER BY due_ms LIMIT 1";
/// Parameters: group, now. Free rows that wait for their delay, that do not, and rows that are held, by owner.
pub const COUNT_PENDING: &str = "
SELECT owner, due_ms > ?2, count(*), min(id) FROM pending WHERE grp = ?1 GROUP BY 1, 2";
/// Parameters: group.
pub const FIRST_PENDING: &str = "SELECT min(id) FROM pending WHERE grp = ?1";
/// Parameters: group.
pub const FIRST_RANGE: &str = "SELECT min(first) FROM ranges WHERE grp = ?1";

/// The statements that name the table of one queue.
#[derive(Debug, Clone)]
pub struct QueueStatements {
    /// Parameters: id, key, payload, headers, timestamp, published.
    pub insert: String,
    /// Parameters: id, key, payload, headers, timestamp, published, uid. Changes nothing where that uid is there.
    pub insert_once: String,
    /// Parameters: cursor, largest payload. Columns: id, attempts, unclean, marks, key, headers, timestamp, size of the
    /// payload, payload.
    pub fresh: String,
    /// Parameters: group, largest payload, now. Columns as in `fresh`, and due.
    pub due: String,
    /// Parameters: cursor.
    pub any_fresh: String,
    /// Parameters: id. Columns: key, headers.
    pub key: String,
    /// Parameters: id. Columns: key, headers, payload.
    pub key_and_payload: String,
    /// Parameters: first, last.
    pub delete: String,
    /// Parameters: first, last.
    pub forget_uid: String,
    /// Parameters: group, id, owner, due, attempts, unclean, marks. Changes nothing where the message is gone.
    pub put_pending: String,
    /// Parameters: below. Columns: id, published.
    pub oldest_below: String,
    /// Parameters: cursor. Columns: how many, the lowest.
    pub count_above: String,
    /// The highest id.
    pub highest: String,
    /// Parameters: id.
    pub published: String,
    /// Parameters: after. Columns as in `fresh`.
    pub shelf: String,
}

impl QueueStatements {
    /// Those of a queue by its id.
    pub fn of(queue: i64) -> Self {
        let table = table(queue);
        let parts = |limit: &str| {
            format!(
                "m.key, m.headers, m.timestamp_ms, length(m.payload), \
                 CASE WHEN length(m.payload) > {limit} THEN NULL ELSE m.payload END"
            )
        };
        Self {
            insert: format!(
                "INSERT INTO {table} (id, key, payload, headers, timestamp_ms, published_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
            ),
            insert_once: format!(
                "INSERT INTO {table} (id, key, payload, headers, timestamp_ms, published_ms, uid) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (uid) WHERE uid IS NOT NULL DO NOTHING"
            ),
            fresh: format!("SELECT m.id, 0, 0, 0, {} FROM {table} m WHERE m.id > ?1 ORDER BY m.id", parts("?2")),
            due: format!(
                "SELECT p.id, p.attempts, p.unclean, p.marks, {}, p.due_ms FROM pending p INDEXED BY pending_free \
                 JOIN {table} m ON m.id = p.id \
                 WHERE p.grp = ?1 AND p.owner IS NULL AND p.due_ms <= ?3 ORDER BY p.due_ms, p.id",
                parts("?2")
            ),
            any_fresh: format!("SELECT 1 FROM {table} WHERE id > ?1 LIMIT 1"),
            key: format!("SELECT key, headers FROM {table} WHERE id = ?1"),
            key_and_payload: format!("SELECT key, headers, payload FROM {table} WHERE id = ?1"),
            delete: format!("DELETE FROM {table} WHERE id BETWEEN ?1 AND ?2"),
            forget_uid: format!("UPDATE {table} SET uid = NULL WHERE id BETWEEN ?1 AND ?2 AND uid IS NOT NULL"),
            put_pending: format!(
                "INSERT INTO pending (grp, id, owner, due_ms, attempts, unclean, marks) \
                 SELECT ?1, id, ?3, ?4, ?5, ?6, ?7 FROM {table} WHERE id = ?2 \
                 ON CONFLICT (grp, id) DO UPDATE SET owner = ?3, due_ms = ?4, attempts = ?5, unclean = ?6, marks = ?7"
            ),
            oldest_below: format!("SELECT id, published_ms FROM {table} WHERE id < ?1 ORDER BY id"),
            count_above: format!("SELECT count(*), min(id) FROM {table} WHERE id > ?1"),
            highest: format!("SELECT max(id) FROM {table}"),
            published: format!("SELECT published_ms FROM {table} WHERE id = ?1"),
            shelf: format!("SELECT m.id, 0, 0, 0, {} FROM {table} m WHERE m.id > ?1 ORDER BY m.id", parts("?2")),
        }
    }
}

/// The table of a queue.
pub fn table(queue: i64) -> String {
    format!("messages_{queue}")
}

/// Makes the table of a queue.
pub fn create_table(queue: i64) -> String {
    let table = table(queue);
    format!(
        "CREATE TABLE {table} (
             id INTEGER PRIMARY KEY,
             key BLOB,
             payload BLOB,                   -- NULL: a tombstone
             headers BLOB,                   -- as `Headers` encodes them
             timestamp_ms INTEGER,
             published_ms INTEGER NOT NULL,  -- wall clock
             uid TEXT                        -- the publisher's id, as long as the message waits or is in flight
         );
         CREATE UNIQUE INDEX {table}_uid ON {table} (uid) WHERE uid IS NOT NULL;"
    )
}
