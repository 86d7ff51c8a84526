//! Another machine made of the disks of this one, as they are or as a snapshot holds them (C18).
//!
//! A full clone has copies. A linked clone has the very layers, which from then on nobody changes,
//! and writes to new ones above: what it needs outlives the snapshot and the machine it came from.

use super::create_snapshot::{not_taken, switched, take};
use super::revert::ready;
use super::{Conclusion, Ending, Next, failure, with};
use crate::change::Change;
use crate::config::Role;
use crate::effect::{self, CloneDisk, Effect, Outcome};
use crate::finding::{refuse_doubtful, refuse_doubtful_now};
use crate::id::{DiskId, LayerId, SnapshotId, VmId};
use crate::layer::{Format, Layer, LayerFile};
use crate::reclaim::sizes;
use crate::refusal::{Code, Refusal};
use crate::snapshot::Kind;
use crate::timeline::Timeline;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What to clone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CloneVm {
    /// The new machine.
    pub clone: VmId,
    /// The disks as this snapshot holds them; as they are now if none is given.
    pub from: Option<SnapshotId>,
    /// Whether the clone shares what is there, instead of copying it.
    pub linked: bool,
    /// Its disks.
    pub disks: Vec<ClonedDisk>,
}

/// A disk of a clone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClonedDisk {
    /// The disk it is made of.
    pub of: DiskId,
    /// Its id.
    pub disk: DiskId,
    /// The layer it is written to.
    pub layer: LayerId,
    /// What it is for.
    pub role: Role,
    /// Its size as the guest sees it.
    pub size_bytes: u64,
}

impl CloneVm {
    pub(super) fn accept(&self, timeline: &Timeline) -> Result<Vec<Change>, Refusal> {
        let config = match self.from {
            Some(snapshot) => {
                let snapshot = ready(timeline, snapshot)?;
                refuse_doubtful(timeline, snapshot, false)?;
                &snapshot.config
            }
            None => {
                refuse_doubtful_now(timeline, true)?;
                &timeline.vm.config
            }
        };
        let wanted = self.disks.iter().map(|disk| (disk.of, disk.size_bytes));
        if wanted.eq(config.disks.iter().map(|disk| (disk.id, disk.size_bytes))) {
            return Ok(Vec::new());
        }
        Err(Refusal::new(Code::UnknownDisk)
            .detail(format!("the disks of {} have changed meanwhile", timeline.vm.name))
            .hint("clone it again"))
    }

    /// From a snapshot at once; from NOW after the disks were frozen.
    pub(super) fn plan(&self, timeline: &Timeline, fresh: &mut impl FnMut() -> Uuid) -> Effect {
        match self.from {
            Some(id) => {
                let snapshot = &timeline.snapshots[&id];
                self.copy(timeline, |disk| snapshot.layers[&disk])
            }
            None => {
                let nameless = SnapshotId(fresh());
                Effect::TakeSnapshot(take(timeline, nameless, Kind::Disk, fresh))
            }
        }
    }

    fn copy(&self, timeline: &Timeline, top: impl Fn(DiskId) -> LayerId) -> Effect {
        let disks = self.disks.iter().map(|disk| CloneDisk {
            chain: timeline.chain(top(disk.of)),
            layer: LayerFile { id: disk.layer, format: Format::Qcow2 },
        });
        Effect::CloneDisks(effect::CloneDisks {
            from: timeline.vm.id,
            to: self.clone,
            disks: disks.collect(),
            linked: self.linked,
            kernel: timeline.vm.config.kernel.clone(),
        })
    }

    pub(super) fn conclude(
        &self,
        timeline: &Timeline,
        effect: &Effect,
        outcome: &Outcome,
        cancelled: bool,
    ) -> Conclusion {
        match (effect, outcome) {
            (Effect::TakeSnapshot(take), Outcome::Done(facts)) if !cancelled => {
                let changes = switched(timeline, take, facts);
                let frozen = |disk| {
                    let freeze = take.disks.iter().find(|freeze| freeze.disk == disk);
                    freeze.map_or_else(|| timeline.active[&disk], |freeze| freeze.active.id)
                };
                let effect = self.copy(&with(timeline, &changes), frozen);
                Conclusion::then(changes, effect)
            }
            (Effect::CloneDisks(copy), Outcome::Done(facts)) if !cancelled => {
                let mut there = self.layers(timeline, copy);
                there.extend(sizes(facts));
                there.push(Change::VmOperation(None));
                Conclusion {
                    elsewhere: Some((self.clone, there)),
                    ..Conclusion::succeeded(Vec::new())
                }
            }
            (_, outcome) => self.fail(timeline, effect, outcome, cancelled),
        }
    }

    /// What the clone is made of.
    fn layers(&self, timeline: &Timeline, copy: &effect::CloneDisks) -> Vec<Change> {
        let mut changes = Vec::new();
        for (disk, copied) in self.disks.iter().zip(&copy.disks) {
            let shared = if self.linked { copied.chain.as_slice() } else { &[] };
            for file in shared.iter().rev() {
                let layer = timeline.layers[&file.id].clone();
                changes.push(Change::LayerAdded(Layer { disk: disk.disk, shared: true, ..layer }));
            }
            let parent = shared.first().map(|file| file.id);
            changes.push(Change::LayerAdded(Layer::fresh(copied.layer, disk.disk, parent)));
            changes.push(Change::DiskActive { disk: disk.disk, layer: copied.layer.id });
        }
        changes
    }

    fn fail(
        &self,
        timeline: &Timeline,
        effect: &Effect,
        outcome: &Outcome,
        cancelled: bool,
    ) -> Conclusion {
        let changes = match (effect, outcome) {
            (Effect::TakeSnapshot(take), Outcome::Failed(_, facts)) => {
                not_taken(timeline, take, facts)
            }
            (Effect::TakeSnapshot(take), Outcome::Done(facts)) => switched(timeline, take, facts),
            _ => Vec::new(),
        };
        match (effect, outcome) {
            // A copy that came through all the same is removed again.
            (Effect::CloneDisks(copy), Outcome::Done(_)) => {
                let elsewhere = Some((self.clone, self.layers(timeline, copy)));
                let next = Next::Then(Box::new(Effect::DeleteVm { vm: self.clone }), None);
                Conclusion { changes, elsewhere, next }
            }
            // What cannot be removed stays in sight.
            (Effect::DeleteVm { .. }, Outcome::Failed(..) | Outcome::Yielded) => {
                let elsewhere = Some((self.clone, vec![Change::VmOperation(None)]));
                let next = Next::End(Ending::Failed(failure(outcome)));
                Conclusion { changes, elsewhere, next }
            }
            (effect, _) => {
                let over = cancelled || matches!(effect, Effect::DeleteVm { .. });
                let why = || Ending::Failed(failure(outcome));
                let ending = if over { Ending::Cancelled } else { why() };
                let elsewhere = Some((self.clone, vec![Change::VmGone]));
                Conclusion { changes, elsewhere, next: Next::End(ending) }
            }
        }
    }
}
