//! Lists of snapshots.

use crate::codec::{Same, count, word};
use crate::snapshot::snapshot;
use crate::sql::{Query, Row, sql};
use crate::words::{Keyword, Worded, push_from, push_rows};
use crate::{Order, Page, StoreError, Unit, reach};
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

const LISTED: &str = "SELECT snapshot.*, vm.name AS vm_name,
    COALESCE(vm.current_snapshot = snapshot.id, FALSE) AS current";
/// Machines are looked up for each snapshot, so that these are read in the order that is asked for
/// and no other.
const OF_MACHINES: &str = " CROSS JOIN vm ON vm.id = snapshot.vm WHERE TRUE";

/// Of how many accounts a domain's snapshots are gathered account by account; of a domain with more
/// a page is soon found by looking at one snapshot after the other.
const ACCOUNTS_FEW: usize = 64;

/// Whose snapshots a list is about.
pub(crate) enum Scope {
    All,
    /// Of these accounts, which are gathered one by one.
    Few(Vec<String>),
    /// Of these accounts.
    Many(Vec<String>),
}

/// The conditions on the rows of a list.
pub(crate) struct Conditions<'a> {
    pub(crate) scope: &'a Scope,
    pub(crate) filter: &'a SnapshotFilter,
    pub(crate) page: &'a Page,
    pub(crate) keywords: &'a [Keyword<'a>],
}

impl Conditions<'_> {
    /// Goes on with what a row is to be.
    pub(crate) fn push(&self, query: &mut Query) {
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
        if let Scope::Many(accounts) = self.scope {
            // The plus keeps the order of the page; otherwise all would be gathered and sorted.
            query.push(" AND +snapshot.account IN (");
            push_ids(query, accounts);
            query.push(")");
        }
        for keyword in self.keywords {
            keyword.push(query);
        }
        self.page.push_start(query, "snapshot");
    }
}

/// A list of the snapshots in these rows, or of all.
fn list(rows: Option<&[i64]>) -> Query {
    let mut query = sql(LISTED);
    push_from(&mut query, Worded::Snapshot, rows);
    query.push(OF_MACHINES);
    query
}

