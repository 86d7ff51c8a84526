//! What every verb works with.

use clap::ValueEnum;
use tintype_wire::client::Client;

/// What every verb works with.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) output: Output,
    pub(crate) wait: bool,
    pub(crate) yes: bool,
    pub(crate) queue: bool,
    pub(crate) force: bool,
}

impl Context {
    /// An address with what is to be known about how to do it; `path` may have a query already.
    pub(crate) fn acting(&self, path: &str) -> String {
        if !self.queue {
            return path.to_owned();
        }
        let mark = if path.contains('?') { '&' } else { '?' };
        format!("{path}{mark}queue=true")
    }
}

/// How to print answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}
