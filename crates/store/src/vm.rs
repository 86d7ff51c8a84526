//! Virtual machines.

use crate::codec::{count, from_json, from_word, id, json, maybe_id, maybe_json, word};
use crate::sql::{Query, Row, sql};
use crate::words::{Worded, push_from};
use crate::{Page, StoreError, Unit, reach};
use tintype_model::access::Reach;
use tintype_model::quota::Usage;
use tintype_model::reclaim::Reclaim;
use tintype_model::vm::{Vm, VmState};
use tintype_model::{AccountId, DomainId, EffectId, Moment, VmId};

/// Which machines to list.
#[derive(Clone, Debug, Default)]
pub struct VmFilter {
    /// Of this account.
    pub account: Option<AccountId>,
    /// Of this domain and those beneath.
    pub domain: Option<DomainId>,
    /// In this state.
    pub state: Option<VmState>,
    /// With this in the name.
    pub keyword: Option<String>,
}

/// A machine as a list shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedVm {
    /// The machine.
    pub vm: Vm,
    /// The name of its account.
    pub account: String,
    /// What it has in snapshots.
    pub usage: Usage,
    /// How many snapshots it has, whether they count or not.
    pub snapshots: u64,
    /// The kind of the operation that holds it.
    pub operation: Option<String>,
}

const LISTED: &str = "SELECT vm.*, account.name AS account_name, operation.kind AS held_by,
    (SELECT COUNT(*) FROM snapshot WHERE snapshot.vm = vm.id) AS all_snapshots";
const WITH_OTHERS: &str = " JOIN account ON account.id = vm.account
    LEFT JOIN operation ON operation.id = vm.operation WHERE TRUE";

/// A list of the machines in these rows, or of all.
fn list(rows: Option<&[i64]>) -> Query {
    let mut query = sql(LISTED);
    push_from(&mut query, Worded::Vm, rows);
    query.push(WITH_OTHERS);
    query
}

