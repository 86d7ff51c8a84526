//! What only somebody outside sees and does: what lies on the disks, and how guests end.

use super::Fake;
use std::collections::{BTreeMap, BTreeSet};
use tintype_model::{DiskId, LayerId, SnapshotId, VmId};

/// Numbers by where they were written.
pub type Blocks = BTreeMap<u64, u64>;

impl Fake {
    /// The machines that have a folder here, and whether each has a guest.
    pub fn machines(&self) -> BTreeMap<VmId, bool> {
        let world = self.world();
        world.machines.iter().map(|(&vm, machine)| (vm, machine.guest.is_some())).collect()
    }

    /// The layers that lie there.
    pub fn layers(&self, vm: VmId) -> BTreeSet<LayerId> {
        let world = self.world();
        world.machines.get(&vm).map(|m| m.layers.keys().copied().collect()).unwrap_or_default()
    }

    /// The snapshots whose memory lies there.
    pub fn memories(&self, vm: VmId) -> BTreeSet<SnapshotId> {
        let world = self.world();
        world.machines.get(&vm).map(|m| m.memories.keys().copied().collect()).unwrap_or_default()
    }

    /// What is seen through a layer; nothing if it, or one beneath, is missing.
    pub fn seen_through(&self, vm: VmId, layer: LayerId) -> Option<Blocks> {
        self.world().machines.get(&vm)?.seen_through(layer)
    }

    /// What was saved of a guest's memory.
    pub fn saved_ram(&self, vm: VmId, snapshot: SnapshotId) -> Option<Blocks> {
        let world = self.world();
        world.machines.get(&vm)?.memories.get(&snapshot).map(|memory| memory.ram.clone())
    }

    /// What a guest has in its memory.
    pub fn ram(&self, vm: VmId) -> Option<Blocks> {
        self.world().guest(vm).map(|guest| guest.ram.clone())
    }

    /// The layers that a guest writes to.
    pub fn written_to(&self, vm: VmId) -> Option<BTreeMap<DiskId, LayerId>> {
        self.world().guest(vm).map(|guest| guest.active.clone())
    }

    /// A guest ends by itself.
    pub fn crash(&self, vm: VmId) {
        if let Some(machine) = self.world().machines.get_mut(&vm) {
            machine.guest = None;
        }
    }

    /// The host loses its power, and every guest with it.
    pub fn cut_power(&self) {
        for machine in self.world().machines.values_mut() {
            machine.guest = None;
        }
    }
}
