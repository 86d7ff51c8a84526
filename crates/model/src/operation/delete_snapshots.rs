//! Deleting snapshots (A13, A19, A20, C36, E15, E28, E35, R6, R8).
//!
//! They leave the tree at once; the space comes back in the background.

use super::accept::refuse_user;
use super::{Asker, Conclusion, failure};
use crate::change::{Change, SnapshotChange};
use crate::effect::{Effect, Outcome};
use crate::id::SnapshotId;
use crate::reclaim::{Space, forecast};
use crate::refusal::{Code, Refusal};
use crate::snapshot::{Snapshot, SnapshotState};
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

    pub(super) fn accept(
        &self,
        timeline: &Timeline,
        asker: &Asker,
    ) -> Result<Vec<Change>, Refusal> {
        let gone = self.forecast(timeline)?.gone;
        refuse_user(timeline, asker)?;
        refuse_protected(timeline, gone.iter())?;
        Ok(gone.into_iter().map(deleted).collect())
    }
}

/// Refuses to delete what is protected.
pub(super) fn refuse_protected<'a>(
    timeline: &Timeline,
    gone: impl Iterator<Item = &'a SnapshotId>,
) -> Result<(), Refusal> {
    let gone = gone.filter_map(|id| timeline.snapshots.get(id));
    let protected: Vec<&Snapshot> = gone.filter(|snapshot| snapshot.protected).collect();
    if protected.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = protected.iter().map(|s| format!("{:?}", s.name)).collect();
    Err(Refusal::new(Code::SnapshotProtected)
        .detail(names.join(", "))
        .hint("take the protection away first: tintype snapshot edit VM SNAPSHOT --unprotect")
        .blocked_by(protected.iter().map(|snapshot| snapshot.id.0)))
}

/// The change that begins to delete a snapshot.
pub(super) fn deleted(id: SnapshotId) -> Change {
    Change::SnapshotChanged(id, SnapshotChange::State(SnapshotState::Deleting))
}

/// The effect that removes what the snapshots that are being deleted have beside their layers.
pub(super) fn plan(timeline: &Timeline) -> Effect {
    Effect::RemoveMemory { vm: timeline.vm.id, snapshots: deleting(timeline).collect() }
}

pub(super) fn conclude(timeline: &Timeline, outcome: &Outcome) -> Conclusion {
    let changes = leave(timeline, outcome);
    match outcome {
        Outcome::Done(_) => Conclusion::succeeded(changes),
        Outcome::Failed(..) | Outcome::Yielded => Conclusion::failed(changes, outcome),
    }
}

/// The snapshots that are being deleted leave the tree; those whose memory could not be removed
/// become unavailable.
pub(super) fn leave(timeline: &Timeline, outcome: &Outcome) -> Vec<Change> {
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
            changes
        }
        Outcome::Failed(..) | Outcome::Yielded => {
            let unavailable = SnapshotChange::Unavailable(failure(outcome));
            let changed = |id| Change::SnapshotChanged(id, unavailable.clone());
            deleting(timeline).map(changed).collect()
        }
    }
}

/// Undoes what was recorded when a deletion was accepted.
pub(super) fn keep(timeline: &Timeline) -> Vec<Change> {
    let state = |id: &SnapshotId| match timeline.snapshots[id].reason {
        Some(_) => SnapshotState::Unavailable,
        None => SnapshotState::Ready,
    };
    deleting(timeline)
        .map(|id| Change::SnapshotChanged(id, SnapshotChange::State(state(&id))))
        .collect()
}

/// The snapshots that the running deletion is about: no other can be in that state.
fn deleting(timeline: &Timeline) -> impl Iterator<Item = SnapshotId> + '_ {
    let all = timeline.snapshots.values();
    all.filter(|snapshot| snapshot.state == SnapshotState::Deleting).map(|snapshot| snapshot.id)
}
