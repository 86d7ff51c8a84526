//! Operations: what somebody asked for, and how far it is.
//!
//! One machine serves them all:
//!
//! ```text
//!   Queued ──(its turn: accept)──┐
//!                                v
//!   accept ──────────────────> Waiting ──Begin──> Performing ──Performed──> Ended
//!                                │                 ^      │                   ^
//!                                │                 └──────┘ a further effect  │
//!                                └──────────────────Cancel────────────────────┘
//! ```
//!
//! `accept` refuses or admits and locks the machine; `Begin` plans with the layers as they are
//! then; `Performed` records what the world did, and plans the next effect where there is one.
//! What differs between the kinds is in their files; `docs/states.md` draws every transition of
//! each, as found by walking through them.

mod accept;
mod clone_vm;
mod create_snapshot;
mod create_vm;
mod delete_snapshots;
mod disks;
mod export;
mod hardware;
mod power;
mod revert;
mod verify;

pub use accept::{Asker, Conditions, accept, refuse_user};
pub use clone_vm::{CloneVm, ClonedDisk};
pub use create_snapshot::{CreateSnapshot, check_expiry};
pub use create_vm::CreateVm;
pub use delete_snapshots::{DeleteSnapshots, Forecast};
pub use disks::{AttachDisk, DetachDisk, ResizeDisk, refuse_disks};
pub use export::ExportSnapshot;
pub use hardware::SetVm;
pub use power::{StopVm, refuse_delete};
pub use revert::{Power, RevertTo};
pub use verify::VerifySnapshot;

use crate::change::Change;
use crate::effect::{DiskChain, Effect, Launch, Outcome};
use crate::id::{DiskId, EffectId, LayerId, OperationId, SnapshotId, VmId};
use crate::layer::{Format, LayerFile};
use crate::moment::Moment;
use crate::refusal::{Code, Refusal};
use crate::snapshot::Snapshot;
use crate::timeline::Timeline;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What is recorded of an operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The machine it holds.
    pub vm: VmId,
    /// The snapshot it is about, if one.
    pub snapshot: Option<SnapshotId>,
    /// What was asked for.
    pub command: Command,
    /// Who asked for it.
    pub asker: Asker,
    /// How far it is.
    pub phase: Phase,
    /// When it was accepted.
    pub created_at: Moment,
    /// When it ended.
    pub ended_at: Option<Moment>,
}

/// What can be asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Create a machine.
    CreateVm(CreateVm),
    /// Boot it.
    StartVm,
    /// Shut it down, or cut its power.
    StopVm(StopVm),
    /// Delete it, with its snapshots (C11, E16, R1).
    DeleteVm,
    /// Make another machine of its disks (C18).
    CloneVm(CloneVm),
    /// Give it other hardware, and take the memory of its snapshots for that (E9, R5).
    SetVm(Box<SetVm>),
    /// Give it another disk.
    AttachDisk(AttachDisk),
    /// Take a disk from it, with what is on it.
    DetachDisk(DetachDisk),
    /// Make a disk larger or smaller.
    ResizeDisk(ResizeDisk),
    /// Take a snapshot.
    CreateSnapshot(CreateSnapshot),
    /// Go back to a snapshot (A9, A15, R7).
    RevertTo(RevertTo),
    /// Delete snapshots.
    DeleteSnapshots(DeleteSnapshots),
    /// Prove that a snapshot is whole.
    VerifySnapshot(VerifySnapshot),
    /// Write a snapshot to a folder of the pool.
    ExportSnapshot(ExportSnapshot),
}

impl Command {
    /// As it stands on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateVm(_) => "create-vm",
            Self::StartVm => "start-vm",
            Self::StopVm(_) => "stop-vm",
            Self::DeleteVm => "delete-vm",
            Self::CloneVm(_) => "clone-vm",
            Self::SetVm(_) => "set-vm",
            Self::AttachDisk(_) => "attach-disk",
            Self::DetachDisk(_) => "detach-disk",
            Self::ResizeDisk(_) => "resize-disk",
            Self::CreateSnapshot(_) => "create-snapshot",
            Self::RevertTo(_) => "revert",
            Self::DeleteSnapshots(_) => "delete-snapshots",
            Self::VerifySnapshot(_) => "verify-snapshot",
            Self::ExportSnapshot(_) => "export-snapshot",
        }
    }
}

