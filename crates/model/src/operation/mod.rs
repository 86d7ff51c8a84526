//! Operations: what somebody asked for, and how far it is.
//!
//! Every operation is one effect on a host, so one machine serves them all:
//!
//! ```text
//!   accept ──> Waiting ──Begin──> Performing ──Performed──> Ended
//!                 └─────Cancel──────────────────────────────^
//! ```
//!
//! `accept` refuses or admits and locks the machine; `Begin` plans with the layers as they are
//! then; `Performed` records what the world did. What differs between the kinds is in their files.

mod create_snapshot;
mod create_vm;
mod delete_snapshots;
mod power;
mod revert;

pub use create_snapshot::CreateSnapshot;
pub use create_vm::CreateVm;
pub use delete_snapshots::{DeleteSnapshots, Forecast};
pub use power::StopVm;
pub use revert::{Power, RevertTo};

use crate::capability::Capabilities;
use crate::change::Change;
use crate::effect::{DiskChain, Effect, Launch, Outcome};
use crate::id::{DiskId, EffectId, LayerId, OperationId, SnapshotId, VmId};
use crate::moment::Moment;
use crate::refusal::{Code, Refusal};
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
    /// Take a snapshot.
    CreateSnapshot(CreateSnapshot),
    /// Go back to a snapshot (A9, A15, R7).
    RevertTo(RevertTo),
    /// Delete snapshots.
    DeleteSnapshots(DeleteSnapshots),
}

impl Command {
    /// As it stands on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateVm(_) => "create-vm",
            Self::StartVm => "start-vm",
            Self::StopVm(_) => "stop-vm",
            Self::DeleteVm => "delete-vm",
            Self::CreateSnapshot(_) => "create-snapshot",
            Self::RevertTo(_) => "revert",
            Self::DeleteSnapshots(_) => "delete-snapshots",
        }
    }
}

/// How far an operation is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Accepted; background work on the layers has still to give way.
    Waiting,
    /// An agent is at it; sent again until it answers, and performed once.
    Performing {
        /// Names the act, so that an agent that knows it does not do it twice.
        id: EffectId,
        /// What the agent does.
        effect: Box<Effect>,
    },
    /// Over.
    Ended(Ending),
}

/// How an operation ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// As asked.
    Succeeded,
    /// Not as asked, for this reason.
    Failed(Refusal),
    /// Not at all, because somebody said so before it began.
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
}

/// What follows from an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// How far the operation is now.
    pub phase: Phase,
    /// What is recorded.
    pub changes: Vec<Change>,
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

/// Admits a command and says what is recorded with it, or refuses.
///
/// # Errors
/// The refusal, with the operation that holds the machine named if one does (E10, E11, R9).
pub fn accept(
    timeline: &Timeline,
    id: OperationId,
    command: &Command,
    capabilities: &Capabilities,
    at: Moment,
) -> Result<Vec<Change>, Refusal> {
    if let Some(holder) = timeline.vm.operation {
        return Err(Refusal::new(Code::VmBusy)
            .detail(format!("operation {holder} holds {}", timeline.vm.name))
            .hint(format!("wait for it: tintype operation wait {holder}"))
            .blocked_by([holder.0]));
    }
    let mut changes = match command {
        Command::CreateVm(_) => Vec::new(),
        Command::StartVm => power::accept_start(timeline, capabilities)?,
        Command::StopVm(_) => power::accept_stop(timeline)?,
        Command::DeleteVm => Vec::new(),
        Command::CreateSnapshot(create) => create.accept(timeline, capabilities, at)?,
        Command::RevertTo(revert) => revert.accept(timeline, capabilities)?,
        Command::DeleteSnapshots(delete) => delete.accept(timeline)?,
    };
    changes.push(Change::VmOperation(Some(id)));
    Ok(changes)
}

/// The one transition function. What cannot happen in a phase changes nothing.
pub fn step<F: FnMut() -> Uuid>(operation: &Operation, scene: Scene<'_, F>, event: Event) -> Step {
    match (&operation.phase, event) {
        (Phase::Waiting, Event::Begin) => begin(operation, scene),
        (Phase::Waiting, Event::Cancel) => cancel(operation, scene.timeline),
        (Phase::Performing { effect, .. }, Event::Performed(outcome)) => {
            let (changes, ending) = conclude(operation, effect, scene.timeline, &outcome, scene.at);
            ended(changes, ending)
        }
        (Phase::Waiting, Event::Performed(_))
        | (Phase::Performing { .. }, Event::Begin | Event::Cancel)
        | (Phase::Ended(_), Event::Begin | Event::Performed(_) | Event::Cancel) => {
            Step { phase: operation.phase.clone(), changes: Vec::new() }
        }
    }
}

fn begin<F: FnMut() -> Uuid>(operation: &Operation, scene: Scene<'_, F>) -> Step {
    let Scene { timeline, fresh, .. } = scene;
    let effect = match &operation.command {
        Command::CreateVm(create) => create.plan(timeline),
        Command::StartVm => Effect::StartVm(launch(timeline)),
        Command::StopVm(stop) => stop.plan(timeline),
        Command::DeleteVm => Effect::DeleteVm { vm: timeline.vm.id },
        Command::CreateSnapshot(create) => create.plan(timeline, fresh),
        Command::RevertTo(revert) => revert.plan(timeline, fresh),
        Command::DeleteSnapshots(delete) => delete.plan(timeline),
    };
    let id = EffectId(fresh());
    Step { phase: Phase::Performing { id, effect: Box::new(effect) }, changes: Vec::new() }
}

fn conclude(
    operation: &Operation,
    effect: &Effect,
    timeline: &Timeline,
    outcome: &Outcome,
    at: Moment,
) -> (Vec<Change>, Ending) {
    match (&operation.command, effect) {
        (Command::CreateVm(create), _) => create.conclude(outcome),
        (Command::StartVm, _) => power::conclude_start(outcome),
        (Command::StopVm(_), _) => power::conclude_stop(outcome),
        (Command::DeleteVm, _) => power::conclude_delete(outcome),
        (Command::CreateSnapshot(create), Effect::TakeSnapshot(take)) => {
            create.conclude(timeline, take, outcome, at)
        }
        (Command::RevertTo(revert), Effect::Revert(plan)) => {
            revert.conclude(timeline, plan, outcome)
        }
        (Command::DeleteSnapshots(delete), _) => delete.conclude(timeline, outcome),
        (Command::CreateSnapshot(_) | Command::RevertTo(_), _) => {
            (Vec::new(), Ending::Failed(failure(&Outcome::Yielded)))
        }
    }
}

fn cancel(operation: &Operation, timeline: &Timeline) -> Step {
    let changes = match &operation.command {
        Command::CreateSnapshot(create) => vec![Change::SnapshotGone(create.snapshot)],
        Command::RevertTo(revert) => vec![revert.back_to_ready()],
        Command::DeleteSnapshots(delete) => delete.keep(timeline),
        Command::CreateVm(_) => vec![Change::VmGone],
        Command::StartVm | Command::StopVm(_) | Command::DeleteVm => {
            vec![Change::VmState(power::before(timeline.vm.state))]
        }
    };
    ended(changes, Ending::Cancelled)
}

fn ended(mut changes: Vec<Change>, ending: Ending) -> Step {
    changes.push(Change::VmOperation(None));
    Step { phase: Phase::Ended(ending), changes }
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

impl Operation {
    /// Whether it is over.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }
}
