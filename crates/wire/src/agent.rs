//! What the control plane asks of the agent of a host.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tintype_model::capability::Capabilities;
use tintype_model::effect::{Effect, Outcome};
use tintype_model::finding::{Repair, Sighting};
use tintype_model::layer::Format;
use tintype_model::manifest::{Manifest, Survey};
use tintype_model::vm::VmState;
use tintype_model::{EffectId, LayerId, Moment, Refusal, SnapshotId, VmId};
use tokio::sync::mpsc;

/// The hand on a host.
#[async_trait]
pub trait Agent: Send + Sync {
    /// Performs an effect, once, however often it is sent: an effect that is known is finished or
    /// undone, and its outcome told again.
    async fn perform(&self, id: EffectId, effect: Effect) -> Outcome;

    /// The outcome is recorded; the agent may forget it.
    async fn forget(&self, id: EffectId);

    /// The effects that were begun and are not forgotten.
    async fn journaled(&self) -> BTreeMap<EffectId, Journaled>;

    /// Throws away what an effect has made whose end could not be noted, except what is `recorded`
    /// of its machine; nothing is if there is no such machine.
    async fn settle(&self, id: EffectId, recorded: Option<OnRecord>);

    /// How far an effect is.
    fn progress(&self, id: EffectId) -> Option<Progress>;

    /// Asks background work on a machine's layers to give way.
    fn give_way(&self, vm: VmId);

    /// Asks for an effect that is under way to be undone.
    fn cancel(&self, id: EffectId);

    /// Looks at a file that shall become a disk.
    async fn inspect(&self, path: String) -> Result<Inspected, Refusal>;

    /// Looks whether a file can be read, as a kernel or initrd.
    async fn readable(&self, path: String) -> Result<(), Refusal>;

    /// What the host is and has now.
    async fn host(&self) -> HostFacts;

    /// Which machines have a guest, and how it is.
    async fn guests(&self) -> BTreeMap<VmId, VmState>;

    /// What there is of a machine; nothing while something is done to it. What is in `settle` is on
    /// disk when it is told of.
    async fn look(&self, vm: VmId, settle: BTreeSet<String>) -> Option<Sighting>;

    /// What there is of all machines that have a folder, to take them up.
    async fn survey(&self) -> Vec<Survey>;

    /// Does for a repair what is to be done on the host; says what it did.
    async fn repair(&self, vm: VmId, repair: Repair) -> Result<String, Refusal>;

    /// Writes down beside a machine's layers what they are.
    async fn describe(&self, vm: VmId, manifest: Manifest) -> Result<(), Refusal>;

    /// Where a local client finds a machine's console.
    fn console_address(&self, vm: VmId) -> String;

    /// Follows a machine's console: what was said last first, then live.
    async fn console(&self, vm: VmId) -> mpsc::Receiver<Vec<u8>>;

    /// Types into a machine's console.
    async fn type_in(&self, vm: VmId, bytes: Vec<u8>) -> Result<(), Refusal>;
}

/// What is known on the host of an effect that was begun there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Journaled {
    /// The machine it is about, if that was written down before all died.
    pub vm: Option<VmId>,
    /// If its end is not known, the machine whose files it made or removed: these are to be
    /// settled.
    pub unsettled: Option<VmId>,
    /// Its machines that have a manifest, by which they may be taken up.
    pub described: BTreeSet<VmId>,
}

/// What is recorded of a machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OnRecord {
    /// Its layers.
    pub layers: BTreeSet<LayerId>,
    /// Its snapshots.
    pub snapshots: BTreeSet<SnapshotId>,
}

/// How far an effect is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// From 0 to 1.
    pub fraction: f64,
    /// What is being done.
    pub step: String,
    /// Since when that is done.
    pub since: Moment,
}

/// What was found out about a file that shall become a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Inspected {
    /// Its format.
    pub format: Format,
    /// Its size as a guest would see it.
    pub size_bytes: u64,
    /// What a copy takes on disk, at most.
    pub allocated_bytes: u64,
}

/// What a host is and has now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HostFacts {
    /// What its hypervisor can do.
    pub capabilities: Capabilities,
    /// Memory that could be given to guests.
    pub memory_free_bytes: u64,
    /// All its memory.
    pub memory_total_bytes: u64,
    /// Space left in the pool, without what is reserved for writes under way.
    pub pool_free_bytes: u64,
    /// All space of the pool's filesystem.
    pub pool_total_bytes: u64,
    /// Where the pool is.
    pub pool_path: String,
}
