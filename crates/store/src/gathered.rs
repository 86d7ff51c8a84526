//! The numbers of many rows as one value: to give rows out one by one costs SQLite more than to
//! find them.

use crate::sql::Query;
use crate::{StoreError, Unit};
use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};

/// The aggregate `gathered(number)`.
struct Gathered;

impl Aggregate<Vec<u8>, Vec<u8>> for Gathered {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn step(&self, context: &mut Context<'_>, numbers: &mut Vec<u8>) -> rusqlite::Result<()> {
        numbers.extend(context.get::<i64>(0)?.to_ne_bytes());
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, numbers: Option<Vec<u8>>) -> rusqlite::Result<Vec<u8>> {
        Ok(numbers.unwrap_or_default())
    }
}

/// Has a connection know it.
pub(crate) fn teach(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_aggregate_function("gathered", 1, flags, Gathered)
}

impl Unit {
    /// The numbers that a statement gathers as `rows`.
    pub(crate) fn gathered(&mut self, query: Query) -> Result<Vec<i64>, StoreError> {
        let rows = self.one(query, |row| {
            let (numbers, _) =
                row.get_ref("rows")?.as_blob().map_err(rusqlite::Error::from)?.as_chunks();
            Ok(numbers.iter().map(|&number| i64::from_ne_bytes(number)).collect())
        })?;
        Ok(rows.unwrap_or_default())
    }
}
