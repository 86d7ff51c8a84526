//! What is on a host and not as it was recorded, and what is done about it.

use super::Problem;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Something of a virtual machine that is not as it was recorded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// The virtual machine.
    pub vm: Uuid,
    /// Its name.
    pub vm_name: String,
    /// `layer-missing`, `layer-changed`, `memory-missing`, `memory-changed`, `open-elsewhere`,
    /// `unknown-file`, `unknown-machine`, `outdated` or `guest-held`.
    pub kind: String,
    /// What it is, in a sentence.
    pub detail: String,
    /// The snapshots that cannot be trusted because of it.
    pub affects: Vec<Uuid>,
    /// Whether what the virtual machine is now depends on it.
    pub affects_now: bool,
    /// What a repair would do; null if that is for people to decide.
    pub repair: Option<String>,
}

/// A folder of a virtual machine that nobody knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Stranger {
    /// The virtual machine's id, by the name of the folder.
    pub vm: Uuid,
    /// Its name, by its manifest.
    pub name: Option<String>,
    /// Why it cannot be adopted; null if it can.
    pub problem: Option<String>,
}

/// What a host has that is not as it was recorded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HostCheck {
    /// What is found of virtual machines.
    pub findings: Vec<Finding>,
    /// Folders of virtual machines that nobody knows.
    pub strangers: Vec<Stranger>,
    /// Virtual machines that could not be looked at, because something is done to them.
    pub busy: Vec<Uuid>,
}

/// What was done about a finding, or would be.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Repaired {
    /// What was found.
    pub finding: Finding,
    /// What was done; null if nothing was.
    pub result: Option<String>,
    /// Why nothing could be done; null if it could.
    pub problem: Option<Box<Problem>>,
}

/// A virtual machine that was taken up by its manifest, or would be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Adopted {
    /// The virtual machine.
    pub vm: Uuid,
    /// Its name.
    pub name: Option<String>,
    /// The account it is in.
    pub account: Option<String>,
    /// How many snapshots it has.
    pub snapshots: u64,
    /// Whether it was known, as it was before.
    pub known: bool,
    /// Why it cannot be taken up; null if it can.
    pub problem: Option<String>,
}
