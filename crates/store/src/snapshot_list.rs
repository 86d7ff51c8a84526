//! Lists of snapshots.

use crate::codec::{Same, count, word};
use crate::snapshot::snapshot;
use crate::sql::{Query, Row, sql};
use crate::words::{Keyword, Worded, push_rows};
use crate::{Page, StoreError, Unit, reach};
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

/// Whose snapshots a list is about.
enum Scope {
    All,
    /// Of these accounts.
    Accounts(Vec<String>),
}

/// The conditions on the rows of a list.
pub(crate) struct Conditions<'a> {
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
        for keyword in self.keywords {
            keyword.push(query);
        }
        self.page.push_start(query, "snapshot");
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
            Scope::All => {
                if let Some(rows) = self.few_in_page(&conditions)? {
                    push_rows(&mut query, Worded::Snapshot, &rows);
                }
                conditions.push(&mut query);
            }
            Scope::Accounts(accounts) if accounts.len() > ACCOUNTS_FEW => {
                // The plus keeps the order of the page; otherwise all would be gathered and sorted.
                query.push(" AND +snapshot.account IN (");
                push_ids(&mut query, accounts);
                query.push(")");
                if let Some(rows) = self.few_with(&keywords)? {
                    push_rows(&mut query, Worded::Snapshot, &rows);
                }
                conditions.push(&mut query);
            }
            Scope::Accounts(accounts) => {
                // Those of each account come in the order of the page, and are put together as long
                // as the page is; by the index alone, for the rows are wide.
                let column = page.column();
                let rows = self.few_with(&keywords)?;
                query.push(" AND snapshot.seq IN (SELECT seq FROM (");
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
                page.push_bare_order(&mut query);
                query.push("))");
            }
        }
        page.push_order(&mut query, "snapshot");
        let mut configs = Same::none();
        self.all(&query, |row| listed(row, &mut configs))
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
