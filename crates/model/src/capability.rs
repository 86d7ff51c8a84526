//! What a host's hypervisor can do, as a value (house rule: capabilities are data).

use crate::config::{Accel, Platform};
use crate::settings::Limit;
use serde::{Deserialize, Serialize};

/// What was found out about a hypervisor, once, by asking it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Capabilities {
    /// What kind it is, such as `qemu`: settings may differ by it (E30).
    pub kind: String,
    /// Name and version, for people.
    pub hypervisor: String,
    /// How many snapshots of one machine it bears (A38).
    pub snapshot_cap: Limit,
    /// The platform a new virtual machine gets here.
    pub platform: Platform,
    /// Machine types that can be run here.
    pub machines: Vec<String>,
    /// Accelerators that really work here.
    pub accels: Vec<Accel>,
    /// Whether memory can be saved while the guest runs on; else why not.
    pub background_snapshots: Support,
    /// Whether a machine can run before its memory is there.
    pub memory_on_demand: Support,
    /// Whether guests can be asked to write everything and hold still.
    pub quiesce: Support,
    /// Whether a second reader can follow the console beside a local client.
    pub shared_console: Support,
    /// Whether UEFI firmware is installed.
    pub uefi: Support,
}

/// Whether something works, and why not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    /// It works.
    Yes,
    /// It does not, for this reason.
    No(String),
}

impl Support {
    /// Whether it works.
    pub fn is_yes(&self) -> bool {
        *self == Self::Yes
    }
}

impl Capabilities {
    /// A hypervisor of one platform that can do everything.
    pub fn complete(kind: &str, platform: Platform) -> Self {
        Self {
            kind: kind.to_owned(),
            hypervisor: kind.to_owned(),
            snapshot_cap: Limit::Unlimited,
            machines: vec![platform.machine.clone()],
            accels: vec![platform.accel],
            platform,
            background_snapshots: Support::Yes,
            memory_on_demand: Support::Yes,
            quiesce: Support::Yes,
            shared_console: Support::Yes,
            uefi: Support::Yes,
        }
    }

    /// Why memory saved on `platform` would not load here, if so.
    pub fn refuses_memory_of(&self, platform: &Platform) -> Option<String> {
        if !self.machines.contains(&platform.machine) {
            return Some(format!("machine type {} is unknown to this host", platform.machine));
        }
        if !self.accels.contains(&platform.accel) {
            return Some(format!("accelerator {:?} does not work on this host", platform.accel));
        }
        if platform.accel == self.platform.accel && platform.cpu != self.platform.cpu {
            return Some(format!(
                "processor model {} differs from this host's {}",
                platform.cpu, self.platform.cpu
            ));
        }
        None
    }
}
