//! Memory that is saved is sent to the disk from the beginning, and comes as fast as the disk
//! takes it.
//!
//! Left alone, the kernel begins once a tenth of what memory is free is dirty, and writes all of
//! that as fast as it can: whoever else wants the disk or a processor waits meanwhile, and a guest
//! was seen to stand still for half a second. Here little is under way at any time, and nothing
//! once the guest may be held, whose disks are flushed then.
//!
//! What is large is not kept in the page cache either, once it is on disk: it would push out what
//! others read, and each page of it would be one more that has to be found first.

use crate::host::{figure, memory};
use crate::qemu::stream::PAGE;
use crate::qemu::urgent::Urgent;
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::io;
use std::mem;
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// What is sent at once, in bytes.
const STRETCH: u64 = 4 << 20;
/// How many stretches are under way: enough that the disk has something to do, and so few that
/// whoever flushes waits for milliseconds.
const UNDER_WAY: u64 = 8;
/// How often it is looked whether there is more.
const LOOK: Duration = Duration::from_millis(3);
/// However little room the kernel has, the disk may be so far behind, in bytes.
const BEHIND_LEAST: u64 = 64 << 20;
/// However much it has, no further: a save has not ended before the disk has everything.
const BEHIND_MOST: u64 = 512 << 20;
/// What comes while the disk catches up, in bytes a second: QEMU takes 0 for no bound.
const TRICKLE: u64 = 1 << 20;
/// A file is kept in the page cache if it is no larger than one of so many parts of what memory is
/// available: it is read from there when the machine goes back soon.
const KEPT_PARTS: u64 = 8;

/// While it lives, a file is sent to the disk as it is written. Who drops it does not wait for what
/// is under way.
pub(super) struct Behind {
    way: Arc<Way>,
    pace: Pace,
}

/// How far a file has come, in bytes from its beginning.
#[derive(Default)]
struct Way {
    written: AtomicU64,
    sent: AtomicU64,
    left: AtomicBool,
}

impl Behind {
    /// Begins to send what is written to a file that will have this size, in bytes, at most at this
    /// rate, in bytes a second; 0 for as fast as can be.
    pub(super) fn begin(file: &File, size: u64, rate: u64) -> io::Result<Self> {
        let (available, _) = memory();
        let kept = size <= available / KEPT_PARTS;
        let file = file.try_clone()?;
        let way = Arc::<Way>::default();
        let theirs = Arc::downgrade(&way);
        let send = move || send_all(&file, kept, &theirs);
        thread::Builder::new().name("behind".to_owned()).spawn(send)?;
        let vmstat = fs::read_to_string("/proc/vmstat").unwrap_or_default();
        Ok(Self { way, pace: Pace::new(rate, dirty_room(&vmstat)) })
    }

    /// So much of the file is written; answers at what rate more may come, if that is another.
    pub(super) fn follow(&mut self, written: u64) -> Option<u64> {
        self.way.written.store(written, Ordering::Relaxed);
        if self.way.left.load(Ordering::Relaxed) {
            // Nobody catches up any more: who waited for that would wait for ever.
            return self.pace.changes(0);
        }
        self.pace.changes(written.saturating_sub(self.way.sent.load(Ordering::Relaxed)))
    }

    /// Leaves the disk to others from now on; answers as [`Behind::follow`] does.
    pub(super) fn leave(&mut self) -> Option<u64> {
        self.way.left.store(true, Ordering::Relaxed);
        self.pace.changes(0)
    }
}

fn send_all(file: &File, kept: bool, way: &Weak<Way>) {
    // It takes little time, and the disk has nothing to do until it has had its turn.
    let _urgent = Urgent::begin();
    while let Some(way) = way.upgrade().filter(|way| !way.left.load(Ordering::Relaxed)) {
        let sent = way.sent.load(Ordering::Relaxed);
        if sent + STRETCH > way.written.load(Ordering::Relaxed) {
            drop(way);
            thread::sleep(LOOK);
            continue;
        }
        if let Err(error) = send(file, sent, kept) {
            tracing::debug!(%error, "memory is sent to the disk when the kernel sees fit");
            way.sent.store(u64::MAX, Ordering::Relaxed);
            return;
        }
        way.sent.store(sent + STRETCH, Ordering::Relaxed);
    }
}

/// Has a stretch written, and waits until an earlier one is, which is `kept` in the page cache or
/// not.
fn send(file: &File, at: u64, kept: bool) -> io::Result<()> {
    on_stretch(file, at, libc::SYNC_FILE_RANGE_WRITE)?;
    let Some(earlier) = at.checked_sub(UNDER_WAY * STRETCH) else { return Ok(()) };
    on_stretch(file, earlier, libc::SYNC_FILE_RANGE_WAIT_BEFORE)?;
    if !kept {
        fadvise(file, earlier, NonZeroU64::new(STRETCH), Advice::DontNeed)?;
    }
    Ok(())
}

