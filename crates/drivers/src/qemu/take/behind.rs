//! Memory that is saved for longer than the kernel keeps it is sent to the disk from the beginning.
//! Left alone, the kernel begins once a tenth of what memory is free is dirty, and writes all of
//! that as fast as it can: whoever else wants the disk or a processor waits meanwhile, and a guest
//! was seen to stand still for half a second.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// How often what has been written since is sent.
const SENT: Duration = Duration::from_millis(20);

/// While it lives, a file is sent to the disk as it is written. Who drops it does not wait for what
/// is under way.
pub(super) struct Behind {
    paused: Arc<AtomicBool>,
}

impl Behind {
    /// Begins to send what is written to a file.
    pub(super) fn begin(file: &File) -> io::Result<Self> {
        let file = file.try_clone()?;
        let paused = Arc::<AtomicBool>::default();
        let theirs = Arc::downgrade(&paused);
        thread::Builder::new().name("behind".to_owned()).spawn(move || follow(&file, &theirs))?;
        Ok(Self { paused })
    }

    /// Whether the disk is left to others for now.
    pub(super) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }
}

fn follow(file: &File, paused: &Weak<AtomicBool>) {
    while let Some(paused) = paused.upgrade() {
        if !paused.load(Ordering::Relaxed)
            && let Err(error) = send(file)
        {
            tracing::debug!(%error, "memory is sent to the disk when the kernel sees fit");
            return;
        }
        drop(paused);
        thread::sleep(SENT);
    }
}

/// Has all that is dirty of a file written, and does not wait until it is.
fn send(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as the file is borrowed, and no memory is named.
    let done =
        unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
