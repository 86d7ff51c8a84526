//! What lies beside the layers of a machine and says what they are, so that a database that was
//! lost can be made again (`docs/format/manifest.md`).

use crate::finding::Sighting;
use crate::id::{LayerId, VmId};
use crate::layer::{Format, Layer, LayerFile};
use crate::moment::Moment;
use crate::operation::Operation;
use crate::reclaim::Reclaim;
use crate::refusal::{Code, Refusal};
use crate::snapshot::SnapshotState;
use crate::timeline::Timeline;
use crate::vm::VmState;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The format that is written; others are not read.
const FORMAT: u32 = 1;

/// The name of the file, in the machine's folder.
pub const NAME: &str = "manifest.json";

/// What a machine is, as it was recorded last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// How this is written.
    pub format: u32,
    /// How often the timeline had been recorded.
    pub revision: i64,
    /// When this was written.
    pub written_at: Moment,
    /// The names of the domains that have it, from beneath the root down.
    pub domain: Vec<String>,
    /// The name of the account that has it.
    pub account: String,
    /// The machine with its snapshots and layers.
    pub timeline: Timeline,
    /// The operation that holds it.
    pub operation: Option<Operation>,
    /// The background work on its layers that is under way.
    pub reclaim: Option<Reclaim>,
}

/// A machine that was found on a host by what lies in its folder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Survey {
    /// Which.
    pub vm: VmId,
    /// What its manifest says, if there is one.
    pub manifest: Option<String>,
    /// What there is.
    pub sighting: Sighting,
    /// The file that each layer says it lies on.
    pub lies_on: BTreeMap<String, String>,
    /// The files that its guest writes to.
    pub written: BTreeSet<String>,
    /// Whether its guest runs.
    pub state: VmState,
}

/// What says how the rest is to be read; the rest is passed over.
#[derive(Deserialize)]
struct Head {
    format: u32,
    revision: Option<i64>,
}

impl Head {
    fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

impl Manifest {
    /// Describes a machine at rest.
    pub fn of(
        timeline: Timeline,
        revision: i64,
        (domain, account): (Vec<String>, String),
        at: Moment,
    ) -> Self {
        let (operation, reclaim) = (None, None);
        let written_at = at;
        Self { format: FORMAT, revision, written_at, domain, account, timeline, operation, reclaim }
    }

    /// As it is written.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain values are written")
    }

    /// How often the timeline had been recorded that a text tells of, if it is a manifest.
    pub fn revision_in(text: &str) -> Option<i64> {
        let head = Head::read(text).ok()?;
        (head.format == FORMAT).then_some(head.revision).flatten()
    }

    /// Reads what may have been damaged, or written by somebody else.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let Head { format, .. } = Head::read(text)?;
        if format != FORMAT {
            return Err(format!("it has format {format}, and {FORMAT} is known"));
        }
        let manifest: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        manifest.timeline.flaw().map_or(Ok(manifest), Err)
    }
}

impl Survey {
    /// The machine as it is taken up: what the manifest says, brought up to what is there.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn take_up(&self) -> Result<Manifest, String> {
        let text = self.manifest.as_ref().ok_or("it has no manifest")?;
        let mut manifest = Manifest::read(text)?;
        let timeline = &mut manifest.timeline;
        if timeline.vm.id != self.vm {
            return Err(format!("its manifest is that of {}", timeline.vm.id));
        }
        timeline.vm.findings.clear();
        if manifest.reclaim.is_none() {
            timeline.vm.reclaim = None;
        }
        // What holds it ends as it would have ended: by the journal of what was done.
        if manifest.operation.is_none() {
            timeline.vm.operation = None;
            self.settle(timeline);
        }
        manifest.timeline.flaw().map_or(Ok(manifest), Err)
    }

    /// Brings what nothing is done to up to what is there, in case that less was written down than
    /// had happened.
    fn settle(&self, timeline: &mut Timeline) {
        if (timeline.vm.state, self.state) != (VmState::Crashed, VmState::Stopped) {
            timeline.vm.state = self.state;
        }
        while let Some(layer) = self.newer(timeline) {
            timeline.active.insert(layer.disk, layer.id);
            timeline.layers.insert(layer.id, layer);
        }
        for snapshot in timeline.snapshots.values_mut() {
            match snapshot.state {
                SnapshotState::Ready | SnapshotState::Unavailable => {}
                SnapshotState::Reverting | SnapshotState::Deleting => {
                    snapshot.state = SnapshotState::Ready;
                }
                SnapshotState::Creating => {
                    let why = "the database was lost while it was taken";
                    snapshot.state = SnapshotState::Unavailable;
                    snapshot.reason = Some(Refusal::new(Code::Interrupted).detail(why));
                    snapshot.layers.clear();
                }
            }
        }
    }

    /// A layer that was put on one of these after the manifest was written, and is in use: of a
    /// guest that runs it is what the guest writes to, else what lies on what NOW was.
    fn newer(&self, timeline: &Timeline) -> Option<Layer> {
        self.lies_on.iter().find_map(|(name, beneath)| {
            let file = layer_file(name)?;
            let parent = timeline.layers.get(&layer_file(beneath)?.id)?;
            if timeline.layers.contains_key(&file.id) {
                return None;
            }
            let in_use = if self.state.is_live() {
                self.written.contains(name)
            } else {
                timeline.active.get(&parent.disk) == Some(&parent.id)
            };
            in_use.then(|| Layer::fresh(file, parent.disk, Some(parent.id)))
        })
    }
}

/// The layer whose file is called so, if it is one's name.
pub fn layer_file(name: &str) -> Option<LayerFile> {
    let (id, extension) = name.rsplit_once('.')?;
    let format = match extension {
        "qcow2" => Format::Qcow2,
        "raw" => Format::Raw,
        _ => return None,
    };
    let file = LayerFile { id: LayerId(id.parse().ok()?), format };
    (file.name() == name).then_some(file)
}
