//! The layer graph: what storage holds (house rule: two trees, not one).
//!
//! A disk at a moment is a layer seen over its parents. A frozen layer is never written to by a
//! guest again; the active layer of each disk is.

use crate::id::{DiskId, LayerId};
use serde::{Deserialize, Serialize};

/// The most layers a disk that is in use may have, its active one included.
pub const DEPTH_MOST: usize = 24;

/// A file that holds what was written to a disk between two moments.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Layer {
    /// Its id, which names its file.
    pub id: LayerId,
    /// The disk it is part of.
    pub disk: DiskId,
    /// The layer beneath.
    pub parent: Option<LayerId>,
    /// The format of its file.
    pub format: Format,
    /// How often it is the result of folding; 0 for what a guest wrote.
    pub rank: u32,
    /// What its file takes on disk, as last seen.
    pub size_bytes: u64,
    /// Whether its file is another machine's as well, as a linked clone has it: then neither what
    /// is in it nor what it says it lies on is ever changed.
    pub shared: bool,
}

/// The format of a layer's file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// qcow2; every layer with a parent has it.
    Qcow2,
    /// A plain image, as it was copied in.
    Raw,
}

impl Format {
    /// As it stands in the database and in file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// What an agent needs to know to find a layer's file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct LayerFile {
    /// The layer.
    pub id: LayerId,
    /// The format of its file.
    pub format: Format,
}

impl LayerFile {
    /// The name of the file in the virtual machine's folder.
    pub fn name(&self) -> String {
        format!("{}.{}", self.id, self.format.as_str())
    }
}

impl Layer {
    /// A new layer that nothing was written to yet.
    pub fn fresh(file: LayerFile, disk: DiskId, parent: Option<LayerId>) -> Self {
        Self {
            id: file.id,
            disk,
            parent,
            format: file.format,
            rank: 0,
            size_bytes: 0,
            shared: false,
        }
    }

    /// What an agent needs to know to find the file.
    pub fn file(&self) -> LayerFile {
        LayerFile { id: self.id, format: self.format }
    }
}
