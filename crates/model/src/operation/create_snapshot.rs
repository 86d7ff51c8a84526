//! Taking a snapshot (E5–E7, E26, C2, C12, C22, C27, R2, R13–R15).

use super::accept::refuse_user;
use super::{Asker, Conclusion, Conditions, Ending, delete_snapshots, failure, with};
use crate::access::Role;
use crate::capability::{Capabilities, Support};
use crate::change::{Change, SnapshotChange};
use crate::effect::{Effect, Facts, Freeze, Outcome, TakeSnapshot};
use crate::finding::refuse_doubtful_now;
use crate::id::{LayerId, SnapshotId};
use crate::layer::Layer;
use crate::moment::Moment;
use crate::name::{check_description, check_snapshot_name, default_snapshot_name};
use crate::pause;
use crate::quota::reserved_bytes;
use crate::reclaim::sizes;
use crate::refusal::{Code, Refusal};
use crate::settings::Limit;
use crate::snapshot::{Consistency, Kind, Quiesce, Road, Snapshot, SnapshotState};
use crate::timeline::Timeline;
use crate::vm::VmState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// How many of the oldest snapshots a refusal at the limit names.
const OLDEST: usize = 3;

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
    /// Whether the guest is asked to hold still.
    #[serde(default)]
    pub quiesce: Quiesce,
    /// How its memory is saved; if nobody says, the better way.
    #[serde(default)]
    pub road: Option<Road>,
    /// When it shall go by itself.
    #[serde(default)]
    pub expires_at: Option<Moment>,
    /// Whether it shall not be deleted.
    #[serde(default)]
    pub protected: bool,
}

impl CreateSnapshot {
    /// A snapshot without a name, about which nothing else is said.
    pub fn new(snapshot: SnapshotId, kind: Kind) -> Self {
        Self {
            snapshot,
            name: None,
            description: String::new(),
            kind,
            quiesce: Quiesce::No,
            road: None,
            expires_at: None,
            protected: false,
        }
    }

    pub(super) fn accept(
        &self,
        timeline: &Timeline,
        asker: &Asker,
        conditions: &Conditions<'_>,
    ) -> Result<Vec<Change>, Refusal> {
        let vm = &timeline.vm;
        check_description(&self.description)?;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => default_snapshot_name(conditions.at, |name| timeline.named(name).is_some()),
        };
        check_snapshot_name(&name)?;
        check_expiry(self.expires_at, conditions.at)?;
        if let Some(other) = timeline.named(&name) {
            return Err(Refusal::new(Code::NameTaken)
                .detail(format!("{} has a snapshot named {name:?}", vm.name))
                .hint("choose another name, or none for date and time")
                .blocked_by([other.id.0]));
        }
        if !conditions.snapshots_enabled {
            return Err(Refusal::new(Code::SnapshotsDisabled)
                .detail("an administrator has switched them off for this host or its kind")
                .hint("what exists can still be reverted to, edited and deleted"));
        }
        refuse_user(timeline, asker)?;
        refuse_doubtful_now(timeline, true)?;
        if self.kind == Kind::DiskAndMemory {
            refuse_memory(timeline, asker)?;
            memory_possible(timeline, conditions.capabilities)?;
        }
        if self.quiesce == Quiesce::Required {
            refuse_unquiesced(self.kind, conditions.capabilities)?;
        }
        if !asker.force {
            refuse_more(timeline, conditions.capabilities)?;
            let bytes = reserved_bytes(self.kind, vm.config.memory_bytes);
            conditions.quota.check(conditions.usage, bytes)?;
        }
        let snapshot = Snapshot {
            name,
            description: self.description.clone(),
            expires_at: self.expires_at,
            protected: self.protected,
            ..creating(timeline, self.snapshot, self.kind, self.road, asker, conditions.at)
        };
        Ok(vec![Change::SnapshotAdded(Box::new(snapshot))])
    }

    pub(super) fn plan(&self, timeline: &Timeline, fresh: &mut impl FnMut() -> Uuid) -> Effect {
        let take = take(timeline, self.snapshot, self.kind, fresh);
        // Memory holds what is not written, and filesystems that are frozen stay frozen in it.
        let quiesce = if take.running && !take.memory { self.quiesce } else { Quiesce::No };
        // Who wants this road gets no other.
        let turns_beyond_ms = take.turns_beyond_ms.filter(|_| self.road.is_none());
        Effect::TakeSnapshot(TakeSnapshot { quiesce, turns_beyond_ms, ..take })
    }

    /// A snapshot that was cancelled is gone, and its memory with it, even when it was taken.
    pub(super) fn conclude(
        &self,
        timeline: &Timeline,
        take: &TakeSnapshot,
        outcome: &Outcome,
        cancelled: bool,
        at: Moment,
    ) -> Conclusion {
        match outcome {
            Outcome::Done(facts) if cancelled => {
                let mut changes = switched(timeline, take, facts);
                let deleting = SnapshotChange::State(SnapshotState::Deleting);
                changes.push(Change::SnapshotChanged(self.snapshot, deleting));
                let effect = delete_snapshots::plan(&with(timeline, &changes));
                Conclusion::then(changes, effect)
            }
            Outcome::Done(facts) => Conclusion::succeeded(taken(timeline, take, facts, at)),
            Outcome::Failed(_, facts) => {
                let mut changes = not_taken(timeline, take, facts);
                if cancelled {
                    changes.push(Change::SnapshotGone(self.snapshot));
                    return Conclusion::end(changes, Ending::Cancelled);
                }
                changes.push(self.unavailable(failure(outcome)));
                Conclusion::failed(changes, outcome)
            }
            Outcome::Yielded => {
                Conclusion::failed(vec![self.unavailable(failure(outcome))], outcome)
            }
        }
    }

    fn unavailable(&self, reason: Refusal) -> Change {
        Change::SnapshotChanged(self.snapshot, SnapshotChange::Unavailable(reason))
    }
}

