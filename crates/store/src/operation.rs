//! Operations.

use crate::codec::{from_json, id, json, maybe_id};
use crate::{Page, StoreError, Unit};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use tintype_model::operation::{Ending, Operation, Phase};
use tintype_model::{Moment, OperationId, VmId};

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
        Phase::Waiting => "queued",
        Phase::Performing { .. } => "running",
        Phase::Ended(Ending::Succeeded) => "succeeded",
        Phase::Ended(Ending::Failed(_)) => "failed",
        Phase::Ended(Ending::Cancelled) => "cancelled",
    }
}

impl Unit<'_> {
    /// Records an operation, new or as it is now.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub async fn put_operation(&mut self, operation: &Operation) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO operation (id, vm, snapshot, kind, state, command, phase, created_at,
                                    ended_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (id) DO UPDATE SET state = $5, phase = $7, ended_at = $9",
        )
        .bind(operation.id.to_string())
        .bind(operation.vm.to_string())
        .bind(operation.snapshot.map(|id| id.to_string()))
        .bind(operation.command.kind())
        .bind(state_of(operation))
        .bind(json(&operation.command))
        .bind(json(&operation.phase))
        .bind(operation.created_at.0)
        .bind(operation.ended_at.map(|at| at.0))
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// The operation with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn operation(&mut self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        let row = sqlx::query("SELECT * FROM operation WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&mut *self.tx)
            .await?;
        row.as_ref().map(operation).transpose()
    }

    /// Operations that have not ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn open_operations(&mut self) -> Result<Vec<Operation>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM operation WHERE state IN ('queued', 'running') ORDER BY created_at, id",
        )
        .fetch_all(&mut *self.tx)
        .await?;
        rows.iter().map(operation).collect()
    }

    /// A page of operations.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn operations(
        &mut self,
        filter: &OperationFilter,
        page: Page,
    ) -> Result<Vec<Operation>, StoreError> {
        let mut query: QueryBuilder<Sqlite> =
            QueryBuilder::new("SELECT * FROM operation WHERE (created_at, id) > (");
        query.push_bind(page.after.created_at).push(", ").push_bind(page.after.id.to_string());
        query.push(")");
        if let Some(vm) = filter.vm {
            query.push(" AND vm = ").push_bind(vm.to_string());
        }
        if let Some(state) = &filter.state {
            query.push(" AND state = ").push_bind(state.clone());
        }
        query.push(" ORDER BY created_at, id LIMIT ").push_bind(i64::from(page.limit));
        let rows = query.build().fetch_all(&mut *self.tx).await?;
        rows.iter().map(operation).collect()
    }
}

fn operation(row: &SqliteRow) -> Result<Operation, StoreError> {
    let ended_at: Option<i64> = row.try_get("ended_at")?;
    Ok(Operation {
        id: id(row, "id")?,
        vm: id(row, "vm")?,
        snapshot: maybe_id(row, "snapshot")?,
        command: from_json(row, "command")?,
        phase: from_json(row, "phase")?,
        created_at: Moment(row.try_get("created_at")?),
        ended_at: ended_at.map(Moment),
    })
}
