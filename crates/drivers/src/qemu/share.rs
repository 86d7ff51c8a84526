//! Has a memory file share with an earlier one what is the same in both, so that it takes space
//! once. XFS and Btrfs can; where the filesystem cannot, each takes its own.
//!
//! Pages are compared here, to find which runs are worth asking for, and once more by the kernel,
//! which shares only what is the same: whatever happens, both files read as before.
//! Source: Linux's `ioctl_fideduperange(2)` and `include/uapi/linux/fs.h`.

use super::mapped_ram::{Block, FormatError, Layout};
use super::stream::PAGE;
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// Why nothing more is shared.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShareError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// How much is compared at once, in bytes.
const PORTION: u64 = 1 << 20;
/// The shortest run that is shared, in pages: each is an extent of its own for the filesystem.
const RUN_LEAST: usize = 4;

/// `struct file_dedupe_range`, without what follows it.
#[repr(C)]
struct Range {
    from: u64,
    length: u64,
    count: u16,
    reserved: [u16; 3],
}

/// `struct file_dedupe_range` with one `struct file_dedupe_range_info`.
#[repr(C)]
struct Request {
    range: Range,
    file: i64,
    at: u64,
    shared: u64,
    /// Zero, or an error below it, or [`DIFFERS`].
    status: i32,
    reserved: u32,
}

/// `FIDEDUPERANGE`.
const SHARE: Opcode = opcode::read_write::<Range>(0x94, 54);
/// `FILE_DEDUPE_RANGE_DIFFERS`.
const DIFFERS: i32 = 1;

/// Shares what is the same, and tells how many bytes that is; `go_on` is asked now and then.
pub(super) fn share(
    file: &File,
    earlier: &File,
    mut go_on: impl FnMut(f64) -> bool,
) -> Result<u64, ShareError> {
    let (ours, theirs) = (Layout::read(file)?, Layout::read(earlier)?);
    let all: u64 = ours.blocks.iter().map(|block| block.length).sum();
    let (mut done, mut shared) = (0, 0);
    let mut portions = [(); 2].map(|()| vec![0; PORTION as usize]);
    for block in &ours.blocks {
        let alike = |other: &&Block| other.name == block.name && other.length == block.length;
        let other = theirs.blocks.iter().find(alike);
        for at in (0..block.length).step_by(PORTION as usize) {
            if !go_on((done + at) as f64 / all as f64) {
                return Ok(shared);
            }
            let Some(other) = other else { break };
            let length = (block.length - at).min(PORTION) as usize;
            let [our, their] = &mut portions;
            let (our, their) = (&mut our[..length], &mut their[..length]);
            file.read_exact_at(our, block.pages_at + at)?;
            earlier.read_exact_at(their, other.pages_at + at)?;
            for (first, count) in same(our, their) {
                let (from, length) = (at + first as u64 * PAGE, count as u64 * PAGE);
                shared += share_run(
                    (earlier, other.pages_at + from),
                    (file, block.pages_at + from),
                    length,
                )?;
            }
        }
        done += block.length;
    }
    Ok(shared)
}

/// The runs of pages that are the same in both, as first page and count. Pages of zeros take no
/// space.
fn same(ours: &[u8], theirs: &[u8]) -> Vec<(usize, usize)> {
    let pages = |bytes| <[u8]>::chunks_exact(bytes, PAGE as usize);
    let zeros = [0; PAGE as usize];
    let alike =
        pages(ours).zip(pages(theirs)).map(|(ours, theirs)| ours == theirs && ours != zeros);
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (page, _) in alike.enumerate().filter(|&(_, alike)| alike) {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == page => *count += 1,
            _ => runs.push((page, 1)),
        }
    }
    runs.retain(|&(_, count)| count >= RUN_LEAST);
    runs
}

/// Shares so many bytes of two files; none of them if they are not the same after all.
fn share_run(from: (&File, u64), to: (&File, u64), length: u64) -> io::Result<u64> {
    let mut done = 0;
    while done < length {
        let range =
            Range { from: from.1 + done, length: length - done, count: 1, reserved: [0; 3] };
        let (file, at) = (to.0.as_raw_fd().into(), to.1 + done);
        let mut request = Request { range, file, at, shared: 0, status: 0, reserved: 0 };
        // SAFETY: it reads and writes the request, which has room for the one answer it names.
        unsafe { ioctl(from.0, Updater::<SHARE, Request>::new(&mut request)) }?;
        match request.status {
            0 if request.shared > 0 => done += request.shared,
            0 | DIFFERS => break,
            error => return Err(Errno::from_raw_os_error(-error).into()),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::{PAGE, same};

    #[test]
    fn runs_of_pages_that_are_alike_are_found() {
        let page = |byte: u8| vec![byte; PAGE as usize];
        let file = |bytes: &[u8]| bytes.iter().flat_map(|&byte| page(byte)).collect::<Vec<_>>();
        let theirs = file(&[1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 9, 9, 9, 9]);
        let ours = file(&[1, 2, 3, 4, 6, 6, 7, 8, 0, 0, 0, 0, 9, 9, 9, 9]);
        assert_eq!(same(&ours, &theirs), [(0, 4), (12, 4)], "three pages are too few, zeros none");
        assert_eq!(same(&ours, &ours), [(0, 8), (12, 4)]);
        assert_eq!(same(&ours, &file(&[7; 16])), []);
    }
}
