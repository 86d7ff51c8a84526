//! Disks that come, go, grow and shrink: not while there are snapshots (E8, E36, R5).

use super::{Conclusion, power};
use crate::change::Change;
use crate::config::{Config, Disk, Role};
use crate::effect::{self, Effect, NewDisk, Outcome};
use crate::id::DiskId;
use crate::layer::{Layer, LayerFile};
use crate::reclaim::sizes;
use crate::refusal::{Code, Refusal};
use crate::snapshot::SnapshotState;
use crate::timeline::Timeline;
use serde::{Deserialize, Serialize};

/// Most disks of one machine: virtio cards that fit on one bus beside the rest.
const DISKS_MOST: usize = 16;

/// A disk for a machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttachDisk {
    /// The disk with its first layer.
    pub disk: NewDisk,
}

/// A disk that a machine shall lose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DetachDisk {
    /// Which.
    pub disk: DiskId,
}

/// A disk that shall have another size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResizeDisk {
    /// Which.
    pub disk: DiskId,
    /// Its size as the guest will see it.
    pub size_bytes: u64,
}

/// Refuses more disks than a machine can have.
///
/// # Errors
/// When there are.
pub fn refuse_disks(disks: usize) -> Result<(), Refusal> {
    if disks <= DISKS_MOST {
        return Ok(());
    }
    Err(Refusal::new(Code::InvalidRequest)
        .detail(format!("{disks} disks were asked for"))
        .hint(format!("{DISKS_MOST} at most")))
}

/// Refuses while there are snapshots, and names them. One that could not be completed holds no
/// disk and is in nobody's way (R10).
fn refuse_snapshots(timeline: &Timeline) -> Result<(), Refusal> {
    let all = timeline.snapshots.values();
    let held = all.filter(|snapshot| snapshot.state != SnapshotState::Unavailable);
    let held: Vec<_> = held.collect();
    if held.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = held.iter().map(|s| format!("{:?}", s.name)).collect();
    Err(Refusal::new(Code::VmHasSnapshots)
        .detail(format!("{} has {}", timeline.vm.name, names.join(", ")))
        .hint("delete its snapshots first, or clone it")
        .blocked_by(held.iter().map(|snapshot| snapshot.id.0)))
}

pub(super) fn accept_attach(timeline: &Timeline) -> Result<Vec<Change>, Refusal> {
    refuse_snapshots(timeline)?;
    power::refuse_live(timeline)?;
    refuse_disks(timeline.vm.config.disks.len() + 1)?;
    Ok(Vec::new())
}

impl AttachDisk {
    pub(super) fn plan(&self, timeline: &Timeline) -> Effect {
        Effect::AttachDisk { vm: timeline.vm.id, disk: self.disk.clone() }
    }

    pub(super) fn conclude(&self, timeline: &Timeline, outcome: &Outcome) -> Conclusion {
        let Outcome::Done(facts) = outcome else {
            return Conclusion::failed(Vec::new(), outcome);
        };
        let NewDisk { disk: id, layer, size_bytes, .. } = self.disk;
        let mut config = timeline.vm.config.clone();
        // Data disks come first, as they are numbered.
        let at = config.disks.iter().take_while(|disk| disk.role == Role::Data).count();
        config.disks.insert(at, Disk { id, size_bytes, role: Role::Data });
        let mut changes = vec![
            Change::VmConfig(config),
            Change::LayerAdded(Layer::fresh(layer, id, None)),
            Change::DiskActive { disk: id, layer: layer.id },
        ];
        changes.extend(sizes(facts));
        Conclusion::succeeded(changes)
    }
}

impl DetachDisk {
    pub(super) fn accept(&self, timeline: &Timeline) -> Result<Vec<Change>, Refusal> {
        find(&timeline.vm.config, self.disk)?;
        refuse_snapshots(timeline)?;
        power::refuse_live(timeline)?;
        Ok(Vec::new())
    }

    pub(super) fn plan(&self, timeline: &Timeline) -> Effect {
        let layers = timeline.layers.values().filter(|layer| layer.disk == self.disk);
        let layers: Vec<LayerFile> = layers.map(Layer::file).collect();
        Effect::DetachDisk { vm: timeline.vm.id, layers }
    }

    pub(super) fn conclude(&self, timeline: &Timeline, outcome: &Outcome) -> Conclusion {
        match outcome {
            Outcome::Done(_) => {
                let mut config = timeline.vm.config.clone();
                config.disks.retain(|disk| disk.id != self.disk);
                Conclusion::succeeded(vec![Change::VmConfig(config), Change::DiskGone(self.disk)])
            }
            Outcome::Failed(..) | Outcome::Yielded => Conclusion::failed(Vec::new(), outcome),
        }
    }
}

impl ResizeDisk {
    pub(super) fn accept(&self, timeline: &Timeline) -> Result<Vec<Change>, Refusal> {
        let disk = find(&timeline.vm.config, self.disk)?;
        refuse_snapshots(timeline)?;
        if self.size_bytes < disk.size_bytes {
            power::refuse_live(timeline)?;
            refuse_layers(timeline, self.disk)?;
        }
        Ok(Vec::new())
    }

    pub(super) fn plan(&self, timeline: &Timeline) -> Effect {
        Effect::ResizeDisk(effect::ResizeDisk {
            vm: timeline.vm.id,
            layer: timeline.layers[&timeline.active[&self.disk]].file(),
            size_bytes: self.size_bytes,
        })
    }

    pub(super) fn conclude(&self, timeline: &Timeline, outcome: &Outcome) -> Conclusion {
        let Outcome::Done(facts) = outcome else {
            return Conclusion::failed(Vec::new(), outcome);
        };
        let mut config = timeline.vm.config.clone();
        for disk in config.disks.iter_mut().filter(|disk| disk.id == self.disk) {
            disk.size_bytes = self.size_bytes;
        }
        let mut changes = vec![Change::VmConfig(config)];
        changes.extend(sizes(facts));
        Conclusion::succeeded(changes)
    }
}

/// Refuses to shrink a disk of several layers: what is merged later would have its size again.
fn refuse_layers(timeline: &Timeline, disk: DiskId) -> Result<(), Refusal> {
    if timeline.active.get(&disk).is_none_or(|&top| timeline.chain(top).len() == 1) {
        return Ok(());
    }
    Err(Refusal::new(Code::DiskHasLayers)
        .detail(format!("a disk of {} is not one file yet", timeline.vm.name))
        .hint("wait until its space was given back; a linked clone has to be cloned in full first"))
}

/// The disk with this id, if it is one that the guest sees.
fn find(config: &Config, id: DiskId) -> Result<&Disk, Refusal> {
    let disk = config.disks.iter().find(|disk| disk.id == id && disk.role == Role::Data);
    disk.ok_or_else(|| Refusal::new(Code::UnknownDisk).detail(id.to_string()))
}
