//! The order of snapshots by name, in memory, by the numbers of their rows: which of many come
//! first is found without reading each from the file, where it lies on a page of its own.
//!
//! Whose name is not known here is read. So a row's name is forgotten before it is committed that
//! it has another one, and learned again when all are, once in a while.

use crate::writer::Writer;
use crate::{Cursor, Order, Page, StoreError};
use rusqlite::Connection;
use std::cmp::Ordering::{Equal, Greater, Less};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};
use std::thread;
use std::time::Duration;

/// For so long all names are not read again.
const LEARNED: Duration = Duration::from_secs(60);
/// So many of a list's rows may have no name here, one in so many, before all are learned again.
const UNKNOWN_MOST: usize = 8;

/// By an index alone, in the order in which it lies in the file.
const ALL: &str = "SELECT seq, name FROM snapshot INDEXED BY snapshot_by_name ORDER BY name, id";

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: RwLock<Known>,
    /// Wakes who learns them; without one, none are known.
    learner: Option<mpsc::SyncSender<()>>,
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    all: All,
    times_learned: u64,
    /// Rows of `all` that were given another name since.
    forgotten: HashSet<i64>,
    /// The rows that were given a name since it was begun to learn all, while they are learned.
    changed: Option<HashSet<i64>>,
}

/// All names as they were at one moment.
#[derive(Debug, Default)]
struct All {
    /// Each row with the number of its name, which are in the order of names.
    rows: Vec<(i64, u32)>,
    /// The names, one after the other, and where each ends.
    text: String,
    ends: Vec<usize>,
}

/// Where a name stands in the order of names. Those that are not known stand together if no known
/// one is between them.
pub(crate) type Rank = usize;

impl Names {
    /// Learns all names, now and when many are not known, on a thread of its own.
    pub(crate) fn learned(
        connect: impl Fn() -> Result<Connection, StoreError> + Send + 'static,
        writer: &Writer,
    ) -> Arc<Self> {
        let (learner, woken) = mpsc::sync_channel(1);
        let names = Arc::new(Self { learner: Some(learner), ..Self::default() });
        names.begin();
        let (theirs, committed) = (Arc::downgrade(&names), writer.committed());
        thread::spawn(move || {
            loop {
                // Who changed a name before it was begun has committed that then.
                if !committed() {
                    return;
                }
                let Some(names) = theirs.upgrade() else { return };
                match connect().and_then(|connection| names.read_all(&connection)) {
                    Ok(all) => names.end(all),
                    Err(StoreError::Closed) => return,
                    Err(error) => {
                        names.write().changed = None;
                        tracing::warn!(%error, "the names of snapshots cannot be read");
                    }
                }
                drop(names);
                thread::sleep(LEARNED);
                if woken.recv().is_err() {
                    return;
                }
                let Some(names) = theirs.upgrade() else { return };
                names.begin();
            }
        });
        names
    }

    fn read_all(&self, connection: &Connection) -> Result<All, StoreError> {
        let mut statement = connection.prepare(ALL)?;
        let mut rows = statement.query([])?;
        let mut all = All::default();
        while let Some(row) = rows.next()? {
            if self.over.load(Ordering::Relaxed) {
                return Err(StoreError::Closed);
            }
            let name = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
            all.add(row.get(0)?, name);
        }
        all.rows.sort_unstable();
        Ok(all)
    }

    fn begin(&self) {
        self.write().changed = Some(HashSet::new());
    }

    fn end(&self, all: All) {
        let mut known = self.write();
        known.forgotten = known.changed.take().unwrap_or_default();
        known.all = all;
        known.times_learned += 1;
    }

    /// A row has another name once what is under way is committed.
    pub(crate) fn forget(&self, row: i64) {
        let mut known = self.write();
        if known.all.rows.last().is_some_and(|&(last, _)| row <= last) {
            known.forgotten.insert(row);
        }
        if let Some(changed) = &mut known.changed {
            changed.insert(row);
        }
    }