impl Unit {
    /// Adds a machine.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub fn add_vm(&mut self, vm: &Vm) -> Result<(), StoreError> {
        self.run(
            sql(
                "INSERT INTO vm (id, account, name, state, config, settings, generation, snapshots,
                             bytes, restless, created_at, seq)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, FALSE, $8,
                     (SELECT COALESCE(MAX(seq), 0) + 1 FROM vm))",
            )
            .bind(vm.id.to_string())
            .bind(vm.account.to_string())
            .bind(&vm.name)
            .bind(word(&vm.state))
            .bind(json(&vm.config))
            .bind(json(&vm.settings))
            .bind(vm.generation.to_string())
            .bind(vm.created_at.0),
        )
    }

    /// The machine with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub fn vm(&mut self, id: VmId) -> Result<Option<Vm>, StoreError> {
        self.one(sql("SELECT * FROM vm WHERE id = $1").bind(id.to_string()), vm)
    }

    /// Whose this machine is.
    ///
    /// # Errors
    /// When the database fails.
    pub fn account_of(&mut self, vm: VmId) -> Result<Option<AccountId>, StoreError> {
        let query = sql("SELECT account FROM vm WHERE id = $1").bind(vm.to_string());
        self.one(query, |row| id(row, "account"))
    }

    /// The machines with this name that a caller sees, with their accounts.
    ///
    /// # Errors
    /// When the database fails.
    pub fn vms_named(
        &mut self,
        reach: Reach,
        name: &str,
    ) -> Result<Vec<(VmId, AccountId)>, StoreError> {
        let mut query = sql("SELECT id, account FROM vm WHERE name = ");
        query.push_bind(name.to_owned());
        reach::push(&mut query, "vm.account", reach);
        self.all(&query, |row| Ok((id(row, "id")?, id(row, "account")?)))
    }

    /// The machine with this id, as a list shows it.
    ///
    /// # Errors
    /// When the database fails.
    pub fn listed_vm(&mut self, id: VmId) -> Result<Option<ListedVm>, StoreError> {
        self.one(list(None).push(" AND vm.id = ").push_bind(id.to_string()), listed)
    }

    /// A page of machines that a caller sees.
    ///
    /// # Errors
    /// When the database fails.
    pub fn vms(
        &mut self,
        reach: Reach,
        filter: &VmFilter,
        page: &Page,
    ) -> Result<Vec<ListedVm>, StoreError> {
        let keyword = filter.keyword.as_ref().map(|keyword| self.keyword(Worded::Vm, keyword));
        let keyword = keyword.transpose()?;
        let few = keyword.as_ref().map(|keyword| self.few_rows(keyword)).transpose()?.flatten();
        let mut query = list(few.as_deref());
        reach::push(&mut query, "vm.account", reach);
        if let Some(account) = filter.account {
            reach::push(&mut query, "vm.account", Reach::Account(account));
        }
        if let Some(domain) = filter.domain {
            reach::push(&mut query, "vm.account", Reach::Domain(domain));
        }
        if let Some(state) = filter.state {
            query.push(" AND vm.state = ").push_bind(word(&state));
        }
        if let Some(keyword) = keyword {
            keyword.push(&mut query);
        }
        page.push_start(&mut query, "vm");
        page.push_order(&mut query, "vm");
        self.all(&query, listed)
    }

    /// The machines that a layer of this machine is shared with.
    ///
    /// # Errors
    /// When the database fails.
    pub fn sharers(&mut self, vm: VmId) -> Result<Vec<VmId>, StoreError> {
        self.all(
            sql("SELECT DISTINCT other.vm AS id FROM layer
             JOIN layer AS other ON other.id = layer.id AND other.vm <> layer.vm
             WHERE layer.vm = $1")
            .bind(vm.to_string()),
            |row| id(row, "id"),
        )
    }

    /// What all machines are recorded to be in.
    ///
    /// # Errors
    /// When the database fails.
    pub fn vm_states(&mut self) -> Result<Vec<(VmId, VmState, bool)>, StoreError> {
        self.all(sql("SELECT id, state, operation IS NOT NULL AS held FROM vm"), |row| {
            Ok((id(row, "id")?, from_word(row, "state")?, row.get("held")?))
        })
    }

    /// The machines on whose layers there is work to do.
    ///
    /// # Errors
    /// When the database fails.
    pub fn restless(&mut self) -> Result<Vec<VmId>, StoreError> {
        self.all(sql("SELECT id FROM vm WHERE restless"), |row| id(row, "id"))
    }

    /// Remembers the background work that was sent for a machine, which writes to some layers.
    ///
    /// # Errors
    /// When the database fails.
    pub fn set_reclaim(&mut self, vm: VmId, work: &Reclaim) -> Result<(), StoreError> {
        for layer in work.written() {
            self.set_mark(vm, &layer.name(), None)?;
        }
        self.run(
            sql("UPDATE vm SET reclaim_work = $1 WHERE id = $2")
                .bind(json(work))
                .bind(vm.to_string()),
        )
    }

    /// How many machines have background work under way, or to be done.
    ///
    /// # Errors
    /// When the database fails.
    pub fn reclaims(&mut self) -> Result<u64, StoreError> {
        let count =
            self.one(sql("SELECT COUNT(*) AS n FROM vm WHERE restless"), |row| count(row, "n"));
        Ok(count?.unwrap_or(0))
    }

    /// The background work that runs for a machine.
    ///
    /// # Errors
    /// When the database fails.
    pub fn reclaim(&mut self, vm: VmId) -> Result<Option<(EffectId, Reclaim)>, StoreError> {
        let query = sql("SELECT reclaim, reclaim_work FROM vm WHERE id = $1").bind(vm.to_string());
        let found = self
            .one(query, |row| Ok(maybe_id(row, "reclaim")?.zip(maybe_json(row, "reclaim_work")?)));
        Ok(found?.flatten())
    }
}

fn listed(row: &Row<'_>) -> Result<ListedVm, StoreError> {
    Ok(ListedVm {
        vm: vm(row)?,
        account: row.get("account_name")?,
        usage: Usage { snapshots: count(row, "snapshots")?, bytes: count(row, "bytes")? },
        snapshots: count(row, "all_snapshots")?,
        operation: row.get("held_by")?,
    })
}

fn vm(row: &Row<'_>) -> Result<Vm, StoreError> {
    Ok(Vm {
        id: id(row, "id")?,
        account: id(row, "account")?,
        name: row.get("name")?,
        state: from_word(row, "state")?,
        config: from_json(row, "config")?,
        settings: from_json(row, "settings")?,
        generation: id(row, "generation")?,
        current: maybe_id(row, "current_snapshot")?,
        operation: maybe_id(row, "operation")?,
        reclaim: maybe_id(row, "reclaim")?,
        created_at: Moment(row.get("created_at")?),
        findings: maybe_json(row, "findings")?.unwrap_or_default(),
    })
}
