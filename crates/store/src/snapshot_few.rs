//! Which rows a page of snapshots has when few may be on it, because of their keywords. What is in
//! a row is read only until the page is full, for rows are wide.
//!
//! Rows are numbered as they are added, which is the order of time but for those that are late:
//! there was one of a later moment already, as when a clock is set back. So one that is not late is
//! of no earlier moment than all that were added before it.

use crate::names::Rank;
use crate::snapshot_list::{Conditions, ListedSnapshot, Scope, put_in_order};
use crate::sql::{Row, sql};
use crate::words::{Keyword, Worded, push_from};
use crate::{Cursor, Order, Page, StoreError, Unit};
use std::collections::{BTreeSet, HashMap};
use tintype_model::snapshot::SnapshotState;

/// So many late rows may be looked at apart; with more, all are put in the order of the page.
const LATE_FEW: usize = 2000;

/// So many rows are read at once at least, however short the page.
const LEAST_READ: usize = 32;

/// Where a row stands in the order of time.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    created_at: i64,
    id: String,
    row: i64,
}

/// The first and the last moment that a page may have.
struct Span {
    from: i64,
    to: i64,
}

impl Span {
    fn of(conditions: &Conditions<'_>) -> Self {
        let Conditions { filter, page, .. } = conditions;
        let mut from = filter.created_after.map_or(i64::MIN, |after| after.0);
        let mut to = filter.created_before.map_or(i64::MAX, |before| before.0.saturating_sub(1));
        match (&page.after, page.order) {
            (Some(Cursor::Time(after, _)), Order::Newest) => to = to.min(*after),
            (Some(Cursor::Time(after, _)), _) => from = from.max(*after),
            _ => {}
        }
        Self { from, to }
    }
}

impl Unit {
    /// The rows of a page and perhaps others, if few may be on it.
    pub(crate) fn few_in_page(
        &mut self,
        conditions: &Conditions<'_>,
    ) -> Result<Option<Vec<i64>>, StoreError> {
        let filter = conditions.filter;
        if filter.vm.is_some() {
            // A machine has fewer.
            return Ok(None);
        }
        let Some(words) = words_of(conditions.keywords) else { return Ok(None) };
        // Of those in a rare state a page would be long in coming.
        let common = filter.state.is_none_or(|state| state == SnapshotState::Ready);
        if conditions.page.is_by_time() && common && self.few_are_late()? {
            return self.rows_by_time(&words, conditions).map(Some);
        }
        if conditions.keywords.iter().any(Keyword::is_of_few) {
            return self.rows_put_in_order(&words, conditions).map(Some);
        }
        self.few_with(conditions.keywords)
    }

