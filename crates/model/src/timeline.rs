//! Everything that is recorded of one virtual machine, as one value.

use crate::change::Change;
use crate::id::{DiskId, LayerId, SnapshotId};
use crate::layer::{Layer, LayerFile};
use crate::snapshot::Snapshot;
use crate::tree::Tree;
use crate::vm::Vm;
use std::collections::{BTreeMap, BTreeSet};

/// A virtual machine with its snapshots and layers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timeline {
    /// The machine.
    pub vm: Vm,
    /// Its snapshots.
    pub snapshots: BTreeMap<SnapshotId, Snapshot>,
    /// Its layers.
    pub layers: BTreeMap<LayerId, Layer>,
    /// The layer that each disk is written to.
    pub active: BTreeMap<DiskId, LayerId>,
}

impl Timeline {
    /// The timeline of a machine that was just created: no layers, no snapshots.
    pub fn of(vm: Vm) -> Self {
        Self { vm, snapshots: BTreeMap::new(), layers: BTreeMap::new(), active: BTreeMap::new() }
    }

    /// The snapshot tree.
    pub fn tree(&self) -> Tree {
        Tree {
            parents: self.snapshots.iter().map(|(&id, s)| (id, s.parent)).collect(),
            current: self.vm.current,
        }
    }

    /// A layer and all beneath it, topmost first.
    pub fn chain(&self, top: LayerId) -> Vec<LayerFile> {
        let mut chain = Vec::new();
        let mut at = Some(top);
        while let Some(layer) = at.and_then(|id| self.layers.get(&id)) {
            chain.push(layer.file());
            at = layer.parent;
        }
        chain
    }

    /// The layers that lie directly on `parent`.
    pub fn children(&self, parent: LayerId) -> impl Iterator<Item = &Layer> {
        self.layers.values().filter(move |layer| layer.parent == Some(parent))
    }

    /// The layers that a snapshot or NOW needs by itself, not only as something beneath.
    pub fn needed(&self) -> BTreeSet<LayerId> {
        let held = self.snapshots.values().flat_map(|snapshot| snapshot.layers.values());
        held.chain(self.active.values()).copied().collect()
    }

    /// The longest chain that NOW uses.
    pub fn depth(&self) -> usize {
        self.active.values().map(|&top| self.chain(top).len()).max().unwrap_or(0)
    }

    /// The snapshot with this name.
    pub fn named(&self, name: &str) -> Option<&Snapshot> {
        self.snapshots.values().find(|snapshot| snapshot.name == name)
    }

    /// Records what happened.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::VmState(state) => self.vm.state = *state,
            Change::VmConfig(config) => self.vm.config = config.clone(),
            Change::VmSettings(settings) => self.vm.settings = *settings,
            Change::VmName(name) => self.vm.name.clone_from(name),
            Change::VmGeneration(generation) => self.vm.generation = *generation,
            Change::VmCurrent(current) => self.vm.current = *current,
            Change::VmOperation(operation) => self.vm.operation = *operation,
            Change::VmReclaim(reclaim) => self.vm.reclaim = *reclaim,
            Change::VmGone => {
                self.snapshots.clear();
                self.layers.clear();
                self.active.clear();
            }
            Change::SnapshotAdded(snapshot) => {
                self.snapshots.insert(snapshot.id, snapshot.as_ref().clone());
            }
            Change::SnapshotChanged(id, to) => {
                if let Some(snapshot) = self.snapshots.get_mut(id) {
                    to.apply(snapshot);
                }
            }
            Change::SnapshotGone(id) => drop(self.snapshots.remove(id)),
            Change::LayerAdded(layer) => drop(self.layers.insert(layer.id, layer.clone())),
            Change::LayerMoved { layer, parent } => {
                if let Some(layer) = self.layers.get_mut(layer) {
                    layer.parent = *parent;
                }
            }
            Change::LayerSize { layer, size_bytes } => {
                if let Some(layer) = self.layers.get_mut(layer) {
                    layer.size_bytes = *size_bytes;
                }
            }
            Change::LayerGone(id) => drop(self.layers.remove(id)),
            Change::DiskActive { disk, layer } => drop(self.active.insert(*disk, *layer)),
            Change::DiskGone(disk) => {
                self.active.remove(disk);
                self.layers.retain(|_, layer| layer.disk != *disk);
            }
        }
    }

    /// What makes this no timeline, if anything: no forest, or a layer that is not there.
    pub fn flaw(&self) -> Option<String> {
        if let Some(flaw) = self.tree().flaw() {
            return Some(flaw);
        }
        for layer in self.layers.values() {
            if layer.parent.is_some_and(|parent| !self.layers.contains_key(&parent)) {
                return Some(format!("layer {} lies on a layer that is gone", layer.id));
            }
        }
        if let Some(id) = self.needed().iter().find(|id| !self.layers.contains_key(id)) {
            return Some(format!("layer {id} is needed and gone"));
        }
        let active = self.active.values().copied();
        for top in active {
            if self.children(top).next().is_some() {
                return Some(format!("the active layer {top} has a layer on it"));
            }
            if self.snapshots.values().any(|s| s.layers.values().any(|&layer| layer == top)) {
                return Some(format!("the active layer {top} is a snapshot's"));
            }
        }
        None
    }
}
