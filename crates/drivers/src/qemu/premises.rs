//! The folders of machines in a pool, and what QEMU has open of them.

use super::Qemu;
use super::commands::Cont;
use super::reclaim::MERGED;
use crate::premises::{OpenFiles, Premises};
use crate::volume::header::{self, Kind};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use tintype_model::VmId;
use tintype_model::finding::Mark;
use tintype_model::manifest;

/// Where files are set aside, in the pool.
const ASIDE: &str = ".aside";
/// The manifest while it is written.
const UNFINISHED: &str = "manifest.new";
/// Files of a machine that are no layer and no memory.
const OWN: [&str; 4] = ["kernel", "initrd", manifest::NAME, UNFINISHED];
/// The longest name of a backing file that qcow2 knows.
const NAME_MOST: usize = 1023;

impl Premises for Qemu {
    fn machines(&self) -> Vec<VmId> {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return Vec::new();
        };
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    }

    fn files(&self, vm: VmId, settle: &BTreeSet<String>) -> io::Result<BTreeMap<String, Mark>> {
        let mut files = BTreeMap::new();
        for (name, entry) in self.plain_files(vm)? {
            if settle.contains(&name) {
                File::open(entry.path())?.sync_all()?;
            }
            match entry.metadata() {
                Ok(meta) => drop(files.insert(name, mark(&meta))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }

    fn lies_on(&self, vm: VmId) -> io::Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        for (name, entry) in self.plain_files(vm)? {
            if let Some(beneath) = backing(&entry.path())? {
                found.insert(name, beneath);
            }
        }
        Ok(found)
    }

    fn open_files(&self, vm: VmId) -> OpenFiles {
        let mut open = OpenFiles::default();
        let Some(instance) = self.instance(vm) else { return open };
        let folder = self.folder(vm);
        let process = format!("/proc/{}", instance.process().pid());
        let Ok(descriptors) = fs::read_dir(format!("{process}/fd")) else { return open };
        for descriptor in descriptors.filter_map(Result::ok) {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            let path = Path::new(target.strip_suffix(" (deleted)").unwrap_or(&target));
            let name = path.file_name().and_then(|name| name.to_str());
            let (Some(name), true) = (name, path.parent() == Some(folder.path())) else { continue };
            let number = |meta: fs::Metadata| (meta.dev(), meta.ino());
            let there = fs::metadata(path).map(number).ok();
            if fs::metadata(descriptor.path()).map(number).ok() != there {
                open.replaced.insert(name.to_owned());
            }
            let info = Path::new(&process).join("fdinfo").join(descriptor.file_name());
            if writes(&fs::read_to_string(info).unwrap_or_default()) {
                open.written.insert(name.to_owned());
            }
        }
        open
    }

    fn processes(&self) -> BTreeSet<i32> {
        let live = self.live.lock().expect("no holder panics");
        live.values().map(|instance| instance.process().pid()).collect()
    }

    fn held(&self, vm: VmId) -> Option<String> {
        let instance = self.instance(vm)?;
        if instance.process().is_held() {
            return Some("its process was stopped by a signal".to_owned());
        }
        let paused = instance.qmp().run_state().is_ok_and(|state| state == "paused");
        paused.then(|| "QEMU was told to stop it".to_owned())
    }

    fn resume(&self, vm: VmId) -> io::Result<()> {
        let Some(instance) = self.instance(vm) else { return Ok(()) };
        instance.process().go_on();
        instance.qmp().run(&Cont {}).map(drop).map_err(io::Error::other)
    }

    fn set_aside(&self, vm: VmId, file: &str) -> io::Result<String> {
        let to = self.free_name(&format!("{vm}-{file}"))?;
        fs::rename(self.folder(vm).path().join(file), &to)?;
        self.folder(vm).sync()?;
        Ok(to.display().to_string())
    }

    fn set_aside_machine(&self, vm: VmId) -> io::Result<String> {
        if self.instance(vm).is_some() {
            return Err(io::Error::other("its guest runs"));
        }
        let to = self.free_name(&vm.to_string())?;
        fs::rename(self.folder(vm).path(), &to)?;
        File::open(&self.root)?.sync_all()?;
        Ok(to.display().to_string())
    }

    fn describe(&self, vm: VmId, manifest: &str) -> io::Result<()> {
        let folder = self.folder(vm);
        let unfinished = folder.path().join(UNFINISHED);
        let mut file = File::create(&unfinished)?;
        file.write_all(manifest.as_bytes())?;
        file.sync_all()?;
        fs::rename(unfinished, folder.path().join(manifest::NAME))?;
        folder.sync()
    }

    fn manifest(&self, vm: VmId) -> Option<String> {
        fs::read_to_string(self.folder(vm).path().join(manifest::NAME)).ok()
    }
}

impl Qemu {
    /// Where something can be set aside, without taking the place of what is there.
    fn free_name(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.root.join(ASIDE);
        fs::create_dir_all(&folder)?;
        let mut to = folder.join(name);
        let mut n = 1;
        while to.symlink_metadata().is_ok() {
            n += 1;
            to = folder.join(format!("{name}-{n}"));
        }
        Ok(to)
    }

    /// The plain files of a machine's folder that are not our own, by name.
    fn plain_files(&self, vm: VmId) -> io::Result<Vec<(String, DirEntry)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.folder(vm).path())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let own = OWN.contains(&name.as_str()) || name.ends_with(MERGED);
            if entry.file_type()?.is_file() && !own {
                files.push((name, entry));
            }
        }
        Ok(files)
    }
}

fn mark(meta: &fs::Metadata) -> Mark {
    let written_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
    Mark { inode: meta.ino(), size_bytes: meta.len(), written_ns }
}

/// Whether a descriptor is open for writing, by what `/proc/PID/fdinfo` says of it in octal.
fn writes(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}

/// The name of the file that a qcow2 image says it lies on, if it says so.
fn backing(path: &Path) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    let Kind::Qcow2(header) = header::read(&file)? else { return Ok(None) };
    let length = usize::try_from(header.backing_length).unwrap_or(usize::MAX);
    if header.backing_at == 0 || length > NAME_MOST {
        return Ok(None);
    }
    let mut name = vec![0; length];
    file.read_exact_at(&mut name, header.backing_at)?;
    Ok(String::from_utf8(name).ok())
}

#[cfg(test)]
mod tests {
    use super::writes;

    #[test]
    fn flags_tell_who_writes() {
        assert!(writes("pos:\t0\nflags:\t02000002\nmnt_id:\t29\n"));
        assert!(!writes("pos:\t0\nflags:\t02000000\nmnt_id:\t29\n"));
        assert!(!writes(""));
    }
}
