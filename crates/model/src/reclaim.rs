//! Giving space back and keeping chains short, in the background, without touching anybody's
//! snapshot: which layers may be removed, merged or folded, and what is recorded afterwards.

use crate::change::{Change, SnapshotChange};
use crate::finding::Finding;
use crate::id::{DiskId, LayerId, SnapshotId, VmId};
use crate::layer::{DEPTH_MOST, Format, Layer, LayerFile};
use crate::outcome::{Facts, Outcome};
use crate::snapshot::Snapshot;
use crate::timeline::Timeline;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// How many layers of one rank are folded into one of the next.
const FAN: usize = 6;

/// One piece of background work on the layers of one disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reclaim {
    /// Remove a layer nobody needs and nothing lies on.
    Remove {
        /// Which.
        layer: LayerFile,
    },
    /// Write a layer down into the one beneath, which only it needs; the lower file takes its
    /// place. What is seen through the upper layer is the same at every step.
    Merge {
        /// The layer that goes.
        child: LayerFile,
        /// The layer that takes its place.
        into: LayerFile,
        /// What lies on `child` and will lie on `into`.
        above: Vec<LayerFile>,
    },
    /// Put one new layer in the place of `top`, holding what `top` and those beneath it down to
    /// `base` hold together; those in between stay, for the snapshots that need them.
    Fold {
        /// The layer that goes; all beneath it follow, down to the last.
        chain: Vec<LayerFile>,
        /// The layer of `chain` that the new one will lie on.
        base: LayerFile,
        /// The new layer.
        fresh: LayerFile,
        /// Its rank.
        rank: u32,
        /// What lies on the top of `chain` and will lie on `fresh`.
        above: Vec<LayerFile>,
        /// Whether the top of `chain` stays, for a shared layer that lies on it.
        #[serde(default)]
        keep: bool,
    },
}

/// The next piece of work on this timeline, if there is any.
pub fn next(timeline: &Timeline) -> Option<Reclaim> {
    next_beside(timeline, &BTreeSet::new())
}

/// The next piece of work on other disks than these, on which work has just failed.
pub fn next_beside(timeline: &Timeline, failing: &BTreeSet<DiskId>) -> Option<Reclaim> {
    if timeline.vm.findings.contains(&Finding::Outdated) {
        return None;
    }
    // A file that is not what was recorded is neither merged nor folded: that would spread it.
    let doubtful = timeline.doubtful();
    let doubtful = doubtful.iter().filter_map(|id| Some(timeline.layers.get(id)?.disk));
    let doubtful: BTreeSet<DiskId> = doubtful.collect();
    let work = unneeded(timeline, failing, &doubtful);
    work.or_else(|| fold(timeline, &failing.union(&doubtful).copied().collect()))
}

/// The next piece of work on each disk, whatever was found on the host: it may have been begun and
/// have given way at any step.
pub fn begun(timeline: &Timeline) -> Vec<Reclaim> {
    let disks: BTreeSet<DiskId> = timeline.layers.values().map(|layer| layer.disk).collect();
    let next = |disk: &DiskId| {
        let others = disks.iter().filter(|other| *other != disk).copied().collect();
        let work = unneeded(timeline, &others, &BTreeSet::new());
        work.or_else(|| fold(timeline, &others))
    };
    disks.iter().filter_map(next).collect()
}

/// Whether the disks have so many layers that folding comes before another snapshot.
pub fn must_fold_first(timeline: &Timeline) -> bool {
    timeline.depth() >= DEPTH_MOST
}

fn unneeded(
    timeline: &Timeline,
    failing: &BTreeSet<DiskId>,
    unmerged: &BTreeSet<DiskId>,
) -> Option<Reclaim> {
    let needed = timeline.needed();
    let others = timeline.layers.values().filter(|layer| !failing.contains(&layer.disk));
    for layer in others.filter(|layer| !needed.contains(&layer.id)) {
        let mut children = timeline.children(layer.id);
        match (children.next(), children.next()) {
            (None, _) => {
                return Some(Reclaim::Remove { layer: layer.file() });
            }
            // What is shared is not written to; it stays until the other machine is gone.
            (Some(child), None) if !layer.shared && !unmerged.contains(&layer.disk) => {
                return Some(Reclaim::Merge {
                    child: child.file(),
                    into: layer.file(),
                    above: timeline.children(child.id).map(Layer::file).collect(),
                });
            }
            (Some(_), _) => {}
        }
    }
    None
}

