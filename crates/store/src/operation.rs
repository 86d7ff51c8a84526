//! Operations.

use crate::codec::{from_json, id, json, maybe_id};
use crate::sql::{Row, sql};
use crate::{Page, StoreError, Unit, reach};
use tintype_model::access::Reach;
use tintype_model::operation::{Ending, Operation, Phase};
use tintype_model::{AccountId, Moment, OperationId, VmId};

/// Which operations to list.
#[derive(Clone, Debug, Default)]
pub struct OperationFilter {
    /// Of this machine.
    pub vm: Option<VmId>,
    /// In this state.
    pub state: Option<String>,
}

/// The state of an operation, as it stands on the wire.
pub fn state_of(operation: &Operation) -> &'static str {
    match &operation.phase {
        Phase::Queued | Phase::Waiting => "queued",
        Phase::Performing { .. } => "running",
        Phase::Ended(Ending::Succeeded) => "succeeded",
        Phase::Ended(Ending::Failed(_)) => "failed",
        Phase::Ended(Ending::Cancelled) => "cancelled",
    }
}

impl Unit {
    /// Records an operation, new or as it is now.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub fn put_operation(
        &mut self,
        operation: &Operation,
        account: AccountId,
    ) -> Result<(), StoreError> {
        self.run(
            sql("INSERT INTO operation (id, vm, snapshot, kind, state, command, phase, created_at,
                                    ended_at, asker, account)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (id) DO UPDATE SET state = $5, phase = $7, ended_at = $9")
            .bind(operation.id.to_string())
            .bind(operation.vm.to_string())
            .bind(operation.snapshot.map(|id| id.to_string()))
            .bind(operation.command.kind())
            .bind(state_of(operation))
            .bind(json(&operation.command))
            .bind(json(&operation.phase))
            .bind(operation.created_at.0)
            .bind(operation.ended_at.map(|at| at.0))
            .bind(json(&operation.asker))
            .bind(account.to_string()),
        )
    }

    /// The operation with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub fn operation(&mut self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        Ok(self.operation_of(id)?.map(|(operation, _)| operation))
    }

    /// The operation with this id, and the account whose machine it is about.
    ///
    /// # Errors
    /// When the database fails.
    pub fn operation_of(
        &mut self,
        id: OperationId,
    ) -> Result<Option<(Operation, AccountId)>, StoreError> {
        self.one(sql("SELECT * FROM operation WHERE id = $1").bind(id.to_string()), |row| {
            Ok((operation(row)?, crate::codec::id(row, "account")?))
        })
    }

    /// The operations that wait in line for a machine, the first first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn line(&mut self, vm: VmId) -> Result<Vec<Operation>, StoreError> {
        let query = sql(
            "SELECT * FROM operation WHERE vm = $1 AND state = 'queued' ORDER BY created_at, id",
        );
        let mut line = self.all(query.bind(vm.to_string()), operation)?;
        line.retain(|operation| operation.phase == Phase::Queued);
        Ok(line)
    }

    /// Operations that have not ended.
    ///
    /// # Errors
    /// When the database fails.
    pub fn open_operations(&mut self) -> Result<Vec<Operation>, StoreError> {
        let query = sql(
            "SELECT * FROM operation WHERE state IN ('queued', 'running') ORDER BY created_at, id",
        );
        self.all(query, operation)
    }

    /// A page of operations.
    ///
    /// # Errors
    /// When the database fails.
    pub fn operations(
        &mut self,
        reach: Reach,
        filter: &OperationFilter,
        page: &Page,
    ) -> Result<Vec<Operation>, StoreError> {
        let mut query = sql("SELECT * FROM operation WHERE TRUE");
        reach::push(&mut query, "operation.account", reach);
        if let Some(vm) = filter.vm {
            query.push(" AND vm = ").push_bind(vm.to_string());
        }
        if let Some(state) = &filter.state {
            query.push(" AND state = ").push_bind(state.clone());
        }
        page.push_start(&mut query, "operation");
        page.push_order(&mut query, "operation");
        self.all(&query, operation)
    }
}

fn operation(row: &Row<'_>) -> Result<Operation, StoreError> {
    let ended_at: Option<i64> = row.get("ended_at")?;
    Ok(Operation {
        id: id(row, "id")?,
        vm: id(row, "vm")?,
        snapshot: maybe_id(row, "snapshot")?,
        command: from_json(row, "command")?,
        asker: from_json(row, "asker")?,
        phase: from_json(row, "phase")?,
        created_at: Moment(row.get("created_at")?),
        ended_at: ended_at.map(Moment),
    })
}