    /// How often all were learned.
    pub(crate) fn times_learned(&self) -> u64 {
        self.read().times_learned
    }

    /// Some rows in the order of a page by name, with the ranks of their names: those from the one
    /// on after which the page begins. Names in `read` count first.
    ///
    /// # Errors
    /// The rows whose names are not known to who began to read when all were learned so often: what
    /// was learned since may be newer than what is read.
    pub(crate) fn in_order(
        &self,
        rows: &[i64],
        times_learned: u64,
        read: &HashMap<i64, String>,
        page: &Page,
    ) -> Result<Vec<(Rank, i64)>, Vec<i64>> {
        let known = self.read();
        let same = known.times_learned == times_learned;
        let mut last = (0, 0);
        let mut rank = |row| {
            if let Some(name) = read.get(&row) {
                return Some(known.all.rank(name));
            }
            if !same || known.forgotten.contains(&row) {
                return None;
            }
            let at = known.all.find(row, last)?;
            last = (row, at);
            Some(known.all.rank_of(at))
        };
        let (mut ranked, mut unknown) = (Vec::with_capacity(rows.len()), Vec::new());
        for &row in rows {
            match rank(row) {
                Some(rank) => ranked.push((rank, row)),
                None => unknown.push(row),
            }
        }
        if !unknown.is_empty() {
            if unknown.len() > rows.len() / UNKNOWN_MOST
                && let Some(learner) = &self.learner
            {
                let _ = learner.try_send(());
            }
            return Err(unknown);
        }
        let backwards = page.order == Order::NameBackwards;
        if let Some(Cursor::Name(after, _)) = &page.after {
            let after = known.all.rank(after);
            ranked.retain(|&(rank, _)| if backwards { rank <= after } else { rank >= after });
        }
        ranked.sort_unstable();
        if backwards {
            ranked.reverse();
        }
        Ok(ranked)
    }

    /// Nobody reads the file any more.
    pub(crate) fn close(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().expect("no holder panics")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().expect("no holder panics")
    }
}

impl All {
    /// Adds a row whose name is the last one or comes after all others.
    fn add(&mut self, row: i64, name: &str) {
        if self.ends.is_empty() || self.name(self.ends.len() - 1) != name {
            self.text.push_str(name);
            self.ends.push(self.text.len());
        }
        self.rows.push((row, u32::try_from(self.ends.len() - 1).unwrap_or(u32::MAX)));
    }

    fn name(&self, number: usize) -> &str {
        let from = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[from..self.ends[number]]
    }

    /// Where a row is, looked for from where one before it is: there are no more rows between them
    /// than numbers, and few less.
    fn find(&self, row: i64, (before, at): (i64, usize)) -> Option<usize> {
        let (from, ahead) = if row < before { (0, row) } else { (at, row - before) };
        let ahead = usize::try_from(ahead).ok()?;
        let mut to = from.saturating_add(ahead).saturating_add(1).min(self.rows.len());
        let mut step = 1;
        while to - from > step && self.rows[to - step].0 > row {
            to -= step;
            step *= 2;
        }
        let from = from.max(to.saturating_sub(step));
        let found = self.rows[from..to].binary_search_by_key(&row, |&(row, _)| row);
        found.ok().map(|found| from + found)
    }

    /// Known names have odd ranks.
    fn rank_of(&self, at: usize) -> Rank {
        2 * self.rows[at].1 as usize + 1
    }

    fn rank(&self, name: &str) -> Rank {
        let (mut from, mut to) = (0, self.ends.len());
        while from < to {
            let middle = from.midpoint(to);
            match self.name(middle).cmp(name) {
                Less => from = middle + 1,
                Equal => return 2 * middle + 1,
                Greater => to = middle,
            }
        }
        2 * from
    }
}

