//! Virtual machines and their disks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A virtual machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Vm {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// `stopped`, `starting`, `running`, `stopping`, `paused` or `crashed`.
    pub state: String,
    /// The operation that holds it.
    pub operation: Option<Held>,
    /// Number of virtual processors.
    pub vcpus: u32,
    /// Size of its memory.
    pub memory_bytes: u64,
    /// `bios` or `uefi`.
    pub firmware: String,
    /// The machine as the hypervisor knows it.
    pub platform: Platform,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Its network cards.
    pub nics: Vec<Nic>,
    /// The generation id the guest sees; new after every revert.
    pub generation: Uuid,
    /// The snapshot that NOW is a child of.
    pub current: Option<Uuid>,
    /// The name of the account that has it.
    pub account: String,
    /// How many snapshots it has.
    pub snapshots: u64,
    /// What it has in frozen layers and memory files, with what is reserved for one being taken.
    pub snapshot_bytes: u64,
    /// How many snapshots it may have; the hypervisor's cap holds as well.
    pub snapshot_limit: super::Limit,
    /// Whether users may work with its snapshots.
    pub snapshots_allowed: bool,
    /// Whether users may save its memory.
    pub memory_allowed: bool,
    /// Whether it cannot be deleted while it has snapshots.
    pub protect_snapshots: bool,
    /// How long a guest may stand still, in milliseconds, so that its memory is of the moment that
    /// was asked for; beyond that a snapshot is of a later moment, with a shorter pause.
    pub pause_bound_ms: super::Limit,
    /// `unix:` and the path of the hypervisor's own console socket, for one local client.
    pub console: String,
    /// When it was created.
    pub created_at: String,
    /// What of it is not as it was recorded on its host.
    #[serde(default)]
    pub findings: Vec<super::Finding>,
}

/// The operation that holds a virtual machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Held {
    /// Its id.
    pub id: Uuid,
    /// Its kind.
    pub kind: String,
}

/// What of the hypervisor has to be the same for a snapshot's memory to load.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Platform {
    /// Versioned machine type.
    pub machine: String,
    /// Processor model.
    pub cpu: String,
    /// `kvm` or `tcg`.
    pub accel: String,
}

/// A disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    /// Its id.
    pub id: Uuid,
    /// Its name in the guest, as a rule.
    pub name: String,
    /// Its size as the guest sees it.
    pub size_bytes: u64,
}

/// A network card.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Nic {
    /// Its hardware address.
    pub mac: String,
    /// `user`, or `tap:` and the name of the interface.
    pub network: String,
}

/// A virtual machine to be created.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVm {
    /// Its name.
    pub name: String,
    /// Size of its memory, a multiple of 1 MiB.
    pub memory_bytes: u64,
    /// Number of virtual processors; 1 if not given.
    #[serde(default = "one")]
    pub vcpus: u32,
    /// Its disks.
    #[serde(default)]
    pub disks: Vec<NewDisk>,
    /// A kernel on the host, started directly.
    #[serde(default)]
    pub kernel: Option<String>,
    /// An initrd on the host.
    #[serde(default)]
    pub initrd: Option<String>,
    /// The kernel's command line.
    #[serde(default)]
    pub append: Option<String>,
    /// `bios` (if not given) or `uefi`.
    #[serde(default)]
    pub firmware: Option<String>,
    /// A network card for each: `user`, or `tap:` and the name of an interface.
    #[serde(default)]
    pub networks: Vec<String>,
    /// The account that shall have it, by name or id; the caller's own if not given.
    #[serde(default)]
    pub account: Option<String>,
    /// The profile whose settings it gets, by name or id; `default` if not given.
    #[serde(default)]
    pub profile: Option<String>,
    /// How many snapshots it may have, instead of what the profile says; an operator may say so.
    #[serde(default, alias = "snapshot-limit")]
    pub snapshot_limit: Option<super::Limit>,
}

/// What to change about a virtual machine; what is not given stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditVm {
    /// Another name.
    #[serde(default)]
    pub name: Option<String>,
    /// Another number of virtual processors.
    #[serde(default)]
    pub vcpus: Option<u32>,
    /// Another size of its memory.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Other network cards, as for a new one; a card in the same place keeps its address.
    #[serde(default)]
    pub networks: Option<Vec<String>>,
    /// Whether snapshots may lose their memory for other hardware.
    #[serde(default, alias = "discard-memory")]
    pub discard_memory: bool,
    /// How many snapshots it may have.
    #[serde(default, alias = "snapshot-limit")]
    pub snapshot_limit: Option<super::Limit>,
    /// Whether users may work with its snapshots.
    #[serde(default, alias = "snapshots-allowed")]
    pub snapshots_allowed: Option<bool>,
    /// Whether users may save its memory.
    #[serde(default, alias = "memory-allowed")]
    pub memory_allowed: Option<bool>,
    /// Whether it cannot be deleted while it has snapshots.
    #[serde(default, alias = "protect-snapshots")]
    pub protect_snapshots: Option<bool>,
    /// How long a guest may stand still, in milliseconds, so that its memory is of the moment that
    /// was asked for; beyond that a snapshot is of a later moment, with a shorter pause.
    #[serde(default, alias = "pause-bound-ms")]
    pub pause_bound_ms: Option<super::Limit>,
}

/// How to clone a virtual machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneVm {
    /// The clone's name.
    pub name: String,
    /// The id of a snapshot whose disks it gets; the disks as they are now if not given.
    #[serde(default)]
    pub snapshot: Option<Uuid>,
    /// Whether it shares what is there, instead of copying it.
    #[serde(default)]
    pub linked: bool,
}

/// What to change about a disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditDisk {
    /// Another size.
    pub size_bytes: u64,
}

fn one() -> u32 {
    1
}

/// A disk of a virtual machine to be created: new, or a copy of a file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDisk {
    /// The size of a new, empty disk.
    #[serde(default)]
    pub size_bytes: Option<u64>,
    /// A file on the host that is copied in; it is never written to.
    #[serde(default)]
    pub file: Option<String>,
}

/// How to stop.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Cut the power at once.
    #[serde(default)]
    pub force: bool,
}
