//! Places pages in a machine's memory without QEMU's help, through the descriptor by which QEMU
//! itself places them.
//!
//! What goes through the socket QEMU reads and places page by page. One call here places many, and
//! wakes whoever waits for one of them. QEMU does not know of these pages, and need not: it must
//! only not be sent them as well. It takes `pidfd_getfd`, which whoever may trace a process may.
//! Source: Linux's `userfaultfd(2)`, `ioctl_userfaultfd(2)` and `include/uapi/linux/userfaultfd.h`.

use super::process::Process;
use super::stream::PAGE;
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::thread;

/// What the link of a descriptor under `/proc` says that is one.
const KIND: &str = "anon_inode:[userfaultfd]";

/// `struct uffdio_copy`.
#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    length: u64,
    mode: u64,
    /// What came of it: bytes, or an error below zero.
    copied: i64,
}

/// `struct uffdio_zeropage`.
#[repr(C)]
struct Zeros {
    to: u64,
    length: u64,
    mode: u64,
    zeroed: i64,
}

const COPY: Opcode = opcode::read_write::<Copy>(0xaa, 0x03);
const ZEROS: Opcode = opcode::read_write::<Zeros>(0xaa, 0x04);

/// A way into a machine's memory.
#[derive(Debug)]
pub(super) struct Direct {
    faults: OwnedFd,
    /// Where the memory begins, in the process.
    at: u64,
}

impl Direct {
    /// The way into memory that begins at `at` in a process, if that waits for pages.
    pub(super) fn into(process: Process, at: u64) -> Option<Self> {
        let handle = process.handle()?;
        let all = fs::read_dir(format!("/proc/{}/fd", process.pid())).ok()?.flatten();
        let faults = all
            .filter(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == KIND))
            .filter_map(|fd| fd.file_name().to_str()?.parse::<i32>().ok())
            .max()?;
        let faults = pidfd_getfd(&handle, faults, PidfdGetfdFlags::empty()).ok()?;
        Some(Self { faults, at })
    }

    /// Places whole pages; those that are there already stay as they are.
    pub(super) fn place(&self, offset: u64, content: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < content.len() {
            let rest = &content[done..];
            let mut copy = Copy {
                to: self.at + offset + done as u64,
                from: rest.as_ptr() as u64,
                length: rest.len() as u64,
                mode: 0,
                copied: 0,
            };
            // SAFETY: it reads `rest` and writes the struct; what it fills is memory of another
            // process that nobody has seen yet.
            let result = unsafe { ioctl(&self.faults, Updater::<COPY, Copy>::new(&mut copy)) };
            done += progress(result, copy.copied, rest.len() as u64)? as usize;
        }
        Ok(())
    }

    /// Places a page of zeros, unless a page is there.
    pub(super) fn place_zeros(&self, offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < PAGE {
            let mut zeros = Zeros { to: self.at + offset, length: PAGE, mode: 0, zeroed: 0 };
            // SAFETY: as for copying, without a source.
            let result = unsafe { ioctl(&self.faults, Updater::<ZEROS, Zeros>::new(&mut zeros)) };
            done += progress(result, zeros.zeroed, PAGE)?;
        }
        Ok(())
    }
}

/// How many bytes are there now of those that were asked for, by what the call told.
fn progress(result: rustix::io::Result<()>, told: i64, asked: u64) -> io::Result<u64> {
    match result {
        Ok(()) => Ok(asked),
        Err(Errno::EXIST) => Ok(PAGE),
        // A part of it, or nothing while the process changes its mappings.
        Err(Errno::AGAIN) => Ok(u64::try_from(told).unwrap_or_else(|_| {
            thread::yield_now();
            0
        })),
        // Its process ended.
        Err(Errno::SRCH) => Err(io::ErrorKind::BrokenPipe.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Errno, PAGE, progress};

    #[test]
    fn what_is_there_already_counts_as_placed() {
        assert_eq!(progress(Ok(()), 0, 4 * PAGE).unwrap(), 4 * PAGE);
        assert_eq!(progress(Err(Errno::EXIST), -17, 4 * PAGE).unwrap(), PAGE);
        assert_eq!(progress(Err(Errno::AGAIN), 8192, 4 * PAGE).unwrap(), 8192);
        assert_eq!(progress(Err(Errno::AGAIN), -11, 4 * PAGE).unwrap(), 0);
        let gone = progress(Err(Errno::SRCH), -3, 4 * PAGE).unwrap_err();
        assert_eq!(gone.kind(), std::io::ErrorKind::BrokenPipe);
        assert!(progress(Err(Errno::FAULT), -14, 4 * PAGE).is_err());
    }
}
