//! Joins a guest's memory into huge pages, from outside, while it runs.
//!
//! Protecting memory takes a step for each entry of its page table. A huge page is one entry for
//! 2 MiB, so that a gibibyte is protected in microseconds instead of tens of milliseconds. But a
//! page that is saved loses its protection alone, which takes a huge page apart, and memory that
//! came on demand never was one. So what lies apart is joined again ahead of a snapshot, and after
//! it: `process_madvise` with `MADV_COLLAPSE`, Linux 6.1, which needs `CAP_SYS_NICE`. Where that
//! cannot be had, or there are no huge pages, a snapshot only holds the guest for longer.

use super::process::Process;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

/// The size of a huge page, in bytes.
const HUGE: u64 = 2 << 20;
/// A call that took longer has joined something, and the guest may have waited for it.
const JOINED: Duration = Duration::from_micros(40);

/// Whether somebody waits for it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Haste {
    /// The guest has half of the time.
    Awaited,
    /// Nobody does: the guest has most of it.
    Idle,
}

/// Joins the memory from `start` on in a process; `go_on` is asked between two huge pages.
pub(super) fn join(
    process: Process,
    start: u64,
    length: u64,
    haste: Haste,
    mut go_on: impl FnMut(f64) -> bool,
) {
    let rest = match haste {
        Haste::Awaited => 1,
        Haste::Idle => 6,
    };
    let Some(process) = process.handle() else { return };
    let (first, end) = (start.next_multiple_of(HUGE), (start + length) / HUGE * HUGE);
    for at in (first..end).step_by(HUGE as usize) {
        let asked = Instant::now();
        if let Err(error) = join_one(&process, at)
            && matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS))
        {
            return tracing::debug!(%error, "memory cannot be joined into huge pages");
        }
        let took = asked.elapsed();
        if took > JOINED {
            // The guest may have waited for as long.
            thread::sleep(took * rest);
        }
        if !go_on((at - first) as f64 / length as f64) {
            return;
        }
    }
}

/// What was never touched or is joined already is left as it is, with an error or without.
fn join_one(process: &OwnedFd, at: u64) -> io::Result<()> {
    let range = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: HUGE as usize };
    // SAFETY: the vector is read only; that what it names in another process is laid out anew
    // changes nothing that anybody sees there.
    let done = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            process.as_raw_fd(),
            &raw const range,
            1,
            libc::MADV_COLLAPSE,
            0,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
