//! What the host has of space.

use rustix::fs::statvfs;
use std::path::Path;

/// Free and all bytes of the filesystem that holds a path.
pub(crate) fn space(path: &Path) -> (u64, u64) {
    match statvfs(path) {
        Ok(stat) => (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize),
        Err(_) => (0, 0),
    }
}
