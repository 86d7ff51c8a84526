//! Going back to a snapshot (A9–A11, E17, E18, E27, R3, R6, R7).

use super::{Ending, chains, failure};
use crate::capability::Capabilities;
use crate::change::{Change, SnapshotChange};
use crate::effect::{After, Effect, Launch, Outcome, Revert};
use crate::id::{LayerId, SnapshotId};
use crate::layer::{Format, Layer, LayerFile};
use crate::reclaim::sizes;
use crate::refusal::{Code, Refusal};
use crate::snapshot::{Kind, Snapshot, SnapshotState};
use crate::timeline::Timeline;
use crate::vm::VmState;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where to go back to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RevertTo {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// How the machine shall be afterwards.
    pub after: After,
}

/// What somebody wants of the power afterwards (R3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// What the snapshot says: with memory running, without off.
    AsTaken,
    /// Running, in any case.
    Start,
    /// Off, in any case; memory is ignored.
    Stopped,
}

impl RevertTo {
    /// Decides how the machine will be after a revert to `snapshot`.
    pub fn new(snapshot: &Snapshot, power: Power) -> Self {
        let after = match (power, snapshot.kind) {
            (Power::AsTaken | Power::Start, Kind::DiskAndMemory) => After::Resumed,
            (Power::AsTaken, Kind::Disk) | (Power::Stopped, _) => After::Stopped,
            (Power::Start, Kind::Disk) => After::Booted,
        };
        Self { snapshot: snapshot.id, after }
    }

    pub(super) fn accept(
        &self,
        timeline: &Timeline,
        capabilities: &Capabilities,
    ) -> Result<Vec<Change>, Refusal> {
        let snapshot = timeline
            .snapshots
            .get(&self.snapshot)
            .ok_or_else(|| Refusal::new(Code::UnknownSnapshot).detail(self.snapshot.to_string()))?;
        if snapshot.state != SnapshotState::Ready {
            return Err(Refusal::new(Code::SnapshotUnavailable)
                .detail(format!("{:?} is {}", snapshot.name, snapshot.state.as_str()))
                .hint("an unavailable snapshot can only be deleted"));
        }
        if self.after == After::Resumed
            && let Some(why) = capabilities.refuses_memory_of(&snapshot.config.platform)
        {
            return Err(Refusal::new(Code::MemoryNotLoadable)
                .detail(why)
                .hint("--stopped goes back to the disks of that instant without the memory"));
        }
        Ok(vec![self.state(SnapshotState::Reverting)])
    }

    pub(super) fn plan(&self, timeline: &Timeline, fresh: &mut impl FnMut() -> Uuid) -> Effect {
        let snapshot = &timeline.snapshots[&self.snapshot];
        let mut disks = chains(timeline, |disk| snapshot.layers[&disk]);
        for disk in &mut disks {
            disk.chain.insert(0, LayerFile { id: LayerId(fresh()), format: Format::Qcow2 });
        }
        Effect::Revert(Box::new(Revert {
            snapshot: self.snapshot,
            launch: Launch {
                vm: timeline.vm.id,
                name: timeline.vm.name.clone(),
                generation: fresh(),
                config: snapshot.config.clone(),
                disks,
            },
            after: self.after,
            running: timeline.vm.state.is_live(),
        }))
    }

    pub(super) fn conclude(
        &self,
        timeline: &Timeline,
        plan: &Revert,
        outcome: &Outcome,
    ) -> (Vec<Change>, Ending) {
        let mut changes = vec![self.back_to_ready()];
        match outcome {
            Outcome::Done(facts) => {
                for disk in &plan.launch.disks {
                    changes.push(Change::LayerAdded(Layer {
                        id: disk.chain[0].id,
                        disk: disk.disk,
                        parent: disk.chain.get(1).map(|file| file.id),
                        format: disk.chain[0].format,
                        rank: 0,
                        size_bytes: 0,
                    }));
                    changes.push(Change::DiskActive { disk: disk.disk, layer: disk.chain[0].id });
                }
                changes.push(Change::VmConfig(plan.launch.config.clone()));
                changes.push(Change::VmGeneration(plan.launch.generation));
                changes.push(Change::VmCurrent(Some(self.snapshot)));
                changes.push(Change::VmState(match self.after {
                    After::Resumed | After::Booted => VmState::Running,
                    After::Stopped => VmState::Stopped,
                }));
                changes.extend(sizes(facts));
                (changes, Ending::Succeeded)
            }
            Outcome::Failed(_, facts) => {
                if plan.running && !facts.running {
                    changes.push(Change::VmState(VmState::Crashed));
                } else if !plan.running {
                    changes.push(Change::VmState(timeline.vm.state));
                }
                (changes, Ending::Failed(failure(outcome)))
            }
            Outcome::Yielded => (changes, Ending::Failed(failure(outcome))),
        }
    }

    pub(super) fn back_to_ready(&self) -> Change {
        self.state(SnapshotState::Ready)
    }

    fn state(&self, state: SnapshotState) -> Change {
        Change::SnapshotChanged(self.snapshot, SnapshotChange::State(state))
    }
}
