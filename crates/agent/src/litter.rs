//! What an effect has left behind, because storage failed while it was undone, or done. Every layer
//! and machine here was made by that effect, or removed by it, under an id that nothing else has.

use tintype_drivers::Host;
use tintype_model::effect::{Effect, Outcome};
use tintype_model::layer::LayerFile;
use tintype_model::{SnapshotId, VmId};
use tintype_wire::agent::OnRecord;

/// Files that nobody needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Litter {
    /// Layers of a machine, and the memory of a snapshot.
    Files(VmId, Vec<LayerFile>, Option<SnapshotId>),
    /// A machine that did not come to be.
    Machine(VmId),
}

impl Litter {
    /// What an effect that ended like this may have left.
    pub(crate) fn of(effect: &Effect, outcome: &Outcome) -> Option<Self> {
        let needed = match outcome {
            Outcome::Done(_) => true,
            Outcome::Failed(_, facts) => facts.switched,
            Outcome::Yielded => false,
        };
        let left = match effect {
            Effect::VerifySnapshot(_) | Effect::ExportSnapshot(_) => true,
            Effect::DetachDisk { .. } => needed,
            _ => !needed,
        };
        left.then(|| Self::touched(effect)).flatten()
    }

    /// What an effect makes, or removes.
    pub(crate) fn touched(effect: &Effect) -> Option<Self> {
        let tops = |launch: &tintype_model::effect::Launch| {
            let layers = launch.disks.iter().map(|disk| disk.chain[0]).collect();
            Some(Self::Files(launch.vm, layers, None))
        };
        match effect {
            Effect::VerifySnapshot(verify) => tops(&verify.launch),
            Effect::ExportSnapshot(export) => tops(&export.launch),
            Effect::Revert(revert) => tops(&revert.launch),
            Effect::CreateVm(create) => Some(Self::Machine(create.vm)),
            Effect::CloneDisks(clone) => Some(Self::Machine(clone.to)),
            Effect::AttachDisk { vm, disk } => Some(Self::Files(*vm, vec![disk.layer], None)),
            Effect::DetachDisk { vm, layers } => Some(Self::Files(*vm, layers.clone(), None)),
            Effect::TakeSnapshot(take) => {
                let overlays = take.disks.iter().map(|disk| disk.overlay_file());
                let memory = take.memory.then_some(take.snapshot);
                Some(Self::Files(take.vm, overlays.collect(), memory))
            }
            Effect::StartVm(_)
            | Effect::StopVm(_)
            | Effect::DeleteVm { .. }
            | Effect::ResizeDisk(_)
            | Effect::RemoveMemory { .. }
            | Effect::Reclaim { .. } => None,
        }
    }

    /// What of it is not recorded of the machine, if there is one.
    pub(crate) fn unless_in(self, recorded: Option<&OnRecord>) -> Option<Self> {
        match (self, recorded) {
            (Self::Machine(_), Some(_)) => None,
            (Self::Files(vm, mut layers, memory), Some(recorded)) => {
                layers.retain(|layer| !recorded.layers.contains(&layer.id));
                let memory = memory.filter(|snapshot| !recorded.snapshots.contains(snapshot));
                Some(Self::Files(vm, layers, memory))
            }
            (all, None) => Some(all),
        }
    }

    /// Removes it; says whether nothing is left.
    pub(crate) fn remove(&self, host: &dyn Host) -> bool {
        match self {
            Self::Files(vm, layers, memory) => {
                let removed = memory.is_none_or(|memory| {
                    matches!(host.hypervisor().remove_memory(*vm, &[memory]), Outcome::Done(_))
                });
                let mut layers = layers.iter().filter(|&&layer| host.volume().exists(*vm, layer));
                removed && layers.all(|&layer| host.volume().remove(*vm, layer).is_ok())
            }
            Self::Machine(vm) => matches!(host.hypervisor().remove(*vm), Outcome::Done(_)),
        }
    }
}
