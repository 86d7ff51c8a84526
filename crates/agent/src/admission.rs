//! How many guests have their memory saved at a time.
//!
//! Saves share the disk and the processors: together they take as long as one after the other, and
//! all that time every guest runs slower, and is held for longer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::sleep;

/// So many at once at most, however many processors there are: they share a disk.
const MOST: usize = 4;
/// How often it is looked whether who waits shall give up.
const LOOK: Duration = Duration::from_millis(50);

/// Who may save memory.
pub(crate) struct Admission {
    places: Semaphore,
}

/// A place among those who save, until it is dropped.
pub(crate) type Place<'a> = SemaphorePermit<'a>;

impl Admission {
    /// As many as this host has processors for: a save takes one, and its guest another.
    pub(crate) fn for_this_host() -> Self {
        let processors = thread::available_parallelism().map_or(1, Into::into);
        Self::of((processors / 2).clamp(1, MOST))
    }

    fn of(places: usize) -> Self {
        Self { places: Semaphore::new(places) }
    }

    /// A place, in the order in which it is asked for; `waits` is called if there is none yet. None
    /// once `stop` says that there is nothing to do with one.
    pub(crate) async fn place(&self, stop: &AtomicBool, waits: impl FnOnce()) -> Option<Place<'_>> {
        if let Ok(place) = self.places.try_acquire() {
            return Some(place);
        }
        waits();
        let mut place = std::pin::pin!(self.places.acquire());
        while !stop.load(Ordering::SeqCst) {
            tokio::select! {
                place = &mut place => return place.ok(),
                () = sleep(LOOK) => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Admission;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;
    use tokio::time::{sleep, timeout};

    const A_WHILE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn who_comes_too_many_waits_for_a_place() {
        let (admission, stop) = (Arc::new(Admission::of(2)), AtomicBool::new(false));
        let no_wait = || panic!("there is a place");
        let first = admission.place(&stop, no_wait).await.unwrap();
        let _second = admission.place(&stop, no_wait).await.unwrap();
        let waits = AtomicBool::new(false);
        let third = admission.place(&stop, || waits.store(true, Ordering::SeqCst));
        let mut third = std::pin::pin!(third);
        assert!(timeout(A_WHILE, &mut third).await.is_err());
        assert!(waits.load(Ordering::SeqCst), "it is told that it waits");
        drop(first);
        assert!(timeout(A_WHILE, third).await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_cancelled_waits_no_longer() {
        let (admission, stop) = (Arc::new(Admission::of(1)), Arc::new(AtomicBool::new(false)));
        let _only = admission.place(&stop, || {}).await.unwrap();
        let cancel = Arc::clone(&stop);
        tokio::spawn(async move {
            sleep(Duration::from_secs(5)).await;
            cancel.store(true, Ordering::SeqCst);
        });
        assert!(timeout(A_WHILE, admission.place(&stop, || {})).await.unwrap().is_none());
    }
}
