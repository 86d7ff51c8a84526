//! Every SQL statement of Tintype: one file for each noun, one text for every database.

mod codec;
mod host;
mod idempotency;
mod operation;
mod page;
mod snapshot;
mod timeline;
mod vm;

pub use host::Host;
pub use idempotency::Remembered;
pub use operation::{OperationFilter, state_of};
pub use page::{Cursor, Page};
pub use snapshot::SnapshotFilter;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};
use std::path::Path;
use std::time::Duration;

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
}

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
}

/// Reads and writes that happen together or not at all.
#[derive(Debug)]
pub struct Unit<'a> {
    tx: Transaction<'a, Sqlite>,
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
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        sqlx::migrate!("./migrations").run(&pool).await?;
        Ok(Self { pool })
    }

    /// Begins to write: nobody else writes until it is committed or dropped, so that what was read
    /// in it is still true when it is written.
    ///
    /// # Errors
    /// When the database is not reachable.
    pub async fn write(&self) -> Result<Unit<'_>, StoreError> {
        Ok(Unit { tx: self.pool.begin_with("BEGIN IMMEDIATE").await? })
    }

    /// Begins to read, at one moment.
    ///
    /// # Errors
    /// When the database is not reachable.
    pub async fn read(&self) -> Result<Unit<'_>, StoreError> {
        Ok(Unit { tx: self.pool.begin().await? })
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Unit<'_> {
    /// Makes it durable.
    ///
    /// # Errors
    /// When it could not be; then nothing of it happened.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }
}