/// How far an operation is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// In line behind the one that holds the machine; whether it may be is judged when its turn
    /// comes.
    Queued,
    /// Accepted; background work on the layers has still to give way.
    Waiting,
    /// An agent is at it; sent again until it answers, and performed once.
    Performing {
        /// Names the act, so that an agent that knows it does not do it twice.
        id: EffectId,
        /// What the agent does.
        effect: Box<Effect>,
        /// Whether somebody wants it gone: then it is undone, even when it succeeds.
        #[serde(default)]
        cancelled: bool,
        /// Why the operation will have failed once this last effect has cleaned up.
        #[serde(default)]
        failed: Option<Refusal>,
    },
    /// Over.
    Ended(Ending),
}

impl Phase {
    /// The effect that is being performed.
    pub fn effect(&self) -> Option<EffectId> {
        match self {
            Self::Performing { id, .. } => Some(*id),
            Self::Queued | Self::Waiting | Self::Ended(_) => None,
        }
    }
}

/// How an operation ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// As asked.
    Succeeded,
    /// Not as asked, for this reason.
    Failed(Refusal),
    /// Not at all, because somebody said so.
    Cancelled,
}

/// What happens to an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Nothing is in its way.
    Begin,
    /// Its effect has ended.
    Performed(Outcome),
    /// Somebody wants it gone.
    Cancel,
    /// Its turn came, and it may not be.
    Refused(Refusal),
}

/// What follows from an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// How far the operation is now.
    pub phase: Phase,
    /// What is recorded of the machine.
    pub changes: Vec<Change>,
    /// What is recorded of another machine: a clone.
    pub elsewhere: Option<(VmId, Vec<Change>)>,
}

/// Where an operation's decisions are made: the machine as recorded, and fresh ids.
pub struct Scene<'a, F: FnMut() -> Uuid> {
    /// The machine.
    pub timeline: &'a Timeline,
    /// Now.
    pub at: Moment,
    /// A source of ids that were never used.
    pub fresh: &'a mut F,
}

/// What an outcome comes to.
struct Conclusion {
    changes: Vec<Change>,
    elsewhere: Option<(VmId, Vec<Change>)>,
    next: Next,
}

enum Next {
    End(Ending),
    /// A further effect; with the reason why the operation will have failed after it.
    Then(Box<Effect>, Option<Refusal>),
}

impl Conclusion {
    fn end(changes: Vec<Change>, ending: Ending) -> Self {
        Self { changes, elsewhere: None, next: Next::End(ending) }
    }

    fn succeeded(changes: Vec<Change>) -> Self {
        Self::end(changes, Ending::Succeeded)
    }

    fn failed(changes: Vec<Change>, outcome: &Outcome) -> Self {
        Self::end(changes, Ending::Failed(failure(outcome)))
    }

    fn then(changes: Vec<Change>, effect: Effect) -> Self {
        Self { changes, elsewhere: None, next: Next::Then(Box::new(effect), None) }
    }
}

/// The one transition function. What cannot happen in a phase changes nothing.
pub fn step<F: FnMut() -> Uuid>(operation: &Operation, scene: Scene<'_, F>, event: Event) -> Step {
    match (&operation.phase, event) {
        (Phase::Waiting, Event::Begin) => begin(operation, scene),
        (Phase::Waiting, Event::Cancel) => cancel(operation, scene.timeline),
        (Phase::Queued, Event::Cancel) => leave_line(operation, Ending::Cancelled),
        (Phase::Queued, Event::Refused(reason)) => {
            leave_line(operation, refused(operation, reason))
        }
        (Phase::Performing { .. }, Event::Performed(outcome)) => {
            performed(operation, scene, &outcome)
        }
        (Phase::Performing { id, effect, failed, .. }, Event::Cancel)
            if operation.can_be_cancelled() =>
        {
            let (id, effect, failed) = (*id, effect.clone(), failed.clone());
            let phase = Phase::Performing { id, effect, failed, cancelled: true };
            Step { phase, changes: Vec::new(), elsewhere: None }
        }
        (Phase::Waiting | Phase::Queued, Event::Performed(_))
        | (Phase::Queued, Event::Begin)
        | (Phase::Performing { .. }, Event::Begin | Event::Cancel)
        | (Phase::Waiting | Phase::Performing { .. } | Phase::Ended(_), Event::Refused(_))
        | (Phase::Ended(_), Event::Begin | Event::Performed(_) | Event::Cancel) => {
            Step { phase: operation.phase.clone(), changes: Vec::new(), elsewhere: None }
        }
    }
}

