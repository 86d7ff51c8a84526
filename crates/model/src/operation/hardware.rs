//! Other hardware for a machine that has snapshots (C17, E9, E37, R5).

use super::accept::refuse_busy;
use super::delete_snapshots::refuse_protected;
use super::{Conclusion, power};
use crate::change::{Change, SnapshotChange};
use crate::config::{Config, Nic};
use crate::effect::{Effect, Outcome};
use crate::id::SnapshotId;
use crate::refusal::{Code, Refusal};
use crate::snapshot::Kind;
use crate::timeline::Timeline;
use serde::{Deserialize, Serialize};

/// The hardware that a machine shall have; what is not said stays as it is by then.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetVm {
    /// So many processors.
    pub vcpus: Option<u32>,
    /// So much memory.
    pub memory_bytes: Option<u64>,
    /// These network cards.
    pub nics: Option<Vec<Nic>>,
    /// Whether snapshots may lose their memory for it.
    pub discard_memory: bool,
}

impl SetVm {
    /// Looks whether records alone change: then these changes are all there is to do. If there is
    /// memory to be removed, an operation does it.
    ///
    /// # Errors
    /// A refusal, with the snapshots in the way.
    pub fn at_once(&self, timeline: &Timeline) -> Result<Option<Vec<Change>>, Refusal> {
        refuse_busy(timeline)?;
        let loses = self.refuse(timeline)?;
        Ok(loses.is_empty().then(|| vec![Change::VmConfig(self.config(timeline))]))
    }

    /// The machine's hardware as it will be.
    pub fn config(&self, timeline: &Timeline) -> Config {
        let mut config = timeline.vm.config.clone();
        config.vcpus = self.vcpus.unwrap_or(config.vcpus);
        config.memory_bytes = self.memory_bytes.unwrap_or(config.memory_bytes);
        if let Some(nics) = &self.nics {
            config.nics.clone_from(nics);
        }
        config
    }

    pub(super) fn accept(&self, timeline: &Timeline) -> Result<Vec<Change>, Refusal> {
        self.refuse(timeline).map(|_| Vec::new())
    }

    /// The snapshots that lose their memory.
    ///
    /// # Errors
    /// A refusal, with the snapshots in the way.
    pub fn refuse(&self, timeline: &Timeline) -> Result<Vec<SnapshotId>, Refusal> {
        power::refuse_live(timeline)?;
        let memory = with_memory(timeline);
        if self.discard_memory {
            refuse_protected(timeline, memory.iter())?;
            return Ok(memory);
        }
        if memory.is_empty() {
            return Ok(memory);
        }
        let names = memory.iter().map(|id| format!("{:?}", timeline.snapshots[id].name));
        Err(Refusal::new(Code::VmHasMemory)
            .detail(names.collect::<Vec<_>>().join(", "))
            .hint("--discard-memory turns these into snapshots of the disks only")
            .blocked_by(memory.iter().map(|id| id.0)))
    }

    pub(super) fn plan(&self, timeline: &Timeline) -> Effect {
        Effect::RemoveMemory { vm: timeline.vm.id, snapshots: with_memory(timeline) }
    }

    pub(super) fn conclude(&self, timeline: &Timeline, outcome: &Outcome) -> Conclusion {
        match outcome {
            Outcome::Done(_) => {
                let gone = |id| Change::SnapshotChanged(id, SnapshotChange::MemoryGone);
                let mut changes: Vec<Change> =
                    with_memory(timeline).into_iter().map(gone).collect();
                changes.push(Change::VmConfig(self.config(timeline)));
                Conclusion::succeeded(changes)
            }
            Outcome::Failed(..) | Outcome::Yielded => Conclusion::failed(Vec::new(), outcome),
        }
    }
}

fn with_memory(timeline: &Timeline) -> Vec<SnapshotId> {
    let all = timeline.snapshots.values();
    all.filter(|s| s.kind == Kind::DiskAndMemory && s.reason.is_none()).map(|s| s.id).collect()
}
