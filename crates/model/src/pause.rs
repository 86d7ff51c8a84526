//! How long a guest will stand still for a snapshot with memory, and which road is taken.
//!
//! The moment that is asked for is what people mean by a snapshot, so that is the rule. On that
//! road all memory is protected while the guest stands still, which takes longer the more there is;
//! where it would pass the bound that is set for the machine, memory is saved first and the guest
//! held for the rest of it only, at a later moment. A guest that writes to memory so fast that this
//! would take longer than protecting it is turned back to the first road.

use crate::settings::Limit;
use crate::snapshot::{Road, Saving, Snapshot};
use crate::timeline::Timeline;

/// How many of a machine's latest snapshots tell how long the next will take.
const LATEST: usize = 5;
/// What holding a guest is thought to take, whatever it has, in milliseconds. This and what follows
/// are first guesses: what a machine's own snapshots took counts for more (decision 0015).
const HOLD_MS: u64 = 20;

impl Road {
    /// What each GiB of memory is thought to add to it, in milliseconds; of the background, where
    /// memory does not lie in huge pages: a bound that is set is not passed for a guess.
    fn ms_per_gib(self) -> u64 {
        match self {
            Self::Background => 40,
            Self::Precopy => 5,
        }
    }
}

/// How a machine's memory is saved now: on the road that is wished for, or the better one.
pub(crate) fn choose(timeline: &Timeline, wished: Option<Road>) -> Saving {
    let on = |road| Saving { road, predicted_ms: predict(timeline, road) };
    match wished {
        Some(road) => on(road),
        None => better(on(Road::Background), on(Road::Precopy), timeline.vm.settings.pause_bound),
    }
}

/// The moment that was asked for, unless its pause passes the bound and the other's is shorter.
fn better(asked: Saving, later: Saving, bound: Limit) -> Saving {
    let too_long = bound.is_passed_by(asked.predicted_ms);
    if too_long && later.predicted_ms < asked.predicted_ms { later } else { asked }
}

/// How long a guest will be held, in milliseconds, by its latest snapshots of the same memory on
/// the same road.
pub(crate) fn predict(timeline: &Timeline, road: Road) -> u64 {
    let memory_bytes = timeline.vm.config.memory_bytes;
    let is_like = |snapshot: &&Snapshot| {
        snapshot.saving.is_some_and(|saving| saving.road == road)
            && snapshot.config.memory_bytes == memory_bytes
    };
    let mut like: Vec<&Snapshot> = timeline.snapshots.values().filter(is_like).collect();
    like.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.created_at, snapshot.id)));
    let held = like.into_iter().filter_map(|snapshot| snapshot.pause_ms);
    expected(held.take(LATEST).collect(), road, memory_bytes)
}

/// The middle of what it took before; else by how much memory there is.
fn expected(mut held: Vec<u64>, road: Road, memory_bytes: u64) -> u64 {
    held.sort_unstable();
    let by_size = || HOLD_MS + road.ms_per_gib().saturating_mul(memory_bytes >> 20) / 1024;
    held.get(held.len() / 2).copied().unwrap_or_else(by_size)
}

#[cfg(test)]
mod tests {
    use super::{Limit, Road, Saving, better, expected};

    /// What it took before counts for more than what there is; one that took long does not count.
    #[test]
    fn a_pause_is_predicted() {
        assert_eq!(expected(Vec::new(), Road::Background, 2 << 30), 100);
        assert_eq!(expected(Vec::new(), Road::Precopy, 2 << 30), 30);
        assert_eq!(expected(vec![41, 900, 39], Road::Background, 2 << 30), 41);
        assert!(expected(Vec::new(), Road::Background, u64::MAX) > 1 << 30);
    }

    /// The moment that was asked for, as long as it costs no more than was said.
    #[test]
    fn the_bound_decides() {
        let asked = |predicted_ms| Saving { road: Road::Background, predicted_ms };
        let later = |predicted_ms| Saving { road: Road::Precopy, predicted_ms };
        let bound = Limit::Most(100);
        assert_eq!(better(asked(100), later(20), bound), asked(100));
        assert_eq!(better(asked(101), later(20), bound), later(20));
        assert_eq!(better(asked(101), later(300), bound), asked(101));
        assert_eq!(better(asked(9999), later(20), Limit::Unlimited), asked(9999));
        assert_eq!(better(asked(1), later(0), Limit::Most(0)), later(0));
    }
}
