//! What each effect does with hypervisor and volume.

use crate::disks;
use std::sync::atomic::AtomicBool;
use tintype_drivers::volume::VolumeError;
use tintype_drivers::{Diary, Host, Note};
use tintype_model::effect::{Effect, Facts, Outcome, Revert, TakeSnapshot, Verify};
use tintype_model::layer::LayerFile;
use tintype_model::refusal::Code;
use tintype_model::{Refusal, VmId};

/// Performs an effect that has not begun.
pub(crate) fn perform(
    host: &dyn Host,
    effect: &Effect,
    diary: &mut dyn Diary,
    stop: &AtomicBool,
) -> Outcome {
    match effect {
        Effect::CreateVm(create) => disks::create_vm(host, create),
        Effect::CloneDisks(clone) => disks::clone(host, clone, diary, stop),
        Effect::AttachDisk { vm, disk } => disks::attach(host, *vm, disk),
        Effect::DetachDisk { vm, layers } => disks::detach(host, *vm, layers),
        Effect::ResizeDisk(resize) => host.hypervisor().resize(resize),
        Effect::VerifySnapshot(verify) => prove(host, verify, diary),
        Effect::ExportSnapshot(export) => host.hypervisor().export(export, diary, stop),
        Effect::StartVm(launch) => host.hypervisor().start(launch),
        Effect::StopVm(stop) => host.hypervisor().stop(stop),
        Effect::DeleteVm { vm } => host.hypervisor().remove(*vm),
        Effect::TakeSnapshot(take) => take_snapshot(host, take, diary),
        Effect::Revert(revert) => go_back(host, revert, diary),
        Effect::RemoveMemory { vm, snapshots } => host.hypervisor().remove_memory(*vm, snapshots),
        Effect::Reclaim { vm, work } => host.hypervisor().reclaim(*vm, work, stop),
    }
}

/// Finishes or undoes an effect that was begun by a process that is gone. Those that may simply be
/// done again are.
pub(crate) fn recover(
    host: &dyn Host,
    effect: &Effect,
    notes: &[Note],
    diary: &mut dyn Diary,
    stop: &AtomicBool,
) -> Outcome {
    match effect {
        Effect::TakeSnapshot(take) if !take.running => take_snapshot(host, take, diary),
        Effect::CreateVm(_)
        | Effect::CloneDisks(_)
        | Effect::AttachDisk { .. }
        | Effect::DetachDisk { .. }
        | Effect::ResizeDisk(_)
        | Effect::ExportSnapshot(_) => perform(host, effect, diary, stop),
        Effect::Reclaim { vm, work } => host.hypervisor().reclaim(*vm, work, stop),
        Effect::StartVm(_)
        | Effect::StopVm(_)
        | Effect::DeleteVm { .. }
        | Effect::TakeSnapshot(_)
        | Effect::Revert(_)
        | Effect::VerifySnapshot(_)
        | Effect::RemoveMemory { .. } => host.hypervisor().recover(effect, notes, diary),
    }
}

/// Of a machine that is off, new layers are all there is to make.
fn take_snapshot(host: &dyn Host, take: &TakeSnapshot, diary: &mut dyn Diary) -> Outcome {
    let overlays = take.disks.iter().map(|disk| (disk.overlay_file(), disk.active));
    if let Err(error) = make_overlays(host, take.vm, overlays) {
        return storage_failed(&error, take.running);
    }
    if take.running {
        return host.hypervisor().take(take, diary);
    }
    for disk in &take.disks {
        if let Err(error) = host.volume().sync(take.vm, disk.active) {
            return storage_failed(&error, false);
        }
    }
    let mut facts = Facts { switched: true, ..Facts::default() };
    for disk in &take.disks {
        if let Ok(size) = host.volume().allocated_bytes(take.vm, disk.active) {
            facts.sizes.insert(disk.active.id, size);
        }
    }
    Outcome::Done(facts)
}

fn go_back(host: &dyn Host, revert: &Revert, diary: &mut dyn Diary) -> Outcome {
    let chains = revert.launch.disks.iter().map(|disk| (disk.chain[0], disk.chain[1]));
    match make_overlays(host, revert.launch.vm, chains) {
        Ok(()) => host.hypervisor().revert(revert, diary),
        Err(error) => storage_failed(&error, host.hypervisor().state(revert.launch.vm).is_live()),
    }
}

fn prove(host: &dyn Host, verify: &Verify, diary: &mut dyn Diary) -> Outcome {
    let vm = verify.launch.vm;
    let chains = verify.launch.disks.iter().map(|disk| (disk.chain[0], disk.chain[1]));
    match make_overlays(host, vm, chains) {
        Ok(()) => host.hypervisor().verify(verify, diary),
        Err(error) => storage_failed(&error, host.hypervisor().state(vm).is_live()),
    }
}

/// Makes all of them or none.
fn make_overlays(
    host: &dyn Host,
    vm: VmId,
    layers: impl Iterator<Item = (LayerFile, LayerFile)> + Clone,
) -> Result<(), VolumeError> {
    for (overlay, on) in layers.clone() {
        if let Err(error) = host.volume().overlay(vm, overlay, on) {
            for (overlay, _) in layers {
                let _ = host.volume().remove(vm, overlay);
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
