//! What REST requests and answers are made of: one file for each noun. Moments are RFC 3339, sizes
//! are bytes.

mod host;
mod operation;
mod problem;
mod snapshot;
mod vm;

pub use host::{Health, Host, Pool};
pub use operation::{Fault, Operation};
pub use problem::Problem;
pub use snapshot::{
    Config, DeletePlan, EditSnapshot, Moved, NewSnapshot, Node, Now, Revert, Snapshot, Tree,
};
pub use vm::{Disk, Held, NewDisk, NewVm, Nic, Platform, Stop, Vm};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A page of a list.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// What is on the page.
    pub items: Vec<T>,
    /// What to give as `after` for the next page; null on the last.
    pub next: Option<String>,
}
