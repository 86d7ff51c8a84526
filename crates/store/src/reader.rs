//! The connections that read, each at one moment.

use crate::StoreError;
use rusqlite::Connection;
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many read at the same time.
const READERS: usize = 8;

/// The connections that read.
#[derive(Debug)]
pub(crate) struct Readers {
    /// Those that nobody uses.
    free: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
}

/// A connection that sees the database as it was when it was taken.
#[derive(Debug)]
pub(crate) struct Reading {
    connection: Option<Connection>,
    readers: Arc<Readers>,
    _place: OwnedSemaphorePermit,
}

impl Readers {
    pub(crate) fn open(
        connect: impl Fn() -> Result<Connection, StoreError>,
    ) -> Result<Arc<Self>, StoreError> {
        let free = (0..READERS).map(|_| connect()).collect::<Result<_, _>>()?;
        let places = Arc::new(Semaphore::new(READERS));
        Ok(Arc::new(Self { free: Mutex::new(free), places }))
    }

    /// Begins to read when one is free.
    pub(crate) async fn begin(self: &Arc<Self>) -> Result<Reading, StoreError> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| StoreError::Closed)?;
        let connection = self.free.lock().expect("no holder panics").pop();
        let reading = Reading { connection, readers: Arc::clone(self), _place: place };
        reading.connection().execute_batch("BEGIN")?;
        Ok(reading)
    }

    /// Lets go of the file when those who read are done.
    pub(crate) async fn close(&self) {
        let all = u32::try_from(READERS).unwrap_or(u32::MAX);
        let _all = self.places.acquire_many(all).await;
        self.places.close();
        self.free.lock().expect("no holder panics").clear();
    }
}

impl Reading {
    pub(crate) fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("there is one until it is dropped")
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            if !connection.is_autocommit() {
                let _ = connection.execute_batch("COMMIT");
            }
            self.readers.free.lock().expect("no holder panics").push(connection);
        }
    }
}
