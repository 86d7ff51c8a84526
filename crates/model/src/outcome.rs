//! How effects end, and what agents saw.

use crate::id::LayerId;
use crate::refusal::Refusal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How an effect ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It happened.
    Done(Facts),
    /// It did not; what was begun is undone, but for what the facts say.
    Failed(Refusal, Facts),
    /// Background work gave way, undone.
    Yielded,
}

/// What an agent saw while it performed an effect.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Whether the disks are written to the new layers; of a merge or fold, whether the layer that
    /// goes is of the past, though it may still lie there.
    pub switched: bool,
    /// Whether the machine runs.
    pub running: bool,
    /// How long the guest stood still.
    pub pause_ms: Option<u64>,
    /// Whether the guest held still, with everything written, while its disks were switched.
    #[serde(default)]
    pub quiesced: bool,
    /// Why it did not, if that was wanted.
    #[serde(default)]
    pub not_quiesced: Option<Refusal>,
    /// Whether memory was saved behind the guest's back though it was not to be.
    #[serde(default)]
    pub turned: bool,
    /// What the memory takes on disk.
    pub memory_bytes: u64,
    /// What files take on disk, by layer.
    pub sizes: BTreeMap<LayerId, u64>,
}
