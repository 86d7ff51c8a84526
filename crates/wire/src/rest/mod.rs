//! What REST requests and answers are made of: one file for each noun. Moments are RFC 3339, sizes
//! are bytes.

mod event;
mod finding;
mod host;
mod operation;
mod people;
mod problem;
mod profile;
mod snapshot;
mod vm;

pub use event::Event;
pub use finding::{Adopted, Finding, HostCheck, Repaired, Stranger};
pub use host::{EditHost, EditHypervisor, EditPool, Health, Host, Hypervisor, Pool};
pub use operation::{Fault, Operation};
pub use people::{
    Account, Domain, EditAccount, EditUser, MadeToken, NewAccount, NewDomain, NewToken, NewUser,
    SignIn, Token, User,
};
pub use problem::Problem;
pub use profile::{EditProfile, Limit, NewProfile, Profile, Unlimited};
pub use snapshot::{
    Config, EditSnapshot, Export, Moved, NewSnapshot, Node, Now, Plan, Revert, Snapshot, Tree,
};
pub use vm::{CloneVm, Disk, EditDisk, EditVm, Held, NewDisk, NewVm, Nic, Platform, Stop, Vm};

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
