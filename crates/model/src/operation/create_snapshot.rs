//! Taking a snapshot (E5–E7, E26, C2, C22, C27, R14, R15).

use super::{Ending, failure};
use crate::capability::{Capabilities, Support};
use crate::change::{Change, SnapshotChange};
use crate::effect::{Effect, Facts, Freeze, Outcome, TakeSnapshot};
use crate::id::{LayerId, SnapshotId};
use crate::layer::{Format, Layer};
use crate::moment::Moment;
use crate::name::{check_description, check_snapshot_name, default_snapshot_name};
use crate::reclaim::sizes;
use crate::refusal::{Code, Refusal};
use crate::snapshot::{Consistency, Kind, Snapshot, SnapshotState};
use crate::timeline::Timeline;
use crate::vm::VmState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What snapshot to take.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreateSnapshot {
    /// Its id.
    pub snapshot: SnapshotId,
    /// Its name; the moment if none is given.
    pub name: Option<String>,
    /// What somebody wrote about it.
    pub description: String,
    /// What it shall hold.
    pub kind: Kind,
}

impl CreateSnapshot {
    pub(super) fn accept(
        &self,
        timeline: &Timeline,
        capabilities: &Capabilities,
        at: Moment,
    ) -> Result<Vec<Change>, Refusal> {
        let vm = &timeline.vm;
        check_description(&self.description)?;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => default_snapshot_name(at, |name| timeline.named(name).is_some()),
        };
        check_snapshot_name(&name)?;
        if let Some(other) = timeline.named(&name) {
            return Err(Refusal::new(Code::NameTaken)
                .detail(format!("{} has a snapshot named {name:?}", vm.name))
                .hint("choose another name, or none for date and time")
                .blocked_by([other.id.0]));
        }
        if self.kind == Kind::DiskAndMemory {
            memory_possible(timeline, capabilities)?;
        }
        Ok(vec![Change::SnapshotAdded(Box::new(Snapshot {
            id: self.snapshot,
            vm: vm.id,
            name,
            description: self.description.clone(),
            kind: self.kind,
            consistency: Consistency::Crash,
            state: SnapshotState::Creating,
            reason: None,
            parent: vm.current,
            created_at: at,
            ready_at: None,
            pause_ms: None,
            memory_bytes: 0,
            config: vm.config.clone(),
            layers: BTreeMap::new(),
        }))])
    }

    pub(super) fn plan(&self, timeline: &Timeline, fresh: &mut impl FnMut() -> Uuid) -> Effect {
        let vm = &timeline.vm;
        let disks = vm.config.disks.iter().map(|disk| Freeze {
            disk: disk.id,
            role: disk.role,
            active: timeline.layers[&timeline.active[&disk.id]].file(),
            overlay: LayerId(fresh()),
        });
        Effect::TakeSnapshot(TakeSnapshot {
            vm: vm.id,
            snapshot: self.snapshot,
            running: vm.state.is_live(),
            memory: self.kind == Kind::DiskAndMemory,
            memory_bytes: vm.config.memory_bytes,
            disks: disks.collect(),
        })
    }

    pub(super) fn conclude(
        &self,
        timeline: &Timeline,
        take: &TakeSnapshot,
        outcome: &Outcome,
        at: Moment,
    ) -> (Vec<Change>, Ending) {
        match outcome {
            Outcome::Done(facts) => {
                let mut changes = switched(timeline, take, facts);
                changes.push(self.changed(SnapshotChange::Ready {
                    at,
                    pause_ms: facts.pause_ms,
                    memory_bytes: facts.memory_bytes,
                    consistency: match timeline.vm.state {
                        VmState::Stopped => Consistency::Clean,
                        _ => Consistency::Crash,
                    },
                    layers: take.disks.iter().map(|d| (d.disk, d.active.id)).collect(),
                }));
                changes.push(Change::VmCurrent(Some(self.snapshot)));
                (changes, Ending::Succeeded)
            }
            Outcome::Failed(_, facts) => {
                let reason = failure(outcome);
                let mut changes = switched(timeline, take, facts);
                changes.push(self.changed(SnapshotChange::Unavailable(reason.clone())));
                if take.running && !facts.running {
                    changes.push(Change::VmState(VmState::Crashed));
                }
                (changes, Ending::Failed(reason))
            }
            Outcome::Yielded => {
                let reason = failure(outcome);
                let changes = vec![self.changed(SnapshotChange::Unavailable(reason.clone()))];
                (changes, Ending::Failed(reason))
            }
        }
    }

    fn changed(&self, to: SnapshotChange) -> Change {
        Change::SnapshotChanged(self.snapshot, to)
    }
}

fn memory_possible(timeline: &Timeline, capabilities: &Capabilities) -> Result<(), Refusal> {
    let vm = &timeline.vm;
    if vm.state != VmState::Running {
        return Err(Refusal::new(Code::MemoryNeedsRunningVm)
            .detail(format!("{} is {}", vm.name, vm.state.as_str()))
            .hint("start it, or take a snapshot of its disks only"));
    }
    match &capabilities.background_snapshots {
        Support::Yes => Ok(()),
        Support::No(why) => Err(Refusal::new(Code::HostUnsuitable)
            .detail(why.clone())
            .hint("take a snapshot of the disks only")),
    }
}

/// The new layers, if the disks are written to them.
fn switched(timeline: &Timeline, take: &TakeSnapshot, facts: &Facts) -> Vec<Change> {
    if !facts.switched {
        return Vec::new();
    }
    let mut changes = Vec::new();
    for freeze in &take.disks {
        let parent = timeline.active.get(&freeze.disk).copied();
        changes.push(Change::LayerAdded(Layer {
            id: freeze.overlay,
            disk: freeze.disk,
            parent,
            format: Format::Qcow2,
            rank: 0,
            size_bytes: 0,
        }));
        changes.push(Change::DiskActive { disk: freeze.disk, layer: freeze.overlay });
    }
    changes.extend(sizes(facts));
    changes
}
