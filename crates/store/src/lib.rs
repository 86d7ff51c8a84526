//! Every SQL statement of Tintype: one file for each noun, one text for every database.

mod account;
mod codec;
mod copy;
mod domain;
mod event;
mod finding;
mod gathered;
mod host;
mod idempotency;
mod names;
mod operation;
mod page;
mod profile;
mod reach;
mod reader;
#[cfg(any(test, feature = "seed"))]
mod seed;
mod seen;
mod snapshot;
mod snapshot_few;
mod snapshot_list;
mod sql;
mod timeline;
mod token;
mod user;
mod vm;
mod words;
mod writer;

pub use account::Account;
pub use copy::{check_copy, put_back};
pub use domain::Domain;
pub use event::{Event, EventFilter};
pub use host::Host;
pub use idempotency::Remembered;
pub use operation::{OperationFilter, state_of};
pub use page::{Cursor, Order, Page};
pub use profile::{DEFAULT_PROFILE, Profile};
pub use snapshot_list::{ListedSnapshot, SnapshotFilter};
pub use token::Token;
pub use user::{FIRST_USER, User};
pub use vm::{ListedVm, VmFilter};

use names::Names;
use reader::{Readers, Reading};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use writer::{Turn, Writer};

/// The schema, one step for each release that changed it.
const SCHEMA: &[M<'_>] = &[
    M::up(include_str!("../migrations/0001_timeline.sql")),
    M::up(include_str!("../migrations/0002_people.sql")),
    M::up(include_str!("../migrations/0003_sharing.sql")),
    M::up(include_str!("../migrations/0004_speed.sql")),
    M::up(include_str!("../migrations/0005_findings.sql")),
    M::up(include_str!("../migrations/0006_saving.sql")),
    M::up(include_str!("../migrations/0007_order.sql")),
];

/// How many statements a connection keeps prepared.
const STATEMENTS: usize = 256;

/// How much of the file the connection that writes keeps in memory, in KiB below zero: also what is
/// not committed yet, which else is written twice.
const WRITER_CACHE: i32 = -32 << 10;

/// Why the database could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQL.
    #[error("database: {0}")]
    Sql(#[from] rusqlite::Error),
    /// The schema could not be brought up to date.
    #[error("database schema: {0}")]
    Migrate(rusqlite_migration::Error),
    /// A newer release has written it.
    #[error("database schema: it is of a newer release of Tintype")]
    Newer,
    /// What is in it is not what we wrote.
    #[error("database: {0} is damaged")]
    Damaged(String),
    /// What was written could not be put on disk; it did not happen.
    #[error("database: not written: {0}")]
    NotDurable(String),
    /// It was closed; what was not recorded before did not happen.
    #[error("database: closed")]
    Closed,
}

impl From<rusqlite_migration::Error> for StoreError {
    fn from(error: rusqlite_migration::Error) -> Self {
        use rusqlite_migration::{Error, MigrationDefinitionError};
        match error {
            Error::MigrationDefinition(MigrationDefinitionError::DatabaseTooFarAhead) => {
                Self::Newer
            }
            error => Self::Migrate(error),
        }
    }
}

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    /// Where it is, unless it is in memory.
    file: Option<PathBuf>,
    /// None where the one connection there is does both.
    readers: Option<Arc<Readers>>,
    writer: Arc<Writer>,
    names: Arc<Names>,
}

/// Reads and writes that happen together or not at all. Each statement runs where it is called and
/// takes microseconds; only waiting for one's turn and for the disk is waiting.
#[derive(Debug)]
pub struct Unit {
    inner: Inner,
    names: Arc<Names>,
    /// How often names had been learned when it began.
    names_learned: u64,
}

#[derive(Debug)]
enum Inner {
    Reads(Reading),
    Writes(Turn),
}

impl Store {
    /// Opens the database in a file, making or updating it.
    ///
    /// # Errors
    /// When it cannot be opened, or is of a newer release.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut writes = connect(path, OpenFlags::default())?;
        writes.pragma_update(None, "journal_mode", "wal")?;
        writes.pragma_update(None, "synchronous", "full")?;
        writes.pragma_update(None, "wal_autocheckpoint", 0)?;
        Migrations::from_slice(SCHEMA).to_latest(&mut writes)?;
        writes.pragma_update(None, "cache_size", WRITER_CACHE)?;
        // What units change and may take back is kept in memory.
        writes.pragma_update(None, "temp_store", "memory")?;
        let readers = Readers::open(|| connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY))?;
        let empties = connect(path, OpenFlags::default())?;
        let writer = Arc::new(Writer::with_committer(writes, empties));
        let file = path.to_owned();
        let reads = move || connect(&file, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let names = Names::learned(reads, &writer);
        Ok(Self { file: Some(path.to_owned()), readers: Some(readers), writer, names })
    }

    /// Makes a database that lives in memory, with no thread of its own. Each commit is taken back
    /// if `fails` says so, as when the disk is full.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn in_memory(fails: impl FnMut() -> bool + Send + 'static) -> Result<Self, StoreError> {
        let both = copy::in_memory()?;
        both.commit_hook(Some(fails))?;
        let writer = Arc::new(Writer::without_committer(both));
        Ok(Self { file: None, readers: None, writer, names: Arc::default() })
    }

    /// Begins to write: nobody else writes until it is committed or dropped, so that what was read
    /// in it is still true when it is written.
    ///
    /// # Errors
    /// When the database is not reachable.
    pub async fn write(&self) -> Result<Unit, StoreError> {
        let (names, names_learned) = (Arc::clone(&self.names), self.names.times_learned());
        Ok(Unit { inner: Inner::Writes(self.writer.turn().await?), names, names_learned })
    }

    /// Begins to read, at one moment.
    ///
    /// # Errors
    /// When the database is not reachable.
    pub async fn read(&self) -> Result<Unit, StoreError> {
        let Some(readers) = &self.readers else { return self.write().await };
        let (names, names_learned) = (Arc::clone(&self.names), self.names.times_learned());
        Ok(Unit { inner: Inner::Reads(readers.begin().await?), names, names_learned })
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.names.close();
        if let Some(readers) = &self.readers {
            readers.close().await;
        }
        self.writer.close().await;
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    // Nobody shares a connection, so that it needs no lock of its own.
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Else a statement is planned anew whenever it is given other values.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    gathered::teach(&connection)?;
    Ok(connection)
}

impl Unit {
    /// Makes it durable.
    ///
    /// # Errors
    /// When it could not be; then nothing of it happened.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self.inner {
            Inner::Reads(_) => Ok(()),
            Inner::Writes(turn) => turn.commit().await,
        }
    }

    /// How many rows its connection has changed so far: of a database in memory, everybody, so
    /// that what was read stays true as long as this does.
    pub fn rows_changed(&self) -> u64 {
        self.connection().total_changes()
    }

    fn connection(&self) -> &Connection {
        match &self.inner {
            Inner::Reads(reading) => reading.connection(),
            Inner::Writes(turn) => turn.connection(),
        }
    }
}
