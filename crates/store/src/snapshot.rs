//! Snapshots.

use crate::codec::{count, from_json, from_word, id, json, maybe_id, maybe_json, number, word};
use crate::{Page, StoreError, Unit};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use std::collections::BTreeMap;
use tintype_model::change::SnapshotChange;
use tintype_model::snapshot::{Kind, Snapshot, SnapshotState};
use tintype_model::{DiskId, LayerId, Moment, SnapshotId, VmId};

/// Which snapshots to list (E19, E20).
#[derive(Clone, Debug, Default)]
pub struct SnapshotFilter {
    /// Of this machine.
    pub vm: Option<VmId>,
    /// In this state.
    pub state: Option<SnapshotState>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// With this in name or description.
    pub keyword: Option<String>,
    /// Created at this moment or later.
    pub created_after: Option<Moment>,
    /// Created before this moment.
    pub created_before: Option<Moment>,
}

impl Unit<'_> {
    /// The snapshot with this id.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub async fn snapshot(&mut self, id: SnapshotId) -> Result<Option<Snapshot>, StoreError> {
        let row = sqlx::query("SELECT * FROM snapshot WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&mut *self.tx)
            .await?;
        match row {
            Some(row) => Ok(Some(self.with_layers(&row).await?)),
            None => Ok(None),
        }
    }

    /// A page of snapshots.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn snapshots(
        &mut self,
        filter: &SnapshotFilter,
        page: Page,
    ) -> Result<Vec<Snapshot>, StoreError> {
        let mut query: QueryBuilder<Sqlite> =
            QueryBuilder::new("SELECT * FROM snapshot WHERE (created_at, id) > (");
        query.push_bind(page.after.created_at).push(", ").push_bind(page.after.id.to_string());
        query.push(")");
        if let Some(vm) = filter.vm {
            query.push(" AND vm = ").push_bind(vm.to_string());
        }
        if let Some(state) = filter.state {
            query.push(" AND state = ").push_bind(word(&state));
        }
        if let Some(kind) = filter.kind {
            query.push(" AND kind = ").push_bind(word(&kind));
        }
        if let Some(after) = filter.created_after {
            query.push(" AND created_at >= ").push_bind(after.0);
        }
        if let Some(before) = filter.created_before {
            query.push(" AND created_at < ").push_bind(before.0);
        }
        if let Some(keyword) = &filter.keyword {
            let pattern = format!("%{}%", escaped(keyword));
            query.push(" AND (lower(name) LIKE ").push_bind(pattern.clone());
            query.push(" ESCAPE '\\' OR lower(description) LIKE ").push_bind(pattern);
            query.push(" ESCAPE '\\')");
        }
        query.push(" ORDER BY created_at, id LIMIT ").push_bind(i64::from(page.limit));
        let rows = query.build().fetch_all(&mut *self.tx).await?;
        let mut snapshots = Vec::new();
        for row in &rows {
            snapshots.push(self.with_layers(row).await?);
        }
        Ok(snapshots)
    }

    /// Every snapshot of a machine.
    pub(crate) async fn snapshots_of(&mut self, vm: VmId) -> Result<Vec<Snapshot>, StoreError> {
        let rows = sqlx::query("SELECT * FROM snapshot WHERE vm = $1")
            .bind(vm.to_string())
            .fetch_all(&mut *self.tx)
            .await?;
        let mut snapshots = Vec::new();
        for row in &rows {
            snapshots.push(self.with_layers(row).await?);
        }
        Ok(snapshots)
    }

    async fn with_layers(&mut self, row: &SqliteRow) -> Result<Snapshot, StoreError> {
        let mut snapshot = snapshot(row)?;
        let rows = sqlx::query("SELECT disk, layer FROM snapshot_layer WHERE snapshot = $1")
            .bind(snapshot.id.to_string())
            .fetch_all(&mut *self.tx)
            .await?;
        for row in &rows {
            snapshot.layers.insert(id::<DiskId>(row, "disk")?, id::<LayerId>(row, "layer")?);
        }
        Ok(snapshot)
    }

    pub(crate) async fn add_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO snapshot (id, vm, name, description, kind, consistency, state, parent,
                                   created_at, memory_bytes, config)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
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
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    pub(crate) async fn remove_snapshot(&mut self, id: SnapshotId) -> Result<(), StoreError> {
        self.forget_layers(id).await?;
        sqlx::query("DELETE FROM snapshot WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn forget_layers(&mut self, id: SnapshotId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM snapshot_layer WHERE snapshot = $1")
            .bind(id.to_string())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn hold_layer(
        &mut self,
        id: SnapshotId,
        disk: DiskId,
        layer: LayerId,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO snapshot_layer (snapshot, disk, layer) VALUES ($1, $2, $3)
             ON CONFLICT (snapshot, disk) DO UPDATE SET layer = $3",
        )
        .bind(id.to_string())
        .bind(disk.to_string())
        .bind(layer.to_string())
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    pub(crate) async fn change_snapshot(
        &mut self,
        id: SnapshotId,
        change: &SnapshotChange,
    ) -> Result<(), StoreError> {
        let query = match change {
            SnapshotChange::State(state) => {
                sqlx::query("UPDATE snapshot SET state = $1 WHERE id = $2").bind(word(state))
            }
            SnapshotChange::Ready { at, pause_ms, memory_bytes, consistency, layers } => {
                self.forget_layers(id).await?;
                for (&disk, &layer) in layers {
                    self.hold_layer(id, disk, layer).await?;
                }
                sqlx::query(
                    "UPDATE snapshot SET ready_at = $1, pause_ms = $2, memory_bytes = $3,
                     consistency = $4, state = $5 WHERE id = $6",
                )
                .bind(at.0)
                .bind(pause_ms.map(number))
                .bind(number(*memory_bytes))
                .bind(word(consistency))
                .bind(word(&SnapshotState::Ready))
            }
            SnapshotChange::Unavailable(reason) => {
                self.forget_layers(id).await?;
                sqlx::query(
                    "UPDATE snapshot SET state = $1, reason = $2, memory_bytes = 0 WHERE id = $3",
                )
                .bind(word(&SnapshotState::Unavailable))
                .bind(json(reason))
            }
            SnapshotChange::Parent(parent) => {
                sqlx::query("UPDATE snapshot SET parent = $1 WHERE id = $2")
                    .bind(parent.map(|id| id.to_string()))
            }
            SnapshotChange::Layer(disk, layer) => return self.hold_layer(id, *disk, *layer).await,
            SnapshotChange::Name(name) => {
                sqlx::query("UPDATE snapshot SET name = $1 WHERE id = $2").bind(name)
            }
            SnapshotChange::Description(text) => {
                sqlx::query("UPDATE snapshot SET description = $1 WHERE id = $2").bind(text)
            }
        };
        query.bind(id.to_string()).execute(&mut *self.tx).await?;
        Ok(())
    }
}

fn snapshot(row: &SqliteRow) -> Result<Snapshot, StoreError> {
    let pause_ms: Option<i64> = row.try_get("pause_ms")?;
    let ready_at: Option<i64> = row.try_get("ready_at")?;
    Ok(Snapshot {
        id: id(row, "id")?,
        vm: id(row, "vm")?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        kind: from_word(row, "kind")?,
        consistency: from_word(row, "consistency")?,
        state: from_word(row, "state")?,
        reason: maybe_json(row, "reason")?,
        parent: maybe_id(row, "parent")?,
        created_at: Moment(row.try_get("created_at")?),
        ready_at: ready_at.map(Moment),
        pause_ms: pause_ms.map(|ms| u64::try_from(ms).unwrap_or(0)),
        memory_bytes: count(row, "memory_bytes")?,
        config: from_json(row, "config")?,
        layers: BTreeMap::new(),
    })
}

/// The keyword as LIKE takes it for itself.
fn escaped(keyword: &str) -> String {
    let mut text = String::new();
    for c in keyword.to_lowercase().chars() {
        if matches!(c, '\\' | '%' | '_') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}
