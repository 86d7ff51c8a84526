//! What an agent asks of a hypervisor.

use crate::diary::{Diary, Note};
use crate::volume::Volume;
use std::sync::atomic::AtomicBool;
use tintype_model::VmId;
use tintype_model::capability::Capabilities;
use tintype_model::effect::{
    Effect, Export, Launch, Outcome, ResizeDisk, Revert, StopVm, TakeSnapshot, Verify,
};
use tintype_model::reclaim::Reclaim;
use tintype_model::vm::VmState;

/// Whether the disks of a machine whose guest is gone were switched to a snapshot's new layers, as
/// far as can be known. What a guest wrote to them says so if it could not be noted; where it wrote
/// nothing, the machine has the same disks with them and without.
pub(crate) fn had_switched(volume: &dyn Volume, take: &TakeSnapshot, notes: &[Note]) -> bool {
    let overlays = || take.disks.iter().map(|disk| disk.overlay_file());
    if !overlays().all(|overlay| volume.exists(take.vm, overlay)) {
        return false;
    }
    // One that cannot be looked at may have been written to.
    let written = |overlay| !volume.is_blank(take.vm, overlay).unwrap_or(false);
    notes.contains(&Note::Switched) || overlays().any(written)
}

/// A hypervisor of one host. Every method is one act that ends by itself.
pub trait Hypervisor: Send + Sync {
    /// What it can do, found out once.
    fn capabilities(&self) -> &Capabilities;

    /// Whether the machine runs, by looking.
    fn state(&self, vm: VmId) -> VmState;

    /// Boots a machine.
    fn start(&self, launch: &Launch) -> Outcome;

    /// Shuts a machine down, or cuts its power.
    fn stop(&self, stop: &StopVm) -> Outcome;

    /// Ends the machine's process, if there is one, and removes what belonged to it.
    fn remove(&self, vm: VmId) -> Outcome;

    /// Takes a snapshot of a running machine: all disks at one instant, memory of the same instant
    /// if wanted. The new layers' files are there already. Whatever happens, the guest runs
    /// afterwards if it ran before.
    fn take(&self, take: &TakeSnapshot, diary: &mut dyn Diary) -> Outcome;

    /// Goes back to a snapshot. The new layers' files are there already. If the target cannot be
    /// loaded the machine is left as it was.
    fn revert(&self, revert: &Revert, diary: &mut dyn Diary) -> Outcome;

    /// Finishes or undoes an effect that was interrupted, by its notes and by looking.
    fn recover(&self, effect: &Effect, notes: &[Note], diary: &mut dyn Diary) -> Outcome;

    /// Works on the layers of a machine, running or not; gives way soon after `give_way` is set.
    fn reclaim(&self, vm: VmId, work: &Reclaim, give_way: &AtomicBool) -> Outcome;

    /// Proves that a snapshot is whole, beside the machine and without touching it. The layers that
    /// are thrown away afterwards are there already.
    fn verify(&self, verify: &Verify, diary: &mut dyn Diary) -> Outcome;

    /// Writes a snapshot to a folder of the pool, whole or not at all; what was interrupted is done
    /// anew, and what was done is not done again. Ends early when `stop` is set.
    fn export(&self, export: &Export, diary: &mut dyn Diary, stop: &AtomicBool) -> Outcome;

    /// Gives a disk another size, of a machine that runs or one that is off.
    fn resize(&self, resize: &ResizeDisk) -> Outcome;

    /// Removes the memory of snapshots.
    fn remove_memory(&self, vm: VmId, snapshots: &[tintype_model::SnapshotId]) -> Outcome;
}
