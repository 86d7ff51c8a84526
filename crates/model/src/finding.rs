//! What is on a host and not as it was recorded: files that somebody moved, replaced or wrote to,
//! files that nobody knows, guests that somebody holds (E12, E39, R12). It is found and told; what
//! would build on it is refused; nothing is removed.

use crate::change::{Change, SnapshotChange};
use crate::id::{LayerId, SnapshotId};
use crate::layer::LayerFile;
use crate::reclaim::{Reclaim, begun};
use crate::refusal::{Code, Refusal};
use crate::snapshot::{Kind, Snapshot, SnapshotState, memory_name};
use crate::timeline::Timeline;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Which file it is, how long, and when it was last written to: another one in its place shows, and
/// so does a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// Its number in its filesystem.
    pub inode: u64,
    /// How long it is.
    pub size_bytes: u64,
    /// When it was last written to, in nanoseconds since 1970.
    pub written_ns: i64,
}

/// What there is of a machine on its host.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Sighting {
    /// The files in its folder, by name, but for those that are the hypervisor's own.
    pub files: BTreeMap<String, Mark>,
    /// Those in whose place the guest's process has another file open, one that was there before.
    pub replaced: BTreeSet<String>,
    /// Who has one open though it is none of ours.
    pub holders: BTreeMap<String, String>,
    /// How the guest is held, if it is and we do not do it.
    pub held: Option<String>,
    /// The revision that the manifest tells of.
    pub revision: Option<i64>,
}

/// Something on a host that is not as it was recorded.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Finding {
    /// The file of a layer is not there.
    LayerMissing {
        /// Which.
        layer: LayerId,
    },
    /// The file of a layer is another one, or somebody wrote to it.
    LayerChanged {
        /// Which.
        layer: LayerId,
    },
    /// The memory of a snapshot is not there.
    MemoryMissing {
        /// Whose.
        snapshot: SnapshotId,
    },
    /// The memory of a snapshot is another file, or somebody wrote to it.
    MemoryChanged {
        /// Whose.
        snapshot: SnapshotId,
    },
    /// Somebody else has a file open.
    OpenElsewhere {
        /// Its name.
        file: String,
        /// Who.
        by: String,
    },
    /// There is a file that nobody knows.
    UnknownFile {
        /// Its name.
        file: String,
    },
    /// The manifest tells of more than is recorded: the database is an older one.
    Outdated,
    /// Somebody else holds the guest.
    GuestHeld {
        /// How.
        how: String,
    },
}

/// What came of comparing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Compared {
    /// What is not as it was recorded.
    pub findings: BTreeSet<Finding>,
    /// The marks of files that are seen for the first time.
    pub marks: BTreeMap<String, Mark>,
}

