//! The ticks as they were seen, and the gaps between them.

use std::time::{Duration, Instant};

/// Ticks in the order they came.
#[derive(Debug, Default)]
pub struct Ticks {
    seen: Vec<(Instant, u64)>,
}

/// A time without ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last tick before it.
    pub from: Instant,
    /// How long it was.
    pub length: Duration,
}

impl Ticks {
    /// Adds one.
    pub fn add(&mut self, at: Instant, number: u64) {
        self.seen.push((at, number));
    }

    /// When the first tick after a moment was seen.
    pub fn first_after(&self, moment: Instant) -> Option<Instant> {
        let at = self.seen.partition_point(|&(at, _)| at <= moment);
        self.seen.get(at).map(|&(at, _)| at)
    }

    /// When the first tick after a moment was seen that the guest has counted before: it was taken
    /// back to then.
    pub fn first_below(&self, number: u64, moment: Instant) -> Option<Instant> {
        let from = self.seen.partition_point(|&(at, _)| at <= moment);
        self.seen[from..].iter().find(|&&(_, seen)| seen < number).map(|&(at, _)| at)
    }

    /// The number of the last tick.
    pub fn last_number(&self) -> Option<u64> {
        self.seen.last().map(|&(_, number)| number)
    }

    /// How many ticks were seen in a stretch of time.
    pub fn count(&self, from: Instant, to: Instant) -> usize {
        self.seen.iter().filter(|&&(at, _)| from <= at && at < to).count()
    }

    /// The times without ticks that lie at least partly in a stretch of time.
    pub fn gaps(&self, from: Instant, to: Instant) -> impl Iterator<Item = Gap> {
        let gaps = self.seen.windows(2).map(|pair| (pair[0].0, pair[1].0));
        gaps.filter(move |&(before, after)| after > from && before < to)
            .map(|(before, after)| Gap { from: before, length: after - before })
    }

    /// The longest of them.
    pub fn largest_gap(&self, from: Instant, to: Instant) -> Option<Gap> {
        self.gaps(from, to).max_by_key(|gap| gap.length)
    }
}

#[cfg(test)]
mod tests {
    use super::Ticks;
    use std::time::{Duration, Instant};

    #[test]
    fn the_largest_gap_is_found_where_it_overlaps() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut ticks = Ticks::default();
        for (n, ms) in [0, 5, 10, 110, 115].into_iter().enumerate() {
            ticks.add(at(ms), n as u64);
        }
        let gap = ticks.largest_gap(at(50), at(60)).unwrap();
        assert_eq!((gap.from, gap.length), (at(10), Duration::from_millis(100)));
        assert_eq!(ticks.largest_gap(at(0), at(9)).unwrap().length, Duration::from_millis(5));
        assert_eq!(ticks.first_after(at(10)), Some(at(110)));
        assert_eq!(ticks.count(at(0), at(20)), 3);
    }
}