/// How what waited in line ends when it may not be. A machine that is off when its turn to be
/// stopped comes, because what would have started it was cancelled, is as was wanted.
fn refused(operation: &Operation, reason: Refusal) -> Ending {
    match &operation.command {
        Command::StopVm(_) if reason.code == Code::VmNotRunning => Ending::Succeeded,
        _ => Ending::Failed(reason),
    }
}

/// Of what is only in line nothing is recorded yet, but for the clone that waits to be made.
fn leave_line(operation: &Operation, ending: Ending) -> Step {
    let elsewhere = match &operation.command {
        Command::CloneVm(clone) => Some((clone.clone, vec![Change::VmGone])),
        _ => None,
    };
    Step { phase: Phase::Ended(ending), changes: Vec::new(), elsewhere }
}

fn begin<F: FnMut() -> Uuid>(operation: &Operation, scene: Scene<'_, F>) -> Step {
    let Scene { timeline, fresh, .. } = scene;
    let effect = match &operation.command {
        Command::CreateVm(create) => create.plan(timeline),
        Command::StartVm => Effect::StartVm(launch(timeline)),
        Command::StopVm(stop) => stop.plan(timeline),
        Command::DeleteVm => Effect::DeleteVm { vm: timeline.vm.id },
        Command::CloneVm(clone) => clone.plan(timeline, fresh),
        Command::SetVm(set) => set.plan(timeline),
        Command::AttachDisk(attach) => attach.plan(timeline),
        Command::DetachDisk(detach) => detach.plan(timeline),
        Command::ResizeDisk(resize) => resize.plan(timeline),
        Command::CreateSnapshot(create) => create.plan(timeline, fresh),
        Command::RevertTo(revert) => revert.plan(timeline, fresh),
        Command::DeleteSnapshots(_) => delete_snapshots::plan(timeline),
        Command::VerifySnapshot(verify) => verify.plan(timeline, fresh),
        Command::ExportSnapshot(export) => export.plan(timeline, fresh),
    };
    Step {
        phase: performing(fresh(), Box::new(effect), None),
        changes: Vec::new(),
        elsewhere: None,
    }
}

fn performing(id: Uuid, effect: Box<Effect>, failed: Option<Refusal>) -> Phase {
    Phase::Performing { id: EffectId(id), effect, cancelled: false, failed }
}

fn performed<F: FnMut() -> Uuid>(
    operation: &Operation,
    mut scene: Scene<'_, F>,
    outcome: &Outcome,
) -> Step {
    let Conclusion { mut changes, elsewhere, next } = conclude(operation, &mut scene, outcome);
    let phase = match next {
        Next::End(ending) => {
            changes.push(Change::VmOperation(None));
            Phase::Ended(ending)
        }
        Next::Then(effect, failed) => performing((scene.fresh)(), effect, failed),
    };
    Step { phase, changes, elsewhere }
}

fn conclude<F: FnMut() -> Uuid>(
    operation: &Operation,
    scene: &mut Scene<'_, F>,
    outcome: &Outcome,
) -> Conclusion {
    let Phase::Performing { effect, cancelled, failed, .. } = &operation.phase else {
        return Conclusion::end(Vec::new(), Ending::Cancelled);
    };
    let timeline = scene.timeline;
    match (&operation.command, effect.as_ref()) {
        (Command::CreateVm(create), _) => create.conclude(outcome),
        (Command::StartVm, _) => power::conclude_start(outcome),
        (Command::StopVm(_), _) => power::conclude_stop(outcome),
        (Command::DeleteVm, _) => power::conclude_delete(outcome),
        (Command::CloneVm(clone), effect) => clone.conclude(timeline, effect, outcome, *cancelled),
        (Command::SetVm(set), _) => set.conclude(timeline, outcome),
        (Command::AttachDisk(attach), _) => attach.conclude(timeline, outcome),
        (Command::DetachDisk(detach), _) => detach.conclude(timeline, outcome),
        (Command::ResizeDisk(resize), _) => resize.conclude(timeline, outcome),
        (Command::CreateSnapshot(create), Effect::TakeSnapshot(take)) => {
            create.conclude(timeline, take, outcome, *cancelled, scene.at)
        }
        (Command::RevertTo(revert), effect) => {
            revert.conclude(scene, effect, outcome, failed.as_ref())
        }
        (Command::DeleteSnapshots(_), _) => delete_snapshots::conclude(timeline, outcome),
        (Command::CreateSnapshot(_), _) => {
            let changes = delete_snapshots::leave(timeline, outcome);
            Conclusion::end(changes, Ending::Cancelled)
        }
        (Command::VerifySnapshot(verify), _) => verify.conclude(outcome, scene.at),
        (Command::ExportSnapshot(_), _) => ExportSnapshot::conclude(outcome, *cancelled),
    }
}

