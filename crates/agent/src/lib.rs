//! Performs effects on one host: each once, with a journal, so that after a crash it is finished or
//! undone. The agent has no database.

mod console;
mod disks;
mod hand;
mod host;
mod journal;
mod litter;
mod local;
mod perform;

pub use hand::Hand;
pub use journal::{Files, Journals, Sheet, Shelf, begun};
pub use local::{Helpers, LocalAgent, OpenError};
