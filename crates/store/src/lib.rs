//! Every SQL statement of Tintype: one file for each noun, one text for every database.

mod account;
mod codec;
mod domain;
mod event;
mod host;
mod idempotency;
mod operation;
mod page;
mod profile;
mod reach;
#[cfg(feature = "seed")]
mod seed;
mod snapshot;
mod timeline;
mod token;
mod user;
mod vm;
mod writer;

pub use account::Account;
pub use domain::Domain;
pub use event::{Event, EventFilter};
pub use host::Host;
pub use idempotency::Remembered;
pub use operation::{OperationFilter, state_of};
pub use page::{Cursor, Order, Page};
pub use profile::{DEFAULT_PROFILE, Profile};
pub use snapshot::{ListedSnapshot, SnapshotFilter};
pub use token::Token;
pub use user::{FIRST_USER, User};
pub use vm::{ListedVm, VmFilter};

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Sqlite, SqlitePool, Transaction};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use writer::{Turn, Writer};

/// How many read at the same time.
const READERS: u32 = 8;

/// How many rows are handed over at once, between the thread that reads them and ours.
const ROWS: usize = 512;

/// Why the database could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQL.
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    /// The schema could not be brought up to date, or is of a newer release.
    #[error("database schema: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// What is in it is not what we wrote.
    #[error("database: {0} is damaged")]
    Damaged(String),
    /// What was written could not be put on disk; it did not happen.
    #[error("database: not written: {0}")]
    NotDurable(String),
}

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    readers: SqlitePool,
    writer: Arc<Writer>,
}

/// Reads and writes that happen together or not at all.
#[derive(Debug)]
pub struct Unit<'a>(Inner<'a>);

#[derive(Debug)]
enum Inner<'a> {
    Reads(Transaction<'a, Sqlite>),
    Writes(Turn),
}

impl Store {
    /// Opens the database in a file, making or updating it.
    ///
    /// # Errors
    /// When it cannot be opened, or is of a newer release.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .row_buffer_size(ROWS)
            .statement_cache_capacity(256)
            .busy_timeout(Duration::from_secs(10));
        let mut first = SqliteConnection::connect_with(&options).await?;
        sqlx::migrate!("./migrations").run(&mut first).await?;
        first.close().await?;
        let writer = Writer::open(&options).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self { readers, writer })
    }

    /// Begins to write: nobody else writes until it is committed or dropped, so that what was read
    /// in it is still true when it is written.
    ///
    /// # Errors
    /// When the database is not reachable.
    pub async fn write(&self) -> Result<Unit<'_>, StoreError> {
        Ok(Unit(Inner::Writes(self.writer.turn().await?)))
    }

    /// Begins to read, at one moment.
    ///
    /// # Errors
    /// When the database is not reachable.
    pub async fn read(&self) -> Result<Unit<'_>, StoreError> {
        Ok(Unit(Inner::Reads(self.readers.begin().await?)))
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

impl Unit<'_> {
    /// Makes it durable.
    ///
    /// # Errors
    /// When it could not be; then nothing of it happened.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self.0 {
            Inner::Reads(reads) => Ok(reads.commit().await?),
            Inner::Writes(turn) => turn.commit().await,
        }
    }

    fn connection(&mut self) -> &mut SqliteConnection {
        match &mut self.0 {
            Inner::Reads(reads) => reads,
            Inner::Writes(turn) => turn.connection(),
        }
    }
}
