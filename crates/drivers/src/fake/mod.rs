//! A host in memory: a hypervisor and a volume that behave as the real ones do, and can be told to
//! fail at any of their steps. It passes the same contract suite (`tests/contract.rs`).

mod hypervisor;
mod premises;
mod sight;
mod volume;

pub use sight::Blocks;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tintype_model::capability::{Capabilities, Support};
use tintype_model::config::{Accel, Platform};
use tintype_model::effect::Export;
use tintype_model::{DiskId, LayerId, SnapshotId, VmId};

/// A host in memory.
pub struct Fake {
    capabilities: Capabilities,
    world: Mutex<World>,
}

#[derive(Default)]
struct World {
    machines: BTreeMap<VmId, Machine>,
    /// What was exported, by its name.
    exports: BTreeMap<String, Export>,
    /// How many steps still succeed; none is counted when nothing shall fail.
    good_steps: Option<u32>,
    /// Asked before each step.
    fate: Option<Fate>,
}

/// Says before a step whether it succeeds; it may unwind instead, as if all died there.
type Fate = Box<dyn FnMut(&'static str) -> bool + Send>;

#[derive(Debug, Default)]
struct Machine {
    guest: Option<Guest>,
    layers: BTreeMap<LayerId, FakeLayer>,
    memories: BTreeMap<SnapshotId, Memory>,
    manifest: Option<String>,
}

/// A guest that runs: what it remembers and what it writes to.
#[derive(Clone, Debug)]
struct Guest {
    ram: BTreeMap<u64, u64>,
    active: BTreeMap<DiskId, LayerId>,
    order: Vec<DiskId>,
}

#[derive(Clone, Debug, Default)]
struct FakeLayer {
    parent: Option<LayerId>,
    blocks: BTreeMap<u64, u64>,
}

#[derive(Clone, Debug)]
struct Memory {
    ram: BTreeMap<u64, u64>,
    damaged: bool,
}

/// A step was told to fail.
#[derive(Debug)]
struct Broken(&'static str);

impl Default for Fake {
    fn default() -> Self {
        let platform = Platform { machine: "fake-1".into(), cpu: "fake".into(), accel: Accel::Tcg };
        Self {
            capabilities: Capabilities {
                hypervisor: "Fake 1".into(),
                uefi: Support::No("there is none in a fake".into()),
                ..Capabilities::complete("fake", platform)
            },
            world: Mutex::default(),
        }
    }
}

impl Fake {
    fn world(&self) -> MutexGuard<'_, World> {
        // Whoever was unwound by fate has left everything as it was before the step.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `fate` asked before each step whether it succeeds.
    pub fn obey(&self, fate: impl FnMut(&'static str) -> bool + Send + 'static) {
        self.world().fate = Some(Box::new(fate));
    }

    /// Lets so many further steps succeed and then fails one; `None` lets all succeed.
    pub fn fail_after(&self, good_steps: Option<u32>) {
        self.world().good_steps = good_steps;
    }

    /// Whether a step has failed since [`Fake::fail_after`].
    pub fn has_failed(&self) -> bool {
        self.world().good_steps.is_none()
    }

    /// A guest writes to its memory.
    pub fn write_ram(&self, vm: VmId, at: u64, value: u64) {
        if let Some(guest) = self.world().guest(vm) {
            guest.ram.insert(at, value);
        }
    }

    /// What a guest has in its memory.
    pub fn read_ram(&self, vm: VmId, at: u64) -> u64 {
        self.world().guest(vm).and_then(|guest| guest.ram.get(&at).copied()).unwrap_or(0)
    }

    /// A guest writes the same block to all its disks.
    pub fn write_disks(&self, vm: VmId, at: u64, value: u64) {
        let mut world = self.world();
        let Some(machine) = world.machines.get_mut(&vm) else {
            return;
        };
        let Some(guest) = &machine.guest else { return };
        for layer in guest.active.values() {
            if let Some(layer) = machine.layers.get_mut(layer) {
                layer.blocks.insert(at, value);
            }
        }
    }

    /// What a guest reads from a block of each of its disks.
    pub fn read_disks(&self, vm: VmId, at: u64) -> Vec<u64> {
        let world = self.world();
        let Some(machine) = world.machines.get(&vm) else {
            return Vec::new();
        };
        let Some(guest) = &machine.guest else {
            return Vec::new();
        };
        guest.order.iter().map(|disk| machine.read(guest.active[disk], at)).collect()
    }

    /// Damages the saved memory of a snapshot.
    pub fn damage_memory(&self, vm: VmId, snapshot: SnapshotId) {
        let mut world = self.world();
        let memory = world.machines.get_mut(&vm).and_then(|m| m.memories.get_mut(&snapshot));
        if let Some(memory) = memory {
            memory.damaged = true;
        }
    }

    /// The layers that a guest's disks are made of, topmost first.
    pub fn chains(&self, vm: VmId) -> Vec<Vec<LayerId>> {
        let world = self.world();
        let Some(machine) = world.machines.get(&vm) else {
            return Vec::new();
        };
        let Some(guest) = &machine.guest else {
            return Vec::new();
        };
        let chain = |&top: &LayerId| {
            std::iter::successors(Some(top), |id| machine.layers.get(id)?.parent).collect()
        };
        guest.active.values().map(chain).collect()
    }
}

impl World {
    /// Counts a step; fails it if it is the one that shall fail.
    fn step(&mut self, what: &'static str) -> Result<(), Broken> {
        if self.fate.as_mut().is_some_and(|fate| !fate(what)) {
            return Err(Broken(what));
        }
        match &mut self.good_steps {
            Some(0) => {
                self.good_steps = None;
                Err(Broken(what))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn guest(&mut self, vm: VmId) -> Option<&mut Guest> {
        self.machines.get_mut(&vm)?.guest.as_mut()
    }
}

impl Machine {
    /// All that is seen through a layer; nothing if it, or one beneath, is missing.
    fn seen_through(&self, top: LayerId) -> Option<Blocks> {
        let mut seen = Blocks::new();
        let mut at = Some(top);
        while let Some(id) = at {
            let layer = self.layers.get(&id)?;
            for (&block, &value) in &layer.blocks {
                seen.entry(block).or_insert(value);
            }
            at = layer.parent;
        }
        Some(seen)
    }

    /// What is seen of a block through a layer.
    fn read(&self, layer: LayerId, at: u64) -> u64 {
        let mut here = self.layers.get(&layer);
        while let Some(layer) = here {
            if let Some(&value) = layer.blocks.get(&at) {
                return value;
            }
            here = layer.parent.and_then(|parent| self.layers.get(&parent));
        }
        0
    }
}