fn fold(timeline: &Timeline, failing: &BTreeSet<DiskId>) -> Option<Reclaim> {
    let others = timeline.active.iter().filter(|(disk, _)| !failing.contains(disk));
    for (_, &active) in others {
        let chain = timeline.chain(*timeline.layers.get(&active)?.parent.as_ref()?);
        let ranks: Vec<u32> = chain.iter().map(|file| timeline.layers[&file.id].rank).collect();
        let Some((length, rank)) = run_to_fold(&ranks) else {
            continue;
        };
        let base = chain[length];
        let id = folded_id(timeline.vm.id, chain[0].id, base.id);
        return Some(Reclaim::Fold {
            base,
            above: movable(timeline, chain[0].id).map(Layer::file).collect(),
            fresh: LayerFile { id, format: Format::Qcow2 },
            keep: timeline.children(chain[0].id).any(|above| above.shared),
            chain,
            rank,
        });
    }
    None
}

/// The id of what a layer folded down to `base` becomes: the same whenever it is planned again, so
/// that a fold that failed half-way is taken up where it was. The layer goes when the fold is done,
/// so that no other fold gets this id; all are random, so that nothing else has it, nor has a clone
/// that folds the same layers.
fn folded_id(vm: VmId, top: LayerId, base: LayerId) -> LayerId {
    let [vm, top, base] = [vm.0, top.0, base.0].map(|id| id.as_u128());
    LayerId(Uuid::from_u128(vm.rotate_left(2) ^ top ^ base.rotate_left(1)))
}

/// What lies on a layer and can be put on another one: a shared layer stays where it is.
fn movable(timeline: &Timeline, on: LayerId) -> impl Iterator<Item = &Layer> {
    timeline.children(on).filter(|layer| !layer.shared)
}

/// How many of the topmost frozen layers to fold, and the rank of the result. The lowest layer is
/// never folded: it is as large as the disk.
fn run_to_fold(ranks: &[u32]) -> Option<(usize, u32)> {
    let foldable = &ranks[..ranks.len().saturating_sub(1)];
    let highest = foldable.iter().copied().max()?;
    if foldable.len() + 2 >= DEPTH_MOST {
        return Some((foldable.len(), highest + 1));
    }
    (0..=highest).find_map(|rank| {
        let run = foldable.iter().take_while(|&&r| r <= rank).count();
        let of_rank = foldable[..run].iter().filter(|&&r| r == rank).count();
        (of_rank >= FAN).then_some((run, rank + 1))
    })
}

impl Reclaim {
    /// The disk whose layers it is about.
    pub fn disk(&self, timeline: &Timeline) -> Option<DiskId> {
        let layer = match self {
            Self::Remove { layer } => Some(layer),
            Self::Merge { child, .. } => Some(child),
            Self::Fold { chain, .. } => chain.first(),
        };
        Some(timeline.layers.get(&layer?.id)?.disk)
    }

    /// The layer that goes.
    pub fn goes(&self) -> Option<LayerId> {
        match self {
            Self::Remove { layer } | Self::Merge { child: layer, .. } => Some(layer.id),
            Self::Fold { chain, keep, .. } => chain.first().filter(|_| !keep).map(|top| top.id),
        }
    }

    /// The layer that comes.
    pub fn comes(&self) -> Option<LayerFile> {
        match self {
            Self::Remove { .. } | Self::Merge { .. } => None,
            Self::Fold { fresh, .. } => Some(*fresh),
        }
    }

    /// The layers that were there before and may be written to.
    pub fn written(&self) -> Vec<LayerFile> {
        match self {
            Self::Remove { .. } => Vec::new(),
            Self::Merge { child, into, above } => [&[*child, *into][..], above].concat(),
            Self::Fold { above, .. } => above.clone(),
        }
    }

    /// What is recorded of what came of the work.
    pub fn conclude(&self, timeline: &Timeline, outcome: &Outcome) -> Vec<Change> {
        match outcome {
            Outcome::Done(facts) => self.done(timeline, facts),
            Outcome::Failed(_, facts) if facts.switched => self.all_but_removed(timeline, facts),
            Outcome::Failed(..) | Outcome::Yielded => Vec::new(),
        }
    }

    /// What is of the past lies there still, and has yet to be removed.
    fn all_but_removed(&self, timeline: &Timeline, facts: &Facts) -> Vec<Change> {
        let mut changes = self.done(timeline, facts);
        changes.retain(|change| !matches!(change, Change::LayerGone(_)));
        if let Self::Merge { child, .. } = self {
            // What it lay on may be written to by a guest, with which nothing fits any more.
            changes.push(Change::LayerMoved { layer: child.id, parent: None });
        }
        changes
    }

    fn done(&self, timeline: &Timeline, facts: &Facts) -> Vec<Change> {
        let mut changes = match self {
            Self::Remove { layer } => vec![Change::LayerGone(layer.id)],
            Self::Merge { child, into, .. } => replace(timeline, child.id, into.id),
            Self::Fold { chain, base, fresh, rank, .. } => {
                let added = Change::LayerAdded(Layer {
                    id: fresh.id,
                    disk: timeline.layers[&chain[0].id].disk,
                    parent: Some(base.id),
                    format: fresh.format,
                    rank: *rank,
                    size_bytes: 0,
                    shared: false,
                });
                let mut changes = vec![added];
                changes.extend(replace(timeline, chain[0].id, fresh.id));
                changes
            }
        };
        changes.extend(sizes(facts));
        changes
    }
}

