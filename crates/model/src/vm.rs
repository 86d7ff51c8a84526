//! A virtual machine.

use crate::config::Config;
use crate::finding::Finding;
use crate::id::{AccountId, EffectId, OperationId, SnapshotId, VmId};
use crate::moment::Moment;
use crate::settings::Settings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// What is recorded of a virtual machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vm {
    /// Its id.
    pub id: VmId,
    /// The account that has it.
    pub account: AccountId,
    /// Its name, unique in its account.
    pub name: String,
    /// Whether it runs.
    pub state: VmState,
    /// The hardware it has now.
    pub config: Config,
    /// What may be done with its snapshots.
    pub settings: Settings,
    /// The generation id the guest sees; new after every revert.
    pub generation: Uuid,
    /// The snapshot that NOW is a child of (A12, E4, R6).
    pub current: Option<SnapshotId>,
    /// The operation that holds it (R9).
    pub operation: Option<OperationId>,
    /// The background work on its layers that runs now; holds nobody up.
    pub reclaim: Option<EffectId>,
    /// When it was created.
    pub created_at: Moment,
    /// What is not as it was recorded on its host (R12).
    #[serde(default)]
    pub findings: BTreeSet<Finding>,
}

/// Whether a virtual machine runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// Off.
    Stopped,
    /// Being started.
    Starting,
    /// On.
    Running,
    /// Being stopped.
    Stopping,
    /// Held by the hypervisor.
    Paused,
    /// Its process ended though nobody asked for it.
    Crashed,
}

impl VmState {
    /// As it stands on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Paused => "paused",
            Self::Crashed => "crashed",
        }
    }

    /// Whether a guest exists, going or held.
    pub fn is_live(self) -> bool {
        match self {
            Self::Running | Self::Paused | Self::Stopping | Self::Starting => true,
            Self::Stopped | Self::Crashed => false,
        }
    }
}
