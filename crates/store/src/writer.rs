//! One writer for all: units of work that come at the same time are made durable together.
//!
//! Each unit is a savepoint in a transaction that is already open, or that it opens. Who commits it
//! waits in the same line as the next units; what is ahead in the line comes along. So under
//! load one flush of the disk serves many units, and at rest each has its own.

use crate::StoreError;
use rusqlite::Connection;
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

/// How long what is durable stays in the log before it is brought into the database's file: pages
/// written often are brought there once.
const LOGGED: Duration = Duration::from_secs(1);

/// The one connection that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    state: Arc<Mutex<State>>,
    /// Wakes the thread that commits; without one, each unit is committed where it ends.
    committer: Option<mpsc::Sender<()>>,
}

#[derive(Debug)]
pub(crate) struct State {
    connection: Connection,
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
    committer: Option<mpsc::Sender<()>>,
}

impl Writer {
    /// Commits on a thread of its own, for the disk may take its time, and empties the log on
    /// another, by a connection of its own, while others go on writing.
    pub(crate) fn with_committer(connection: Connection, empties: Connection) -> Self {
        let mut writer = Self::without_committer(connection);
        let (committer, woken) = mpsc::channel();
        let (logged, told) = mpsc::channel();
        writer.committer = Some(committer);
        let state = Arc::downgrade(&writer.state);
        thread::spawn(move || commit_when(&woken, &state, &logged));
        thread::spawn(move || empty_when(&told, &empties));
        writer
    }

    /// Commits at once, for a database that no disk holds.
    pub(crate) fn without_committer(connection: Connection) -> Self {
        let state = State { connection, open: false, unfinished: false, waiting: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)), committer: None }
    }

    /// Begins a unit of work when those ahead are through.
    pub(crate) async fn turn(&self) -> Result<Turn, StoreError> {
        let mut state = Arc::clone(&self.state).lock_owned().await;
        state.begin()?;
        Ok(Turn { state, committer: self.committer.clone() })
    }

    /// Sees to it that all is durable, or did not happen, that was written before; answers whether
    /// there still is a database.
    pub(crate) fn committed(&self) -> impl Fn() -> bool + Send + use<> {
        let state = Arc::downgrade(&self.state);
        move || {
            state.upgrade().is_some_and(|state| {
                state.blocking_lock().commit();
                true
            })
        }
    }

    /// Makes durable what waits, and lets go of the file.
    pub(crate) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.commit();
        let _ = state.run("PRAGMA optimize");
        // Waits for who empties the log already.
        empty_log(&state.connection, "PRAGMA wal_checkpoint(TRUNCATE)");
    }
}

/// Commits whenever it is woken, until nobody is left who could wake it.
fn commit_when(woken: &mpsc::Receiver<()>, state: &Weak<Mutex<State>>, logged: &mpsc::Sender<()>) {
    while woken.recv().is_ok() {
        while woken.try_recv().is_ok() {}
        let Some(state) = state.upgrade() else { return };
        state.blocking_lock().commit();
        let _ = logged.send(());
    }
}

/// Brings what was committed from the log into the database's file, a while after it was told.
fn empty_when(told: &mpsc::Receiver<()>, connection: &Connection) {
    while told.recv().is_ok() {
        thread::sleep(LOGGED);
        while told.try_recv().is_ok() {}
        empty_log(connection, "PRAGMA wal_checkpoint");
    }
}

fn empty_log(connection: &Connection, how: &'static str) {
    if let Err(error) = connection.query_row(how, [], |_| Ok(())) {
        tracing::warn!(%error, "the database's log could not be emptied; it is tried again");
    }
}

impl State {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.drop_unfinished();
        if !self.open {
            self.run("BEGIN IMMEDIATE")?;
            self.open = true;
        }
        self.run("SAVEPOINT unit")?;
        self.unfinished = true;
        Ok(())
    }

    fn run(&mut self, sql: &'static str) -> Result<(), StoreError> {
        Ok(self.connection.prepare_cached(sql)?.raw_execute().map(drop)?)
    }

    fn drop_unfinished(&mut self) {
        if !std::mem::take(&mut self.unfinished) {
            return;
        }
        let dropped = self.run("ROLLBACK TO unit").and_then(|()| self.run("RELEASE unit"));
        if let Err(error) = dropped {
            self.fail(&error);
        }
    }

    fn commit(&mut self) {
        self.drop_unfinished();
        if !std::mem::take(&mut self.open) {
            return;
        }
        match self.run("COMMIT") {
            Ok(()) => {
                for waiting in self.waiting.drain(..) {
                    let _ = waiting.send(Ok(()));
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Nothing of what waits has happened.
    fn fail(&mut self, error: &StoreError) {
        let _ = self.run("ROLLBACK");
        self.open = false;
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(Err(error.to_string()));
        }
    }
}

impl Turn {
    pub(crate) fn connection(&self) -> &Connection {
        &self.state.connection
    }

    /// Waits until the unit is durable.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        self.state.run("RELEASE unit")?;
        self.state.unfinished = false;
        let (told, durable) = oneshot::channel();
        self.state.waiting.push(told);
        drop(self);
        match durable.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(StoreError::NotDurable(why)),
            Err(_) => Err(StoreError::Closed),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        match &self.committer {
            // Woken while the line is still held: it gets in line behind those who wait already.
            Some(committer) => {
                let _ = committer.send(());
            }
            None => self.state.commit(),
        }
    }
}