    /// The rows that may have all of some keywords, where these are few.
    pub(crate) fn few_with(
        &mut self,
        keywords: &[Keyword<'_>],
    ) -> Result<Option<Vec<i64>>, StoreError> {
        let mut with_all: Option<Vec<i64>> = None;
        for keyword in keywords {
            let Some(rows) = self.few_rows(keyword)? else { continue };
            with_all = Some(match with_all {
                Some(all) => {
                    let rows: BTreeSet<_> = rows.into_iter().collect();
                    all.into_iter().filter(|row| rows.contains(row)).collect()
                }
                None => rows,
            });
        }
        Ok(with_all)
    }

    /// A page by name, if few rows may be on it because of their keywords: which come first is
    /// known without reading them.
    pub(crate) fn page_by_name(
        &mut self,
        conditions: &Conditions<'_>,
    ) -> Result<Option<Vec<ListedSnapshot>>, StoreError> {
        let page = conditions.page;
        let words = words_of(conditions.keywords);
        let few = conditions.keywords.iter().any(Keyword::is_of_few);
        let (Some(words), true, false) = (words, few, page.is_by_time()) else { return Ok(None) };
        if conditions.filter.vm.is_some() || !matches!(conditions.scope, Scope::All) {
            return Ok(None);
        }
        let with_words = sql("SELECT gathered(rowid) AS rows FROM snapshot_words
            WHERE snapshot_words MATCH $1");
        let rows = self.gathered(with_words.bind(words))?;
        let ordered = self.in_order_of_names(&rows, page)?;
        let length = page.limit as usize;
        let (mut found, mut left) = (Vec::new(), &ordered[..]);
        while !left.is_empty() && found.len() < length {
            let most = (length - found.len()).max(LEAST_READ).min(left.len());
            // Those of one name are in the order of their ids, whichever row is first.
            let last = left[most - 1].0;
            let same = left[most..].iter().take_while(|&&(name, _)| name == last).count();
            let (next, behind) = left.split_at(most + same);
            let next: Vec<i64> = next.iter().map(|&(_, row)| row).collect();
            found.extend(self.listed_in(&next, conditions)?);
            left = behind;
        }
        put_in_order(&mut found, page.order);
        found.truncate(length);
        Ok(Some(found))
    }

    /// Rows in the order of a page by name, with the ranks of their names: those from where the
    /// page begins.
    fn in_order_of_names(
        &mut self,
        rows: &[i64],
        page: &Page,
    ) -> Result<Vec<(Rank, i64)>, StoreError> {
        let mut read = HashMap::new();
        loop {
            let unknown = match self.names.in_order(rows, self.names_learned, &read, page) {
                Ok(ordered) => return Ok(ordered),
                Err(unknown) => unknown,
            };
            read.extend(unknown.iter().map(|&row| (row, String::new())));
            let mut query = sql("SELECT snapshot.seq, snapshot.name");
            push_from(&mut query, Worded::Snapshot, Some(&unknown));
            read.extend(self.all(query, |row| Ok((row.get("seq")?, row.get("name")?)))?);
        }
    }

    /// The rows of a page that have some words, all that may be on it having been put in its order.
    fn rows_put_in_order(
        &mut self,
        words: &str,
        conditions: &Conditions<'_>,
    ) -> Result<Vec<i64>, StoreError> {
        let mut query = sql("SELECT snapshot.seq
            FROM snapshot_words CROSS JOIN snapshot ON snapshot.seq = snapshot_words.rowid
            WHERE snapshot_words MATCH $1")
        .bind(words);
        conditions.push(&mut query);
        conditions.page.push_order(&mut query, "snapshot");
        self.all(query, |row| row.get("seq"))
    }

    /// The rows of a page by time that have some words: in the order of rows as far as the page
    /// goes, and then those that are late.
    fn rows_by_time(
        &mut self,
        words: &str,
        conditions: &Conditions<'_>,
    ) -> Result<Vec<i64>, StoreError> {
        let (length, newest) =
            (conditions.page.limit as usize, conditions.page.order == Order::Newest);
        let mut span = Span::of(conditions);
        let (mut after, mut before) = self.rows_around(&span)?;
        // From this row on late ones are not read yet.
        let mut unread = before;
        let mut found: Vec<Place> = Vec::new();
        loop {
            let mut query = sql("SELECT snapshot.seq, snapshot.created_at, snapshot.id
                FROM snapshot_words CROSS JOIN snapshot ON snapshot.seq = snapshot_words.rowid
                WHERE snapshot_words MATCH $1
                AND snapshot_words.rowid > $2 AND snapshot_words.rowid < $3")
            .bind(words)
            .bind(after)
            .bind(before);
            conditions.push(&mut query);
            query.push(" ORDER BY snapshot_words.rowid");
            query.push(if newest { " DESC LIMIT " } else { " LIMIT " });
            // One more, to know that the page is full.
            let most = (length + 1).max(LEAST_READ);
            query.push_bind(most as i64);
            let places = self.all(query, place)?;
            let (read, last) = (places.len(), places.last().map(|place| place.row));
            found.extend(places);
            sort(&mut found, newest);
            let Some(last) = last.filter(|_| read == most) else { break };
            // Those of the same moment are in the order of their ids, whichever row is first.
            if let Some(end) = found.get(length - 1).map(|place| place.created_at)
                && let Some(passed) = self.moment_passed(last, newest)?
                && conditions.page.is_before(end, passed)
            {
                if newest {
                    span.from = end;
                } else {
                    (span.to, unread) = (end, last.saturating_add(1));
                }
                break;
            }
            if newest {
                before = last;
            } else {
                after = last;
            }
        }
        found.extend(self.late_from(unread, &span, conditions)?);
        sort(&mut found, newest);
        found.truncate(length);
        Ok(found.into_iter().map(|place| place.row).collect())
    }

    /// The late rows from this one on that were made in a span of time.
    fn late_from(
        &mut self,
        row: i64,
        span: &Span,
        conditions: &Conditions<'_>,
    ) -> Result<Vec<Place>, StoreError> {
        let mut query = sql("SELECT seq, created_at, id FROM snapshot
            WHERE late AND seq >= $1 AND created_at BETWEEN $2 AND $3")
        .bind(row)
        .bind(span.from)
        .bind(span.to);
        conditions.push(&mut query);
        self.all(query, place)
    }

    /// Two rows between which are all that were made in a span of time, but for late ones, which
    /// may be behind the second.
    fn rows_around(&mut self, span: &Span) -> Result<(i64, i64), StoreError> {
        let after = sql("SELECT seq FROM snapshot WHERE created_at < $1 AND NOT late
             ORDER BY created_at DESC LIMIT 1");
        let before = sql("SELECT seq FROM snapshot WHERE created_at > $1 AND NOT late
             ORDER BY created_at LIMIT 1");
        let after = self.one(after.bind(span.from), |row| row.get("seq"))?;
        let before = self.one(before.bind(span.to), |row| row.get("seq"))?;
        Ok((after.unwrap_or(i64::MIN), before.unwrap_or(i64::MAX)))
    }

    /// The moment of the last row passed that is not late, this one among them: of those still to
    /// come none that is not late lies before it in the order of the page.
    fn moment_passed(&mut self, row: i64, newest: bool) -> Result<Option<i64>, StoreError> {
        let query = if newest {
            sql("SELECT created_at FROM snapshot WHERE seq >= $1 AND NOT late ORDER BY seq LIMIT 1")
        } else {
            sql("SELECT created_at FROM snapshot WHERE seq <= $1 AND NOT late
                 ORDER BY seq DESC LIMIT 1")
        };
        self.one(query.bind(row), |row| row.get("created_at"))
    }

    fn few_are_late(&mut self) -> Result<bool, StoreError> {
        let query = sql("SELECT COUNT(*) AS late FROM
             (SELECT 1 FROM snapshot WHERE late LIMIT $1)");
        let late: Option<i64> = self.one(query.bind(LATE_FEW as i64), |row| row.get("late"))?;
        Ok(late.is_none_or(|late| late < LATE_FEW as i64))
    }
}

/// What the index of words is asked for, to find rows that may have all of some keywords.
fn words_of(keywords: &[Keyword<'_>]) -> Option<String> {
    let words: Vec<&str> = keywords.iter().filter_map(Keyword::words).collect();
    (!words.is_empty()).then(|| words.join(" AND "))
}

fn place(row: &Row<'_>) -> Result<Place, StoreError> {
    Ok(Place { row: row.get("seq")?, created_at: row.get("created_at")?, id: row.get("id")? })
}

fn sort(places: &mut [Place], newest: bool) {
    places.sort();
    if newest {
        places.reverse();
    }
}
