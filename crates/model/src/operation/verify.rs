//! Proving that a snapshot is whole: its memory loads, its disks can be read.

use super::revert::{memory_loads, ready};
use super::{Conclusion, topped};
use crate::capability::Capabilities;
use crate::change::{Change, SnapshotChange};
use crate::effect::{Effect, Launch, Outcome, Verify};
use crate::finding::refuse_doubtful;
use crate::id::SnapshotId;
use crate::moment::Moment;
use crate::refusal::Refusal;
use crate::snapshot::Kind;
use crate::timeline::Timeline;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Which snapshot to verify.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifySnapshot {
    /// Which.
    pub snapshot: SnapshotId,
}

impl VerifySnapshot {
    pub(super) fn accept(
        &self,
        timeline: &Timeline,
        capabilities: &Capabilities,
    ) -> Result<Vec<Change>, Refusal> {
        let snapshot = ready(timeline, self.snapshot)?;
        refuse_doubtful(timeline, snapshot, false)?;
        if snapshot.kind == Kind::DiskAndMemory {
            memory_loads(snapshot, capabilities)?;
        }
        Ok(Vec::new())
    }

    /// A machine of its own, without a way out, on layers that are thrown away.
    pub(super) fn plan(&self, timeline: &Timeline, fresh: &mut impl FnMut() -> Uuid) -> Effect {
        let snapshot = &timeline.snapshots[&self.snapshot];
        let disks = topped(timeline, snapshot, fresh);
        Effect::VerifySnapshot(Box::new(Verify {
            snapshot: self.snapshot,
            memory: snapshot.kind == Kind::DiskAndMemory,
            launch: Launch {
                vm: timeline.vm.id,
                name: format!("{}-verify", timeline.vm.name),
                generation: fresh(),
                config: snapshot.config.clone(),
                disks,
            },
        }))
    }

    pub(super) fn conclude(&self, outcome: &Outcome, at: Moment) -> Conclusion {
        match outcome {
            Outcome::Done(_) => {
                let verified = SnapshotChange::Verified(at);
                Conclusion::succeeded(vec![Change::SnapshotChanged(self.snapshot, verified)])
            }
            Outcome::Failed(..) | Outcome::Yielded => Conclusion::failed(Vec::new(), outcome),
        }
    }
}
