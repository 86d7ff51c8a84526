//! Lists of snapshots.

use crate::codec::{Same, count, word};
use crate::snapshot::snapshot;
use crate::sql::{Query, Row, sql};
use crate::words::{Keyword, Worded, push_rows};
use crate::{Cursor, Order, Page, StoreError, Unit, reach};
use std::collections::BTreeSet;
use tintype_model::access::Reach;
use tintype_model::config::Config;
use tintype_model::snapshot::{Kind, Snapshot, SnapshotState};
use tintype_model::{AccountId, DomainId, Moment, SnapshotId, VmId};

/// Which snapshots to list (E19, E20).
#[derive(Clone, Debug, Default)]
pub struct SnapshotFilter {
    /// Of this machine.
    pub vm: Option<VmId>,
    /// Of this account.
    pub account: Option<AccountId>,
    /// Of this domain and those beneath.
    pub domain: Option<DomainId>,
    /// In this state.
    pub state: Option<SnapshotState>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// With each of these in name or description.
    pub keywords: Vec<String>,
    /// Created at this moment or later.
    pub created_after: Option<Moment>,
    /// Created before this moment.
    pub created_before: Option<Moment>,
}

/// A snapshot as a list shows it; it does not tell the layers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedSnapshot {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The name of its machine.
    pub vm_name: String,
    /// Whether NOW is its child.
    pub current: bool,
    /// What deleting it alone would give back.
    pub size_bytes: u64,
}

/// Machines are looked up for each snapshot, so that these are read in the order that is asked for
/// and no other.
const LISTED: &str = "SELECT snapshot.*, vm.name AS vm_name,
    COALESCE(vm.current_snapshot = snapshot.id, FALSE) AS current
    FROM snapshot CROSS JOIN vm ON vm.id = snapshot.vm WHERE TRUE";

/// Of how many accounts a domain's snapshots are gathered account by account; of a domain with more
/// a page is soon found by looking at one snapshot after the other.
const ACCOUNTS_FEW: usize = 64;

/// So many late snapshots may be set apart; with more, all are put in the order of the page.
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

/// Whose snapshots a list is about.
enum Scope {
    All,
    /// Of these accounts.
    Accounts(Vec<String>),
}

/// The conditions on the rows of a list.
struct Conditions<'a> {
    filter: &'a SnapshotFilter,
    page: &'a Page,
    keywords: &'a [Keyword<'a>],
}

impl Conditions<'_> {
    /// What rows are to be, and where they may be found.
    fn push(&self, query: &mut Query) {
        for rows in self.keywords.iter().filter_map(Keyword::rows) {
            push_rows(query, Worded::Snapshot, rows);
        }
        self.push_on_row(query);
    }

    /// What a row is to be.
    fn push_on_row(&self, query: &mut Query) {
        let filter = self.filter;
        if let Some(vm) = filter.vm {
            query.push(" AND snapshot.vm = ").push_bind(vm.to_string());
        }
        if let Some(state) = filter.state {
            query.push(" AND snapshot.state = ").push_bind(word(&state));
        }
        if let Some(kind) = filter.kind {
            query.push(" AND snapshot.kind = ").push_bind(word(&kind));
        }
        if let Some(after) = filter.created_after {
            query.push(" AND snapshot.created_at >= ").push_bind(after.0);
        }
        if let Some(before) = filter.created_before {
            query.push(" AND snapshot.created_at < ").push_bind(before.0);
        }
        for keyword in self.keywords {
            keyword.push_text(query);
        }
        self.page.push_start(query, "snapshot");
    }

    /// The rows that alone may be listed, where these are few.
    fn rows(&self) -> Option<Vec<i64>> {
        let mut few = self.keywords.iter().filter_map(Keyword::rows);
        let first = few.next()?.to_vec();
        Some(few.fold(first, |rows, others| {
            let others: BTreeSet<_> = others.iter().collect();
            rows.into_iter().filter(|row| others.contains(row)).collect()
        }))
    }
}

fn push_ids(query: &mut Query, ids: &[String]) {
    for (n, id) in ids.iter().enumerate() {
        query.push(if n == 0 { "" } else { ", " }).push_bind(id);
    }
}

