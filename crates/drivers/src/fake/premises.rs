//! What there is of machines in memory.

use super::Fake;
use crate::premises::{OpenFiles, Premises};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use tintype_model::VmId;
use tintype_model::finding::Mark;
use tintype_model::layer::{Format, LayerFile};
use tintype_model::manifest::layer_file;
use tintype_model::snapshot::memory_name;

impl Premises for Fake {
    fn machines(&self) -> Vec<VmId> {
        self.world().machines.keys().copied().collect()
    }

    fn files(&self, vm: VmId, _settle: &BTreeSet<String>) -> io::Result<BTreeMap<String, Mark>> {
        let world = self.world();
        let Some(machine) = world.machines.get(&vm) else { return Ok(BTreeMap::new()) };
        let mark = |blocks: usize| Mark { inode: 1, size_bytes: blocks as u64, written_ns: 0 };
        let name = |id| LayerFile { id, format: Format::Qcow2 }.name();
        let layers = machine.layers.iter().map(|(&id, l)| (name(id), mark(l.blocks.len())));
        let memories = machine.memories.iter();
        let memories = memories.map(|(&id, memory)| (memory_name(id), mark(memory.ram.len())));
        Ok(layers.chain(memories).collect())
    }

    fn lies_on(&self, vm: VmId) -> io::Result<BTreeMap<String, String>> {
        let world = self.world();
        let Some(machine) = world.machines.get(&vm) else { return Ok(BTreeMap::new()) };
        let name = |id| LayerFile { id, format: Format::Qcow2 }.name();
        let lies = machine.layers.iter().filter_map(|(&id, l)| Some((name(id), name(l.parent?))));
        Ok(lies.collect())
    }

    fn open_files(&self, vm: VmId) -> OpenFiles {
        let mut world = self.world();
        let Some(guest) = world.guest(vm) else { return OpenFiles::default() };
        let name = |&id: &_| LayerFile { id, format: Format::Qcow2 }.name();
        OpenFiles { written: guest.active.values().map(name).collect(), ..OpenFiles::default() }
    }

    fn processes(&self) -> BTreeSet<i32> {
        BTreeSet::new()
    }

    fn held(&self, _vm: VmId) -> Option<String> {
        None
    }

    fn resume(&self, _vm: VmId) -> io::Result<()> {
        Ok(())
    }

    fn set_aside(&self, vm: VmId, file: &str) -> io::Result<String> {
        let mut world = self.world();
        if let Some(machine) = world.machines.get_mut(&vm) {
            let layer = layer_file(file).map(|layer| layer.id);
            machine.layers.retain(|&id, _| Some(id) != layer);
            machine.memories.retain(|&id, _| memory_name(id) != file);
        }
        Ok(format!("aside/{file}"))
    }

    fn set_aside_machine(&self, vm: VmId) -> io::Result<String> {
        self.world().machines.remove(&vm);
        Ok(format!("aside/{vm}"))
    }

    fn describe(&self, vm: VmId, manifest: &str) -> io::Result<()> {
        let mut world = self.world();
        let machine = world.machines.get_mut(&vm).ok_or(io::ErrorKind::NotFound)?;
        machine.manifest = Some(manifest.to_owned());
        Ok(())
    }

    fn manifest(&self, vm: VmId) -> Option<String> {
        self.world().machines.get(&vm)?.manifest.clone()
    }
}
