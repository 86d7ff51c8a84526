//! A machine's whole timeline: loaded as one value, changed by what the model decided.

use crate::codec::{count, from_word, id, json, maybe_id, number, word};
use crate::{StoreError, Unit};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tintype_model::VmId;
use tintype_model::change::Change;
use tintype_model::layer::Layer;
use tintype_model::timeline::Timeline;

const STATE: &str = "UPDATE vm SET state = $1 WHERE id = $2";
const CONFIG: &str = "UPDATE vm SET config = $1 WHERE id = $2";
const GENERATION: &str = "UPDATE vm SET generation = $1 WHERE id = $2";
const CURRENT_SNAPSHOT: &str = "UPDATE vm SET current_snapshot = $1 WHERE id = $2";
const OPERATION: &str = "UPDATE vm SET operation = $1 WHERE id = $2";
const RECLAIM: &str = "UPDATE vm SET reclaim = $1 WHERE id = $2";

impl Unit<'_> {
    /// The timeline of a machine.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn timeline(&mut self, vm: VmId) -> Result<Option<Timeline>, StoreError> {
        let Some(machine) = self.vm(vm).await? else {
            return Ok(None);
        };
        let mut timeline = Timeline::of(machine);
        for snapshot in self.snapshots_of(vm).await? {
            timeline.snapshots.insert(snapshot.id, snapshot);
        }
        let layers = sqlx::query("SELECT * FROM layer WHERE vm = $1")
            .bind(vm.to_string())
            .fetch_all(&mut *self.tx)
            .await?;
        for row in &layers {
            let layer = layer(row)?;
            timeline.layers.insert(layer.id, layer);
        }
        let active = sqlx::query("SELECT disk, layer FROM active WHERE vm = $1")
            .bind(vm.to_string())
            .fetch_all(&mut *self.tx)
            .await?;
        for row in &active {
            timeline.active.insert(id(row, "disk")?, id(row, "layer")?);
        }
        Ok(Some(timeline))
    }

    /// Records changes of a machine's timeline.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record(&mut self, vm: VmId, changes: &[Change]) -> Result<(), StoreError> {
        for change in changes {
            self.record_one(vm, change).await?;
        }
        Ok(())
    }

    async fn record_one(&mut self, vm: VmId, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::VmState(state) => self.set(vm, STATE, Some(word(state))).await,
            Change::VmConfig(config) => self.set(vm, CONFIG, Some(json(config))).await,
            Change::VmGeneration(id) => self.set(vm, GENERATION, Some(id.to_string())).await,
            Change::VmCurrent(id) => {
                self.set(vm, CURRENT_SNAPSHOT, id.map(|id| id.to_string())).await
            }
            Change::VmOperation(id) => self.set(vm, OPERATION, id.map(|id| id.to_string())).await,
            Change::VmReclaim(id) => self.set(vm, RECLAIM, id.map(|id| id.to_string())).await,
            Change::VmGone => self.remove_vm(vm).await,
            Change::SnapshotAdded(snapshot) => self.add_snapshot(snapshot).await,
            Change::SnapshotChanged(id, change) => self.change_snapshot(*id, change).await,
            Change::SnapshotGone(id) => self.remove_snapshot(*id).await,
            Change::LayerAdded(layer) => self.add_layer(vm, layer).await,
            Change::LayerMoved { layer, parent } => {
                let parent = parent.map(|id| id.to_string());
                self.run(
                    sqlx::query("UPDATE layer SET parent = $1 WHERE id = $2")
                        .bind(parent)
                        .bind(layer.to_string()),
                )
                .await
            }
            Change::LayerSize { layer, size_bytes } => {
                self.run(
                    sqlx::query("UPDATE layer SET size_bytes = $1 WHERE id = $2")
                        .bind(number(*size_bytes))
                        .bind(layer.to_string()),
                )
                .await
            }
            Change::LayerGone(id) => {
                self.run(sqlx::query("DELETE FROM layer WHERE id = $1").bind(id.to_string())).await
            }
            Change::DiskActive { disk, layer } => {
                self.run(
                    sqlx::query(
                        "INSERT INTO active (vm, disk, layer) VALUES ($1, $2, $3)
                         ON CONFLICT (vm, disk) DO UPDATE SET layer = $3",
                    )
                    .bind(vm.to_string())
                    .bind(disk.to_string())
                    .bind(layer.to_string()),
                )
                .await
            }
        }
    }

    async fn set(
        &mut self,
        vm: VmId,
        statement: &'static str,
        value: Option<String>,
    ) -> Result<(), StoreError> {
        self.run(sqlx::query(statement).bind(value).bind(vm.to_string())).await
    }

    async fn add_layer(&mut self, vm: VmId, layer: &Layer) -> Result<(), StoreError> {
        let query = sqlx::query(
            "INSERT INTO layer (id, vm, disk, parent, format, rank, size_bytes)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        );
        self.run(
            query
                .bind(layer.id.to_string())
                .bind(vm.to_string())
                .bind(layer.disk.to_string())
                .bind(layer.parent.map(|id| id.to_string()))
                .bind(word(&layer.format))
                .bind(i64::from(layer.rank))
                .bind(number(layer.size_bytes)),
        )
        .await
    }

    async fn remove_vm(&mut self, vm: VmId) -> Result<(), StoreError> {
        let statements = [
            "DELETE FROM snapshot_layer WHERE snapshot IN (SELECT id FROM snapshot WHERE vm = $1)",
            "DELETE FROM snapshot WHERE vm = $1",
            "DELETE FROM active WHERE vm = $1",
            "DELETE FROM layer WHERE vm = $1",
            "DELETE FROM vm WHERE id = $1",
        ];
        for statement in statements {
            self.run(sqlx::query(statement).bind(vm.to_string())).await?;
        }
        Ok(())
    }

    async fn run(
        &mut self,
        query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<(), StoreError> {
        query.execute(&mut *self.tx).await?;
        Ok(())
    }
}

fn layer(row: &SqliteRow) -> Result<Layer, StoreError> {
    let rank: i64 = row.try_get("rank")?;
    Ok(Layer {
        id: id(row, "id")?,
        disk: id(row, "disk")?,
        parent: maybe_id(row, "parent")?,
        format: from_word(row, "format")?,
        rank: u32::try_from(rank).unwrap_or(0),
        size_bytes: count(row, "size_bytes")?,
    })
}
