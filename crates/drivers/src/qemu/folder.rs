//! The folder of a machine: layers, memory files, boot files, and a folder for each instance.

use crate::guest_user::GuestUser;
use crate::steps;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tintype_model::SnapshotId;
use tintype_model::snapshot::memory_name;

/// The folder of one machine.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    user: Option<GuestUser>,
    direct_io: bool,
}

/// The mark beside kept memory that pages of it were placed which QEMU does not know of.
pub(super) fn served_directly(kept: &Path) -> PathBuf {
    kept.with_extension("direct")
}

impl Folder {
    /// The folder at `path`, whose files belong to `user`.
    pub fn new(path: PathBuf, user: Option<GuestUser>) -> Self {
        Self { path, user, direct_io: false }
    }

    /// Has its layers opened past the host's page cache from now on, or not.
    #[must_use]
    pub fn direct_io(self, direct_io: bool) -> Self {
        Self { direct_io, ..self }
    }

    /// Whether its layers are opened past the host's page cache.
    pub(super) fn is_direct(&self) -> bool {
        self.direct_io
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who guests run as.
    pub fn user(&self) -> Option<GuestUser> {
        self.user
    }

    /// A name that stays the same while instances come and go: a link to the current console.
    pub fn console_link(&self) -> PathBuf {
        self.path.join("console.sock")
    }

    /// The socket at which a second reader follows the console of an instance.
    pub fn tty_socket(&self, instance: u32) -> PathBuf {
        self.instance(instance).join("tty.sock")
    }

    /// The folder of an instance.
    pub fn instance(&self, number: u32) -> PathBuf {
        self.path.join("run").join(number.to_string())
    }

    /// Our own notes on a machine's instances, which a guest's process has no way to: who is killed
    /// goes by them.
    fn notes(&self) -> PathBuf {
        let machine = self.path.file_name().unwrap_or_default();
        self.path.with_file_name(".instances").join(machine)
    }

    /// The file that says which process an instance is.
    pub fn record(&self, number: u32) -> PathBuf {
        self.notes().join(format!("{number}.json"))
    }

    /// The file that says where the memory of an instance begins, in its process.
    pub fn memory_at(&self, number: u32) -> PathBuf {
        self.notes().join(format!("{number}.at"))
    }

    /// The mark that an instance whose memory comes on demand has loaded its devices.
    pub fn loaded(&self, number: u32) -> PathBuf {
        self.notes().join(format!("{number}.loaded"))
    }

    /// The file that holds what the process of an instance says.
    pub fn log(&self, number: u32) -> PathBuf {
        self.notes().join(format!("{number}.log"))
    }

    /// The file that says which of a snapshot's memory was touched first after a revert.
    pub fn touched(&self, snapshot: SnapshotId) -> PathBuf {
        self.notes().join(format!("{snapshot}.touched"))
    }

    /// The memory that an instance is still served from, whatever becomes of the snapshot.
    pub fn kept_memory(&self, instance: u32) -> PathBuf {
        self.notes().join(format!("{instance}.memory"))
    }

    /// Keeps a snapshot's memory for as long as an instance is served from it.
    pub fn keep_memory(&self, snapshot: SnapshotId, instance: u32) -> io::Result<PathBuf> {
        let kept = self.kept_memory(instance);
        let _ = fs::remove_file(&kept);
        fs::hard_link(self.path.join(memory_name(snapshot)), &kept)?;
        Ok(kept)
    }

    /// Gives up the memory that was kept for an instance, if it was.
    pub fn let_go_of_memory(&self, instance: u32) {
        let kept = self.kept_memory(instance);
        let _ = fs::remove_file(served_directly(&kept));
        let _ = fs::remove_file(kept);
    }

    /// Removes a snapshot's memory, which may be gone already.
    pub fn remove_memory(&self, snapshot: SnapshotId) -> io::Result<()> {
        let _ = fs::remove_file(self.touched(snapshot));
        self.remove_file(&memory_name(snapshot))
    }

    /// Makes a folder for the next instance. No number is used twice: who serves memory to an
    /// instance that is gone must not meet another one in its place.
    pub fn new_instance(&self) -> io::Result<u32> {
        let run = self.path.join("run");
        fs::create_dir_all(&run)?;
        fs::create_dir_all(self.notes())?;
        let last = self.notes().join("last");
        let noted = fs::read_to_string(&last).ok().and_then(|text| text.parse().ok());
        let number = self.numbers().into_iter().chain(noted).max().unwrap_or(0) + 1;
        fs::write(&last, number.to_string())?;
        let folder = self.instance(number);
        steps::around("file make instance folder", || fs::create_dir(&folder))?;
        for path in [&self.path, &run, &folder] {
            self.give(path)?;
        }
        Ok(number)
    }

    /// The number of the instance that is the machine now.
    pub fn current(&self) -> Option<u32> {
        let target = fs::read_link(self.path.join("run/current")).ok()?;
        target.to_str()?.parse().ok()
    }

    /// Says which instance is the machine now, in one step.
    pub fn set_current(&self, number: u32) {
        let run = self.path.join("run");
        let swap = |target: String, link: PathBuf, through: PathBuf| {
            let _ = fs::remove_file(&through);
            symlink(target, &through).and_then(|()| fs::rename(&through, &link))
        };
        let console = format!("run/{number}/console.sock");
        let result = steps::around("file set current instance", || {
            swap(console, self.console_link(), self.path.join("console.new"))?;
            swap(number.to_string(), run.join("current"), run.join("current.new"))
        });
        if let Err(error) = result {
            tracing::warn!(%error, path = %self.path.display(), "cannot mark the current instance");
        }
    }

    /// Removes the folders of all instances but one.
    pub fn clear_instances(&self, keep: Option<u32>) {
        if keep.is_none() {
            let _ = fs::remove_file(self.path.join("run/current"));
        }
        for number in self.numbers().into_iter().filter(|&number| Some(number) != keep) {
            let _ = fs::remove_dir_all(self.instance(number));
            let _ = fs::remove_file(self.record(number));
            let _ = fs::remove_file(self.memory_at(number));
            let _ = fs::remove_file(self.loaded(number));
            self.let_go_of_memory(number);
            let _ = fs::remove_file(self.log(number));
        }
    }

    /// Removes a file, which may be gone already.
    fn remove_file(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        let removed = steps::around("file remove memory", || fs::remove_file(path));
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes the folder with all that is in it; it may be gone already. It goes in one step, so
    /// that no machine is left with a part of its files: what cannot be removed at once lies aside,
    /// and goes with the next machine.
    pub fn remove(&self) -> io::Result<()> {
        let _ = fs::remove_dir_all(self.notes());
        let gone = self.path.with_file_name(".gone");
        if self.path.try_exists()? {
            let aside = gone.join(self.path.file_name().unwrap_or_default());
            let _ = fs::remove_dir_all(&aside);
            let moves = || fs::rename(&self.path, &aside);
            let moved = fs::create_dir_all(&gone)
                .and_then(|()| steps::around("file remove machine", moves));
            if moved.is_err() {
                // There may be no room for a folder to move it to.
                fs::remove_dir_all(&self.path)?;
            }
        }
        for left in fs::read_dir(&gone).into_iter().flatten().flatten() {
            let folder = left.path();
            let cleared = steps::around("file clear machine", || fs::remove_dir_all(&folder));
            if let Err(error) = cleared {
                tracing::warn!(%error, folder = %folder.display(), "what is removed takes space");
            }
        }
        let _ = fs::remove_dir(&gone);
        Ok(())
    }

    /// Gives a file or folder to who guests run as.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        self.user.map_or(Ok(()), |user| user.own(path))
    }

    /// Puts the folder's entries on disk.
    pub fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }

    /// The numbers of all instances that have a folder.
    pub fn numbers(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(self.path.join("run")) else {
            return Vec::new();
        };
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Folder;
    use std::fs;

    #[test]
    fn no_instance_has_the_number_of_one_that_is_gone() {
        let pool = tempfile::tempdir().unwrap();
        let folder = Folder::new(pool.path().join("machine"), None);
        assert_eq!(folder.new_instance().unwrap(), 1);
        assert_eq!(folder.new_instance().unwrap(), 2);
        folder.clear_instances(None);
        assert_eq!(folder.new_instance().unwrap(), 3);
    }

    /// Who died after it was moved aside left it there.
    #[test]
    fn what_was_moved_aside_is_cleared_though_the_machine_is_gone() {
        let pool = tempfile::tempdir().unwrap();
        let folder = Folder::new(pool.path().join("machine"), None);
        fs::create_dir_all(folder.path().join("run/1")).unwrap();
        fs::create_dir_all(pool.path().join(".gone/machine/run")).unwrap();
        for _ in 0..2 {
            folder.remove().unwrap();
            assert_eq!(fs::read_dir(pool.path()).unwrap().count(), 0);
            fs::create_dir_all(pool.path().join(".gone/machine")).unwrap();
        }
    }

    #[test]
    fn a_machine_that_cannot_be_moved_aside_is_removed_where_it_is() {
        let pool = tempfile::tempdir().unwrap();
        let folder = Folder::new(pool.path().join("machine"), None);
        fs::create_dir(folder.path()).unwrap();
        fs::write(pool.path().join(".gone"), "in the way").unwrap();
        folder.remove().unwrap();
        assert!(!folder.path().exists());
    }
}