/// Puts what was found in the order of a page.
pub(crate) fn put_in_order(found: &mut [ListedSnapshot], order: Order) {
    let time = |listed: &ListedSnapshot| (listed.snapshot.created_at, listed.snapshot.id);
    match order {
        Order::Oldest | Order::Newest => found.sort_unstable_by_key(time),
        Order::Name | Order::NameBackwards => found.sort_unstable_by(|a, b| {
            (&a.snapshot.name, a.snapshot.id).cmp(&(&b.snapshot.name, b.snapshot.id))
        }),
    }
    if matches!(order, Order::Newest | Order::NameBackwards) {
        found.reverse();
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
        let mut query = list(None);
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
        let conditions = Conditions { scope: &scope, filter, page, keywords: &keywords };
        if let Some(found) = self.page_by_name(&conditions)? {
            return Ok(found);
        }
        let rows = match &scope {
            Scope::All => self.few_in_page(&conditions)?,
            Scope::Many(_) => self.few_with(&keywords)?,
            Scope::Few(accounts) => Some(self.rows_of_accounts(accounts, &conditions)?),
        };
        if let Some(rows) = rows.as_ref().filter(|rows| rows.len() <= page.limit as usize) {
            // What fits on the page is sooner put in order here.
            let mut found = self.listed_in(rows, &conditions)?;
            put_in_order(&mut found, page.order);
            return Ok(found);
        }
        let mut query = list(rows.as_deref());
        conditions.push(&mut query);
        page.push_order(&mut query, "snapshot");
        let mut configs = Same::none();
        self.all(&query, |row| listed(row, &mut configs))
    }

    /// Those of some rows that meet conditions.
    pub(crate) fn listed_in(
        &mut self,
        rows: &[i64],
        conditions: &Conditions<'_>,
    ) -> Result<Vec<ListedSnapshot>, StoreError> {
        let mut query = list(Some(rows));
        conditions.push(&mut query);
        let mut configs = Same::none();
        self.all(&query, |row| listed(row, &mut configs))
    }

    /// The rows of a page of the snapshots of a few accounts. Those of each account come in the
    /// order of the page, and are put together as long as the page is; by the index alone, for the
    /// rows are wide.
    fn rows_of_accounts(
        &mut self,
        accounts: &[String],
        conditions: &Conditions<'_>,
    ) -> Result<Vec<i64>, StoreError> {
        let column = conditions.page.column();
        let rows = self.few_with(conditions.keywords)?;
        let mut query = sql("SELECT seq FROM (");
        query.push(format!("SELECT seq, {column}, id FROM snapshot WHERE FALSE"));
        for account in accounts {
            query.push(" UNION ALL ");
            query.push(format!("SELECT seq, {column}, id FROM snapshot WHERE account = "));
            query.push_bind(account.clone());
            if let Some(rows) = &rows {
                push_rows(&mut query, Worded::Snapshot, rows);
            }
            conditions.push(&mut query);
        }
        conditions.page.push_bare_order(&mut query);
        query.push(")");
        self.all(query, |row| row.get("seq"))
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
        let accounts: Vec<String> = self.all(&query, |row| row.get("id"))?;
        let few = accounts.len() <= ACCOUNTS_FEW;
        Ok(if few { Scope::Few(accounts) } else { Scope::Many(accounts) })
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

#[cfg(test)]
mod tests {
    use crate::sql::sql;
    use crate::{ListedSnapshot, Order, Page, SnapshotFilter, Store, Unit};
    use std::collections::HashMap;
    use std::thread;
    use std::time::{Duration, Instant};
    use tintype_model::access::Reach;
    use tintype_model::change::SnapshotChange;
    use tintype_model::{AccountId, DomainId, SnapshotId};
    use uuid::Uuid;

    #[tokio::test]
    async fn pages_are_whole_for_whoever_asks_where_names_are_known_and_some_have_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("db");
        let store = Store::open(&file).unwrap();
        store.seed(12, 40).await.unwrap();
        store.close().await;
        let store = Store::open(&file).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while store.names.times_learned() == 0 {
            assert!(Instant::now() < until, "names are learned");
            thread::sleep(Duration::from_millis(1));
        }
        let order = |order| Page::new(order, None, Some(1000));
        let (mut unit, any) = (store.write().await.unwrap(), SnapshotFilter::default());
        let all = unit.snapshots(Reach::All, &any, &order(Order::Oldest)).unwrap();
        // The first of each machine, which goes to the middle, and the second, which does not.
        for (n, listed) in all.iter().take(24).enumerate() {
            let name = if n < 12 { "snapshot 3x".to_owned() } else { format!("{n}") };
            unit.change_snapshot(listed.snapshot.id, &SnapshotChange::Name(name)).unwrap();
        }
        // One domain has so many accounts that they are not gathered one by one.
        let beneath = "UPDATE domain SET lineage = (SELECT lineage FROM domain WHERE name = 'd1')
             || id || '/' WHERE name IN ('d2', 'd3', 'd4', 'd5')";
        assert_eq!(unit.change(sql(beneath)).unwrap(), 4);
        unit.commit().await.unwrap();
        let known = store.names.in_order(&[1, 24, 25], 1, &HashMap::new(), &order(Order::Name));
        assert_eq!(known, Err(vec![1, 24]), "they are not what they were");
        let mut unit = store.read().await.unwrap();
        let id = |kind: u128, n: u128| Uuid::from_u128((kind << 124) | (0x4000_8000 << 48) | n);
        let reaches: [(Reach, &[&str]); 4] = [
            (Reach::All, &[]),
            (
                Reach::Domain(DomainId(id(1, 1))),
                &["vm0", "vm1", "vm2", "vm3", "vm4", "vm10", "vm11"],
            ),
            (Reach::Domain(DomainId(id(1, 7))), &["vm6"]),
            (Reach::Account(AccountId(id(2, 3))), &["vm3"]),
        ];
        for by in [Order::Oldest, Order::Newest, Order::Name, Order::NameBackwards] {
            let all = unit.snapshots(Reach::All, &any, &order(by)).unwrap();
            for ((reach, vms), keyword) in reaches.iter().flat_map(|r| [(r, "grade of 1"), (r, "")])
            {
                let sees = |listed: &&ListedSnapshot| {
                    vms.is_empty() || vms.contains(&listed.vm_name.as_str())
                };
                let has = |l: &&ListedSnapshot| l.snapshot.description.contains(keyword);
                let wanted = all.iter().filter(sees).filter(has).map(|listed| listed.snapshot.id);
                let wanted: Vec<SnapshotId> = wanted.collect();
                assert!(!wanted.is_empty(), "{reach:?}, {keyword:?}");
                let keywords = (!keyword.is_empty()).then(|| keyword.to_owned());
                let keywords = keywords.into_iter().collect();
                let filter = SnapshotFilter { keywords, ..SnapshotFilter::default() };
                for limit in [7, 1000] {
                    let found = paged(&mut unit, *reach, &filter, by, limit);
                    assert_eq!(found, wanted, "{reach:?}, {keyword:?}, {by:?}, {limit}");
                }
            }
        }
    }

    /// What a list has, gathered page by page.
    fn paged(
        unit: &mut Unit,
        reach: Reach,
        filter: &SnapshotFilter,
        order: Order,
        limit: u32,
    ) -> Vec<SnapshotId> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = Page::new(order, after, Some(limit));
            let listed = unit.snapshots(reach, filter, &page).unwrap();
            let Some(last) = listed.last().map(|listed| &listed.snapshot) else { return found };
            after = Some(page.place(last.created_at.0, &last.name, last.id.0));
            found.extend(listed.iter().map(|listed| listed.snapshot.id));
        }
    }
}
