//! Who has files of a pool open, by `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The processes that have files open, by device and number of the file.
#[derive(Debug, Default)]
pub(crate) struct Holders(BTreeMap<(u64, u64), BTreeSet<String>>);

impl Holders {
    /// Looks at all processes but `ours`, and those that we have started.
    pub(crate) fn look(ours: &BTreeSet<i32>) -> Self {
        let mut holders = Self::default();
        let Ok(processes) = fs::read_dir("/proc") else { return holders };
        for process in processes.filter_map(Result::ok) {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if !ours.contains(&pid) && !is_ours(&process.path()) {
                holders.add(&process.path(), pid);
            }
        }
        holders
    }

    fn add(&mut self, process: &Path, pid: i32) {
        // Of what others may not be asked, we are not told: only root sees all.
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return };
        for descriptor in descriptors.filter_map(Result::ok) {
            let Ok(meta) = fs::metadata(descriptor.path()) else { continue };
            if meta.is_file() {
                let name = name(process);
                let holder = format!("{name} (process {pid})");
                self.0.entry((meta.dev(), meta.ino())).or_default().insert(holder);
            }
        }
    }

    /// Who has a file open.
    pub(crate) fn of(&self, path: &Path) -> Option<String> {
        let meta = fs::metadata(path).ok()?;
        let holders = self.0.get(&(meta.dev(), meta.ino()))?;
        Some(holders.iter().cloned().collect::<Vec<_>>().join(", "))
    }
}

/// Whether a process is ours: we, our helpers, the tools we have started.
fn is_ours(process: &Path) -> bool {
    let own = fs::read_link("/proc/self/exe").ok();
    if own.is_some() && fs::read_link(process.join("exe")).ok() == own {
        return true;
    }
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    parent.is_some_and(|parent| parent.trim() == std::process::id().to_string())
}

fn name(process: &Path) -> String {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    name.trim().to_owned()
}