/// The measured sizes, as changes.
pub fn sizes(facts: &Facts) -> impl Iterator<Item = Change> + '_ {
    facts.sizes.iter().map(|(&layer, &size_bytes)| Change::LayerSize { layer, size_bytes })
}

/// Puts `new` in the place of `old`, which goes.
fn replace(timeline: &Timeline, old: LayerId, new: LayerId) -> Vec<Change> {
    let mut changes = Vec::new();
    for above in movable(timeline, old) {
        changes.push(Change::LayerMoved { layer: above.id, parent: Some(new) });
    }
    for snapshot in timeline.snapshots.values() {
        for (&disk, _) in snapshot.layers.iter().filter(|&(_, &layer)| layer == old) {
            changes.push(Change::SnapshotChanged(snapshot.id, SnapshotChange::Layer(disk, new)));
        }
    }
    let active = timeline.active.iter().find(|&(_, &layer)| layer == old);
    changes.extend(active.map(|(&disk, _): (&DiskId, _)| Change::DiskActive { disk, layer: new }));
    if timeline.children(old).all(|above| !above.shared) {
        changes.push(Change::LayerGone(old));
    }
    changes
}

/// What becomes of space when snapshots go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// Given back: memory files and layers that nothing else is made of.
    pub freed_bytes: u64,
    /// In layers that will be merged into others; how much of it overlaps is found out then.
    pub merged_bytes: u64,
    /// In layers that a branch still needs.
    pub kept_bytes: u64,
}

/// What deleting each snapshot by itself would give back: its memory, and the layers that nothing
/// else is made of.
pub fn freed_by_each(timeline: &Timeline) -> BTreeMap<SnapshotId, u64> {
    let held = timeline.snapshots.values().flat_map(|snapshot| snapshot.layers.values());
    let mut held: Vec<LayerId> = held.chain(timeline.active.values()).copied().collect();
    held.sort_unstable();
    let mut parents: Vec<LayerId> = timeline.layers.values().filter_map(|l| l.parent).collect();
    parents.sort_unstable();
    let held_once = |layer: &LayerId| {
        let at = held.partition_point(|other| other < layer);
        held.get(at + 1) != Some(layer)
    };
    let frees = |layer: &LayerId| held_once(layer) && parents.binary_search(layer).is_err();
    let freed = |snapshot: &Snapshot| {
        let layers = snapshot.layers.values().filter(|layer| frees(layer));
        let sizes = layers.filter_map(|layer| Some(timeline.layers.get(layer)?.size_bytes));
        snapshot.memory_bytes + sizes.sum::<u64>()
    };
    timeline.snapshots.iter().map(|(&id, snapshot)| (id, freed(snapshot))).collect()
}

/// What would become of space if the snapshots in `gone` were deleted.
pub fn forecast(timeline: &Timeline, gone: &[SnapshotId]) -> Space {
    let mut after = timeline.clone();
    let mut space = Space::default();
    let held_before = timeline.needed();
    for id in gone {
        if let Some(snapshot) = after.snapshots.remove(id) {
            space.freed_bytes += snapshot.memory_bytes;
        }
    }
    let mut candidates: Vec<LayerId> = held_before.difference(&after.needed()).copied().collect();
    loop {
        let leaf = candidates.iter().position(|&id| after.children(id).next().is_none());
        let Some(at) = leaf else { break };
        let id = candidates.swap_remove(at);
        space.freed_bytes += after.layers.remove(&id).map_or(0, |layer| layer.size_bytes);
    }
    for id in candidates {
        let size = after.layers.get(&id).map_or(0, |layer| layer.size_bytes);
        if after.children(id).count() == 1 {
            space.merged_bytes += size;
        } else {
            space.kept_bytes += size;
        }
    }
    space
}

#[cfg(test)]
mod tests {
    use super::run_to_fold;

    #[test]
    fn six_layers_of_a_rank_are_folded_into_one_of_the_next() {
        assert_eq!(run_to_fold(&[0, 0, 0, 0, 0, 0]), None);
        assert_eq!(run_to_fold(&[0, 0, 0, 0, 0, 0, 0]), Some((6, 1)));
        assert_eq!(run_to_fold(&[0, 0, 0, 0, 0, 0, 1, 0]), Some((6, 1)));
        assert_eq!(run_to_fold(&[1, 1, 1, 1, 1, 1, 2, 0]), Some((6, 2)));
        assert_eq!(run_to_fold(&[0, 1, 1, 1, 1, 1, 1, 0]), Some((7, 2)));
        assert_eq!(run_to_fold(&[]), None);
    }
}