/// Refuses an expiry in the past.
///
/// # Errors
/// The refusal.
pub fn check_expiry(expires_at: Option<Moment>, at: Moment) -> Result<(), Refusal> {
    if expires_at.is_none_or(|expires_at| expires_at > at) {
        return Ok(());
    }
    Err(Refusal::new(Code::InvalidRequest)
        .detail("the snapshot would expire in the past")
        .hint("give a moment that is still to come"))
}

/// A snapshot that is about to be taken.
pub(super) fn creating(
    timeline: &Timeline,
    id: SnapshotId,
    kind: Kind,
    road: Option<Road>,
    asker: &Asker,
    at: Moment,
) -> Snapshot {
    Snapshot {
        id,
        vm: timeline.vm.id,
        name: String::new(),
        description: String::new(),
        kind,
        consistency: Consistency::Crash,
        state: SnapshotState::Creating,
        reason: None,
        parent: timeline.vm.current,
        created_at: at,
        ready_at: None,
        saving: (kind == Kind::DiskAndMemory).then(|| pause::choose(timeline, road)),
        pause_ms: None,
        memory_bytes: 0,
        config: timeline.vm.config.clone(),
        layers: BTreeMap::new(),
        created_by: asker.name.clone(),
        expires_at: None,
        protected: false,
        safety: false,
        verified_at: None,
    }
}

/// The effect that takes a snapshot.
pub(super) fn take(
    timeline: &Timeline,
    snapshot: SnapshotId,
    kind: Kind,
    fresh: &mut impl FnMut() -> Uuid,
) -> TakeSnapshot {
    let vm = &timeline.vm;
    let memory = kind == Kind::DiskAndMemory;
    let saving = timeline.snapshots.get(&snapshot).and_then(|snapshot| snapshot.saving);
    let disks = vm.config.disks.iter().map(|disk| Freeze {
        disk: disk.id,
        role: disk.role,
        active: timeline.layers[&timeline.active[&disk.id]].file(),
        overlay: LayerId(fresh()),
    });
    TakeSnapshot {
        vm: vm.id,
        snapshot,
        running: vm.state.is_live(),
        memory,
        road: saving.map(|saving| saving.road).unwrap_or_default(),
        turns_beyond_ms: Some(pause::predict(timeline, Road::Background)),
        memory_bytes: vm.config.memory_bytes,
        memory_like: memory.then(|| timeline.memory_before(snapshot)).flatten(),
        quiesce: Quiesce::No,
        disks: disks.collect(),
    }
}

