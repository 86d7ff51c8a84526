//! A filesystem of its own, small enough to be filled, whose power can be cut: real, on a loop
//! device.

use anyhow::{Result, bail};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// `FS_IOC_SHUTDOWN`, which ext4 knows as well as XFS, for which it was made (linux/fs.h).
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// How long those who use it may take to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// Space is taken in pieces that are no smaller, in bytes.
const PIECE_LEAST: u64 = 4096;

/// A kind of filesystem.
#[derive(Clone, Copy, Debug)]
pub enum Filesystem {
    /// Each file has its own space.
    Ext4,
    /// Files can share space.
    Xfs,
}

impl Filesystem {
    fn making(self) -> Command {
        let (program, args): (_, &[&str]) = match self {
            Self::Ext4 => ("mkfs.ext4", &["-q", "-F", "-m", "0"]),
            Self::Xfs => ("mkfs.xfs", &["-q", "-f"]),
        };
        let mut command = Command::new(program);
        command.args(args);
        command
    }
}

/// A small filesystem, mounted until it is dropped.
#[derive(Debug)]
pub struct SmallPool {
    image: PathBuf,
    at: PathBuf,
}

impl SmallPool {
    /// Makes a filesystem of so many MiB in `image`, and mounts it.
    ///
    /// # Errors
    /// When it cannot be made or mounted; that takes root, or sudo that does not ask.
    pub fn mount(image: &Path, at: &Path, mib: u64, kind: Filesystem) -> Result<Self> {
        File::create(image)?.set_len(mib << 20)?;
        fs::create_dir_all(at)?;
        run(kind.making().arg(image))?;
        let pool = Self { image: image.to_owned(), at: at.to_owned() };
        run(&mut pool.mounting())?;
        run(as_root("chown").arg(rustix::process::geteuid().as_raw().to_string()).arg(at))?;
        Ok(pool)
    }

    fn mounting(&self) -> Command {
        let mut mount = as_root("mount");
        mount.args(["-o", "loop"]).arg(&self.image).arg(&self.at);
        mount
    }

    /// From now on nothing reaches the disk, as when the power is lost: neither what was written
    /// and not synced, nor the filesystem's own journal.
    ///
    /// # Errors
    /// When that fails; it takes root.
    pub fn cut_power(&self) -> Result<()> {
        use std::os::fd::AsRawFd;
        let folder = File::open(&self.at)?;
        let without_flushing: u32 = 2;
        // SAFETY: the call reads one number, which lives as long as it takes.
        let cut = unsafe { libc::ioctl(folder.as_raw_fd(), SHUTDOWN, &raw const without_flushing) };
        if cut == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
    }

    /// Gives it power again: it is mounted anew, as what reached the disk says.
    ///
    /// # Errors
    /// When somebody still uses it, or it cannot be mounted.
    pub fn restore_power(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while let Err(busy) = run(as_root("umount").arg(&self.at).stderr(Stdio::null())) {
            if Instant::now() > until {
                return Err(busy);
            }
            thread::sleep(Duration::from_millis(50));
        }
        run(&mut self.mounting())
    }

    /// How many bytes are taken.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn used(&self) -> Result<u64> {
        rustix::fs::syncfs(File::open(&self.at)?)?;
        let stat = statvfs(&self.at)?;
        Ok((stat.f_blocks - stat.f_bfree) * stat.f_frsize)
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
        let _ = fs::remove_file(&self.image);
    }
}

/// A program that is run as root, or by sudo that does not ask.
pub fn as_root(program: &str) -> Command {
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
