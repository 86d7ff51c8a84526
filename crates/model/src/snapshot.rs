//! A snapshot.

use crate::config::Config;
use crate::id::{DiskId, LayerId, SnapshotId, VmId};
use crate::moment::Moment;
use crate::refusal::Refusal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is recorded of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Whose it is.
    pub vm: VmId,
    /// Its name, unique in its virtual machine.
    pub name: String,
    /// What somebody wrote about it.
    pub description: String,
    /// What it holds (E5).
    pub kind: Kind,
    /// What its disks may be trusted with.
    pub consistency: Consistency,
    /// Where it stands.
    pub state: SnapshotState,
    /// Why it is unavailable, or less than was asked for.
    pub reason: Option<Refusal>,
    /// The snapshot it was taken after (E3).
    pub parent: Option<SnapshotId>,
    /// When it was asked for.
    pub created_at: Moment,
    /// When it was on disk, whole.
    pub ready_at: Option<Moment>,
    /// How its memory is saved, if it holds any.
    pub saving: Option<Saving>,
    /// How long the guest stood still for it, in milliseconds, measured.
    pub pause_ms: Option<u64>,
    /// What its memory takes on disk; 0 without memory.
    pub memory_bytes: u64,
    /// The hardware as it was (E2).
    pub config: Config,
    /// The layer that holds each disk as it was.
    pub layers: BTreeMap<DiskId, LayerId>,
    /// Who asked for it.
    pub created_by: String,
    /// When it goes by itself.
    pub expires_at: Option<Moment>,
    /// Whether it cannot be deleted.
    pub protected: bool,
    /// Whether it was taken before a revert, to have a way back (R4).
    pub safety: bool,
    /// When it was last proved to be whole.
    pub verified_at: Option<Moment>,
}

/// The name of the file that holds a snapshot's memory, in the virtual machine's folder.
pub fn memory_name(snapshot: SnapshotId) -> String {
    format!("{snapshot}.memory")
}

/// What a snapshot holds (E5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// All disks.
    Disk,
    /// All disks, memory and processors.
    DiskAndMemory,
}

impl Kind {
    /// As it stands on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::DiskAndMemory => "disk-and-memory",
        }
    }
}

/// What the disks of a snapshot may be trusted with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// As after a power failure; with memory nothing is missing.
    Crash,
    /// The machine was off.
    Clean,
    /// The guest had written everything and held still.
    Quiesced,
}

/// How memory is saved while the guest runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Road {
    /// What was in memory when it was asked for: all of it is protected, which takes longer the
    /// more there is, and saved behind the guest's back.
    #[default]
    Background,
    /// What is in memory when nearly all is saved: a shorter pause, at a later moment.
    Precopy,
}

/// How memory is saved, and what was expected of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Saving {
    /// The road that was taken.
    pub road: Road,
    /// How long the guest was expected to stand still, in milliseconds.
    pub predicted_ms: u64,
}

impl Road {
    /// As it stands on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Precopy => "precopy",
        }
    }
}

/// Whether the guest is asked to write everything and hold still for a snapshot of its disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quiesce {
    /// No.
    #[default]
    No,
    /// If it can; else the snapshot is as after a power failure, and says why.
    Try,
    /// Yes, or there is no snapshot.
    Required,
}

impl Consistency {
    /// As it stands on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Clean => "clean",
            Self::Quiesced => "quiesced",
        }
    }
}

/// Where a snapshot stands (E25).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    /// Being taken.
    Creating,
    /// Whole, and on disk.
    Ready,
    /// Being reverted to.
    Reverting,
    /// Being deleted.
    Deleting,
    /// Not whole; it can only be deleted (C38).
    Unavailable,
}

impl SnapshotState {
    /// As it stands on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Reverting => "reverting",
            Self::Deleting => "deleting",
            Self::Unavailable => "unavailable",
        }
    }
}