/// What is recorded of a snapshot that was taken.
pub(super) fn taken(
    timeline: &Timeline,
    take: &TakeSnapshot,
    facts: &Facts,
    at: Moment,
) -> Vec<Change> {
    let mut changes = switched(timeline, take, facts);
    let ready = SnapshotChange::Ready {
        at,
        pause_ms: facts.pause_ms,
        memory_bytes: facts.memory_bytes,
        consistency: match timeline.vm.state {
            VmState::Stopped => Consistency::Clean,
            _ if facts.quiesced => Consistency::Quiesced,
            _ => Consistency::Crash,
        },
        reason: facts.not_quiesced.clone(),
        layers: take.disks.iter().map(|d| (d.disk, d.active.id)).collect(),
    };
    changes.push(Change::SnapshotChanged(take.snapshot, ready));
    if facts.turned {
        let road = SnapshotChange::Road(Road::Background);
        changes.push(Change::SnapshotChanged(take.snapshot, road));
    }
    changes.push(Change::VmCurrent(Some(take.snapshot)));
    changes
}

/// What is recorded of the machine when a snapshot could not be taken.
pub(super) fn not_taken(timeline: &Timeline, take: &TakeSnapshot, facts: &Facts) -> Vec<Change> {
    let mut changes = switched(timeline, take, facts);
    if take.running && !facts.running {
        changes.push(Change::VmState(VmState::Crashed));
    }
    changes
}

/// The new layers, if the disks are written to them.
pub(super) fn switched(timeline: &Timeline, take: &TakeSnapshot, facts: &Facts) -> Vec<Change> {
    if !facts.switched {
        return Vec::new();
    }
    let mut changes = Vec::new();
    for freeze in &take.disks {
        let parent = timeline.active.get(&freeze.disk).copied();
        let layer = Layer::fresh(freeze.overlay_file(), freeze.disk, parent);
        changes.push(Change::LayerAdded(layer));
        changes.push(Change::DiskActive { disk: freeze.disk, layer: freeze.overlay });
    }
    changes.extend(sizes(facts));
    changes
}

/// Refuses to save a user's memory where users may not (C21, R13).
pub(super) fn refuse_memory(timeline: &Timeline, asker: &Asker) -> Result<(), Refusal> {
    if timeline.vm.settings.memory_allowed || asker.role != Role::User {
        return Ok(());
    }
    Err(Refusal::new(Code::MemoryNotAllowed)
        .detail(format!("{} has memory-allowed off", timeline.vm.name))
        .hint("take a snapshot of the disks only, or ask an operator to switch it on"))
}

pub(super) fn memory_possible(
    timeline: &Timeline,
    capabilities: &Capabilities,
) -> Result<(), Refusal> {
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

/// Refuses to promise what cannot be had: a guest that holds still.
fn refuse_unquiesced(kind: Kind, capabilities: &Capabilities) -> Result<(), Refusal> {
    if kind == Kind::DiskAndMemory {
        return Err(Refusal::new(Code::QuiesceWithMemory)
            .detail("filesystems frozen for it would be frozen again after every revert")
            .hint("take it without memory to have quiesced disks, or without --quiesce=required"));
    }
    match &capabilities.quiesce {
        Support::Yes => Ok(()),
        Support::No(why) => {
            let refusal = Refusal::new(Code::HostUnsuitable).detail(why.clone());
            Err(refusal.hint("take it without --quiesce=required"))
        }
    }
}

/// Refuses one more than the machine may have, and names the oldest (C12, R2).
fn refuse_more(timeline: &Timeline, capabilities: &Capabilities) -> Result<(), Refusal> {
    let limit = timeline.vm.settings.snapshot_limit.stricter(capabilities.snapshot_cap);
    let has = timeline.usage().snapshots;
    if !limit.is_passed_by(has + 1) {
        return Ok(());
    }
    let counted = timeline.snapshots.values().filter(|snapshot| !snapshot.safety);
    let mut oldest: Vec<&Snapshot> = counted.collect();
    oldest.sort_by_key(|snapshot| (snapshot.created_at, snapshot.id));
    oldest.truncate(OLDEST);
    let names: Vec<String> = oldest.iter().map(|s| format!("{:?}", s.name)).collect();
    let most = match limit {
        Limit::Most(most) => most,
        Limit::Unlimited => u64::MAX,
    };
    Err(Refusal::new(Code::SnapshotLimitReached)
        .detail(format!(
            "{} may have {most} snapshots and has {has}; the oldest: {}",
            timeline.vm.name,
            names.join(", ")
        ))
        .hint("delete one, or raise the limit: tintype vm set VM --snapshot-limit N")
        .blocked_by(oldest.iter().map(|snapshot| snapshot.id.0)))
}
