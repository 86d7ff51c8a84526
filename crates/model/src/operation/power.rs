//! Starting, stopping and deleting a machine.

use super::{Ending, failure};
use crate::capability::Capabilities;
use crate::change::Change;
use crate::effect::{self, Effect, Outcome};
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
    let vm = &timeline.vm;
    if vm.state.is_live() {
        return Err(Refusal::new(Code::VmNotStopped).detail(format!(
            "{} is {}",
            vm.name,
            vm.state.as_str()
        )));
    }
    suits(&vm.config.platform, capabilities)?;
    Ok(vec![Change::VmState(VmState::Starting)])
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

pub(super) fn conclude_start(outcome: &Outcome) -> (Vec<Change>, Ending) {
    match outcome {
        Outcome::Done(_) => (vec![Change::VmState(VmState::Running)], Ending::Succeeded),
        Outcome::Failed(..) | Outcome::Yielded => {
            (vec![Change::VmState(VmState::Stopped)], Ending::Failed(failure(outcome)))
        }
    }
}

pub(super) fn conclude_stop(outcome: &Outcome) -> (Vec<Change>, Ending) {
    match outcome {
        Outcome::Done(_) => (vec![Change::VmState(VmState::Stopped)], Ending::Succeeded),
        Outcome::Failed(..) | Outcome::Yielded => {
            (vec![Change::VmState(VmState::Running)], Ending::Failed(failure(outcome)))
        }
    }
}

pub(super) fn conclude_delete(outcome: &Outcome) -> (Vec<Change>, Ending) {
    match outcome {
        Outcome::Done(_) => (vec![Change::VmGone], Ending::Succeeded),
        Outcome::Failed(..) | Outcome::Yielded => (Vec::new(), Ending::Failed(failure(outcome))),
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