#[cfg(test)]
mod tests {
    use super::{All, Names};
    use crate::{Cursor, Order, Page};
    use std::collections::HashMap;
    use uuid::Uuid;

    /// Rows 1 and 3 are named b, row 2 is named a.
    fn all() -> All {
        let mut all = All::default();
        for (row, name) in [(2, "a"), (1, "b"), (3, "b")] {
            all.add(row, name);
        }
        all.rows.sort_unstable();
        all
    }

    fn by_name(after: Option<(&str, Order)>) -> Page {
        let (order, after) = match after {
            Some((name, order)) => (order, Some(Cursor::Name(name.to_owned(), Uuid::nil()))),
            None => (Order::Name, None),
        };
        Page::new(order, after, None)
    }

    /// The rows of 1 to 3 in order, as who begins to read now sees them, or those it has to read.
    fn ordered(names: &Names) -> Result<Vec<(usize, i64)>, Vec<i64>> {
        names.in_order(&[1, 2, 3], names.times_learned(), &HashMap::new(), &by_name(None))
    }

    #[test]
    fn a_name_that_changes_is_not_known_until_all_are_learned_again() {
        let names = Names::default();
        assert_eq!(ordered(&names), Err(vec![1, 2, 3]));
        names.begin();
        names.end(all());
        assert_eq!(ordered(&names), Ok(vec![(1, 2), (3, 1), (3, 3)]));
        names.forget(1);
        assert_eq!(ordered(&names), Err(vec![1]));
        names.begin();
        names.end(all());
        assert_eq!(ordered(&names), Ok(vec![(1, 2), (3, 1), (3, 3)]));
    }

    /// What was read may be older than the change.
    #[test]
    fn a_name_that_changes_while_all_are_learned_is_not_known() {
        let names = Names::default();
        names.begin();
        names.forget(2);
        names.end(all());
        assert_eq!(ordered(&names), Err(vec![2]));
    }

    #[test]
    fn what_was_learned_since_somebody_began_to_read_is_nothing_to_him() {
        let names = Names::default();
        let began = names.times_learned();
        names.begin();
        names.end(all());
        let ordered = names.in_order(&[1, 2], began, &HashMap::new(), &by_name(None));
        assert_eq!(ordered, Err(vec![1, 2]));
    }

    #[test]
    fn names_that_were_read_stand_where_they_belong() {
        let names = Names::default();
        names.begin();
        names.end(all());
        let read = ["", "a", "aa", "b", "c"].into_iter().enumerate();
        let read = read.map(|(n, name)| (10 + n as i64, name.to_owned())).collect();
        let rows = [14, 13, 12, 11, 10, 3, 2];
        let all = [(0, 10), (1, 2), (1, 11), (2, 12), (3, 3), (3, 13), (4, 14)];
        let ordered = |page: Page| names.in_order(&rows, 1, &read, &page).unwrap();
        assert_eq!(ordered(by_name(None)), all);
        assert_eq!(ordered(by_name(Some(("aa", Order::Name)))), all[3..]);
        assert_eq!(ordered(by_name(Some(("ab", Order::Name)))), all[3..]);
        let mut backwards = all[..6].to_vec();
        backwards.reverse();
        assert_eq!(ordered(by_name(Some(("b", Order::NameBackwards)))), backwards);
    }

    #[test]
    fn rows_are_found_whatever_is_between_them() {
        let mut all = All::default();
        let there = |n: &i64| n % 7 != 0 && !(40..90).contains(n);
        (1..200).filter(there).for_each(|row| all.add(row, "a"));
        let known = (1..200).filter(there).enumerate().map(|(at, row)| (row, at));
        for last in known.chain([(0, 0)]) {
            for row in -3..210 {
                let found = all.find(row, last).map(|at| all.rows[at].0);
                assert_eq!(found, (1..200).contains(&row).then_some(row).filter(there), "{last:?}");
            }
        }
    }
}
