//! Performs effects on one host: each once, with a journal, so that after a crash it is finished or
//! undone. The agent has no database.

mod console;
mod disks;
mod host;
mod journal;
mod local;
mod perform;

pub use local::{Helpers, LocalAgent, OpenError};
