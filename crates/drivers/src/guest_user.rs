//! The unprivileged user that guests run as, and their files belong to.

use std::fs;
use std::path::Path;

/// Who guests run as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The user made for guests; `nobody` where set-up did not make it.
const NAMES: [&str; 2] = ["tintype-qemu", "nobody"];

impl GuestUser {
    /// The unprivileged user that guests run as when we are root; `None` when we are not.
    pub fn for_guests() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").ok()?;
        NAMES.iter().find_map(|name| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2);
            let uid = fields.next()?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Self { uid, gid }).filter(|user| is_mapped(user.uid))
        })
    }

    /// Lets guests be snapshotted while they run: QEMU needs userfaultfd for it, which the kernel
    /// gives to root or to whoever may open this device.
    pub fn allow_userfaultfd(self) {
        use std::os::unix::fs::{PermissionsExt, chown};
        let device = "/dev/userfaultfd";
        let granted = chown(device, None, Some(self.gid))
            .and_then(|()| fs::set_permissions(device, fs::Permissions::from_mode(0o660)));
        if let Err(error) = granted {
            tracing::warn!(%error, "cannot let guests use {device}");
        }
    }

    /// Drops every privilege of this process for the user's. To be called between fork and exec,
    /// where there is one thread: what is set for the thread is set for the process.
    pub(crate) fn become_it(self) -> std::io::Result<()> {
        use rustix::process::{Gid, Uid};
        use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
        set_thread_groups(&[])?;
        set_thread_gid(Gid::from_raw(self.gid))?;
        set_thread_uid(Uid::from_raw(self.uid))?;
        Ok(())
    }

    /// Gives a file or folder to the user.
    ///
    /// # Errors
    /// When it is not there or not ours to give.
    pub fn own(self, path: &Path) -> std::io::Result<()> {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
    }
}

/// Whether there is such a user here: in a user namespace there may be none but root.
fn is_mapped(uid: u32) -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|n| n.parse::<u64>().ok());
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        let range = first.zip(count).map(|(first, count)| first..first + count);
        range.is_some_and(|range| range.contains(&u64::from(uid)))
    })
}
