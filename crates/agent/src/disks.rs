//! Disks that are made, cloned and removed: effects on storage alone, which may simply be done
//! again.

use crate::perform::storage_failed;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use tintype_drivers::volume::VolumeError;
use tintype_drivers::{Diary, Host};
use tintype_model::effect::{CloneDisks, CreateVm, Facts, NewDisk, Outcome};
use tintype_model::layer::LayerFile;
use tintype_model::{LayerId, VmId};

pub(crate) fn create_vm(host: &dyn Host, create: &CreateVm) -> Outcome {
    let volume = host.volume();
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
            host.hypervisor().remove(vm);
            storage_failed(&error, false)
        }
    }
}

pub(crate) fn attach(host: &dyn Host, vm: VmId, disk: &NewDisk) -> Outcome {
    let volume = host.volume();
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

/// Removes the layers of a disk. The first decides: without it the disk is gone, and what cannot be
/// removed of the others is litter.
pub(crate) fn detach(host: &dyn Host, vm: VmId, layers: &[LayerFile]) -> Outcome {
    let volume = host.volume();
    let Some((&first, others)) = layers.split_first() else {
        return Outcome::Done(Facts::default());
    };
    if volume.exists(vm, first)
        && let Err(error) = volume.remove(vm, first)
    {
        return storage_failed(&error, false);
    }
    for &layer in others {
        let _ = volume.remove(vm, layer);
    }
    Outcome::Done(Facts::default())
}

/// Makes the folder of a clone with all that is in it, or nothing.
pub(crate) fn clone(
    host: &dyn Host,
    clone: &CloneDisks,
    diary: &mut dyn Diary,
    stop: &AtomicBool,
) -> Outcome {
    let running = host.hypervisor().state(clone.from).is_live();
    match make_clone(host, clone, diary, stop) {
        Ok(sizes) => Outcome::Done(Facts { sizes, running, ..Facts::default() }),
        Err(error) => {
            host.hypervisor().remove(clone.to);
            storage_failed(&error, running)
        }
    }
}

fn make_clone(
    host: &dyn Host,
    clone: &CloneDisks,
    diary: &mut dyn Diary,
    stop: &AtomicBool,
) -> Result<BTreeMap<LayerId, u64>, VolumeError> {
    let volume = host.volume();
    let (from, to) = (clone.from, clone.to);
    volume.prepare(to)?;
    if let Some(kernel) = &clone.kernel {
        volume.copy_over(from, to, "kernel")?;
        if kernel.initrd {
            volume.copy_over(from, to, "initrd")?;
        }
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
