//! The diary of an effect: what has to be known to finish or undo it after a crash.

use serde::{Deserialize, Serialize};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// One line of the diary. Times are milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// The guest is about to be stopped.
    Stopping {
        /// When.
        at_ms: u64,
    },
    /// The guest is about to be asked to freeze its filesystems.
    Freezing,
    /// They were frozen while the disks were switched, and are thawed.
    Quiesced,
    /// The disks are written to the new layers.
    Switched,
    /// The memory of that instant is protected: what is saved from here on is of that instant.
    Armed {
        /// How long the guest had been held then.
        held_ms: u64,
    },
    /// The guest writes faster than its memory is saved: it is saved behind its back from here on.
    Turned,
    /// The guest runs again.
    Resumed {
        /// How long it stood still.
        pause_ms: u64,
    },
    /// The memory file is whole and on disk.
    Saved {
        /// What it takes on disk.
        memory_bytes: u64,
        /// How long the guest stood still in all.
        pause_ms: u64,
    },
    /// A second process for the machine was started, which may take over.
    Launched {
        /// Its number.
        instance: u32,
    },
    /// There is no way back: what was running is about to go.
    Committed,
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_millis() as u64)
}

/// Where notes are written. A note that is `durable` survives a power cut; any note survives the
/// death of the process.
pub trait Diary {
    /// Writes a note.
    ///
    /// # Errors
    /// When the note could not be written; the effect must not go on then.
    fn note(&mut self, note: Note) -> io::Result<()>;

    /// Writes a note that survives a power cut.
    ///
    /// # Errors
    /// As for [`Diary::note`].
    fn note_durably(&mut self, note: Note) -> io::Result<()>;

    /// Tells how far the effect is, for whoever looks: what is being done, and from 0 to 1.
    fn tell(&mut self, step: &str, fraction: f64) {
        let _ = (step, fraction);
    }

    /// Whether somebody wants the effect undone.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// A diary on paper that is thrown away, for callers that cannot crash half-way.
#[derive(Debug, Default)]
pub struct Scrap(pub Vec<Note>);

impl Diary for Scrap {
    fn note(&mut self, note: Note) -> io::Result<()> {
        self.0.push(note);
        Ok(())
    }

    fn note_durably(&mut self, note: Note) -> io::Result<()> {
        self.note(note)
    }
}
