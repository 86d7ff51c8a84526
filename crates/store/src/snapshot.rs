//! Snapshots.

use crate::codec::{Same, count, from_word, id, json, maybe_id, maybe_json, number, word};
use crate::sql::{Row, sql};
use crate::{StoreError, Unit};
use std::collections::BTreeMap;
use tintype_model::change::SnapshotChange;
use tintype_model::config::Config;
use tintype_model::snapshot::{Kind, Snapshot, SnapshotState};
use tintype_model::{AccountId, DiskId, LayerId, Moment, SnapshotId, VmId};

const OF_VM: &str = "SELECT * FROM snapshot WHERE vm = $1";

impl Unit {
    /// The machine that a snapshot is of.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub fn vm_of(&mut self, id: SnapshotId) -> Result<Option<VmId>, StoreError> {
        let query = sql("SELECT vm FROM snapshot WHERE id = $1").bind(id.to_string());
        self.one(query, |row| crate::codec::id(row, "vm"))
    }

    /// Every snapshot of a machine.
    pub(crate) fn snapshots_of(&mut self, vm: VmId) -> Result<Vec<Snapshot>, StoreError> {
        let found = sql(OF_VM).bind(vm.to_string());
        let mut configs = Same::none();
        let found = self.all(found, |row| snapshot(row, &mut configs))?;
        let mut snapshots: BTreeMap<SnapshotId, Snapshot> =
            found.into_iter().map(|found| (found.id, found)).collect();
        let held = sql("SELECT snapshot, disk, layer FROM snapshot_layer WHERE vm = $1");
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
                                   expires_at, protected, safety, saving, size_bytes, late)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                     $17, 0, $9 < (SELECT COALESCE(MAX(created_at), $9) FROM snapshot))",
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
        )?;
        let row = self.connection().last_insert_rowid();
        debug_assert_eq!(self.row_of(snapshot.id)?, Some(row), "what triggers add is not told");
        self.names.forget(row);
        Ok(())
    }

    fn row_of(&mut self, id: SnapshotId) -> Result<Option<i64>, StoreError> {
        let query = sql("SELECT seq FROM snapshot WHERE id = $1").bind(id.to_string());
        self.one(query, |row| row.get("seq"))
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
        let forget = sql("DELETE FROM snapshot_layer
             WHERE vm = (SELECT vm FROM snapshot WHERE id = $1) AND snapshot = $1");
        self.run(forget.bind(id.to_string()))
    }

    fn hold_layer(
        &mut self,
        id: SnapshotId,
        disk: DiskId,
        layer: LayerId,
    ) -> Result<(), StoreError> {
        self.run(
            sql("INSERT INTO snapshot_layer (vm, snapshot, disk, layer)
             VALUES ((SELECT vm FROM snapshot WHERE id = $1), $1, $2, $3)
             ON CONFLICT (vm, snapshot, disk) DO UPDATE SET layer = $3")
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
            SnapshotChange::Road(road) => {
                sql("UPDATE snapshot SET saving = json_set(saving, '$.road', $1) WHERE id = $2")
                    .bind(word(road))
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
                if let Some(row) = self.row_of(id)? {
                    self.names.forget(row);
                }
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

pub(crate) fn snapshot(row: &Row<'_>, configs: &mut Same<Config>) -> Result<Snapshot, StoreError> {
    let moment = |column| Ok::<_, StoreError>(row.get::<Option<i64>>(column)?.map(Moment));
    // In the order of the columns, as they are found soonest.
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
        created_by: row.get("created_by")?,
        ready_at: moment("ready_at")?,
        verified_at: moment("verified_at")?,
        expires_at: moment("expires_at")?,
        protected: row.get("protected")?,
        safety: row.get("safety")?,
        pause_ms: row.get::<Option<i64>>("pause_ms")?.map(|ms| u64::try_from(ms).unwrap_or(0)),
        memory_bytes: count(row, "memory_bytes")?,
        config: configs.read(row, "config")?,
        saving: maybe_json(row, "saving")?,
        layers: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::OF_VM;
    use crate::Store;
    use crate::sql::sql;

    #[tokio::test]
    async fn what_a_machine_has_is_read_from_where_it_lies_together() {
        let store = Store::in_memory(|| false).unwrap();
        let mut unit = store.write().await.unwrap();
        let mut query = sql("EXPLAIN QUERY PLAN ");
        query.push(OF_VM);
        let plan: Vec<String> = unit.all(query.bind("vm"), |row| row.get("detail")).unwrap();
        assert_eq!(plan, ["SEARCH snapshot USING COVERING INDEX snapshot_of_vm (vm=?)"]);
    }
}
