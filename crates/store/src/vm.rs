//! Virtual machines.

use crate::codec::{count, from_json, from_word, id, json, maybe_id, maybe_json, word};
use crate::{Page, StoreError, Unit};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tintype_model::reclaim::Reclaim;
use tintype_model::vm::Vm;
use tintype_model::{EffectId, Moment, VmId};

impl Unit<'_> {
    /// Adds a machine.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub async fn add_vm(&mut self, vm: &Vm) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO vm (id, name, state, config, generation, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(vm.id.to_string())
        .bind(&vm.name)
        .bind(word(&vm.state))
        .bind(json(&vm.config))
        .bind(vm.generation.to_string())
        .bind(vm.created_at.0)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// The machine with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn vm(&mut self, id: VmId) -> Result<Option<Vm>, StoreError> {
        let row = sqlx::query("SELECT * FROM vm WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&mut *self.tx)
            .await?;
        row.as_ref().map(vm).transpose()
    }

    /// The id of the machine with this name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn vm_named(&mut self, name: &str) -> Result<Option<VmId>, StoreError> {
        let row = sqlx::query("SELECT id FROM vm WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *self.tx)
            .await?;
        row.map(|row| id(&row, "id")).transpose()
    }

    /// A page of machines.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn vms(&mut self, page: Page) -> Result<Vec<Vm>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM vm WHERE (created_at, id) > ($1, $2) ORDER BY created_at, id LIMIT $3",
        )
        .bind(page.after.created_at)
        .bind(page.after.id.to_string())
        .bind(i64::from(page.limit))
        .fetch_all(&mut *self.tx)
        .await?;
        rows.iter().map(vm).collect()
    }

    /// Every machine's id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn vm_ids(&mut self) -> Result<Vec<VmId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM vm ORDER BY created_at, id")
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(|row| id(row, "id")).collect()
    }

    /// Remembers the background work that was sent for a machine.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_reclaim(&mut self, vm: VmId, work: &Reclaim) -> Result<(), StoreError> {
        sqlx::query("UPDATE vm SET reclaim_work = $1 WHERE id = $2")
            .bind(json(work))
            .bind(vm.to_string())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// How many machines have background work under way.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn reclaims(&mut self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS n FROM vm WHERE reclaim IS NOT NULL")
            .fetch_one(&mut *self.tx)
            .await?;
        count(&row, "n")
    }

    /// The background work that runs for a machine.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn reclaim(&mut self, vm: VmId) -> Result<Option<(EffectId, Reclaim)>, StoreError> {
        let row = sqlx::query("SELECT reclaim, reclaim_work FROM vm WHERE id = $1")
            .bind(vm.to_string())
            .fetch_optional(&mut *self.tx)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(maybe_id(&row, "reclaim")?.zip(maybe_json(&row, "reclaim_work")?))
    }
}

fn vm(row: &SqliteRow) -> Result<Vm, StoreError> {
    Ok(Vm {
        id: id(row, "id")?,
        name: row.try_get("name")?,
        state: from_word(row, "state")?,
        config: from_json(row, "config")?,
        generation: id(row, "generation")?,
        current: maybe_id(row, "current_snapshot")?,
        operation: maybe_id(row, "operation")?,
        reclaim: maybe_id(row, "reclaim")?,
        created_at: Moment(row.try_get("created_at")?),
    })
}
