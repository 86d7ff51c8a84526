//! Creating a machine: its folder, its disks, its boot files.

use super::Conclusion;
use crate::change::Change;
use crate::effect::{self, Effect, NewDisk, Outcome};
use crate::reclaim::sizes;
use crate::timeline::Timeline;
use crate::vm::VmState;
use serde::{Deserialize, Serialize};

/// What a new machine is made of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreateVm {
    /// Its disks, each with its first layer.
    pub disks: Vec<NewDisk>,
    /// A kernel to copy in.
    pub kernel: Option<String>,
    /// An initrd to copy in.
    pub initrd: Option<String>,
}

impl CreateVm {
    pub(super) fn plan(&self, timeline: &Timeline) -> Effect {
        Effect::CreateVm(effect::CreateVm {
            vm: timeline.vm.id,
            disks: self.disks.clone(),
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
        })
    }

    pub(super) fn conclude(&self, outcome: &Outcome) -> Conclusion {
        match outcome {
            Outcome::Done(facts) => {
                let mut changes = vec![Change::VmState(VmState::Stopped)];
                changes.extend(sizes(facts));
                Conclusion::succeeded(changes)
            }
            Outcome::Failed(..) | Outcome::Yielded => {
                Conclusion::failed(vec![Change::VmGone], outcome)
            }
        }
    }
}
