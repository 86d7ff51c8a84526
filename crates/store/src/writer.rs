//! One writer for all: units of work that come at the same time are made durable together.
//!
//! Each unit is a savepoint in a transaction that is already open, or that it opens. Who commits it
//! waits in the same line as the next units; what is ahead in the line comes along. So under
//! load one flush of the disk serves many units, and at rest each has its own.

use crate::StoreError;
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::sync::Arc;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, oneshot};

/// The one connection that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    state: Arc<Mutex<State>>,
    /// Woken when there may be something to commit, and when nobody writes any more.
    pending: Arc<Notify>,
}

#[derive(Debug)]
pub(crate) struct State {
    connection: SqliteConnection,
    /// Whether a transaction is open.
    open: bool,
    /// Whether a unit was begun and not finished.
    unfinished: bool,
    /// Units that wait to be durable.
    waiting: Vec<oneshot::Sender<Result<(), String>>>,
}

/// A unit of work; dropped, it did not happen.
#[derive(Debug)]
pub(crate) struct Turn {
    state: OwnedMutexGuard<State>,
    writer: Arc<Writer>,
}

impl Writer {
    pub(crate) async fn open(options: &SqliteConnectOptions) -> Result<Arc<Self>, StoreError> {
        let connection = options.connect().await?;
        let state = State { connection, open: false, unfinished: false, waiting: Vec::new() };
        let pending = Arc::new(Notify::new());
        let state = Arc::new(Mutex::new(state));
        let writer = Arc::new(Self { state, pending: Arc::clone(&pending) });
        let committer = Arc::downgrade(&writer);
        tokio::spawn(async move {
            loop {
                pending.notified().await;
                let Some(writer) = committer.upgrade() else { return };
                writer.state.lock().await.commit().await;
            }
        });
        Ok(writer)
    }

    /// Begins a unit of work when those ahead are through.
    pub(crate) async fn turn(self: &Arc<Self>) -> Result<Turn, StoreError> {
        let mut state = Arc::clone(&self.state).lock_owned().await;
        state.begin().await?;
        Ok(Turn { state, writer: Arc::clone(self) })
    }

    /// Makes durable what waits, and lets go of the file.
    pub(crate) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.commit().await;
        let _ = state.run("PRAGMA optimize").await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.pending.notify_one();
    }
}

impl State {
    async fn begin(&mut self) -> Result<(), StoreError> {
        self.drop_unfinished().await;
        if !self.open {
            self.run("BEGIN IMMEDIATE").await?;
            self.open = true;
        }
        self.run("SAVEPOINT unit").await?;
        self.unfinished = true;
        Ok(())
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), StoreError> {
        sqlx::query(sql).execute(&mut self.connection).await?;
        Ok(())
    }

    async fn drop_unfinished(&mut self) {
        if !std::mem::take(&mut self.unfinished) {
            return;
        }
        let mut dropped = self.run("ROLLBACK TO unit").await;
        if dropped.is_ok() {
            dropped = self.run("RELEASE unit").await;
        }
        if let Err(error) = dropped {
            self.fail(&error).await;
        }
    }

    async fn commit(&mut self) {
        self.drop_unfinished().await;
        if !std::mem::take(&mut self.open) {
            return;
        }
        match self.run("COMMIT").await {
            Ok(()) => {
                for waiting in self.waiting.drain(..) {
                    let _ = waiting.send(Ok(()));
                }
            }
            Err(error) => self.fail(&error).await,
        }
    }

    /// Nothing of what waits has happened.
    async fn fail(&mut self, error: &StoreError) {
        let _ = self.run("ROLLBACK").await;
        self.open = false;
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(Err(error.to_string()));
        }
    }
}

impl Turn {
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.state.connection
    }

    /// Waits until the unit is durable.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        self.state.run("RELEASE unit").await?;
        self.state.unfinished = false;
        let (told, durable) = oneshot::channel();
        self.state.waiting.push(told);
        drop(self);
        match durable.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(StoreError::NotDurable(why)),
            Err(_) => Err(StoreError::NotDurable("the database was closed".to_owned())),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.writer.pending.notify_one();
    }
}