impl Unit {
    /// The snapshot with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub fn listed_snapshot(
        &mut self,
        id: SnapshotId,
    ) -> Result<Option<ListedSnapshot>, StoreError> {
        let mut query = sql(LISTED);
        query.push(" AND snapshot.id = ").push_bind(id.to_string());
        self.one(query, |row| listed(row, &mut Same::none()))
    }

    /// A page of snapshots that a caller sees.
    ///
    /// # Errors
    /// When the database fails.
    pub fn snapshots(
        &mut self,
        reach: Reach,
        filter: &SnapshotFilter,
        page: &Page,
    ) -> Result<Vec<ListedSnapshot>, StoreError> {
        let scope = self.scope(reach, filter)?;
        let keywords = filter.keywords.iter().map(|word| self.keyword(Worded::Snapshot, word));
        let keywords: Vec<Keyword<'_>> = keywords.collect::<Result<_, _>>()?;
        let conditions = Conditions { filter, page, keywords: &keywords };
        let mut query = sql(LISTED);
        match &scope {
            Scope::All => match conditions.rows() {
                Some(rows) => return self.snapshots_among(&rows, &conditions),
                None => conditions.push(&mut query),
            },
            Scope::Accounts(accounts) if accounts.len() > ACCOUNTS_FEW => {
                // The plus keeps the order of the page; otherwise all would be gathered and sorted.
                query.push(" AND +snapshot.account IN (");
                push_ids(&mut query, accounts);
                query.push(")");
                conditions.push(&mut query);
            }
            Scope::Accounts(accounts) => {
                // Those of each account come in the order of the page, and are put together as long
                // as the page is; by the index alone, for the rows are wide.
                let column = page.column();
                query.push(" AND snapshot.seq IN (SELECT seq FROM (");
                query.push(format!("SELECT seq, {column}, id FROM snapshot WHERE FALSE"));
                for account in accounts {
                    query.push(" UNION ALL ");
                    query.push(format!("SELECT seq, {column}, id FROM snapshot WHERE account = "));
                    query.push_bind(account.clone());
                    conditions.push(&mut query);
                }
                page.push_bare_order(&mut query);
                query.push("))");
            }
        }
        page.push_order(&mut query, "snapshot");
        let mut configs = Same::none();
        self.all(&query, |row| listed(row, &mut configs))
    }

    /// A page of snapshots of which few may be listed. What is in a row is read only until the page
    /// is full, for rows are wide.
    fn snapshots_among(
        &mut self,
        rows: &[i64],
        conditions: &Conditions<'_>,
    ) -> Result<Vec<ListedSnapshot>, StoreError> {
        let late = if conditions.page.is_by_time() { self.late_snapshots()? } else { None };
        let rows = match late {
            Some(late) => self.rows_by_time(rows, &late, conditions)?,
            None => self.rows_by_place(rows, conditions)?,
        };
        let mut query = sql(LISTED);
        push_rows(&mut query, Worded::Snapshot, &rows);
        conditions.page.push_order(&mut query, "snapshot");
        let mut configs = Same::none();
        self.all(&query, |row| listed(row, &mut configs))
    }

    /// The rows of a page, all rows having been put in its order first.
    fn rows_by_place(
        &mut self,
        rows: &[i64],
        conditions: &Conditions<'_>,
    ) -> Result<Vec<i64>, StoreError> {
        let page = conditions.page;
        let mut places = sql("SELECT seq FROM snapshot WHERE TRUE");
        push_rows(&mut places, Worded::Snapshot, rows);
        page.push_start(&mut places, "snapshot");
        Page { limit: u32::MAX, ..page.clone() }.push_order(&mut places, "snapshot");
        let places: Vec<i64> = self.all(places, |row| row.get("seq"))?;
        let (length, mut found) = (page.limit as usize, Vec::new());
        for some in places.chunks(length.max(LEAST_READ)) {
            found.extend(self.places_in(some, conditions)?);
            if found.len() >= length {
                break;
            }
        }
        Ok(found.into_iter().take(length).map(|place| place.row).collect())
    }

    /// The rows of a page by time: rows are in that order already, but for those that are late.
    fn rows_by_time(
        &mut self,
        rows: &[i64],
        late: &BTreeSet<i64>,
        conditions: &Conditions<'_>,
    ) -> Result<Vec<i64>, StoreError> {
        let page = conditions.page;
        let (late, mut timely): (Vec<i64>, Vec<i64>) =
            rows.iter().partition(|row| late.contains(row));
        timely.sort_unstable();
        if page.order == Order::Newest {
            timely.reverse();
        }
        let mut rest = &timely[self.rows_before(&timely, page)?..];
        let mut found = self.places_in(&late, conditions)?;
        let length = page.limit as usize;
        let (mut read, mut next) = (0, length + 1);
        while !rest.is_empty() {
            let some = rest.split_off(..next.min(rest.len())).unwrap_or_default();
            found.extend(self.places_in(some, conditions)?);
            found.sort();
            if page.order == Order::Newest {
                found.reverse();
            }
            // Those of the same moment are in the order of their ids, whichever row is first.
            if let (Some(end), Some(&last)) = (found.get(length - 1), some.last())
                && page.is_before(end.created_at, self.row_created_at(last)?)
            {
                break;
            }
            // As many as should do, by how many there were so far.
            let missing = length.saturating_sub(found.len());
            read += some.len();
            next = (missing * read * 5 / 4 / found.len().max(1)).min(2 * read).max(LEAST_READ);
        }
        Ok(found.into_iter().take(length).map(|place| place.row).collect())
    }

    /// How many rows in the order of time are certainly before where a page begins.
    fn rows_before(&mut self, rows: &[i64], page: &Page) -> Result<usize, StoreError> {
        let Some(Cursor::Time(after, _)) = page.after else { return Ok(0) };
        let (mut from, mut to) = (0, rows.len());
        while from < to {
            let middle = usize::midpoint(from, to);
            if page.is_before(self.row_created_at(rows[middle])?, after) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        Ok(from)
    }

    fn row_created_at(&mut self, row: i64) -> Result<i64, StoreError> {
        let query = sql("SELECT created_at FROM snapshot WHERE seq = $1").bind(row);
        let found = self.one(query, |row| row.get("created_at"))?;
        found.ok_or_else(|| StoreError::Damaged("the index of words".to_owned()))
    }

    /// The rows whose moment is before that of a row before them, as when a clock was set back;
    /// nothing if they are many.
    fn late_snapshots(&mut self) -> Result<Option<BTreeSet<i64>>, StoreError> {
        let query = sql("SELECT seq FROM snapshot WHERE late LIMIT $1").bind(LATE_FEW as i64);
        let late: Vec<i64> = self.all(query, |row| row.get("seq"))?;
        Ok((late.len() < LATE_FEW).then(|| late.into_iter().collect()))
    }

    /// Of some rows, those that a page may have, in its order.
    fn places_in(
        &mut self,
        rows: &[i64],
        conditions: &Conditions<'_>,
    ) -> Result<Vec<Place>, StoreError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = sql("SELECT seq, created_at, id FROM snapshot WHERE TRUE");
        push_rows(&mut query, Worded::Snapshot, rows);
        conditions.push_on_row(&mut query);
        conditions.page.push_order(&mut query, "snapshot");
        self.all(&query, |row| {
            let (row, created_at, id) = (row.get("seq")?, row.get("created_at")?, row.get("id")?);
            Ok(Place { created_at, id, row })
        })
    }

    /// The accounts that a list is about, by who asks and what for.
    fn scope(&mut self, reach: Reach, filter: &SnapshotFilter) -> Result<Scope, StoreError> {
        let asked = filter.account.map(Reach::Account);
        let within = filter.domain.map(Reach::Domain);
        let narrow: Vec<Reach> = [Some(reach), asked, within].into_iter().flatten().collect();
        if filter.vm.is_some() || narrow.iter().all(|reach| *reach == Reach::All) {
            // Whoever asks for one machine has been found to see it.
            return Ok(Scope::All);
        }
        let mut query = sql("SELECT account.id FROM account WHERE TRUE");
        for reach in narrow {
            reach::push(&mut query, "account.id", reach);
        }
        self.all(&query, |row| row.get("id")).map(Scope::Accounts)
    }
}

fn listed(row: &Row<'_>, configs: &mut Same<Config>) -> Result<ListedSnapshot, StoreError> {
    Ok(ListedSnapshot {
        snapshot: snapshot(row, configs)?,
        vm_name: row.get("vm_name")?,
        current: row.get("current")?,
        size_bytes: count(row, "size_bytes")?,
    })
}
