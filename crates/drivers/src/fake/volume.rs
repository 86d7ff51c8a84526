//! Layers in memory.

use super::{Broken, Fake, FakeLayer};
use crate::volume::{Volume, VolumeError};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tintype_model::VmId;
use tintype_model::effect::NewDisk;
use tintype_model::layer::LayerFile;

/// What a layer without data takes, in bytes.
const EMPTY: u64 = 64 << 10;
/// What a block takes, in bytes.
const BLOCK: u64 = 4096;

impl From<Broken> for VolumeError {
    fn from(Broken(what): Broken) -> Self {
        Self::Tool(format!("told to fail: {what}"))
    }
}

impl Volume for Fake {
    fn prepare(&self, vm: VmId) -> Result<(), VolumeError> {
        let mut world = self.world();
        world.step("prepare")?;
        world.machines.entry(vm).or_default();
        Ok(())
    }

    fn copy_in(&self, _vm: VmId, _from: &Path, _name: &str) -> Result<(), VolumeError> {
        Ok(self.world().step("copy in")?)
    }

    fn copy_over(&self, _from: VmId, _to: VmId, _name: &str) -> Result<(), VolumeError> {
        Ok(self.world().step("copy over")?)
    }

    fn create(&self, vm: VmId, disk: &NewDisk) -> Result<(), VolumeError> {
        let mut world = self.world();
        world.step("create")?;
        let machine = world.machines.entry(vm).or_default();
        machine.layers.insert(disk.layer.id, FakeLayer::default());
        Ok(())
    }

    fn overlay(&self, vm: VmId, layer: LayerFile, on: LayerFile) -> Result<(), VolumeError> {
        let mut world = self.world();
        world.step("overlay")?;
        let machine = world.machines.entry(vm).or_default();
        if !machine.layers.contains_key(&on.id) {
            return Err(VolumeError::Tool(format!("{} is not there", on.name())));
        }
        let fresh = FakeLayer { parent: Some(on.id), ..FakeLayer::default() };
        machine.layers.insert(layer.id, fresh);
        Ok(())
    }

    fn remove(&self, vm: VmId, layer: LayerFile) -> Result<(), VolumeError> {
        let mut world = self.world();
        world.step("remove")?;
        if let Some(machine) = world.machines.get_mut(&vm) {
            machine.layers.remove(&layer.id);
        }
        Ok(())
    }

    fn merge(
        &self,
        vm: VmId,
        child: LayerFile,
        into: LayerFile,
        _give_way: &AtomicBool,
    ) -> Result<(), VolumeError> {
        let mut world = self.world();
        world.step("merge")?;
        let machine = world.machines.entry(vm).or_default();
        let blocks = machine.layers.get(&child.id).map(|layer| layer.blocks.clone());
        if let Some(into) = machine.layers.get_mut(&into.id) {
            into.blocks.extend(blocks.unwrap_or_default());
        }
        Ok(())
    }

    fn fold(
        &self,
        vm: VmId,
        top: LayerFile,
        base: LayerFile,
        fresh: LayerFile,
        _give_way: &AtomicBool,
    ) -> Result<(), VolumeError> {
        let mut world = self.world();
        world.step("fold")?;
        let machine = world.machines.entry(vm).or_default();
        let mut folded = FakeLayer { parent: Some(base.id), ..FakeLayer::default() };
        let mut at = Some(top.id);
        while let Some(layer) =
            at.filter(|&id| id != base.id).and_then(|id| machine.layers.get(&id))
        {
            for (&block, &value) in &layer.blocks {
                folded.blocks.entry(block).or_insert(value);
            }
            at = layer.parent;
        }
        machine.layers.insert(fresh.id, folded);
        Ok(())
    }

    fn share(&self, from: VmId, layer: LayerFile, to: VmId) -> Result<(), VolumeError> {
        let mut world = self.world();
        world.step("share")?;
        // Nobody changes a shared layer, so that an equal one is as good.
        let found = world.machines.get(&from).and_then(|machine| machine.layers.get(&layer.id));
        let shared = found.cloned().ok_or(Broken("the layer is gone"))?;
        world.machines.entry(to).or_default().layers.insert(layer.id, shared);
        Ok(())
    }

    fn flatten(
        &self,
        from: VmId,
        top: LayerFile,
        to: VmId,
        layer: LayerFile,
        _give_way: &AtomicBool,
    ) -> Result<(), VolumeError> {
        let mut world = self.world();
        world.step("flatten")?;
        let source = world.machines.get(&from);
        let blocks = source.and_then(|machine| machine.seen_through(top.id));
        let blocks = blocks.ok_or(Broken("a layer is gone"))?;
        let flat = FakeLayer { parent: None, blocks };
        world.machines.entry(to).or_default().layers.insert(layer.id, flat);
        Ok(())
    }

    fn resize(&self, _vm: VmId, _layer: LayerFile, _size_bytes: u64) -> Result<(), VolumeError> {
        Ok(self.world().step("resize")?)
    }

    fn check(&self, vm: VmId, layer: LayerFile) -> Result<(), VolumeError> {
        self.allocated_bytes(vm, layer).map(drop)
    }

    fn relink(&self, vm: VmId, layer: LayerFile, on: LayerFile) -> Result<(), VolumeError> {
        let mut world = self.world();
        world.step("relink")?;
        let machine = world.machines.entry(vm).or_default();
        if let Some(layer) = machine.layers.get_mut(&layer.id) {
            layer.parent = Some(on.id);
        }
        Ok(())
    }

    fn sync(&self, _vm: VmId, _layer: LayerFile) -> Result<(), VolumeError> {
        Ok(self.world().step("sync")?)
    }

    fn exists(&self, vm: VmId, layer: LayerFile) -> bool {
        self.world().machines.get(&vm).is_some_and(|m| m.layers.contains_key(&layer.id))
    }

    fn is_blank(&self, vm: VmId, layer: LayerFile) -> Result<bool, VolumeError> {
        let world = self.world();
        let found = world.machines.get(&vm).and_then(|machine| machine.layers.get(&layer.id));
        let layer = found.ok_or_else(|| VolumeError::Tool(format!("{} is gone", layer.name())))?;
        Ok(layer.blocks.is_empty())
    }

    fn allocated_bytes(&self, vm: VmId, layer: LayerFile) -> Result<u64, VolumeError> {
        let world = self.world();
        let found = world.machines.get(&vm).and_then(|machine| machine.layers.get(&layer.id));
        let layer = found.ok_or_else(|| VolumeError::Tool(format!("{} is gone", layer.name())))?;
        Ok(EMPTY + layer.blocks.len() as u64 * BLOCK)
    }
}