fn on_stretch(file: &File, at: u64, act: libc::c_uint) -> io::Result<()> {
    let (at, length) = (at as i64, STRETCH as i64);
    // SAFETY: the descriptor is open as long as the file is borrowed, and no memory is named.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), at, length, act) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// At what rate memory may come, so that the disk is not so far behind that the kernel steps in.
struct Pace {
    /// While the disk follows, in bytes a second.
    rate: u64,
    /// How far behind it may be, in bytes.
    most: u64,
    held: bool,
}

impl Pace {
    /// Half of the kernel's room is left to others.
    fn new(rate: u64, room: u64) -> Self {
        Self { rate, most: (room / 2).clamp(BEHIND_LEAST, BEHIND_MOST), held: false }
    }

    /// With the disk so far behind; answers the rate if it is another from now on.
    fn changes(&mut self, behind: u64) -> Option<u64> {
        let held = behind > if self.held { self.most / 2 } else { self.most };
        let changed = mem::replace(&mut self.held, held) != held;
        changed.then_some(if held { TRICKLE } else { self.rate })
    }
}

/// How much more may be written to files before the kernel begins to send it to the disk, in bytes.
///
/// Source: the kernel's `mm/vmstat.c`; all are numbers of pages.
fn dirty_room(vmstat: &str) -> u64 {
    let dirty = figure(vmstat, "nr_dirty") + figure(vmstat, "nr_writeback");
    figure(vmstat, "nr_dirty_background_threshold").saturating_sub(dirty) * PAGE
}

#[cfg(test)]
mod tests {
    use super::{
        BEHIND_LEAST, BEHIND_MOST, Behind, PAGE, Pace, STRETCH, TRICKLE, UNDER_WAY, dirty_room,
        send,
    };
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    use std::os::unix::fs::FileExt;
    use std::ptr;
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    #[test]
    fn room_is_what_is_left_until_the_kernel_begins_to_write() {
        let vmstat = |dirty| {
            format!(
                "nr_dirty {dirty}\nnr_writeback 5\nnr_writeback_temp 7\n\
                 nr_dirty_threshold 900\nnr_dirty_background_threshold 300\n"
            )
        };
        assert_eq!(dirty_room(&vmstat(100)), 195 * PAGE);
        assert_eq!(dirty_room(&vmstat(400)), 0);
        assert_eq!(dirty_room(""), 0);
    }

    #[test]
    fn what_is_large_is_not_kept_in_the_page_cache_once_it_is_on_disk() {
        // Where the program lies is a disk, and not memory.
        let program = std::env::current_exe().unwrap();
        let file = tempfile::tempfile_in(program.parent().unwrap()).unwrap();
        let stretches = UNDER_WAY + 2;
        file.write_all_at(&vec![7; (stretches * STRETCH) as usize], 0).unwrap();
        // SAFETY: what is mapped is only asked about, and `there` has a byte for each of its pages.
        let cached = |at: u64| unsafe {
            let size = STRETCH as usize;
            let (read, shared) = (ProtFlags::READ, MapFlags::SHARED);
            let mapped = mmap(ptr::null_mut(), size, read, shared, &file, at * STRETCH).unwrap();
            let mut there = vec![0; size / PAGE as usize];
            assert_eq!(libc::mincore(mapped, size, there.as_mut_ptr()), 0);
            munmap(mapped, size).unwrap();
            there.iter().any(|page| page & 1 == 1)
        };
        for kept in [true, false] {
            for at in 0..stretches {
                assert!(cached(at));
                send(&file, at * STRETCH, kept).unwrap();
            }
            for at in 0..stretches {
                assert_eq!(cached(at), kept || at >= 2, "{at}");
            }
        }
    }

    #[test]
    fn memory_comes_slowly_until_the_disk_has_caught_up() {
        let mut pace = Pace::new(7, 256 << 20);
        let most = 128 << 20;
        assert_eq!(pace.changes(most), None);
        assert_eq!(pace.changes(most + 1), Some(TRICKLE));
        assert_eq!(pace.changes(most / 2 + 1), None, "it has caught up in part");
        assert_eq!(pace.changes(most / 2), Some(7));
        assert_eq!(pace.changes(0), None);
        assert_eq!(Pace::new(0, 0).most, BEHIND_LEAST);
        assert_eq!(Pace::new(0, u64::MAX).most, BEHIND_MOST);
    }

    #[test]
    fn what_is_written_is_sent_until_the_disk_is_left_to_others() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 * STRETCH).unwrap();
        let mut behind = Behind::begin(&file, 4 * STRETCH, 0).unwrap();
        assert_eq!(behind.follow(2 * STRETCH), None);
        let sent = || behind.way.sent.load(Ordering::Relaxed);
        let until = Instant::now() + Duration::from_secs(10);
        while sent() < 2 * STRETCH {
            assert!(Instant::now() < until, "nothing is sent");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(sent(), 2 * STRETCH, "no more than was written");
        behind.leave();
        behind.follow(4 * STRETCH);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(behind.way.sent.load(Ordering::Relaxed), 2 * STRETCH);
    }

    #[test]
    fn nobody_waits_for_a_disk_that_was_left_to_others() {
        let mut behind = Behind::begin(&tempfile::tempfile().unwrap(), 0, 7).unwrap();
        let far = 1 << 40;
        assert_eq!(behind.follow(far), Some(TRICKLE));
        assert_eq!(behind.leave(), Some(7));
        assert_eq!(behind.follow(far), None);
    }
}
