//! Steal time: when the host of this machine runs something else on the processors it gave it.
//! Nothing that runs here goes on then, and nobody here can do anything about it.

use crate::watch_first;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How often a processor is seen to run.
const LOOK: Duration = Duration::from_millis(1);
/// Later than this is stolen: the kernel itself is not so late.
const LATE: Duration = Duration::from_millis(4);

/// From when until when a processor did not run.
type Away = (Instant, Instant);

/// Sees when all processors are away at the same time, by threads that come before all others and
/// are late nonetheless.
#[derive(Debug)]
pub struct Steal {
    seen: Vec<Arc<Mutex<Vec<Away>>>>,
    closed: Arc<AtomicBool>,
}

impl Steal {
    /// Begins to watch each processor that this thread may run on. Without `CAP_SYS_NICE` nothing
    /// is seen: who comes after others is late because of them.
    pub fn watch() -> Self {
        let closed = Arc::<AtomicBool>::default();
        let allowed = sched_getaffinity(None).unwrap_or_default();
        let processors = (0..CpuSet::MAX_CPU).filter(|&n| allowed.is_set(n));
        let watched = processors.map(|n| {
            let (away, closed) = (Arc::<Mutex<Vec<Away>>>::default(), Arc::clone(&closed));
            let theirs = Arc::clone(&away);
            thread::spawn(move || watch(n, &theirs, &closed));
            away
        });
        Self { seen: watched.collect(), closed: Arc::clone(&closed) }
    }

    /// For how long of a stretch of time no processor ran.
    ///
    /// # Panics
    /// When a watcher has panicked.
    pub fn within(&self, from: Instant, to: Instant) -> Duration {
        let whole = vec![(from, to)];
        let all = self
            .seen
            .iter()
            .fold(whole, |all, seen| both(&all, &seen.lock().expect("no holder panics")));
        if self.seen.is_empty() { Duration::ZERO } else { all.iter().map(|&(a, b)| b - a).sum() }
    }
}

impl Drop for Steal {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

fn watch(processor: usize, away: &Mutex<Vec<Away>>, closed: &AtomicBool) {
    let mut only = CpuSet::new();
    only.set(processor);
    if sched_setaffinity(None, &only).is_err() || !watch_first() {
        return;
    }
    while !closed.load(Ordering::SeqCst) {
        let due = Instant::now() + LOOK;
        thread::sleep(LOOK);
        let now = Instant::now();
        if now.saturating_duration_since(due) > LATE {
            away.lock().expect("no holder panics").push((due, now));
        }
    }
}

/// What two lists of stretches of time, in order, have in common.
fn both(one: &[Away], other: &[Away]) -> Vec<Away> {
    let mut common = Vec::new();
    for &(from, to) in one {
        let begin = other.partition_point(|&(_, end)| end <= from);
        let those = other[begin..].iter().take_while(|&&(start, _)| start < to);
        common.extend(those.map(|&(start, end)| (start.max(from), end.min(to))));
    }
    common
}

#[cfg(test)]
mod tests {
    use super::{Steal, both};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    #[test]
    fn stolen_is_when_all_processors_are_away() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let one = vec![(at(10), at(20)), (at(30), at(40)), (at(50), at(60))];
        let other = vec![(at(15), at(35)), (at(60), at(70))];
        assert_eq!(both(&one, &other), [(at(15), at(20)), (at(30), at(35))]);
        let seen = vec![Arc::new(Mutex::new(one)), Arc::new(Mutex::new(other))];
        let steal = Steal { seen, closed: Arc::default() };
        assert_eq!(steal.within(at(0), at(100)), Duration::from_millis(10));
        assert_eq!(steal.within(at(18), at(32)), Duration::from_millis(4));
        assert_eq!(steal.within(at(40), at(50)), Duration::ZERO);
    }
}
