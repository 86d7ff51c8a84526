//! Going back to a snapshot (A9–A11, E17, E18, E27, R3, R4, R6, R7).
//!
//! With `safety` it is three effects: a snapshot of NOW is taken, the machine goes back, and the
//! safety snapshot of an earlier revert goes; or this one's, if the machine did not go back.

use super::accept::refuse_user;
use super::create_snapshot::{creating, memory_possible, not_taken, refuse_memory, take, taken};
use super::delete_snapshots::{self, deleted};
use super::{Asker, Conclusion, Conditions, Ending, Next, Scene, failure, topped, with};
use crate::capability::Capabilities;
use crate::change::{Change, SnapshotChange};
use crate::effect::{After, Effect, Launch, Outcome, Revert};
use crate::finding::{refuse_doubtful, refuse_doubtful_now};
use crate::id::SnapshotId;
use crate::layer::Layer;
use crate::moment::Moment;
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
    /// A snapshot of NOW to take first (R4).
    #[serde(default)]
    pub safety: Option<SnapshotId>,
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
    pub fn new(snapshot: &Snapshot, power: Power, safety: Option<SnapshotId>) -> Self {
        let after = match (power, snapshot.kind) {
            (Power::AsTaken | Power::Start, Kind::DiskAndMemory) => After::Resumed,
            (Power::AsTaken, Kind::Disk) | (Power::Stopped, _) => After::Stopped,
            (Power::Start, Kind::Disk) => After::Booted,
        };
        Self { snapshot: snapshot.id, after, safety }
    }

    pub(super) fn accept(
        &self,
        timeline: &Timeline,
        asker: &Asker,
        conditions: &Conditions<'_>,
    ) -> Result<Vec<Change>, Refusal> {
        let snapshot = ready(timeline, self.snapshot)?;
        refuse_user(timeline, asker)?;
        refuse_doubtful(timeline, snapshot, self.after == After::Resumed)?;
        if self.safety.is_some() {
            refuse_doubtful_now(timeline, true)?;
        }
        if self.after == After::Resumed {
            memory_loads(snapshot, conditions.capabilities)?;
        }
        let mut changes = vec![self.state(SnapshotState::Reverting)];
        if let Some(safety) = self.safety {
            let safety = Snapshot {
                name: safety_name(timeline, conditions.at),
                description: format!("before the revert to {:?}", snapshot.name),
                safety: true,
                ..creating(
                    timeline,
                    safety,
                    safety_kind(timeline, asker, conditions.capabilities),
                    None,
                    asker,
                    conditions.at,
                )
            };
            changes.push(Change::SnapshotAdded(Box::new(safety)));
        }
        Ok(changes)
    }

    pub(super) fn plan(&self, timeline: &Timeline, fresh: &mut impl FnMut() -> Uuid) -> Effect {
        match self.safety {
            Some(id) => {
                Effect::TakeSnapshot(take(timeline, id, timeline.snapshots[&id].kind, fresh))
            }
            None => self.go_back(timeline, fresh),
        }
    }

    fn go_back(&self, timeline: &Timeline, fresh: &mut impl FnMut() -> Uuid) -> Effect {
        let snapshot = &timeline.snapshots[&self.snapshot];
        let disks = topped(timeline, snapshot, fresh);
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

    pub(super) fn conclude<F: FnMut() -> Uuid>(
        &self,
        scene: &mut Scene<'_, F>,
        effect: &Effect,
        outcome: &Outcome,
        failed: Option<&Refusal>,
    ) -> Conclusion {
        let timeline = scene.timeline;
        match (effect, outcome) {
            (Effect::TakeSnapshot(take), Outcome::Done(facts)) => {
                let changes = taken(timeline, take, facts, scene.at);
                let effect = self.go_back(&with(timeline, &changes), scene.fresh);
                Conclusion::then(changes, effect)
            }
            (Effect::TakeSnapshot(take), Outcome::Failed(_, facts)) => {
                let mut changes = not_taken(timeline, take, facts);
                changes.extend(self.cancel());
                Conclusion::failed(changes, outcome)
            }
            (Effect::Revert(plan), Outcome::Done(_)) => {
                let changes = self.gone_back(plan, outcome);
                self.clean_up(timeline, changes, None)
            }
            (Effect::Revert(plan), Outcome::Failed(_, facts)) => {
                let mut changes = vec![self.state(SnapshotState::Ready)];
                if plan.running && !facts.running {
                    changes.push(Change::VmState(VmState::Crashed));
                } else if !plan.running {
                    changes.push(Change::VmState(timeline.vm.state));
                }
                self.clean_up(timeline, changes, Some(failure(outcome)))
            }
            (Effect::RemoveMemory { .. }, _) => {
                let changes = delete_snapshots::leave(timeline, outcome);
                let ending = failed.map_or(Ending::Succeeded, |why| Ending::Failed(why.clone()));
                Conclusion::end(changes, ending)
            }
            (_, _) => Conclusion::failed(vec![self.state(SnapshotState::Ready)], outcome),
        }
    }

    /// What is recorded once the machine has gone back.
    fn gone_back(&self, plan: &Revert, outcome: &Outcome) -> Vec<Change> {
        let mut changes = vec![self.state(SnapshotState::Ready)];
        for disk in &plan.launch.disks {
            let beneath = disk.chain.get(1).map(|file| file.id);
            let layer = Layer::fresh(disk.chain[0], disk.disk, beneath);
            changes.push(Change::DiskActive { disk: disk.disk, layer: layer.id });
            changes.push(Change::LayerAdded(layer));
        }
        changes.push(Change::VmConfig(plan.launch.config.clone()));
        changes.push(Change::VmGeneration(plan.launch.generation));
        changes.push(Change::VmCurrent(Some(self.snapshot)));
        changes.push(Change::VmState(match self.after {
            After::Resumed | After::Booted => VmState::Running,
            After::Stopped => VmState::Stopped,
        }));
        if let Outcome::Done(facts) = outcome {
            changes.extend(sizes(facts));
        }
        changes
    }

    /// One safety snapshot is left: this revert's if it succeeded, else the one of before (R4).
    /// One that was the target itself stays as well.
    fn clean_up(
        &self,
        timeline: &Timeline,
        mut changes: Vec<Change>,
        failed: Option<Refusal>,
    ) -> Conclusion {
        let Some(new) = self.safety else {
            let ending = failed.map_or(Ending::Succeeded, Ending::Failed);
            return Conclusion::end(changes, ending);
        };
        let is_old = |s: &&Snapshot| s.safety && s.id != new && s.id != self.snapshot;
        let gone: Vec<SnapshotId> = match &failed {
            Some(_) => vec![new],
            None => {
                let old = timeline.snapshots.values().filter(is_old);
                old.filter(|snapshot| !snapshot.protected).map(|snapshot| snapshot.id).collect()
            }
        };
        if gone.is_empty() {
            return Conclusion::succeeded(changes);
        }
        changes.extend(gone.into_iter().map(deleted));
        let effect = delete_snapshots::plan(&with(timeline, &changes));
        Conclusion { changes, elsewhere: None, next: Next::Then(Box::new(effect), failed) }
    }

    /// What is recorded when it does not happen.
    pub(super) fn cancel(&self) -> Vec<Change> {
        let mut changes = vec![self.state(SnapshotState::Ready)];
        changes.extend(self.safety.map(Change::SnapshotGone));
        changes
    }

    fn state(&self, state: SnapshotState) -> Change {
        Change::SnapshotChanged(self.snapshot, SnapshotChange::State(state))
    }
}

