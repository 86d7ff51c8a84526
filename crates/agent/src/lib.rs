//! Performs effects on one host: each once, with a journal, so that after a crash it is finished or
//! undone. The agent has no database.

mod admission;
mod console;
mod disks;
mod fake;
mod hand;
mod holders;
mod host;
mod journal;
mod litter;
mod local;
mod memory;
mod mixed;
mod perform;
pub mod sight;

pub use fake::FakeAgent;
pub use hand::Hand;
pub use journal::{Files, Journals, Sheet, Shelf, begun};
pub use local::{Helpers, LocalAgent, Manner, OpenError};
pub use memory::Memory;
pub use mixed::MixedAgent;
