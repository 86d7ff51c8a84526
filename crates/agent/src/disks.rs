//! Disks that are made, cloned and removed: effects on storage alone, which may simply be done
//! again.

use crate::perform::storage_failed;
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use tintype_drivers::qemu::{Folder, Qemu};
use tintype_drivers::volume::VolumeError;
use tintype_drivers::volume::qcow2::Qcow2;
use tintype_drivers::{Diary, Hypervisor, Volume};
use tintype_model::config::Kernel;
use tintype_model::effect::{CloneDisks, CreateVm, Facts, NewDisk, Outcome};
use tintype_model::layer::LayerFile;
use tintype_model::{LayerId, VmId};

pub(crate) fn create_vm(qemu: &Qemu, create: &CreateVm) -> Outcome {
    let volume = qemu.volume();
    let vm = create.vm;
    let make = || -> Result<Facts, VolumeError> {
        volume.prepare(vm)?;
        let mut facts = Facts::default();
        for (file, name) in [(&create.kernel, "kernel"), (&create.initrd, "initrd")] {
            if let Some(file) = file {
                volume.copy_in(vm, file.as_ref(), name)?;
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

pub(crate) fn attach(qemu: &Qemu, vm: VmId, disk: &NewDisk) -> Outcome {
    let volume = qemu.volume();
    let made = volume.create(vm, disk).and_then(|()| volume.allocated_bytes(vm, disk.layer));
    match made {
        Ok(size) => {
            Outcome::Done(Facts { sizes: [(disk.layer.id, size)].into(), ..Facts::default() })
        }
        Err(error) => {
            let _ = volume.remove(vm, disk.layer);
            storage_failed(&error, false)
        }
    }
}

pub(crate) fn detach(qemu: &Qemu, vm: VmId, layers: &[LayerFile]) -> Outcome {
    let removed = layers.iter().try_for_each(|&layer| qemu.volume().remove(vm, layer));
    match removed {
        Ok(()) => Outcome::Done(Facts::default()),
        Err(error) => storage_failed(&error, false),
    }
}

/// Makes the folder of a clone with all that is in it, or nothing.
pub(crate) fn clone(
    qemu: &Qemu,
    clone: &CloneDisks,
    diary: &mut dyn Diary,
    stop: &AtomicBool,
) -> Outcome {
    let running = qemu.state(clone.from).is_live();
    match make_clone(qemu, clone, diary, stop) {
        Ok(sizes) => Outcome::Done(Facts { sizes, running, ..Facts::default() }),
        Err(error) => {
            qemu.remove(clone.to);
            storage_failed(&error, running)
        }
    }
}

fn make_clone(
    qemu: &Qemu,
    clone: &CloneDisks,
    diary: &mut dyn Diary,
    stop: &AtomicBool,
) -> Result<BTreeMap<LayerId, u64>, VolumeError> {
    let volume = qemu.volume();
    let (from, to) = (clone.from, clone.to);
    volume.prepare(to)?;
    if let Some(kernel) = &clone.kernel {
        copy_kernel(qemu, volume, from, to, kernel)?;
    }
    let mut sizes = BTreeMap::new();
    for (n, disk) in clone.disks.iter().enumerate() {
        diary.tell("copying disks", n as f64 / clone.disks.len() as f64);
        if stop.load(Ordering::SeqCst) {
            return Err(VolumeError::Yielded);
        }
        let Some(&top) = disk.chain.first() else { continue };
        if clone.linked {
            for &layer in &disk.chain {
                volume.share(from, layer, to)?;
            }
            volume.overlay(to, disk.layer, top)?;
        } else {
            volume.flatten(from, top, to, disk.layer, stop)?;
        }
        sizes.insert(disk.layer.id, volume.allocated_bytes(to, disk.layer)?);
    }
    Ok(sizes)
}

fn copy_kernel(
    qemu: &Qemu,
    volume: &Qcow2,
    from: VmId,
    to: VmId,
    kernel: &Kernel,
) -> Result<(), VolumeError> {
    let folder: Folder = qemu.folder(from);
    volume.copy_in(to, &folder.path().join("kernel"), "kernel")?;
    let initrd = folder.path().join("initrd");
    if kernel.initrd && fs::exists(&initrd).unwrap_or(false) {
        volume.copy_in(to, &initrd, "initrd")?;
    }
    Ok(())
}
