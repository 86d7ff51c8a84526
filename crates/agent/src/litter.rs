//! What a failed effect has left behind, because storage failed while it was undone. Every layer
//! and machine here was made by that effect, under an id that nothing else has.

use tintype_drivers::Host;
use tintype_model::VmId;
use tintype_model::effect::{Effect, Outcome};
use tintype_model::layer::LayerFile;

/// Files that nobody needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Litter {
    /// Layers of a machine.
    Layers(VmId, Vec<LayerFile>),
    /// A machine that did not come to be.
    Machine(VmId),
}

impl Litter {
    /// What an effect that ended like this may have left.
    pub(crate) fn of(effect: &Effect, outcome: &Outcome) -> Option<Self> {
        let switched = match outcome {
            Outcome::Done(_) => true,
            Outcome::Failed(_, facts) => facts.switched,
            Outcome::Yielded => false,
        };
        let tops = |launch: &tintype_model::effect::Launch| {
            launch.disks.iter().map(|disk| disk.chain[0]).collect()
        };
        match effect {
            Effect::VerifySnapshot(verify) => {
                Some(Self::Layers(verify.launch.vm, tops(&verify.launch)))
            }
            _ if switched => None,
            Effect::CreateVm(create) => Some(Self::Machine(create.vm)),
            Effect::CloneDisks(clone) => Some(Self::Machine(clone.to)),
            Effect::AttachDisk { vm, disk } => Some(Self::Layers(*vm, vec![disk.layer])),
            Effect::TakeSnapshot(take) => {
                let overlays = take.disks.iter().map(|disk| disk.overlay_file());
                Some(Self::Layers(take.vm, overlays.collect()))
            }
            Effect::Revert(revert) => Some(Self::Layers(revert.launch.vm, tops(&revert.launch))),
            Effect::StartVm(_)
            | Effect::StopVm(_)
            | Effect::DeleteVm { .. }
            | Effect::DetachDisk { .. }
            | Effect::ResizeDisk(_)
            | Effect::RemoveMemory { .. }
            | Effect::Reclaim { .. } => None,
        }
    }

    /// Removes it; says whether nothing is left.
    pub(crate) fn remove(&self, host: &dyn Host) -> bool {
        match self {
            Self::Layers(vm, layers) => layers.iter().all(|&layer| {
                !host.volume().exists(*vm, layer) || host.volume().remove(*vm, layer).is_ok()
            }),
            Self::Machine(vm) => matches!(host.hypervisor().remove(*vm), Outcome::Done(_)),
        }
    }
}