/// Compares what was seen with what is recorded, of a machine that nothing is done to.
pub fn compare(
    timeline: &Timeline,
    marks: &BTreeMap<String, Mark>,
    sighting: &Sighting,
    revision: i64,
) -> Compared {
    let mut compared = Compared::default();
    // Work that gave way may have got as far as to its last step.
    let begun = begun(timeline);
    let mut known: BTreeSet<String> =
        begun.iter().filter_map(|w| Some(w.comes()?.name())).collect();
    let going: BTreeSet<LayerId> = begun.iter().filter_map(Reclaim::goes).collect();
    let mut look = |name: String, written: bool, missing: Finding, changed: Finding| {
        match (sighting.files.get(&name), marks.get(&name)) {
            (None, _) if missing.layer().is_some_and(|layer| going.contains(&layer)) => {}
            (None, _) => drop(compared.findings.insert(missing)),
            (Some(_), _) if sighting.replaced.contains(&name) => {
                compared.findings.insert(changed);
            }
            (Some(seen), None) => drop(compared.marks.insert(name.clone(), *seen)),
            // What the guest writes to changes; which file it is does not.
            (Some(seen), Some(mark)) if written && seen.inode == mark.inode => {}
            (Some(seen), Some(mark)) if seen == mark => {}
            (Some(_), Some(_)) => drop(compared.findings.insert(changed)),
        }
        known.insert(name);
    };
    let active: BTreeSet<LayerId> = timeline.active.values().copied().collect();
    for layer in timeline.layers.values() {
        let id = layer.id;
        let (missing, changed) =
            (Finding::LayerMissing { layer: id }, Finding::LayerChanged { layer: id });
        look(layer.file().name(), active.contains(&id), missing, changed);
    }
    for snapshot in timeline.snapshots.values().filter(|snapshot| has_memory(snapshot)) {
        let id = snapshot.id;
        let (missing, changed) =
            (Finding::MemoryMissing { snapshot: id }, Finding::MemoryChanged { snapshot: id });
        look(memory_name(id), false, missing, changed);
    }
    let unknown = sighting.files.keys().filter(|name| !known.contains(*name));
    let unknown = unknown.map(|file| Finding::UnknownFile { file: file.clone() });
    let open = sighting.holders.iter();
    let open = open.map(|(file, by)| Finding::OpenElsewhere { file: file.clone(), by: by.clone() });
    let held = sighting.held.iter().map(|how| Finding::GuestHeld { how: how.clone() });
    let outdated = sighting.revision.filter(|&there| there > revision).map(|_| Finding::Outdated);
    compared.findings.extend(unknown.chain(open).chain(held).chain(outdated));
    compared
}

/// The files that nothing is written to any more and whose marks are not known yet.
pub fn unmarked(timeline: &Timeline, marks: &BTreeMap<String, Mark>) -> BTreeSet<String> {
    let active: BTreeSet<LayerId> = timeline.active.values().copied().collect();
    let frozen = timeline.layers.values().filter(|layer| !active.contains(&layer.id));
    let memories = timeline.snapshots.values().filter(|snapshot| has_memory(snapshot));
    let files = frozen.map(|layer| layer.file().name());
    let files = files.chain(memories.map(|snapshot| memory_name(snapshot.id)));
    files.filter(|file| !marks.contains_key(file)).collect()
}

fn has_memory(snapshot: &Snapshot) -> bool {
    snapshot.kind == Kind::DiskAndMemory && snapshot.state == SnapshotState::Ready
}

