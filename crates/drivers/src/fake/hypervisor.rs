//! Guests in memory.

use super::{Broken, Fake, Guest, Memory, World};
use crate::diary::{Diary, Note};
use crate::hypervisor::{Hypervisor, had_switched};
use crate::volume::{Volume, VolumeError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use tintype_model::capability::Capabilities;
use tintype_model::effect::{
    After, Effect, Export, Facts, Launch, Outcome, ResizeDisk, Revert, StopVm, TakeSnapshot, Verify,
};
use tintype_model::layer::LayerFile;
use tintype_model::reclaim::Reclaim;
use tintype_model::refusal::Code;
use tintype_model::snapshot::Quiesce;
use tintype_model::vm::VmState;
use tintype_model::{Refusal, SnapshotId, VmId};

fn failed(code: Code, detail: &str, facts: Facts) -> Outcome {
    Outcome::Failed(Refusal::new(code).detail(detail), facts)
}

fn boot(launch: &Launch, ram: BTreeMap<u64, u64>) -> Guest {
    let active = launch.disks.iter().map(|disk| (disk.disk, disk.chain[0].id)).collect();
    Guest { ram, active, order: launch.disks.iter().map(|disk| disk.disk).collect() }
}

impl Fake {
    fn is_running(&self, vm: VmId) -> bool {
        self.state(vm) == VmState::Running
    }

    /// Whether a machine's disks are written to the new layers, as far as that can be known.
    fn has_switched(&self, take: &TakeSnapshot, notes: &[Note]) -> bool {
        let active = self.world().guest(take.vm).map(|guest| guest.active.clone());
        match active {
            Some(active) => {
                take.disks.iter().all(|disk| active.get(&disk.disk) == Some(&disk.overlay))
            }
            None => had_switched(self, take, notes),
        }
    }

    /// Leaves the machine as it was.
    fn give_up(&self, revert: &Revert, code: Code, why: &str) -> Outcome {
        let vm = revert.launch.vm;
        for disk in &revert.launch.disks {
            let _ = Volume::remove(self, vm, disk.chain[0]);
        }
        failed(code, why, Facts { running: self.is_running(vm), ..Facts::default() })
    }

    /// Whether the guest that runs is the one that was gone back to.
    fn has_gone_back(&self, revert: &Revert) -> bool {
        let mut disks = revert.launch.disks.iter();
        self.world().guest(revert.launch.vm).is_some_and(|guest| {
            disks.all(|disk| guest.active.get(&disk.disk) == Some(&disk.chain[0].id))
        })
    }

    fn remove_overlays(&self, take: &TakeSnapshot) {
        for disk in &take.disks {
            let _ = Volume::remove(self, take.vm, disk.overlay_file());
        }
    }

    fn shoot(
        world: &mut World,
        take: &TakeSnapshot,
        diary: &mut dyn Diary,
        facts: &mut Facts,
    ) -> Result<(), Broken> {
        world.step("open overlays")?;
        world.step("stop")?;
        let Some(guest) = world.guest(take.vm) else {
            return Err(Broken("there is no guest"));
        };
        let ram = guest.ram.clone();
        diary.note(Note::Stopping { at_ms: 0 }).map_err(|_| Broken("nothing can be noted"))?;
        world.step("switch")?;
        if let Some(guest) = world.guest(take.vm) {
            for disk in &take.disks {
                guest.active.insert(disk.disk, disk.overlay);
            }
        }
        facts.switched = true;
        facts.pause_ms = Some(0);
        diary.note(Note::Switched).map_err(|_| Broken("the switch cannot be noted"))?;
        if diary.is_cancelled() {
            return Err(Broken("cancelled"));
        }
        if take.memory {
            world.step("protect memory")?;
            world.step("save memory")?;
            let machine = world.machines.entry(take.vm).or_default();
            machine.memories.insert(take.snapshot, Memory { ram, damaged: false });
            facts.memory_bytes = take.memory_bytes;
        }
        Ok(())
    }

    fn go_back(world: &mut World, revert: &Revert, diary: &mut dyn Diary) -> Result<(), Broken> {
        let vm = revert.launch.vm;
        let mut ram = BTreeMap::new();
        if revert.after == After::Resumed {
            world.step("load memory")?;
            let memories = world.machines.get(&vm).map(|machine| &machine.memories);
            match memories.and_then(|all| all.get(&revert.snapshot)) {
                Some(memory) if !memory.damaged => ram.clone_from(&memory.ram),
                _ => return Err(Broken("the memory is damaged")),
            }
        }
        diary.note_durably(Note::Committed).map_err(|_| Broken("nothing can be noted"))?;
        world.step("switch guests")?;
        let machine = world.machines.entry(vm).or_default();
        machine.guest = match revert.after {
            After::Stopped => None,
            After::Resumed | After::Booted => Some(boot(&revert.launch, ram)),
        };
        Ok(())
    }

    /// Answers what is of the past then, and goes last.
    fn work(&self, vm: VmId, work: &Reclaim) -> Result<Option<LayerFile>, VolumeError> {
        let calm = AtomicBool::new(false);
        match work {
            Reclaim::Remove { layer } => Ok(Some(*layer)),
            Reclaim::Merge { child, into, above } => {
                if self.exists(vm, *child) {
                    self.merge(vm, *child, *into, &calm)?;
                    self.move_on(vm, *child, *into, above)?;
                }
                Ok(Some(*child))
            }
            Reclaim::Fold { chain, base, fresh, above, keep, .. } => {
                if *keep || self.exists(vm, chain[0]) {
                    self.fold(vm, chain[0], *base, *fresh, &calm)?;
                }
                self.move_on(vm, chain[0], *fresh, above)?;
                Ok((!keep).then_some(chain[0]))
            }
        }
    }

    /// Puts what lies on `old` on `new`.
    fn move_on(
        &self,
        vm: VmId,
        old: LayerFile,
        new: LayerFile,
        above: &[LayerFile],
    ) -> Result<(), VolumeError> {
        if let Some(guest) = self.world().guest(vm) {
            for active in guest.active.values_mut().filter(|active| **active == old.id) {
                *active = new.id;
            }
        }
        for &layer in above {
            self.relink(vm, layer, new)?;
        }
        Ok(())
    }
}

impl Hypervisor for Fake {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn state(&self, vm: VmId) -> VmState {
        match self.world().guest(vm) {
            Some(_) => VmState::Running,
            None => VmState::Stopped,
        }
    }

    fn start(&self, launch: &Launch) -> Outcome {
        let mut world = self.world();
        if let Err(Broken(what)) = world.step("start") {
            let running = world.guest(launch.vm).is_some();
            return failed(Code::HypervisorFailed, what, Facts { running, ..Facts::default() });
        }
        let machine = world.machines.entry(launch.vm).or_default();
        machine.guest.get_or_insert_with(|| boot(launch, BTreeMap::new()));
        Outcome::Done(Facts { running: true, ..Facts::default() })
    }

    fn stop(&self, stop: &StopVm) -> Outcome {
        let mut world = self.world();
        if let Err(Broken(what)) = world.step("stop") {
            let running = world.guest(stop.vm).is_some();
            return failed(Code::HypervisorFailed, what, Facts { running, ..Facts::default() });
        }
        world.machines.entry(stop.vm).or_default().guest = None;
        Outcome::Done(Facts::default())
    }

    fn remove(&self, vm: VmId) -> Outcome {
        let mut world = self.world();
        if !world.machines.contains_key(&vm) {
            return Outcome::Done(Facts::default());
        }
        if let Err(Broken(what)) = world.step("remove machine") {
            return failed(Code::StorageFailed, what, Facts::default());
        }
        world.machines.remove(&vm);
        Outcome::Done(Facts::default())
    }

    fn take(&self, take: &TakeSnapshot, diary: &mut dyn Diary) -> Outcome {
        // Guests here have no agent.
        let silent = Refusal::new(Code::QuiesceFailed).detail("no guest agent runs in the guest");
        let not_quiesced = (take.quiesce == Quiesce::Try).then(|| silent.clone());
        let mut facts = Facts { not_quiesced, ..Facts::default() };
        if take.quiesce == Quiesce::Required {
            self.remove_overlays(take);
            facts.running = self.is_running(take.vm);
            return Outcome::Failed(silent, facts);
        }
        let result = Self::shoot(&mut self.world(), take, diary, &mut facts);
        facts.running = self.is_running(take.vm);
        if !facts.switched {
            self.remove_overlays(take);
        }
        match result {
            Ok(()) => Outcome::Done(facts),
            Err(Broken(what)) => {
                facts.memory_bytes = 0;
                failed(Code::HypervisorFailed, what, facts)
            }
        }
    }

    fn revert(&self, revert: &Revert, diary: &mut dyn Diary) -> Outcome {
        let result = Self::go_back(&mut self.world(), revert, diary);
        match result {
            Ok(()) => {
                let running = self.is_running(revert.launch.vm);
                Outcome::Done(Facts { switched: true, running, ..Facts::default() })
            }
            Err(Broken(what)) => self.give_up(revert, Code::LoadFailed, what),
        }
    }

    /// What this host knows is in its memory, which a crash of tintype does not touch.
    fn recover(&self, effect: &Effect, notes: &[Note], diary: &mut dyn Diary) -> Outcome {
        match effect {
            Effect::TakeSnapshot(take) => {
                let running = self.is_running(take.vm);
                let switched = self.has_switched(take, notes);
                let saved = self
                    .world()
                    .machines
                    .get(&take.vm)
                    .is_some_and(|machine| machine.memories.contains_key(&take.snapshot));
                let facts = Facts { switched, running, ..Facts::default() };
                if switched && (saved || !take.memory) {
                    let memory_bytes = if take.memory { take.memory_bytes } else { 0 };
                    return Outcome::Done(Facts { memory_bytes, ..facts });
                }
                if !switched {
                    self.remove_overlays(take);
                }
                failed(Code::Interrupted, "interrupted", facts)
            }
            Effect::Revert(revert) if self.has_gone_back(revert) => {
                Outcome::Done(Facts { switched: true, running: true, ..Facts::default() })
            }
            Effect::Revert(revert) if notes.contains(&Note::Committed) => {
                self.revert(revert, diary)
            }
            Effect::Revert(revert) => self.give_up(revert, Code::Interrupted, "interrupted"),
            Effect::StartVm(launch) => self.start(launch),
            Effect::StopVm(stop) => self.stop(stop),
            Effect::DeleteVm { vm } => Hypervisor::remove(self, *vm),
            Effect::RemoveMemory { vm, snapshots } => self.remove_memory(*vm, snapshots),
            Effect::Reclaim { vm, work } => self.reclaim(*vm, work, &AtomicBool::new(false)),
            Effect::ResizeDisk(resize) => Hypervisor::resize(self, resize),
            Effect::VerifySnapshot(verify) => self.verify(verify, diary),
            Effect::ExportSnapshot(export) => self.export(export, diary, &AtomicBool::new(false)),
            Effect::CreateVm(_)
            | Effect::CloneDisks(_)
            | Effect::AttachDisk { .. }
            | Effect::DetachDisk { .. } => Outcome::Yielded,
        }
    }

    fn reclaim(&self, vm: VmId, work: &Reclaim, give_way: &AtomicBool) -> Outcome {
        // What goes goes last: without it there is no way back.
        let gone = matches!(work, Reclaim::Merge { child, .. } if !self.exists(vm, *child));
        if give_way.load(Ordering::SeqCst) && !gone {
            return Outcome::Yielded;
        }
        let mut facts = Facts::default();
        let done = self.work(vm, work).and_then(|past| {
            facts.switched = true;
            past.map_or(Ok(()), |past| Volume::remove(self, vm, past))
        });
        match done {
            Ok(()) => Outcome::Done(facts),
            Err(error) => failed(Code::StorageFailed, &error.to_string(), facts),
        }
    }

    fn verify(&self, verify: &Verify, _diary: &mut dyn Diary) -> Outcome {
        let vm = verify.launch.vm;
        let sound = {
            let world = self.world();
            let machine = world.machines.get(&vm);
            let memory = machine.and_then(|machine| machine.memories.get(&verify.snapshot));
            !verify.memory || memory.is_some_and(|memory| !memory.damaged)
        };
        let thrown_away = verify.launch.disks.iter().map(|disk| disk.chain[0]);
        let removed: Result<Vec<()>, _> =
            thrown_away.map(|layer| Volume::remove(self, vm, layer)).collect();
        let facts = Facts { running: self.is_running(vm), ..Facts::default() };
        if let Err(error) = removed {
            return failed(Code::StorageFailed, &error.to_string(), facts);
        }
        if sound {
            return Outcome::Done(facts);
        }
        failed(Code::VerifyFailed, "the memory is damaged", facts)
    }

    fn export(&self, export: &Export, _diary: &mut dyn Diary, stop: &AtomicBool) -> Outcome {
        let vm = export.launch.vm;
        let facts = Facts { running: self.is_running(vm), ..Facts::default() };
        if self.world().exports.get(&export.name).is_some_and(|there| there != export) {
            return failed(Code::NameTaken, "it is there already", facts);
        }
        let made = || export.launch.disks.iter().map(|disk| (disk.chain[1], disk.chain[0]));
        let written = made()
            .try_for_each(|(top, made)| self.flatten(vm, top, vm, made, stop))
            .and_then(|()| {
                let mut world = self.world();
                world.step("export")?;
                world.exports.insert(export.name.clone(), export.clone());
                Ok(())
            });
        let removed = made().try_for_each(|(_, made)| Volume::remove(self, vm, made));
        match written.and(removed) {
            Ok(()) => Outcome::Done(facts),
            Err(error) => failed(Code::StorageFailed, &error.to_string(), facts),
        }
    }

    fn resize(&self, resize: &ResizeDisk) -> Outcome {
        match Volume::resize(self, resize.vm, resize.layer, resize.size_bytes) {
            Ok(()) => Outcome::Done(Facts::default()),
            Err(error) => failed(Code::StorageFailed, &error.to_string(), Facts::default()),
        }
    }

    fn remove_memory(&self, vm: VmId, snapshots: &[SnapshotId]) -> Outcome {
        let mut world = self.world();
        if let Err(Broken(what)) = world.step("remove memory") {
            return failed(Code::StorageFailed, what, Facts::default());
        }
        if let Some(machine) = world.machines.get_mut(&vm) {
            machine.memories.retain(|id, _| !snapshots.contains(id));
        }
        Outcome::Done(Facts::default())
    }
}
