//! Snapshots.

use crate::codec::{Same, count, from_word, id, json, maybe_id, maybe_json, number, word};
use crate::sql::{Query, Row, sql};
use crate::words::{Keyword, Worded, push_rows};
use crate::{Page, StoreError, Unit, reach};
use std::collections::{BTreeMap, BTreeSet};
use tintype_model::access::Reach;
use tintype_model::change::SnapshotChange;
use tintype_model::config::Config;
use tintype_model::snapshot::{Kind, Snapshot, SnapshotState};
use tintype_model::{AccountId, DiskId, DomainId, LayerId, Moment, SnapshotId, VmId};

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

/// Of one table, so that it is read in the order that is asked for and no other.
const LISTED: &str = "SELECT snapshot.*,
    (SELECT vm.name FROM vm WHERE vm.id = snapshot.vm) AS vm_name,
    COALESCE((SELECT vm.current_snapshot = snapshot.id FROM vm WHERE vm.id = snapshot.vm), FALSE)
        AS current
    FROM snapshot WHERE TRUE";

/// Of how many accounts a domain's snapshots are gathered account by account; of a domain with more
/// a page is soon found by looking at one snapshot after the other.
const ACCOUNTS_FEW: usize = 64;

/// So many rows are read at once at least.
const CHUNK_LEAST: usize = 100;

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
    /// The machine that a snapshot is of.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub fn vm_of(&mut self, id: SnapshotId) -> Result<Option<VmId>, StoreError> {
        let query = sql("SELECT vm FROM snapshot WHERE id = $1").bind(id.to_string());
        self.one(query, |row| crate::codec::id(row, "vm"))
    }

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
        let page = conditions.page;
        let mut places = sql("SELECT seq FROM snapshot WHERE TRUE");
        push_rows(&mut places, Worded::Snapshot, rows);
        page.push_start(&mut places, "snapshot");
        Page { limit: u32::MAX, ..page.clone() }.push_order(&mut places, "snapshot");
        let places = self.all(places, |row| row.get("seq"))?;
        let (length, mut found) = (page.limit as usize, Vec::new());
        for some in places.chunks(length.max(CHUNK_LEAST)) {
            let mut query = sql(LISTED);
            push_rows(&mut query, Worded::Snapshot, some);
            conditions.push_on_row(&mut query);
            page.push_order(&mut query, "snapshot");
            let mut configs = Same::none();
            found.extend(self.all(&query, |row| listed(row, &mut configs))?);
            if found.len() >= length {
                break;
            }
        }
        found.truncate(length);
        Ok(found)
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

    /// Every snapshot of a machine.
    pub(crate) fn snapshots_of(&mut self, vm: VmId) -> Result<Vec<Snapshot>, StoreError> {
        let found = sql("SELECT * FROM snapshot WHERE vm = $1").bind(vm.to_string());
        let mut configs = Same::none();
        let found = self.all(found, |row| snapshot(row, &mut configs))?;
        let mut snapshots: BTreeMap<SnapshotId, Snapshot> =
            found.into_iter().map(|found| (found.id, found)).collect();
        let held = sql("SELECT snapshot_layer.* FROM snapshot
             JOIN snapshot_layer ON snapshot_layer.snapshot = snapshot.id WHERE snapshot.vm = $1");
        self.all(held.bind(vm.to_string()), |row| {
            if let Some(snapshot) = snapshots.get_mut(&id(row, "snapshot")?) {
                snapshot.layers.insert(id::<DiskId>(row, "disk")?, id::<LayerId>(row, "layer")?);
            }
            Ok(())
        })?;
        Ok(snapshots.into_values().collect())
    }

    /// The snapshots that are to go by now, are not protected, and have not been tried to delete
    /// since a moment.
    ///
    /// # Errors
    /// When the database fails.
    pub fn expired_snapshots(
        &mut self,
        at: Moment,
        tried: Moment,
    ) -> Result<Vec<(SnapshotId, VmId)>, StoreError> {
        self.all(
            sql("SELECT id, vm FROM snapshot WHERE expires_at <= $1 AND NOT protected
             AND state IN ('ready', 'unavailable')
             AND NOT EXISTS (SELECT 1 FROM operation WHERE operation.vm = snapshot.vm
                 AND operation.snapshot = snapshot.id AND operation.kind = 'delete-snapshots'
                 AND operation.created_at > $2)
             ORDER BY expires_at")
            .bind(at.0)
            .bind(tried.0),
            |row| Ok((id(row, "id")?, id(row, "vm")?)),
        )
    }

    pub(crate) fn add_snapshot(
        &mut self,
        snapshot: &Snapshot,
        account: AccountId,
    ) -> Result<(), StoreError> {
        self.run(
            sql(
                "INSERT INTO snapshot (id, vm, name, description, kind, consistency, state, parent,
                                   created_at, memory_bytes, config, account, created_by,
                                   expires_at, protected, safety, saving, size_bytes)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                     $17, 0)",
            )
            .bind(snapshot.id.to_string())
            .bind(snapshot.vm.to_string())
            .bind(&snapshot.name)
            .bind(&snapshot.description)
            .bind(word(&snapshot.kind))
            .bind(word(&snapshot.consistency))
            .bind(word(&snapshot.state))
            .bind(snapshot.parent.map(|id| id.to_string()))
            .bind(snapshot.created_at.0)
            .bind(number(snapshot.memory_bytes))
            .bind(json(&snapshot.config))
            .bind(account.to_string())
            .bind(&snapshot.created_by)
            .bind(snapshot.expires_at.map(|at| at.0))
            .bind(snapshot.protected)
            .bind(snapshot.safety)
            .bind(snapshot.saving.as_ref().map(json)),
        )
    }

    /// Records what deleting a snapshot alone would give back.
    pub(crate) fn set_size(&mut self, id: SnapshotId, size_bytes: u64) -> Result<(), StoreError> {
        self.run(
            sql("UPDATE snapshot SET size_bytes = $1 WHERE id = $2")
                .bind(number(size_bytes))
                .bind(id.to_string()),
        )
    }

    pub(crate) fn remove_snapshot(&mut self, id: SnapshotId) -> Result<(), StoreError> {
        self.forget_layers(id)?;
        self.run(sql("DELETE FROM snapshot WHERE id = $1").bind(id.to_string()))
    }

    fn forget_layers(&mut self, id: SnapshotId) -> Result<(), StoreError> {
        self.run(sql("DELETE FROM snapshot_layer WHERE snapshot = $1").bind(id.to_string()))
    }

    fn hold_layer(
        &mut self,
        id: SnapshotId,
        disk: DiskId,
        layer: LayerId,
    ) -> Result<(), StoreError> {
        self.run(
            sql("INSERT INTO snapshot_layer (snapshot, disk, layer) VALUES ($1, $2, $3)
             ON CONFLICT (snapshot, disk) DO UPDATE SET layer = $3")
            .bind(id.to_string())
            .bind(disk.to_string())
            .bind(layer.to_string()),
        )
    }

    pub(crate) fn change_snapshot(
        &mut self,
        id: SnapshotId,
        change: &SnapshotChange,
    ) -> Result<(), StoreError> {
        let query = match change {
            SnapshotChange::State(state) => {
                sql("UPDATE snapshot SET state = $1 WHERE id = $2").bind(word(state))
            }
            SnapshotChange::Ready { at, pause_ms, memory_bytes, consistency, reason, layers } => {
                self.forget_layers(id)?;
                for (&disk, &layer) in layers {
                    self.hold_layer(id, disk, layer)?;
                }
                sql("UPDATE snapshot SET ready_at = $1, pause_ms = $2, memory_bytes = $3,
                     consistency = $4, reason = $5, state = $6 WHERE id = $7")
                .bind(at.0)
                .bind(pause_ms.map(number))
                .bind(number(*memory_bytes))
                .bind(word(consistency))
                .bind(reason.as_ref().map(json))
                .bind(word(&SnapshotState::Ready))
            }
            SnapshotChange::Unavailable(reason) => {
                self.forget_layers(id)?;
                sql("UPDATE snapshot SET state = $1, reason = $2, memory_bytes = 0 WHERE id = $3")
                    .bind(word(&SnapshotState::Unavailable))
                    .bind(json(reason))
            }
            SnapshotChange::Parent(parent) => sql("UPDATE snapshot SET parent = $1 WHERE id = $2")
                .bind(parent.map(|id| id.to_string())),
            SnapshotChange::Layer(disk, layer) => return self.hold_layer(id, *disk, *layer),
            SnapshotChange::Name(name) => {
                sql("UPDATE snapshot SET name = $1 WHERE id = $2").bind(name)
            }
            SnapshotChange::Description(text) => {
                sql("UPDATE snapshot SET description = $1 WHERE id = $2").bind(text)
            }
            SnapshotChange::Expires(at) => {
                sql("UPDATE snapshot SET expires_at = $1 WHERE id = $2").bind(at.map(|at| at.0))
            }
            SnapshotChange::Protected(protected) => {
                sql("UPDATE snapshot SET protected = $1 WHERE id = $2").bind(*protected)
            }
            SnapshotChange::MemoryGone => {
                sql("UPDATE snapshot SET memory_bytes = 0, kind = $1 WHERE id = $2")
                    .bind(word(&Kind::Disk))
            }
            SnapshotChange::Verified(at) => {
                sql("UPDATE snapshot SET verified_at = $1 WHERE id = $2").bind(at.0)
            }
        };
        self.run(query.bind(id.to_string()))
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

fn snapshot(row: &Row<'_>, configs: &mut Same<Config>) -> Result<Snapshot, StoreError> {
    let pause_ms: Option<i64> = row.get("pause_ms")?;
    let moment = |column| Ok::<_, StoreError>(row.get::<Option<i64>>(column)?.map(Moment));
    Ok(Snapshot {
        id: id(row, "id")?,
        vm: id(row, "vm")?,
        name: row.get("name")?,
        description: row.get("description")?,
        kind: from_word(row, "kind")?,
        consistency: from_word(row, "consistency")?,
        state: from_word(row, "state")?,
        reason: maybe_json(row, "reason")?,
        parent: maybe_id(row, "parent")?,
        created_at: Moment(row.get("created_at")?),
        ready_at: moment("ready_at")?,
        saving: maybe_json(row, "saving")?,
        pause_ms: pause_ms.map(|ms| u64::try_from(ms).unwrap_or(0)),
        memory_bytes: count(row, "memory_bytes")?,
        config: configs.read(row, "config")?,
        layers: BTreeMap::new(),
        created_by: row.get("created_by")?,
        expires_at: moment("expires_at")?,
        protected: row.get("protected")?,
        safety: row.get("safety")?,
        verified_at: moment("verified_at")?,
    })
}
