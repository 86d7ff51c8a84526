//! Snapshots, their tree, and what can be asked of them.

use super::{Platform, Problem};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Its id.
    pub id: Uuid,
    /// The virtual machine it is of.
    pub vm: Uuid,
    /// The name of that virtual machine.
    pub vm_name: String,
    /// Its name, unique in its virtual machine.
    pub name: String,
    /// What somebody wrote about it.
    pub description: String,
    /// `disk` or `disk-and-memory`.
    pub kind: String,
    /// What its disks may be trusted with: `crash` (as after a power failure), `clean` (it was off)
    /// or `quiesced` (the guest had written everything and held still).
    pub consistency: String,
    /// `creating`, `ready`, `reverting`, `deleting` or `unavailable`.
    pub state: String,
    /// Why it is unavailable, or less than was asked for.
    pub reason: Option<Problem>,
    /// The snapshot it was taken after.
    pub parent: Option<Uuid>,
    /// Whether NOW is its child.
    pub current: bool,
    /// When it was asked for.
    pub created_at: String,
    /// When it was on disk, whole.
    pub ready_at: Option<String>,
    /// How its memory is saved: `background` (what was in memory when it was asked for) or
    /// `precopy` (of a later moment, with a shorter pause); null without memory.
    #[serde(default)]
    pub road: Option<String>,
    /// How long the guest was expected to stand still for it on that road.
    #[serde(default)]
    pub predicted_pause_ms: Option<u64>,
    /// How long the guest stood still for it, measured.
    pub pause_ms: Option<u64>,
    /// What deleting it would free.
    pub size_bytes: u64,
    /// What its memory takes on disk.
    pub memory_bytes: u64,
    /// The hardware as it was.
    pub config: Config,
    /// Who asked for it.
    pub created_by: String,
    /// When it goes by itself; null if it stays.
    pub expires_at: Option<String>,
    /// Whether it cannot be deleted.
    pub protected: bool,
    /// Whether it was taken before a revert, to have a way back.
    pub safety: bool,
    /// When it was last proved to be whole.
    pub verified_at: Option<String>,
}

/// The hardware as it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Config {
    /// Number of virtual processors.
    pub vcpus: u32,
    /// Size of the memory.
    pub memory_bytes: u64,
    /// `bios` or `uefi`.
    pub firmware: String,
    /// The machine as the hypervisor knew it.
    pub platform: Platform,
}

/// A snapshot to be taken.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSnapshot {
    /// Its name; date and time if not given.
    #[serde(default)]
    pub name: Option<String>,
    /// What to remember about it.
    #[serde(default)]
    pub description: Option<String>,
    /// `disk` (if not given) or `disk-and-memory`.
    #[serde(default)]
    pub kind: Option<String>,
    /// Whether the guest agent freezes filesystems for it: `no` (if not given), `try` or
    /// `required`.
    /// With memory nothing is frozen, for memory holds what is not written.
    #[serde(default)]
    pub quiesce: Option<String>,
    /// How memory is saved: `background`, which holds what is in memory now, or `precopy`, which
    /// has a shorter pause at a later moment. If not given: `background`, unless the guest would
    /// stand still for longer than the virtual machine's `pause_bound_ms`, and writes to memory
    /// slower than it is saved.
    #[serde(default)]
    pub road: Option<String>,
    /// When it shall go by itself (RFC 3339); never if not given.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// Whether it shall not be deleted.
    #[serde(default)]
    pub protected: bool,
}

/// What to change about a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditSnapshot {
    /// Another name.
    #[serde(default)]
    pub name: Option<String>,
    /// Another description.
    #[serde(default)]
    pub description: Option<String>,
    /// When it shall go by itself (RFC 3339), or `never`.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// Whether it cannot be deleted.
    #[serde(default)]
    pub protected: Option<bool>,
}

/// How to revert.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revert {
    /// `as-taken` (if not given: with memory running, without off), `start` or `stopped`.
    #[serde(default)]
    pub power: Option<String>,
    /// Whether a snapshot of now is taken first, to have a way back.
    #[serde(default)]
    pub safety: bool,
}

/// How to export.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The name of the folder to make in the pool's `.exports`; if not given, the virtual machine's
    /// and the beginning of the snapshot's id.
    #[serde(default)]
    pub name: Option<String>,
}

/// All snapshots of a virtual machine, as a tree, with NOW in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Tree {
    /// The virtual machine.
    pub vm: Uuid,
    /// Its name.
    pub name: String,
    /// Snapshots without a parent, with their children.
    pub roots: Vec<Node>,
    /// The machine as it is now.
    pub now: Now,
}

/// A snapshot with its children.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The snapshots taken after it.
    #[schema(no_recursion)]
    pub children: Vec<Node>,
}

/// The machine as it is now: a child of the current snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Now {
    /// The current snapshot, if there is one.
    pub parent: Option<Uuid>,
    /// The machine's state.
    pub state: String,
}

/// What something that removes data would do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The snapshots that would go.
    pub snapshots: Vec<Snapshot>,
    /// The snapshots that would get another parent.
    pub moved: Vec<Moved>,
    /// The snapshot that NOW would be a child of.
    pub current: Option<Uuid>,
    /// The snapshots that would lose their memory.
    pub memory_lost: Vec<Uuid>,
    /// The disks that would go, with what is on them.
    pub disks: Vec<super::Disk>,
    /// What else would be lost, in words; empty if nothing.
    pub lost: String,
    /// Bytes given back.
    pub freed_bytes: u64,
    /// Bytes in layers that would be merged into others; what of it overlaps is given back.
    pub merged_bytes: u64,
    /// Bytes that a branch still needs.
    pub kept_bytes: u64,
}

/// A snapshot that would get another parent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Moved {
    /// Which.
    pub snapshot: Uuid,
    /// Its parent afterwards.
    pub parent: Option<Uuid>,
}
