//! Everything that is recorded of one virtual machine, as one value.

use crate::change::Change;
use crate::config::Config;
use crate::id::{DiskId, LayerId, SnapshotId};
use crate::layer::{Layer, LayerFile};
use crate::snapshot::{Snapshot, SnapshotState};
use crate::tree::Tree;
use crate::vm::Vm;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::iter;

/// A virtual machine with its snapshots and layers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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

    /// The nearest snapshot before this one that holds memory.
    pub fn memory_before(&self, snapshot: SnapshotId) -> Option<SnapshotId> {
        let before = |id: &SnapshotId| self.snapshots.get(id)?.parent;
        let mut ancestors = iter::successors(before(&snapshot), before);
        ancestors.find(|id| self.snapshots.get(id).is_some_and(|other| other.memory_bytes > 0))
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
            Change::VmFindings(findings) => self.vm.findings.clone_from(findings),
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

    /// What makes this no timeline, if anything: no forest, a layer that is not there, something
    /// known by the id of something else, or more bytes than can be counted.
    pub fn flaw(&self) -> Option<String> {
        let flaw = self.tree().flaw().or_else(|| self.misplaced());
        flaw.or_else(|| self.flaw_of_layers())
            .or_else(|| self.unfounded())
            .or_else(|| self.immense())
    }

    fn misplaced(&self) -> Option<String> {
        let snapshot = self.snapshots.iter().find(|(id, s)| s.id != **id || s.vm != self.vm.id);
        let layer = self.layers.iter().find(|(id, layer)| layer.id != **id);
        let told =
            snapshot.map(|(id, _)| format!("snapshot {id} is another, or another machine's"));
        told.or_else(|| layer.map(|(id, _)| format!("layer {id} is another")))
    }

    fn flaw_of_layers(&self) -> Option<String> {
        for layer in self.layers.values() {
            if layer.parent.is_some_and(|parent| !self.layers.contains_key(&parent)) {
                return Some(format!("layer {} lies on a layer that is gone", layer.id));
            }
            let beneath =
                std::iter::successors(Some(layer), |layer| self.layers.get(&layer.parent?));
            if beneath.take(self.layers.len() + 1).count() > self.layers.len() {
                return Some(format!("layer {} lies on itself", layer.id));
            }
        }
        if let Some(id) = self.needed().iter().find(|id| !self.layers.contains_key(id)) {
            return Some(format!("layer {id} is needed and gone"));
        }
        for &top in self.active.values() {
            if self.children(top).next().is_some() {
                return Some(format!("the active layer {top} has a layer on it"));
            }
            if self.snapshots.values().any(|s| s.layers.values().any(|&layer| layer == top)) {
                return Some(format!("the active layer {top} is a snapshot's"));
            }
        }
        None
    }

    /// A disk that is made of nothing. One that is being made may be.
    fn unfounded(&self) -> Option<String> {
        let is_made = !self.active.is_empty() || self.vm.operation.is_none();
        let mut disks = self.vm.config.disks.iter().filter(|_| is_made);
        if let Some(disk) = disks.find(|disk| !self.active.contains_key(&disk.id)) {
            return Some(format!("disk {} has no active layer", disk.id));
        }
        let mut whole = self.snapshots.values().filter(|s| s.state == SnapshotState::Ready);
        let lacks = |s: &&Snapshot| s.config.disks.iter().any(|d| !s.layers.contains_key(&d.id));
        whole.find(lacks).map(|snapshot| format!("snapshot {} lacks a disk", snapshot.id))
    }

    /// Sums of sizes are told and recorded as numbers of 63 bits.
    fn immense(&self) -> Option<String> {
        let of_config = |config: &Config| {
            let disks = config.disks.iter().map(|disk| u128::from(disk.size_bytes));
            u128::from(config.memory_bytes) + disks.sum::<u128>()
        };
        let layers = self.layers.values().map(|layer| u128::from(layer.size_bytes));
        let snapshots = self.snapshots.values();
        let snapshots = snapshots.map(|s| u128::from(s.memory_bytes) + of_config(&s.config));
        let all = of_config(&self.vm.config) + layers.sum::<u128>() + snapshots.sum::<u128>();
        (all > i64::MAX as u128).then(|| format!("it says it has {all} bytes"))
    }
}
