//! Deleting snapshots (A13, A19, A20, C36, E15, E28, E35, R6, R8).
//!
//! They leave the tree at once; the space comes back in the background.

use super::{Ending, failure};
use crate::change::{Change, SnapshotChange};
use crate::effect::{Effect, Outcome};
use crate::id::SnapshotId;
use crate::reclaim::{Space, forecast};
use crate::refusal::{Code, Refusal};
use crate::snapshot::SnapshotState;
use crate::timeline::Timeline;
use crate::tree::{Removal, Scope};
use serde::{Deserialize, Serialize};

/// Which snapshots to delete.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeleteSnapshots {
    /// Which.
    pub scope: Scope,
}

/// What deleting would do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forecast {
    /// The snapshots that go.
    pub gone: Vec<SnapshotId>,
    /// What becomes of the others.
    pub removal: Removal,
    /// What becomes of the space.
    pub space: Space,
}

impl DeleteSnapshots {
    /// What it would do, without doing it.
    ///
    /// # Errors
    /// A refusal if the snapshot is not there.
    pub fn forecast(&self, timeline: &Timeline) -> Result<Forecast, Refusal> {
        match self.scope {
            Scope::One(id) | Scope::Subtree(id) | Scope::Children(id) => {
                if !timeline.snapshots.contains_key(&id) {
                    return Err(Refusal::new(Code::UnknownSnapshot).detail(id.to_string()));
                }
            }
            Scope::All => {}
        }
        let tree = timeline.tree();
        let selected = tree.select(self.scope);
        let removal = tree.without(&selected);
        let gone: Vec<SnapshotId> = selected.into_iter().collect();
        let space = forecast(timeline, &gone);
        Ok(Forecast { gone, removal, space })
    }

    pub(super) fn accept(&self, timeline: &Timeline) -> Result<Vec<Change>, Refusal> {
        let gone = self.forecast(timeline)?.gone;
        let deleting = SnapshotChange::State(SnapshotState::Deleting);
        Ok(gone.into_iter().map(|id| Change::SnapshotChanged(id, deleting.clone())).collect())
    }

    pub(super) fn plan(&self, timeline: &Timeline) -> Effect {
        let snapshots = deleting(timeline).collect();
        Effect::RemoveMemory { vm: timeline.vm.id, snapshots }
    }

    pub(super) fn conclude(&self, timeline: &Timeline, outcome: &Outcome) -> (Vec<Change>, Ending) {
        match outcome {
            Outcome::Done(_) => {
                let gone = deleting(timeline).collect();
                let removal = timeline.tree().without(&gone);
                let mut changes = Vec::new();
                for (id, parent) in removal.moved {
                    changes.push(Change::SnapshotChanged(id, SnapshotChange::Parent(parent)));
                }
                changes.push(Change::VmCurrent(removal.current));
                changes.extend(gone.into_iter().map(Change::SnapshotGone));
                (changes, Ending::Succeeded)
            }
            Outcome::Failed(..) | Outcome::Yielded => {
                let reason = failure(outcome);
                let unavailable = SnapshotChange::Unavailable(reason.clone());
                let changes = deleting(timeline)
                    .map(|id| Change::SnapshotChanged(id, unavailable.clone()))
                    .collect();
                (changes, Ending::Failed(reason))
            }
        }
    }

    /// Undoes what was recorded when it was accepted.
    pub(super) fn keep(&self, timeline: &Timeline) -> Vec<Change> {
        let state = |id: &SnapshotId| match timeline.snapshots[id].reason {
            Some(_) => SnapshotState::Unavailable,
            None => SnapshotState::Ready,
        };
        deleting(timeline)
            .map(|id| Change::SnapshotChanged(id, SnapshotChange::State(state(&id))))
            .collect()
    }
}

/// The snapshots that the running deletion is about: no other can be in that state.
fn deleting(timeline: &Timeline) -> impl Iterator<Item = SnapshotId> + '_ {
    let all = timeline.snapshots.values();
    all.filter(|snapshot| snapshot.state == SnapshotState::Deleting).map(|snapshot| snapshot.id)
}
