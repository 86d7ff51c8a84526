//! Starting, stopping and deleting a machine.

use super::Conclusion;
use super::delete_snapshots::refuse_protected;
use crate::capability::Capabilities;
use crate::change::Change;
use crate::effect::{self, Effect, Facts, Outcome};
use crate::finding::refuse_doubtful_now;
use crate::refusal::{Code, Refusal};
use crate::timeline::Timeline;
use crate::vm::VmState;
use serde::{Deserialize, Serialize};

/// How long a guest that was asked to shut down may take before its power is cut.
const PATIENCE_MS: u64 = 60_000;

/// How to stop a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StopVm {
    /// Cut the power at once.
    pub force: bool,
}

impl StopVm {
    pub(super) fn plan(self, timeline: &Timeline) -> Effect {
        let vm = timeline.vm.id;
        Effect::StopVm(effect::StopVm { vm, force: self.force, patience_ms: PATIENCE_MS })
    }
}

pub(super) fn accept_start(
    timeline: &Timeline,
    capabilities: &Capabilities,
) -> Result<Vec<Change>, Refusal> {
    refuse_live(timeline)?;
    suits(&timeline.vm.config.platform, capabilities)?;
    refuse_doubtful_now(timeline, false)?;
    Ok(vec![Change::VmState(VmState::Starting)])
}

/// Refuses what needs a machine that is off.
pub(super) fn refuse_live(timeline: &Timeline) -> Result<(), Refusal> {
    let vm = &timeline.vm;
    if !vm.state.is_live() {
        return Ok(());
    }
    Err(Refusal::new(Code::VmNotStopped)
        .detail(format!("{} is {}", vm.name, vm.state.as_str()))
        .hint("stop it first"))
}

/// Refuses a machine type or accelerator that the host does not have.
fn suits(platform: &crate::config::Platform, capabilities: &Capabilities) -> Result<(), Refusal> {
    if capabilities.machines.contains(&platform.machine)
        && capabilities.accels.contains(&platform.accel)
    {
        return Ok(());
    }
    Err(Refusal::new(Code::HostUnsuitable)
        .detail(format!("{} with {:?} cannot run here", platform.machine, platform.accel)))
}

pub(super) fn accept_stop(timeline: &Timeline) -> Result<Vec<Change>, Refusal> {
    let vm = &timeline.vm;
    if !vm.state.is_live() {
        return Err(Refusal::new(Code::VmNotRunning).detail(format!(
            "{} is {}",
            vm.name,
            vm.state.as_str()
        )));
    }
    Ok(vec![Change::VmState(VmState::Stopping)])
}

/// Refuses to delete a machine whose snapshots are not to go with it (R1).
///
/// # Errors
/// The refusal, with the snapshots in the way.
pub fn refuse_delete(timeline: &Timeline) -> Result<(), Refusal> {
    refuse_protected(timeline, timeline.snapshots.keys())?;
    if timeline.vm.settings.protect_snapshots && !timeline.snapshots.is_empty() {
        return Err(Refusal::new(Code::VmHasSnapshots)
            .detail(format!("{} has protect-snapshots on", timeline.vm.name))
            .hint("delete its snapshots first")
            .blocked_by(timeline.snapshots.keys().map(|id| id.0)));
    }
    Ok(())
}

pub(super) fn conclude_start(outcome: &Outcome) -> Conclusion {
    match outcome {
        Outcome::Done(_) => Conclusion::succeeded(vec![Change::VmState(VmState::Running)]),
        Outcome::Failed(_, facts) => Conclusion::failed(vec![found(facts)], outcome),
        Outcome::Yielded => Conclusion::failed(vec![Change::VmState(VmState::Stopped)], outcome),
    }
}

pub(super) fn conclude_stop(outcome: &Outcome) -> Conclusion {
    match outcome {
        Outcome::Done(_) => Conclusion::succeeded(vec![Change::VmState(VmState::Stopped)]),
        Outcome::Failed(_, facts) => Conclusion::failed(vec![found(facts)], outcome),
        Outcome::Yielded => Conclusion::failed(vec![Change::VmState(VmState::Running)], outcome),
    }
}

/// A start that failed does not mean that no guest runs: it may have been begun before.
fn found(facts: &Facts) -> Change {
    Change::VmState(if facts.running { VmState::Running } else { VmState::Stopped })
}

pub(super) fn conclude_delete(outcome: &Outcome) -> Conclusion {
    match outcome {
        Outcome::Done(_) => Conclusion::succeeded(vec![Change::VmGone]),
        Outcome::Failed(..) | Outcome::Yielded => Conclusion::failed(Vec::new(), outcome),
    }
}

/// The state that a machine was in before it was asked to start or stop.
pub(super) fn before(state: VmState) -> VmState {
    match state {
        VmState::Starting => VmState::Stopped,
        VmState::Stopping => VmState::Running,
        VmState::Stopped | VmState::Running | VmState::Paused | VmState::Crashed => state,
    }
}
