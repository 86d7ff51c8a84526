//! What the host has: memory and space.

use rustix::fs::statvfs;
use std::fs;
use std::path::Path;

/// Free and all bytes of the filesystem that holds a path.
pub(crate) fn space(path: &Path) -> (u64, u64) {
    match statvfs(path) {
        Ok(stat) => (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize),
        Err(_) => (0, 0),
    }
}

/// Available and all bytes of memory, from `/proc/meminfo`.
pub(crate) fn memory() -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    (field("MemAvailable:"), field("MemTotal:"))
}