impl Finding {
    /// As it stands on the wire.
    pub fn word(&self) -> &'static str {
        match self {
            Self::LayerMissing { .. } => "layer-missing",
            Self::LayerChanged { .. } => "layer-changed",
            Self::MemoryMissing { .. } => "memory-missing",
            Self::MemoryChanged { .. } => "memory-changed",
            Self::OpenElsewhere { .. } => "open-elsewhere",
            Self::UnknownFile { .. } => "unknown-file",
            Self::Outdated => "outdated",
            Self::GuestHeld { .. } => "guest-held",
        }
    }

    /// The layer that cannot be trusted.
    fn layer(&self) -> Option<LayerId> {
        match self {
            Self::LayerMissing { layer } | Self::LayerChanged { layer } => Some(*layer),
            Self::MemoryMissing { .. }
            | Self::MemoryChanged { .. }
            | Self::OpenElsewhere { .. }
            | Self::UnknownFile { .. }
            | Self::Outdated
            | Self::GuestHeld { .. } => None,
        }
    }

    /// The snapshot whose memory cannot be trusted.
    fn memory(&self) -> Option<SnapshotId> {
        match self {
            Self::MemoryMissing { snapshot } | Self::MemoryChanged { snapshot } => Some(*snapshot),
            Self::LayerMissing { .. }
            | Self::LayerChanged { .. }
            | Self::OpenElsewhere { .. }
            | Self::UnknownFile { .. }
            | Self::Outdated
            | Self::GuestHeld { .. } => None,
        }
    }

    /// The name of the file it is about.
    pub fn file(&self, timeline: &Timeline) -> Option<String> {
        match self {
            Self::LayerMissing { layer } | Self::LayerChanged { layer } => {
                timeline.layers.get(layer).map(|layer| layer.file().name())
            }
            Self::MemoryMissing { snapshot } | Self::MemoryChanged { snapshot } => {
                Some(memory_name(*snapshot))
            }
            Self::OpenElsewhere { file, .. } | Self::UnknownFile { file } => Some(file.clone()),
            Self::Outdated | Self::GuestHeld { .. } => None,
        }
    }

    /// The snapshots that are not what they were, because of it.
    pub fn affected(&self, timeline: &Timeline) -> Vec<SnapshotId> {
        if let Some(snapshot) = self.memory() {
            return vec![snapshot];
        }
        let Some(layer) = self.layer() else { return Vec::new() };
        let on_it = |snapshot: &&Snapshot| {
            snapshot.layers.values().any(|&top| timeline.lies_on(top, layer))
        };
        timeline.snapshots.values().filter(on_it).map(|snapshot| snapshot.id).collect()
    }

    /// Whether what the machine is now depends on it.
    pub fn affects_now(&self, timeline: &Timeline) -> bool {
        let Some(layer) = self.layer() else {
            return matches!(self, Self::GuestHeld { .. } | Self::Outdated);
        };
        timeline.active.values().any(|&top| timeline.lies_on(top, layer))
    }

    /// What it is, in a sentence.
    pub fn tell(&self, timeline: &Timeline) -> String {
        let file = self.file(timeline).unwrap_or_default();
        match self {
            Self::LayerMissing { .. } | Self::MemoryMissing { .. } => format!("{file} is missing"),
            Self::LayerChanged { .. } | Self::MemoryChanged { .. } => {
                format!("{file} is not the file that was recorded, or was written to")
            }
            Self::OpenElsewhere { by, .. } => format!("{file} is open in {by}"),
            Self::UnknownFile { .. } => format!("nobody knows {file}"),
            Self::Outdated => "its manifest tells of more than the database knows".to_owned(),
            Self::GuestHeld { how } => format!("the guest is held: {how}"),
        }
    }
}

impl Timeline {
    /// The layers whose files are not what was recorded.
    pub fn doubtful(&self) -> BTreeSet<LayerId> {
        self.vm.findings.iter().filter_map(Finding::layer).collect()
    }

    /// Whether the chain below and with `top` has this layer.
    fn lies_on(&self, top: LayerId, layer: LayerId) -> bool {
        self.chain(top).iter().any(|file| file.id == layer)
    }
}

/// Refuses what would build on a snapshot whose disks, or memory if that is wanted, are not what
/// was recorded.
pub(crate) fn refuse_doubtful(
    timeline: &Timeline,
    snapshot: &Snapshot,
    with_memory: bool,
) -> Result<(), Refusal> {
    let concerns = |finding: &&Finding| {
        (with_memory || finding.memory().is_none())
            && finding.affected(timeline).contains(&snapshot.id)
    };
    refuse_found(timeline, timeline.vm.findings.iter().find(concerns))
}

/// Refuses everything while the host knows more of the machine than the database does: it would be
/// done to what is no more.
pub(crate) fn refuse_outdated(timeline: &Timeline) -> Result<(), Refusal> {
    if !timeline.vm.findings.contains(&Finding::Outdated) {
        return Ok(());
    }
    Err(Refusal::new(Code::FilesInDoubt)
        .detail(Finding::Outdated.tell(timeline))
        .hint("have an administrator take it up as it is there: tintype host adopt"))
}