/// The snapshot, if it is ready.
pub(super) fn ready(timeline: &Timeline, id: SnapshotId) -> Result<&Snapshot, Refusal> {
    let unknown = || Refusal::new(Code::UnknownSnapshot).detail(id.to_string());
    let snapshot = timeline.snapshots.get(&id).ok_or_else(unknown)?;
    if snapshot.state != SnapshotState::Ready {
        return Err(Refusal::new(Code::SnapshotUnavailable)
            .detail(format!("{:?} is {}", snapshot.name, snapshot.state.as_str()))
            .hint("an unavailable snapshot can only be deleted"));
    }
    Ok(snapshot)
}

pub(super) fn memory_loads(
    snapshot: &Snapshot,
    capabilities: &Capabilities,
) -> Result<(), Refusal> {
    match capabilities.refuses_memory_of(&snapshot.config.platform) {
        None => Ok(()),
        Some(why) => Err(Refusal::new(Code::MemoryNotLoadable)
            .detail(why)
            .hint("--stopped goes back to the disks of that instant without the memory")),
    }
}

/// With memory when the machine runs and its memory may be saved (R4).
fn safety_kind(timeline: &Timeline, asker: &Asker, capabilities: &Capabilities) -> Kind {
    let possible = refuse_memory(timeline, asker).and(memory_possible(timeline, capabilities));
    if possible.is_ok() { Kind::DiskAndMemory } else { Kind::Disk }
}

fn safety_name(timeline: &Timeline, at: Moment) -> String {
    let taken = |name: &str| timeline.named(name).is_some();
    let name = format!("safety {}", at.as_default_name());
    if !taken(&name) {
        return name;
    }
    let numbered = (2_u32..).map(|n| format!("{name} ({n})")).find(|name| !taken(name));
    numbered.unwrap_or(name)
}
