//! What every verb works with.

use clap::ValueEnum;
use tintype_wire::client::Client;

/// What every verb works with.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) output: Output,
    pub(crate) wait: bool,
    pub(crate) yes: bool,
}

/// How to print answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}
