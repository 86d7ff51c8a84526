//! Copies of the database, taken while it is used and put back while it is not.

use crate::{SCHEMA, Store, StoreError, connect};
use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::Migrations;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

impl Store {
    /// Copies the database as it is at one moment, into a file beside it that is gone when it is
    /// closed. Who reads and writes goes on meanwhile. Blocks while it copies.
    ///
    /// # Errors
    /// When it cannot be read or the file cannot be written.
    pub fn copied(&self, name: &str) -> Result<File, StoreError> {
        let path = self.file.as_ref().ok_or(StoreError::Closed)?.with_file_name(name);
        let copied = self.copy(&path);
        let opened = File::open(&path);
        // Nobody else finds it; it lives as long as it is read.
        let _ = fs::remove_file(&path);
        copied?;
        opened.map_err(|error| StoreError::Damaged(format!("a copy: {error}; it")))
    }

    fn copy(&self, to: &Path) -> Result<(), StoreError> {
        let file = self.file.as_ref().ok_or(StoreError::Closed)?;
        let from = connect(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut copy = Connection::open(to)?;
        // In one step: what is written meanwhile is not in it, and does not make it begin anew.
        Backup::new(&from, &mut copy)?.step(-1)?;
        copy.close().map_err(|(_, error)| error)?;
        Ok(())
    }
}

/// A database in memory as it is when it is new: a copy of one that is made once, since making all
/// its tables takes longer than most of what is tried with it.
pub(crate) fn in_memory() -> Result<Connection, StoreError> {
    static NEW: Mutex<Option<Connection>> = Mutex::new(None);
    let place = || connect(Path::new(":memory:"), OpenFlags::default());
    let mut new = NEW.lock().unwrap_or_else(PoisonError::into_inner);
    if new.is_none() {
        let mut made = place()?;
        Migrations::from_slice(SCHEMA).to_latest(&mut made)?;
        *new = Some(made);
    }
    let mut copy = place()?;
    if let Some(new) = new.as_ref() {
        Backup::new(new, &mut copy)?.step(-1)?;
    }
    Ok(copy)
}

/// Looks whether a file is a whole database of this release or an earlier one.
///
/// # Errors
/// What is wrong with it.
pub fn check_copy(copy: &Path) -> Result<(), StoreError> {
    let no = |why: String| Err(StoreError::Damaged(why));
    let opened = connect(copy, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let version: i64 = opened.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables = "SELECT COUNT(*) FROM sqlite_schema WHERE name IN ('vm', 'snapshot', 'layer')";
    let tables: i64 = opened.query_row(tables, [], |row| row.get(0))?;
    if version == 0 || tables != 3 {
        return no(format!("{}: it is no database of Tintype, and", copy.display()));
    }
    if usize::try_from(version).is_ok_and(|version| version > SCHEMA.len()) {
        return Err(StoreError::Newer);
    }
    let sound: String = opened.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if sound == "ok" { Ok(()) } else { no(format!("{}: {sound}; it", copy.display())) }
}

/// Puts a copy in the place of a database that nobody uses; answers where that one is now, if there
/// was one. Killed at any moment, there is the one or the other.
///
/// # Errors
/// When files cannot be written; then all is as before.
pub fn put_back(copy: &Path, database: &Path, mark: &str) -> io::Result<Option<PathBuf>> {
    let beside = |end: &str| {
        let mut name = OsString::from(database);
        name.push(end);
        PathBuf::from(name)
    };
    let fresh = beside(".new");
    fs::copy(copy, &fresh)?;
    File::open(&fresh)?.sync_all()?;
    let kept = if database.exists() {
        // What is in the log belongs to the old one; a damaged one is kept as it is.
        let _ = Connection::open(database).map(|old| old.query_row(EMPTY, [], |_| Ok(())));
        let kept = beside(&format!(".before-{mark}"));
        fs::hard_link(database, &kept)?;
        let log = beside("-wal");
        if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            fs::copy(&log, beside(&format!(".before-{mark}-wal")))?;
        }
        Some(kept)
    } else {
        None
    };
    for log in ["-wal", "-shm"] {
        match fs::remove_file(beside(log)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(fresh, database)?;
    File::open(database.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(kept)
}

const EMPTY: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
