//! What each effect does with hypervisor and volume.

use crate::disks;
use std::sync::atomic::AtomicBool;
use tintype_drivers::qemu::Qemu;
use tintype_drivers::volume::VolumeError;
use tintype_drivers::{Diary, Hypervisor, Note, Volume};
use tintype_model::effect::{Effect, Facts, Outcome, Revert, TakeSnapshot, Verify};
use tintype_model::layer::LayerFile;
use tintype_model::refusal::Code;
use tintype_model::{Refusal, VmId};

/// Performs an effect that has not begun.
pub(crate) fn perform(
    qemu: &Qemu,
    effect: &Effect,
    diary: &mut dyn Diary,
    stop: &AtomicBool,
) -> Outcome {
    match effect {
        Effect::CreateVm(create) => disks::create_vm(qemu, create),
        Effect::CloneDisks(clone) => disks::clone(qemu, clone, diary, stop),
        Effect::AttachDisk { vm, disk } => disks::attach(qemu, *vm, disk),
        Effect::DetachDisk { vm, layers } => disks::detach(qemu, *vm, layers),
        Effect::ResizeDisk(resize) => qemu.resize(resize),
        Effect::VerifySnapshot(verify) => prove(qemu, verify, diary),
        Effect::StartVm(launch) => qemu.start(launch),
        Effect::StopVm(stop) => qemu.stop(stop),
        Effect::DeleteVm { vm } => qemu.remove(*vm),
        Effect::TakeSnapshot(take) => take_snapshot(qemu, take, diary),
        Effect::Revert(revert) => go_back(qemu, revert, diary),
        Effect::RemoveMemory { vm, snapshots } => qemu.remove_memory(*vm, snapshots),
        Effect::Reclaim { vm, work } => qemu.reclaim(*vm, work, stop),
    }
}

/// Finishes or undoes an effect that was begun by a process that is gone. Those that may simply be
/// done again are.
pub(crate) fn recover(
    qemu: &Qemu,
    effect: &Effect,
    notes: &[Note],
    diary: &mut dyn Diary,
    stop: &AtomicBool,
) -> Outcome {
    match effect {
        Effect::TakeSnapshot(take) if !take.running => take_snapshot(qemu, take, diary),
        Effect::CreateVm(_)
        | Effect::CloneDisks(_)
        | Effect::AttachDisk { .. }
        | Effect::DetachDisk { .. }
        | Effect::ResizeDisk(_) => perform(qemu, effect, diary, stop),
        Effect::Reclaim { vm, work } => qemu.reclaim(*vm, work, stop),
        Effect::StartVm(_)
        | Effect::StopVm(_)
        | Effect::DeleteVm { .. }
        | Effect::TakeSnapshot(_)
        | Effect::Revert(_)
        | Effect::VerifySnapshot(_)
        | Effect::RemoveMemory { .. } => qemu.recover(effect, notes, diary),
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

fn prove(qemu: &Qemu, verify: &Verify, diary: &mut dyn Diary) -> Outcome {
    let vm = verify.launch.vm;
    let chains = verify.launch.disks.iter().map(|disk| (disk.chain[0], disk.chain[1]));
    match make_overlays(qemu, vm, chains) {
        Ok(()) => qemu.verify(verify, diary),
        Err(error) => storage_failed(&error, qemu.state(vm).is_live()),
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

pub(crate) fn storage_failed(error: &VolumeError, running: bool) -> Outcome {
    let reason = Refusal::new(Code::StorageFailed).detail(error.to_string());
    Outcome::Failed(reason, Facts { running, ..Facts::default() })
}
