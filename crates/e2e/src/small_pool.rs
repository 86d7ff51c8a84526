//! A filesystem of its own for a pool, small enough to be filled: real, on a loop device.

use anyhow::{Result, bail};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Space is taken in pieces that are no smaller, in bytes.
const PIECE_LEAST: u64 = 4096;

/// A small filesystem, mounted until it is dropped.
#[derive(Debug)]
pub struct SmallPool {
    at: PathBuf,
}

impl SmallPool {
    /// Makes a filesystem of so many MiB in `image`, and mounts it.
    ///
    /// # Errors
    /// When it cannot be made or mounted; that takes root, or sudo that does not ask.
    pub fn mount(image: &Path, at: &Path, mib: u64) -> Result<Self> {
        File::create(image)?.set_len(mib << 20)?;
        fs::create_dir_all(at)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image))?;
        run(as_root("mount").args(["-o", "loop"]).arg(image).arg(at))?;
        run(as_root("chown").arg(rustix::process::geteuid().as_raw().to_string()).arg(at))?;
        Ok(Self { at: at.to_owned() })
    }

    /// Fills it, but for so many bytes.
    ///
    /// # Errors
    /// When that fails.
    pub fn fill(&self, leave: u64) -> Result<()> {
        let stat = statvfs(&self.at)?;
        let all = (stat.f_bavail * stat.f_frsize).saturating_sub(leave);
        let ballast = File::create(self.ballast())?;
        let (mut filled, mut piece) = (0, all);
        // The filesystem needs some of the space itself: smaller and smaller pieces.
        while filled < all && piece >= PIECE_LEAST {
            match fallocate(&ballast, FallocateFlags::empty(), filled, piece.min(all - filled)) {
                Ok(()) => filled += piece.min(all - filled),
                Err(Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes what it was filled with.
    ///
    /// # Errors
    /// When that fails.
    pub fn relieve(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for SmallPool {
    fn drop(&mut self) {
        // Whoever still holds a file there keeps it until it is gone.
        let _ = as_root("umount").arg("--lazy").arg(&self.at).status();
    }
}

fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
