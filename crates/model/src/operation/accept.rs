//! What a command is judged by before anything is recorded of it.

use super::{Command, power};
use crate::access::Role;
use crate::capability::Capabilities;
use crate::change::Change;
use crate::finding::refuse_outdated;
use crate::id::OperationId;
use crate::moment::Moment;
use crate::quota::{Quota, Usage};
use crate::refusal::{Code, Refusal};
use crate::timeline::Timeline;
use serde::{Deserialize, Serialize};

/// Who asks, as far as the rules of a machine care.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Asker {
    /// The user's name, for the record.
    pub name: String,
    /// What the user is: some settings bind the role `user` only (R13).
    pub role: Role,
    /// Whether limits and quotas are to be passed (R2); only who may is asked for it.
    pub force: bool,
}

impl Asker {
    /// Tintype itself, which does what somebody has set up.
    pub fn tintype() -> Self {
        Self { name: "tintype".to_owned(), role: Role::Administrator, force: false }
    }
}

/// What a command is judged by beside the machine.
#[derive(Clone, Debug)]
pub struct Conditions<'a> {
    /// What the host can do.
    pub capabilities: &'a Capabilities,
    /// Whether snapshots are switched on for the host and its kind (E30).
    pub snapshots_enabled: bool,
    /// What the machine's account may have.
    pub quota: Quota,
    /// What it has.
    pub usage: Usage,
    /// Now.
    pub at: Moment,
}

/// Admits a command and says what is recorded with it, or refuses.
///
/// # Errors
/// The refusal, with the operation that holds the machine named if one does (E10, E11, R9).
pub fn accept(
    timeline: &Timeline,
    id: OperationId,
    command: &Command,
    asker: &Asker,
    conditions: &Conditions<'_>,
) -> Result<Vec<Change>, Refusal> {
    refuse_busy(timeline)?;
    refuse_outdated(timeline)?;
    let capabilities = conditions.capabilities;
    let mut changes = match command {
        Command::CreateVm(_) => Vec::new(),
        Command::StartVm => power::accept_start(timeline, capabilities)?,
        Command::StopVm(_) => power::accept_stop(timeline)?,
        Command::DeleteVm => {
            power::refuse_delete(timeline)?;
            Vec::new()
        }
        Command::CloneVm(clone) => clone.accept(timeline)?,
        Command::SetVm(set) => set.accept(timeline)?,
        Command::AttachDisk(_) => super::disks::accept_attach(timeline)?,
        Command::DetachDisk(detach) => detach.accept(timeline)?,
        Command::ResizeDisk(resize) => resize.accept(timeline)?,
        Command::CreateSnapshot(create) => create.accept(timeline, asker, conditions)?,
        Command::RevertTo(revert) => revert.accept(timeline, asker, conditions)?,
        Command::DeleteSnapshots(delete) => delete.accept(timeline, asker)?,
        Command::VerifySnapshot(verify) => verify.accept(timeline, capabilities)?,
        Command::ExportSnapshot(export) => export.accept(timeline)?,
    };
    changes.push(Change::VmOperation(Some(id)));
    Ok(changes)
}

/// Refuses when an operation holds the machine.
pub(crate) fn refuse_busy(timeline: &Timeline) -> Result<(), Refusal> {
    match timeline.vm.operation {
        None => Ok(()),
        Some(holder) => Err(Refusal::new(Code::VmBusy)
            .detail(format!("operation {holder} holds {}", timeline.vm.name))
            .hint(format!("wait for it (tintype operation wait {holder}), or get in line: --queue"))
            .blocked_by([holder.0])),
    }
}

/// Refuses a user's work with snapshots where users may not (C19, R13).
pub fn refuse_user(timeline: &Timeline, asker: &Asker) -> Result<(), Refusal> {
    if timeline.vm.settings.snapshots_allowed || asker.role != Role::User {
        return Ok(());
    }
    Err(Refusal::new(Code::SnapshotsNotAllowed)
        .detail(format!("{} has snapshots-allowed off", timeline.vm.name))
        .hint("ask an operator to switch it on"))
}
