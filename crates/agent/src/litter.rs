//! What a failed effect has left behind, because storage failed while it was undone. Every layer
//! and machine here was made by that effect, under an id that nothing else has.

use std::collections::BTreeSet;
use tintype_drivers::Host;
use tintype_model::effect::{Effect, Outcome};
use tintype_model::layer::LayerFile;
use tintype_model::{LayerId, VmId};

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
        let needed = match outcome {
            Outcome::Done(_) => true,
            Outcome::Failed(_, facts) => facts.switched,
            Outcome::Yielded => false,
        };
        let thrown_away = matches!(effect, Effect::VerifySnapshot(_));
        if thrown_away || !needed { Self::made(effect) } else { None }
    }

    /// What an effect makes.
    pub(crate) fn made(effect: &Effect) -> Option<Self> {
        let tops = |launch: &tintype_model::effect::Launch| {
            let layers = launch.disks.iter().map(|disk| disk.chain[0]).collect();
            Some(Self::Layers(launch.vm, layers))
        };
        match effect {
            Effect::VerifySnapshot(verify) => tops(&verify.launch),
            Effect::Revert(revert) => tops(&revert.launch),
            Effect::CreateVm(create) => Some(Self::Machine(create.vm)),
            Effect::CloneDisks(clone) => Some(Self::Machine(clone.to)),
            Effect::AttachDisk { vm, disk } => Some(Self::Layers(*vm, vec![disk.layer])),
            Effect::TakeSnapshot(take) => {
                let overlays = take.disks.iter().map(|disk| disk.overlay_file());
                Some(Self::Layers(take.vm, overlays.collect()))
            }
            Effect::StartVm(_)
            | Effect::StopVm(_)
            | Effect::DeleteVm { .. }
            | Effect::DetachDisk { .. }
            | Effect::ResizeDisk(_)
            | Effect::RemoveMemory { .. }
            | Effect::Reclaim { .. } => None,
        }
    }

    /// What of it is not among the layers that are recorded of the machine, if there is one.
    pub(crate) fn unless_in(self, recorded: Option<&BTreeSet<LayerId>>) -> Option<Self> {
        match (self, recorded) {
            (Self::Machine(_), Some(_)) => None,
            (Self::Layers(vm, layers), Some(recorded)) => {
                let unknown = layers.into_iter().filter(|layer| !recorded.contains(&layer.id));
                Some(Self::Layers(vm, unknown.collect()))
            }
            (all, None) => Some(all),
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
