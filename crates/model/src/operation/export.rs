//! Writing a snapshot to a folder of the pool, in files that plain QEMU opens.

use super::revert::ready;
use super::{Conclusion, Ending, topped};
use crate::change::Change;
use crate::effect::{Effect, Export, Launch, Outcome};
use crate::finding::refuse_doubtful;
use crate::id::SnapshotId;
use crate::refusal::{Code, Refusal};
use crate::snapshot::Kind;
use crate::timeline::Timeline;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest name, in characters.
const NAME_MOST: usize = 100;

/// Which snapshot to export, and by which name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExportSnapshot {
    /// Which.
    pub snapshot: SnapshotId,
    /// What the export is called; there is none of that name yet.
    pub name: String,
}

impl ExportSnapshot {
    /// What an export is called if nobody says.
    pub fn default_name(vm: &str, snapshot: SnapshotId) -> String {
        format!("{vm}-{}", &snapshot.to_string()[..8])
    }

    pub(super) fn accept(&self, timeline: &Timeline) -> Result<Vec<Change>, Refusal> {
        refuse_name(&self.name)?;
        let snapshot = ready(timeline, self.snapshot)?;
        refuse_doubtful(timeline, snapshot, false)?;
        Ok(Vec::new())
    }

    /// Each disk is made one file of first, under an id that nothing else has.
    pub(super) fn plan(&self, timeline: &Timeline, fresh: &mut impl FnMut() -> Uuid) -> Effect {
        let snapshot = &timeline.snapshots[&self.snapshot];
        let disks = topped(timeline, snapshot, fresh);
        Effect::ExportSnapshot(Box::new(Export {
            snapshot: self.snapshot,
            memory: snapshot.kind == Kind::DiskAndMemory,
            name: self.name.clone(),
            launch: Launch {
                vm: timeline.vm.id,
                name: timeline.vm.name.clone(),
                generation: timeline.vm.generation,
                config: snapshot.config.clone(),
                disks,
            },
        }))
    }

    /// What was written before somebody wanted it gone is there, for whoever can remove it.
    pub(super) fn conclude(outcome: &Outcome, cancelled: bool) -> Conclusion {
        match outcome {
            Outcome::Done(_) => Conclusion::succeeded(Vec::new()),
            _ if cancelled => Conclusion::end(Vec::new(), Ending::Cancelled),
            Outcome::Failed(..) | Outcome::Yielded => Conclusion::failed(Vec::new(), outcome),
        }
    }
}

/// A name becomes that of a folder.
fn refuse_name(name: &str) -> Result<(), Refusal> {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if first && rest && name.len() <= NAME_MOST {
        return Ok(());
    }
    Err(Refusal::new(Code::NameInvalid)
        .detail(format!("{name:?} cannot name an export"))
        .hint("1 to 100 of the characters A-Z a-z 0-9 . _ -, the first a letter or digit"))
}

#[cfg(test)]
mod tests {
    use super::refuse_name;

    #[test]
    fn a_name_stays_in_its_folder() {
        for good in ["web", "9", "web-1a2b.3_c"] {
            assert_eq!(refuse_name(good), Ok(()), "{good}");
        }
        let long = "a".repeat(101);
        for bad in ["", ".", "..", ".web", "a/b", "/web", "a b", "a\0", "ä", &long] {
            assert!(refuse_name(bad).is_err(), "{bad}");
        }
    }
}
