//! Events: what happened, who did it, for the record.

use crate::codec::maybe_id;
use crate::sql::{Row, sql};
use crate::{StoreError, Unit, reach};
use tintype_model::access::Reach;
use tintype_model::{AccountId, Moment, OperationId, SnapshotId, VmId};

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Its number, in the order of what happened; 0 before it is recorded.
    pub number: i64,
    /// When.
    pub at: Moment,
    /// Who did it.
    pub user: String,
    /// What, such as `create-snapshot-accepted`.
    pub kind: String,
    /// The account it is about.
    pub account: Option<AccountId>,
    /// The machine it is about.
    pub vm: Option<VmId>,
    /// The snapshot it is about.
    pub snapshot: Option<SnapshotId>,
    /// The operation it is about.
    pub operation: Option<OperationId>,
    /// What else is worth knowing, for people.
    pub detail: String,
}

/// Which events to list.
#[derive(Clone, Copy, Debug)]
pub struct EventFilter {
    /// Those after this number.
    pub after: i64,
    /// Of this machine.
    pub vm: Option<VmId>,
    /// So many at most.
    pub limit: u32,
}

impl Unit {
    /// Records what happened.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub fn add_event(&mut self, event: &Event) -> Result<(), StoreError> {
        self.run(
            sql("INSERT INTO event (at, \"user\", kind, account, vm, snapshot, operation, detail)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
            .bind(event.at.0)
            .bind(&event.user)
            .bind(&event.kind)
            .bind(event.account.map(|id| id.to_string()))
            .bind(event.vm.map(|id| id.to_string()))
            .bind(event.snapshot.map(|id| id.to_string()))
            .bind(event.operation.map(|id| id.to_string()))
            .bind(&event.detail),
        )
    }

    /// Events that a caller sees, in the order of what happened.
    ///
    /// # Errors
    /// When the database fails.
    pub fn events(&mut self, reach: Reach, filter: &EventFilter) -> Result<Vec<Event>, StoreError> {
        let mut query = sql("SELECT * FROM event WHERE id > ");
        query.push_bind(filter.after);
        reach::push(&mut query, "event.account", reach);
        if let Some(vm) = filter.vm {
            query.push(" AND vm = ").push_bind(vm.to_string());
        }
        query.push(" ORDER BY id LIMIT ").push_bind(i64::from(filter.limit));
        self.all(&query, event)
    }

    /// The number of the last event.
    ///
    /// # Errors
    /// When the database fails.
    pub fn last_event(&mut self) -> Result<i64, StoreError> {
        let last = self.one(sql("SELECT MAX(id) AS n FROM event"), |row| row.get("n"))?;
        Ok(last.flatten().unwrap_or(0))
    }
}

fn event(row: &Row<'_>) -> Result<Event, StoreError> {
    Ok(Event {
        number: row.get("id")?,
        at: Moment(row.get("at")?),
        user: row.get("user")?,
        kind: row.get("kind")?,
        account: maybe_id(row, "account")?,
        vm: maybe_id(row, "vm")?,
        snapshot: maybe_id(row, "snapshot")?,
        operation: maybe_id(row, "operation")?,
        detail: row.get("detail")?,
    })
}