/// Refuses what would build on what the machine is now, if a file of it is not what was recorded;
/// with `changed` false only if one is missing.
pub(crate) fn refuse_doubtful_now(timeline: &Timeline, changed: bool) -> Result<(), Refusal> {
    let concerns = |finding: &&Finding| {
        let counts = match finding {
            Finding::LayerMissing { .. } => true,
            Finding::LayerChanged { .. } => changed,
            _ => false,
        };
        counts && finding.affects_now(timeline)
    };
    refuse_found(timeline, timeline.vm.findings.iter().find(concerns))
}

fn refuse_found(timeline: &Timeline, found: Option<&Finding>) -> Result<(), Refusal> {
    let Some(finding) = found else { return Ok(()) };
    Err(Refusal::new(Code::FilesInDoubt)
        .detail(finding.tell(timeline))
        .hint("put the file back as it was, or have an administrator decide: tintype host check")
        .blocked_by(finding.affected(timeline).into_iter().map(|id| id.0)))
}

/// What can be done about a finding.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Repair {
    /// Look whether a layer is sound in itself, and take it as it is; else give up what needs it.
    AcceptLayer {
        /// Which.
        layer: LayerFile,
    },
    /// Take the memory as it is; it is known to load once the snapshot is verified.
    AcceptMemory {
        /// Whose.
        snapshot: SnapshotId,
    },
    /// Keep a snapshot without its memory.
    ForgetMemory {
        /// Which.
        snapshot: SnapshotId,
    },
    /// Say of the snapshots that need a layer that they are unavailable: they can be deleted then.
    GiveUp {
        /// The layer that is gone.
        layer: LayerId,
    },
    /// Move a file out of the way, to where it can be found.
    SetAside {
        /// Its name.
        file: String,
    },
    /// Move the folder of a machine that nobody knows out of the way.
    SetAsideMachine,
    /// Let the guest go on.
    Resume,
}

impl Repair {
    /// What it does, in a few words.
    pub fn tell(&self) -> &'static str {
        match self {
            Self::AcceptLayer { .. } => {
                "look whether it is sound in itself, and take it as it is; else say of the \
                 snapshots that need it that they are unavailable"
            }
            Self::AcceptMemory { .. } => "take it as it is, to be proved by snapshot verify",
            Self::ForgetMemory { .. } => "keep the snapshot without its memory",
            Self::GiveUp { .. } => "say of the snapshots that need it that they are unavailable",
            Self::SetAsideMachine => "move its folder out of the way, in the pool",
            Self::SetAside { .. } => "move it out of the way, in the pool",
            Self::Resume => "let the guest go on",
        }
    }
}

impl Finding {
    /// What can be done about it from here, if anything: what NOW is missing, or what others have
    /// open, is for people.
    pub fn repair(&self, timeline: &Timeline) -> Option<Repair> {
        match self {
            Self::LayerMissing { layer } => {
                let given_up = self.affected(timeline).is_empty();
                (!given_up).then_some(Repair::GiveUp { layer: *layer })
            }
            Self::LayerChanged { layer } => {
                let layer = timeline.layers.get(layer)?.file();
                Some(Repair::AcceptLayer { layer })
            }
            Self::MemoryMissing { snapshot } => Some(Repair::ForgetMemory { snapshot: *snapshot }),
            Self::MemoryChanged { snapshot } => Some(Repair::AcceptMemory { snapshot: *snapshot }),
            Self::UnknownFile { file } => Some(Repair::SetAside { file: file.clone() }),
            Self::GuestHeld { .. } => Some(Repair::Resume),
            Self::OpenElsewhere { .. } | Self::Outdated => None,
        }
    }
}

/// The changes that say of all snapshots that need a layer that they are unavailable.
pub fn give_up(timeline: &Timeline, layer: LayerId, why: &str) -> Vec<Change> {
    let affected = Finding::LayerMissing { layer }.affected(timeline);
    let reason = Refusal::new(Code::FilesInDoubt).detail(why);
    let unavailable = || SnapshotChange::Unavailable(reason.clone());
    affected.into_iter().map(|id| Change::SnapshotChanged(id, unavailable())).collect()
}
