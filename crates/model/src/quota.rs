//! How much an account may have in snapshots, and has (E13 says "not supported"; we go beyond).

use crate::config::Disk;
use crate::id::LayerId;
use crate::layer::Layer;
use crate::refusal::{Code, Refusal};
use crate::settings::Limit;
use crate::snapshot::{Kind, Snapshot, SnapshotState};
use crate::timeline::Timeline;
use serde::{Deserialize, Serialize};

/// What a create reserves beside the memory: device state, and what new layers take at once.
pub const MARGIN_BYTES: u64 = 32 << 20;

/// How much an account may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Quota {
    /// So many snapshots.
    pub snapshots: Limit,
    /// So many bytes in them.
    pub bytes: Limit,
}

impl Default for Quota {
    fn default() -> Self {
        Self { snapshots: Limit::Unlimited, bytes: Limit::Unlimited }
    }
}

/// How much a machine or an account has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// So many snapshots, but for safety snapshots and unavailable ones.
    pub snapshots: u64,
    /// Frozen layers and memory files as allocated, and what is reserved for those being written.
    pub bytes: u64,
}

/// What taking a snapshot of this kind reserves.
pub fn reserved_bytes(kind: Kind, memory_bytes: u64) -> u64 {
    match kind {
        Kind::Disk => MARGIN_BYTES,
        Kind::DiskAndMemory => MARGIN_BYTES + memory_bytes,
    }
}

impl Quota {
    /// Refuses what one more snapshot that reserves `bytes` would pass.
    ///
    /// # Errors
    /// The refusal.
    pub fn check(&self, usage: Usage, bytes: u64) -> Result<(), Refusal> {
        let hint = "delete snapshots, or ask an administrator for a larger quota";
        let no = |detail: String| Err(Refusal::new(Code::QuotaReached).detail(detail).hint(hint));
        if let Limit::Most(most) = self.snapshots
            && usage.snapshots >= most
        {
            let has = usage.snapshots;
            return no(format!("the account may have {most} snapshots and has {has}"));
        }
        if let Limit::Most(most) = self.bytes
            && usage.bytes.saturating_add(bytes) > most
        {
            let has = usage.bytes;
            return no(format!(
                "the account may have {most} bytes in snapshots and has {has}; {bytes} are needed"
            ));
        }
        Ok(())
    }
}

impl Timeline {
    /// How much the machine has in snapshots.
    pub fn usage(&self) -> Usage {
        // A safety snapshot that somebody keeps is one like others.
        let counts = |snapshot: &&Snapshot| {
            (!snapshot.safety || snapshot.protected) && snapshot.state != SnapshotState::Unavailable
        };
        let counted = self.snapshots.values().filter(counts);
        let memory = counted.clone().map(|snapshot| match snapshot.state {
            SnapshotState::Creating => reserved_bytes(snapshot.kind, snapshot.config.memory_bytes),
            _ => snapshot.memory_bytes,
        });
        Usage {
            snapshots: counted.count() as u64,
            bytes: memory.sum::<u64>() + self.frozen().map(|layer| layer.size_bytes).sum::<u64>(),
        }
    }

    /// What the machine may still come to take without anybody's asking: its guest may write to
    /// every disk from end to end.
    pub fn growth_bytes(&self) -> u64 {
        let growth = |disk: &Disk| {
            let layer = self.active.get(&disk.id).and_then(|layer| self.layers.get(layer));
            disk.size_bytes.saturating_sub(layer.map_or(0, |layer| layer.size_bytes))
        };
        self.vm.config.disks.iter().map(growth).sum()
    }

    /// The layers that no guest writes to. What another machine has as well counts where a snapshot
    /// holds it: what a linked clone lies on is not the clone's, and cloning makes nobody's
    /// snapshots cost less.
    fn frozen(&self) -> impl Iterator<Item = &Layer> {
        let held = |layer: LayerId| {
            self.snapshots.values().any(|snapshot| snapshot.layers.values().any(|&id| id == layer))
        };
        self.layers.values().filter(move |layer| {
            let active = self.active.values().any(|&id| id == layer.id);
            !active && (!layer.shared || held(layer.id))
        })
    }
}
