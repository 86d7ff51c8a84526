//! Effects: what an agent does on its host. Each is one act with its own journal and undo; it may
//! be sent twice and happens once.

use crate::config::{Config, Kernel, Role};
use crate::id::{DiskId, LayerId, SnapshotId, VmId};
use crate::layer::{Format, LayerFile};
pub use crate::outcome::{Facts, Outcome};
use crate::reclaim::Reclaim;
use crate::snapshot::{Quiesce, Road};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One act on a host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Make the folder, disks and boot files of a machine.
    CreateVm(CreateVm),
    /// Boot.
    StartVm(Launch),
    /// Shut down, or cut the power.
    StopVm(StopVm),
    /// Remove the machine and all its files.
    DeleteVm {
        /// Which.
        vm: VmId,
    },
    /// Take a snapshot: all disks at one instant, and memory of that instant if wanted.
    TakeSnapshot(TakeSnapshot),
    /// Go back to a snapshot.
    Revert(Box<Revert>),
    /// Make the disks of a clone.
    CloneDisks(CloneDisks),
    /// Make one more disk.
    AttachDisk {
        /// Whose.
        vm: VmId,
        /// What.
        disk: NewDisk,
    },
    /// Remove the layers of a disk.
    DetachDisk {
        /// Whose.
        vm: VmId,
        /// All its layers.
        layers: Vec<LayerFile>,
    },
    /// Change the size of a disk.
    ResizeDisk(ResizeDisk),
    /// Prove that a snapshot is whole.
    VerifySnapshot(Box<Verify>),
    /// Write a snapshot to a folder of the pool.
    ExportSnapshot(Box<Export>),
    /// Remove the memory files of snapshots.
    RemoveMemory {
        /// Whose.
        vm: VmId,
        /// Which.
        snapshots: Vec<SnapshotId>,
    },
    /// Work on layers in the background; it yields to every other effect.
    Reclaim {
        /// Whose.
        vm: VmId,
        /// What.
        work: Reclaim,
    },
}

impl Effect {
    /// The machine it is about.
    pub fn vm(&self) -> VmId {
        match self {
            Self::CreateVm(create) => create.vm,
            Self::StartVm(launch) => launch.vm,
            Self::StopVm(stop) => stop.vm,
            Self::TakeSnapshot(take) => take.vm,
            Self::Revert(revert) => revert.launch.vm,
            Self::CloneDisks(clone) => clone.from,
            Self::ResizeDisk(resize) => resize.vm,
            Self::VerifySnapshot(verify) => verify.launch.vm,
            Self::ExportSnapshot(export) => export.launch.vm,
            Self::DeleteVm { vm }
            | Self::AttachDisk { vm, .. }
            | Self::DetachDisk { vm, .. }
            | Self::RemoveMemory { vm, .. }
            | Self::Reclaim { vm, .. } => *vm,
        }
    }

    /// The machine whose files it makes or removes, which of cloning is the clone.
    pub fn files_of(&self) -> VmId {
        match self {
            Self::CloneDisks(clone) => clone.to,
            other => other.vm(),
        }
    }

    /// A word for logs, journals and kill points.
    pub fn word(&self) -> &'static str {
        match self {
            Self::CreateVm(_) => "create-vm",
            Self::StartVm(_) => "start",
            Self::StopVm(_) => "stop",
            Self::DeleteVm { .. } => "delete-vm",
            Self::TakeSnapshot(_) => "take",
            Self::Revert(_) => "revert",
            Self::CloneDisks(_) => "clone",
            Self::AttachDisk { .. } => "attach",
            Self::DetachDisk { .. } => "detach",
            Self::ResizeDisk(_) => "resize",
            Self::VerifySnapshot(_) => "verify",
            Self::ExportSnapshot(_) => "export",
            Self::RemoveMemory { .. } => "remove-memory",
            Self::Reclaim { .. } => "reclaim",
        }
    }
}

/// Make the folder, disks and boot files of a machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreateVm {
    /// Which.
    pub vm: VmId,
    /// Its disks.
    pub disks: Vec<NewDisk>,
    /// A kernel to copy in.
    pub kernel: Option<String>,
    /// An initrd to copy in.
    pub initrd: Option<String>,
}

/// A disk to make.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewDisk {
    /// Which.
    pub disk: DiskId,
    /// Its only layer.
    pub layer: LayerFile,
    /// Its size as the guest sees it.
    pub size_bytes: u64,
    /// What it is made of.
    pub source: Source,
}

