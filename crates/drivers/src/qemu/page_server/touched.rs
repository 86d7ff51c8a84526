//! What a machine touched first, kept for the next time it is taken back to a snapshot.

use crate::qemu::mapped_ram::Layout;
use crate::qemu::stream::PAGE;
use rustix::fs::{Advice, fadvise};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::num::NonZeroU64;
use std::path::Path;

/// How many pages are remembered as touched first.
const TOUCHED_MOST: usize = 8192;
/// How many of them are sent before the machine runs, which waits for these; the others are the
/// first behind.
const FORESEEN_MOST: usize = 2048;

/// The number of a block, and that of a page within it.
pub(super) type Page = (usize, u64);

/// The pages that were waited for, in this order.
#[derive(Default)]
pub(super) struct Touched(pub(super) Vec<Page>);

impl Touched {
    /// What was written of a memory file earlier; nothing if there is no such thing.
    pub(super) fn read(path: &Path, layout: &Layout) -> Self {
        let bytes = fs::read(path).unwrap_or_default();
        let pages = bytes.chunks_exact(8).take(TOUCHED_MOST).map(|record| {
            let number = |at: usize| record[at..at + 4].try_into().map_or(0, u32::from_be_bytes);
            (number(0) as usize, u64::from(number(4)))
        });
        let there = |&(block, page): &Page| {
            layout.blocks.get(block).is_some_and(|block| page < block.length / PAGE)
        };
        Self(pages.filter(there).collect())
    }

    /// Has the kernel read them from a memory file together, and not one after the other as they
    /// are sent.
    pub(super) fn read_ahead(&self, file: &File, layout: &Layout) {
        let (first, others) = self.foreseen();
        for pages in [first, others] {
            let in_order: BTreeSet<_> = pages.iter().collect();
            for &&(block, page) in &in_order {
                let at = layout.blocks[block].pages_at + page * PAGE;
                let _ = fadvise(file, at, NonZeroU64::new(PAGE), Advice::WillNeed);
            }
        }
    }

    /// The first of them, which are sent before the machine runs, and the others.
    pub(super) fn foreseen(&self) -> (&[Page], &[Page]) {
        self.0.split_at(self.0.len().min(FORESEEN_MOST))
    }

    pub(super) fn add(&mut self, block: usize, page: u64) {
        if self.0.len() < TOUCHED_MOST {
            self.0.push((block, page));
        }
    }

    /// These and others.
    pub(super) fn and(mut self, others: &Self) -> Self {
        let room = TOUCHED_MOST - self.0.len();
        self.0.extend(others.0.iter().take(room));
        self
    }

    /// Keeps it for the next time; without it that one is slower.
    pub(super) fn write(&self, path: &Path) {
        let record = |&(block, page): &Page| {
            [(block as u32).to_be_bytes(), (page as u32).to_be_bytes()].concat()
        };
        let bytes: Vec<u8> = self.0.iter().flat_map(record).collect();
        let fresh = path.with_extension("new");
        if let Err(error) = fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path)) {
            tracing::warn!(%error, "keeping what was touched first");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Layout, PAGE, TOUCHED_MOST, Touched};
    use crate::qemu::mapped_ram::Block;
    use std::fs;

    fn layout() -> Layout {
        let (length, bitmap_at, pages_at) = (4 * PAGE, 0, 0);
        let block = Block { name: "pc.ram".into(), length, bitmap_at, pages_at };
        Layout { machine: "q35".into(), section: 2, blocks: vec![block], devices_at: 0 }
    }

    #[test]
    fn what_was_touched_first_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.touched");
        assert!(Touched::read(&path, &layout()).0.is_empty(), "nothing was");
        Touched(vec![(0, 3), (0, 1)]).and(&Touched(vec![(0, 2)])).write(&path);
        assert_eq!(Touched::read(&path, &layout()).0, [(0, 3), (0, 1), (0, 2)]);
    }

    #[test]
    fn pages_that_are_not_there_are_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.touched");
        Touched(vec![(0, 4), (1, 0), (0, 0)]).write(&path);
        assert_eq!(Touched::read(&path, &layout()).0, [(0, 0)]);
        fs::write(&path, [0xff; 8 * 3 + 5]).unwrap();
        assert!(Touched::read(&path, &layout()).0.is_empty());
        fs::write(&path, vec![0; 8 * (TOUCHED_MOST + 1)]).unwrap();
        assert_eq!(Touched::read(&path, &layout()).0.len(), TOUCHED_MOST);
    }
}