fn cancel(operation: &Operation, timeline: &Timeline) -> Step {
    let mut elsewhere = None;
    let mut changes = match &operation.command {
        Command::CreateSnapshot(create) => vec![Change::SnapshotGone(create.snapshot)],
        Command::RevertTo(revert) => revert.cancel(),
        Command::DeleteSnapshots(_) => delete_snapshots::keep(timeline),
        Command::CreateVm(_) => vec![Change::VmGone],
        Command::CloneVm(clone) => {
            elsewhere = Some((clone.clone, vec![Change::VmGone]));
            Vec::new()
        }
        Command::StartVm | Command::StopVm(_) => {
            vec![Change::VmState(power::before(timeline.vm.state))]
        }
        Command::DeleteVm
        | Command::SetVm(_)
        | Command::AttachDisk(_)
        | Command::DetachDisk(_)
        | Command::ResizeDisk(_)
        | Command::VerifySnapshot(_)
        | Command::ExportSnapshot(_) => Vec::new(),
    };
    changes.push(Change::VmOperation(None));
    Step { phase: Phase::Ended(Ending::Cancelled), changes, elsewhere }
}

/// The machine as it is recorded, ready to be started.
pub fn launch(timeline: &Timeline) -> Launch {
    Launch {
        vm: timeline.vm.id,
        name: timeline.vm.name.clone(),
        generation: timeline.vm.generation,
        config: timeline.vm.config.clone(),
        disks: chains(timeline, |disk| timeline.active[&disk]),
    }
}

/// Each disk as a snapshot has it, and at the top of its chain a layer that is not there yet.
fn topped(
    timeline: &Timeline,
    snapshot: &Snapshot,
    fresh: &mut impl FnMut() -> Uuid,
) -> Vec<DiskChain> {
    let mut disks = chains(timeline, |disk| snapshot.layers[&disk]);
    for disk in &mut disks {
        disk.chain.insert(0, LayerFile { id: LayerId(fresh()), format: Format::Qcow2 });
    }
    disks
}

/// Each disk of the machine with the chain under the layer that `top` names.
fn chains(timeline: &Timeline, top: impl Fn(DiskId) -> LayerId) -> Vec<DiskChain> {
    let disks = timeline.vm.config.disks.iter();
    disks
        .map(|disk| DiskChain {
            disk: disk.id,
            role: disk.role,
            chain: timeline.chain(top(disk.id)),
        })
        .collect()
}

/// Why an outcome is a failure; an outcome that fits no foreground effect is a bug of the agent.
fn failure(outcome: &Outcome) -> Refusal {
    match outcome {
        Outcome::Failed(reason, _) => reason.clone(),
        Outcome::Done(_) | Outcome::Yielded => {
            Refusal::new(Code::Internal).detail("the agent's answer does not fit what it was asked")
        }
    }
}

/// The timeline as it will be once `changes` are recorded.
fn with(timeline: &Timeline, changes: &[Change]) -> Timeline {
    let mut after = timeline.clone();
    for change in changes {
        after.apply(change);
    }
    after
}

impl Command {
    /// Whether it puts new layers on those in use.
    pub fn adds_layers(&self) -> bool {
        match self {
            Self::CreateSnapshot(_) => true,
            Self::RevertTo(revert) => revert.safety.is_some(),
            Self::CloneVm(clone) => clone.from.is_none(),
            _ => false,
        }
    }
}

impl Operation {
    /// The order in which those in line get their turn: as they came, but power is cut first (R9).
    pub fn in_turn(mut line: Vec<Self>) -> Vec<Self> {
        line.sort_by_key(|operation| {
            !matches!(operation.command, Command::StopVm(StopVm { force: true }))
        });
        line
    }

    /// Whether it is over.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Whether it can still be taken back: not once an effect has begun that is over soon anyway.
    pub fn can_be_cancelled(&self) -> bool {
        match &self.phase {
            Phase::Queued | Phase::Waiting => true,
            Phase::Performing { effect, .. } => {
                matches!(
                    (&self.command, effect.as_ref()),
                    (Command::CreateSnapshot(_), Effect::TakeSnapshot(_))
                        | (Command::CloneVm(_) | Command::ExportSnapshot(_), _)
                )
            }
            Phase::Ended(_) => false,
        }
    }
}
