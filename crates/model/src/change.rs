//! Changes of what is recorded: the model decides them, the store writes them.

use crate::config::Config;
use crate::finding::Finding;
use crate::id::{DiskId, EffectId, LayerId, OperationId, SnapshotId};
use crate::layer::Layer;
use crate::moment::Moment;
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::snapshot::{Consistency, Kind, Road, Snapshot, SnapshotState};
use crate::vm::VmState;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// One change of one virtual machine's timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The machine runs, or not.
    VmState(VmState),
    /// The machine has this hardware now.
    VmConfig(Config),
    /// This may be done with the machine's snapshots now.
    VmSettings(Settings),
    /// The machine is called so now.
    VmName(String),
    /// The guest sees this generation id now.
    VmGeneration(Uuid),
    /// NOW is a child of this snapshot.
    VmCurrent(Option<SnapshotId>),
    /// This operation holds the machine, or none.
    VmOperation(Option<OperationId>),
    /// This background work on its layers runs, or none.
    VmReclaim(Option<EffectId>),
    /// This is not as it was recorded on the machine's host.
    VmFindings(BTreeSet<Finding>),
    /// The machine is gone, with all that was its.
    VmGone,
    /// There is a new snapshot.
    SnapshotAdded(Box<Snapshot>),
    /// A snapshot changed.
    SnapshotChanged(SnapshotId, SnapshotChange),
    /// A snapshot left the tree.
    SnapshotGone(SnapshotId),
    /// There is a new layer.
    LayerAdded(Layer),
    /// A layer lies on another one now, and is seen the same.
    LayerMoved {
        /// Which.
        layer: LayerId,
        /// What it lies on.
        parent: Option<LayerId>,
    },
    /// A layer's file was measured.
    LayerSize {
        /// Which.
        layer: LayerId,
        /// What its file takes on disk.
        size_bytes: u64,
    },
    /// A layer's file is gone.
    LayerGone(LayerId),
    /// A disk is written to this layer.
    DiskActive {
        /// Which disk.
        disk: DiskId,
        /// Its active layer.
        layer: LayerId,
    },
    /// A disk is gone.
    DiskGone(DiskId),
}

/// One change of one snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotChange {
    /// It stands elsewhere.
    State(SnapshotState),
    /// It is whole and on disk.
    Ready {
        /// Since when.
        at: Moment,
        /// How long the guest stood still.
        pause_ms: Option<u64>,
        /// What the memory takes on disk.
        memory_bytes: u64,
        /// What its disks may be trusted with.
        consistency: Consistency,
        /// Why they may not be trusted with what was asked for.
        reason: Option<Refusal>,
        /// The layers that hold its disks.
        layers: BTreeMap<DiskId, LayerId>,
    },
    /// Its memory was saved on this road.
    Road(Road),
    /// It is not whole, for this reason; it holds no layers.
    Unavailable(Refusal),
    /// It has another parent.
    Parent(Option<SnapshotId>),
    /// A disk of it is in another layer, and is the same.
    Layer(DiskId, LayerId),
    /// It is called otherwise.
    Name(String),
    /// It is described otherwise.
    Description(String),
    /// It goes by itself then, or never.
    Expires(Option<Moment>),
    /// It cannot be deleted, or can.
    Protected(bool),
    /// It has no memory any more (E9).
    MemoryGone,
    /// It was proved to be whole.
    Verified(Moment),
}

impl SnapshotChange {
    /// Changes the value.
    pub fn apply(&self, snapshot: &mut Snapshot) {
        match self {
            Self::State(state) => snapshot.state = *state,
            Self::Ready { at, pause_ms, memory_bytes, consistency, reason, layers } => {
                snapshot.state = SnapshotState::Ready;
                snapshot.ready_at = Some(*at);
                snapshot.pause_ms = *pause_ms;
                snapshot.memory_bytes = *memory_bytes;
                snapshot.consistency = *consistency;
                snapshot.reason.clone_from(reason);
                snapshot.layers = layers.clone();
            }
            Self::Road(road) => {
                if let Some(saving) = &mut snapshot.saving {
                    saving.road = *road;
                }
            }
            Self::Unavailable(reason) => {
                snapshot.state = SnapshotState::Unavailable;
                snapshot.reason = Some(reason.clone());
                snapshot.layers.clear();
                snapshot.memory_bytes = 0;
            }
            Self::Parent(parent) => snapshot.parent = *parent,
            Self::Layer(disk, layer) => drop(snapshot.layers.insert(*disk, *layer)),
            Self::Name(name) => snapshot.name.clone_from(name),
            Self::Description(description) => snapshot.description.clone_from(description),
            Self::Expires(at) => snapshot.expires_at = *at,
            Self::Protected(protected) => snapshot.protected = *protected,
            Self::MemoryGone => {
                snapshot.kind = Kind::Disk;
                snapshot.memory_bytes = 0;
            }
            Self::Verified(at) => snapshot.verified_at = Some(*at),
        }
    }
}
