//! Hosts and pools.

use super::Platform;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its hypervisor and version.
    pub hypervisor: String,
    /// What a new virtual machine gets here.
    pub platform: Platform,
    /// Accelerators that really work here.
    pub accels: Vec<String>,
    /// Whether snapshots are switched on for this host.
    pub snapshots_enabled: bool,
    /// The kind of its hypervisor, for which snapshots may be switched off as well.
    pub kind: String,
    /// Why memory cannot be saved while a guest runs; null if it can.
    pub memory_snapshots_refused: Option<String>,
    /// Why a machine runs only when all its memory is there; null if it runs before.
    pub memory_on_demand_refused: Option<String>,
    /// Why guests cannot be asked to hold still for a snapshot; null if they can.
    pub quiesce_refused: Option<String>,
    /// Why there is no UEFI; null if there is.
    pub uefi_refused: Option<String>,
    /// Memory that could be given to guests.
    pub memory_free_bytes: u64,
    /// All its memory.
    pub memory_total_bytes: u64,
}

/// What to change about a host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditHost {
    /// Whether snapshots are taken on this host; what exists can be used in any case.
    #[serde(alias = "snapshots-enabled")]
    pub snapshots_enabled: bool,
}

/// A kind of hypervisor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Hypervisor {
    /// Such as `qemu`.
    pub kind: String,
    /// Whether snapshots are switched on for this kind.
    pub snapshots_enabled: bool,
    /// How many snapshots of one virtual machine it bears.
    pub snapshot_cap: super::Limit,
}

/// What to change about a kind of hypervisor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditHypervisor {
    /// Whether snapshots are taken on hosts of this kind.
    #[serde(alias = "snapshots-enabled")]
    pub snapshots_enabled: bool,
}

/// A storage pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The host it is on.
    pub host: Uuid,
    /// Where it is.
    pub path: String,
    /// Space left.
    pub free_bytes: u64,
    /// All space.
    pub total_bytes: u64,
    /// How many virtual machines have space that is being given back.
    pub reclaiming: u64,
    /// How much of it is used, in percent.
    pub used_percent: u8,
    /// What its virtual machines may still come to take if they write to every disk from end to
    /// end, without anybody's taking a snapshot.
    pub growth_bytes: u64,
    /// At which parts in use it is told of, in percent.
    pub warn_at: Vec<u8>,
    /// What is to be said of it; null if nothing.
    pub warning: Option<String>,
}

/// What to change about a pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditPool {
    /// At which parts in use it is told of, in percent.
    #[serde(alias = "warn-at")]
    pub warn_at: Vec<u8>,
}

/// Whether the server is well.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// The server's version.
    pub version: String,
}