/// What a new disk is made of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Nothing: zeros.
    Empty,
    /// A copy of a file of the host.
    File(String),
    /// The empty UEFI variable store that comes with the firmware.
    FirmwareTemplate,
}

/// A machine with everything needed to start it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// Which.
    pub vm: VmId,
    /// Its name, for process lists.
    pub name: String,
    /// The generation id the guest sees.
    pub generation: Uuid,
    /// Its hardware.
    pub config: Config,
    /// Its disks.
    pub disks: Vec<DiskChain>,
}

/// A disk as a hypervisor opens it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskChain {
    /// Which.
    pub disk: DiskId,
    /// What it is for.
    pub role: Role,
    /// Its layers, the active one first.
    pub chain: Vec<LayerFile>,
}

/// Shut down, or cut the power.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StopVm {
    /// Which.
    pub vm: VmId,
    /// Cut the power at once, instead of asking the guest first.
    pub force: bool,
    /// How long the guest may take before the power is cut.
    pub patience_ms: u64,
}

/// Take a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TakeSnapshot {
    /// Of which machine.
    pub vm: VmId,
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// Whether the machine runs.
    pub running: bool,
    /// Whether its memory is wanted.
    pub memory: bool,
    /// How its memory is saved.
    #[serde(default)]
    pub road: Road,
    /// If the guest would be held by precopy for longer than this, in milliseconds, because it
    /// writes to memory faster than it is saved, memory is saved behind its back instead. None if
    /// the road was asked for.
    #[serde(default)]
    pub turns_beyond_ms: Option<u64>,
    /// Its memory's size.
    pub memory_bytes: u64,
    /// An earlier snapshot whose memory much of it may be like: what is the same in both takes
    /// space once, where the filesystem can.
    #[serde(default)]
    pub memory_like: Option<SnapshotId>,
    /// Whether the guest is asked to hold still.
    #[serde(default)]
    pub quiesce: Quiesce,
    /// Its disks.
    pub disks: Vec<Freeze>,
}

/// A disk that is frozen by being written to a new layer from now on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Freeze {
    /// Which disk.
    pub disk: DiskId,
    /// What it is for.
    pub role: Role,
    /// Its active layer, which will be frozen.
    pub active: LayerFile,
    /// The layer that will be active.
    pub overlay: LayerId,
}

impl Freeze {
    /// The new layer's file.
    pub fn overlay_file(&self) -> LayerFile {
        LayerFile { id: self.overlay, format: Format::Qcow2 }
    }
}

/// Go back to a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Revert {
    /// To which.
    pub snapshot: SnapshotId,
    /// The machine as it will be: each chain begins with a new layer to be made.
    pub launch: Launch,
    /// How it will be afterwards.
    pub after: After,
    /// Whether it runs now.
    pub running: bool,
}

/// Make the disks of a clone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CloneDisks {
    /// The machine whose disks are cloned.
    pub from: VmId,
    /// The machine that gets them.
    pub to: VmId,
    /// The disks.
    pub disks: Vec<CloneDisk>,
    /// Whether the clone shares the layers, instead of copying what is in them.
    pub linked: bool,
    /// The kernel that is copied with them, if the machine has one.
    pub kernel: Option<Kernel>,
}

/// A disk of a clone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CloneDisk {
    /// The frozen layers it is made of, topmost first.
    pub chain: Vec<LayerFile>,
    /// The layer that the clone writes to.
    pub layer: LayerFile,
}

/// Change the size of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResizeDisk {
    /// Whose.
    pub vm: VmId,
    /// Its active layer.
    pub layer: LayerFile,
    /// Its size as the guest will see it.
    pub size_bytes: u64,
}

/// Prove that a snapshot is whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verify {
    /// Which.
    pub snapshot: SnapshotId,
    /// Whether it has memory to load.
    pub memory: bool,
    /// A machine to load it into; each chain begins with a layer that is thrown away.
    pub launch: Launch,
}

/// The folder of a pool that exports lie in, each in a folder of its own name.
pub const EXPORTS: &str = ".exports";

/// Write a snapshot to a folder of the pool, in files that plain QEMU opens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Export {
    /// Which.
    pub snapshot: SnapshotId,
    /// Whether it has memory.
    pub memory: bool,
    /// What it is called.
    pub name: String,
    /// The machine as it was; each chain begins with a layer that the disk is made one of, and that
    /// becomes a file of the export.
    pub launch: Launch,
}

/// How a machine is after a revert (R3, E17, E18).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// Its memory is loaded and it goes on from there.
    Resumed,
    /// Off.
    Stopped,
    /// Booted from its disks.
    Booted,
}
