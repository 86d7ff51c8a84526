//! What each effect does with hypervisor and volume.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use tintype_drivers::qemu::Qemu;
use tintype_drivers::volume::VolumeError;
use tintype_drivers::{Diary, Hypervisor, Note, Volume};
use tintype_model::effect::{CreateVm, Effect, Facts, Outcome, Revert, TakeSnapshot};
use tintype_model::layer::LayerFile;
use tintype_model::refusal::Code;
use tintype_model::{Refusal, VmId};

/// Performs an effect that has not begun.
pub(crate) fn perform(
    qemu: &Qemu,
    effect: &Effect,
    diary: &mut dyn Diary,
    give_way: &AtomicBool,
) -> Outcome {
    match effect {
        Effect::CreateVm(create) => create_vm(qemu, create),
        Effect::StartVm(launch) => qemu.start(launch),
        Effect::StopVm(stop) => qemu.stop(stop),
        Effect::DeleteVm { vm } => qemu.remove(*vm),
        Effect::TakeSnapshot(take) => take_snapshot(qemu, take, diary),
        Effect::Revert(revert) => go_back(qemu, revert, diary),
        Effect::RemoveMemory { vm, snapshots } => qemu.remove_memory(*vm, snapshots),
        Effect::Reclaim { vm, work } => qemu.reclaim(*vm, work, give_way),
    }
}

/// Finishes or undoes an effect that was begun by a process that is gone. Those that may simply be
/// done again are.
pub(crate) fn recover(
    qemu: &Qemu,
    effect: &Effect,
    notes: &[Note],
    diary: &mut dyn Diary,
    give_way: &AtomicBool,
) -> Outcome {
    match effect {
        Effect::TakeSnapshot(take) if !take.running => take_snapshot(qemu, take, diary),
        Effect::CreateVm(_) => perform(qemu, effect, diary, give_way),
        Effect::Reclaim { vm, work } => qemu.reclaim(*vm, work, give_way),
        Effect::StartVm(_)
        | Effect::StopVm(_)
        | Effect::DeleteVm { .. }
        | Effect::TakeSnapshot(_)
        | Effect::Revert(_)
        | Effect::RemoveMemory { .. } => qemu.recover(effect, notes, diary),
    }
}

fn create_vm(qemu: &Qemu, create: &CreateVm) -> Outcome {
    let volume = qemu.volume();
    let vm = create.vm;
    let make = || -> Result<Facts, VolumeError> {
        volume.prepare(vm)?;
        let mut facts = Facts::default();
        for (file, name) in [(&create.kernel, "kernel"), (&create.initrd, "initrd")] {
            if let Some(file) = file {
                volume.copy_in(vm, Path::new(file), name)?;
            }
        }
        for disk in &create.disks {
            volume.create(vm, disk)?;
            facts.sizes.insert(disk.layer.id, volume.allocated_bytes(vm, disk.layer)?);
        }
        Ok(facts)
    };
    match make() {
        Ok(facts) => Outcome::Done(facts),
        Err(error) => {
            qemu.remove(vm);
            storage_failed(&error, false)
        }
    }
}

/// Of a machine that is off, new layers are all there is to make.
fn take_snapshot(qemu: &Qemu, take: &TakeSnapshot, diary: &mut dyn Diary) -> Outcome {
    let overlays = take.disks.iter().map(|disk| (disk.overlay_file(), disk.active));
    if let Err(error) = make_overlays(qemu, take.vm, overlays) {
        return storage_failed(&error, take.running);
    }
    if take.running {
        return qemu.take(take, diary);
    }
    for disk in &take.disks {
        if let Err(error) = qemu.volume().sync(take.vm, disk.active) {
            return storage_failed(&error, false);
        }
    }
    let mut facts = Facts { switched: true, ..Facts::default() };
    for disk in &take.disks {
        if let Ok(size) = qemu.volume().allocated_bytes(take.vm, disk.active) {
            facts.sizes.insert(disk.active.id, size);
        }
    }
    Outcome::Done(facts)
}

fn go_back(qemu: &Qemu, revert: &Revert, diary: &mut dyn Diary) -> Outcome {
    let chains = revert.launch.disks.iter().map(|disk| (disk.chain[0], disk.chain[1]));
    match make_overlays(qemu, revert.launch.vm, chains) {
        Ok(()) => qemu.revert(revert, diary),
        Err(error) => storage_failed(&error, qemu.state(revert.launch.vm).is_live()),
    }
}

/// Makes all of them or none.
fn make_overlays(
    qemu: &Qemu,
    vm: VmId,
    layers: impl Iterator<Item = (LayerFile, LayerFile)> + Clone,
) -> Result<(), VolumeError> {
    for (overlay, on) in layers.clone() {
        if let Err(error) = qemu.volume().overlay(vm, overlay, on) {
            for (overlay, _) in layers {
                let _ = qemu.volume().remove(vm, overlay);
            }
            return Err(error);
        }
    }
    Ok(())
}

fn storage_failed(error: &VolumeError, running: bool) -> Outcome {
    let reason = Refusal::new(Code::StorageFailed).detail(error.to_string());
    Outcome::Failed(reason, Facts { running, ..Facts::default() })
}
