//! A machine's whole timeline: loaded as one value, changed by what the model decided.

use crate::codec::{count, from_word, id, json, maybe_id, number, word};
use crate::sql::{Row, sql};
use crate::{StoreError, Unit};
use std::collections::{BTreeMap, BTreeSet};
use tintype_model::change::Change;
use tintype_model::layer::Layer;
use tintype_model::quota::Usage;
use tintype_model::reclaim::{freed_by_each, next};
use tintype_model::timeline::Timeline;
use tintype_model::{AccountId, LayerId, SnapshotId, VmId};

const STATE: &str = "UPDATE vm SET state = $1 WHERE id = $2";
const CONFIG: &str = "UPDATE vm SET config = $1 WHERE id = $2";
const SETTINGS: &str = "UPDATE vm SET settings = $1 WHERE id = $2";
const NAME: &str = "UPDATE vm SET name = $1 WHERE id = $2";
const GENERATION: &str = "UPDATE vm SET generation = $1 WHERE id = $2";
const CURRENT_SNAPSHOT: &str = "UPDATE vm SET current_snapshot = $1 WHERE id = $2";
const OPERATION: &str = "UPDATE vm SET operation = $1 WHERE id = $2";
const FINDINGS: &str = "UPDATE vm SET findings = $1 WHERE id = $2";
const RECLAIM: &str = "UPDATE vm SET reclaim = $1 WHERE id = $2";

impl Unit {
    /// The timeline of a machine.
    ///
    /// # Errors
    /// When the database fails.
    pub fn timeline(&mut self, vm: VmId) -> Result<Option<Timeline>, StoreError> {
        let Some(machine) = self.vm(vm)? else {
            return Ok(None);
        };
        let mut timeline = Timeline::of(machine);
        for snapshot in self.snapshots_of(vm)? {
            timeline.snapshots.insert(snapshot.id, snapshot);
        }
        let layers = sql("SELECT * FROM layer WHERE vm = $1");
        for layer in self.all(layers.bind(vm.to_string()), layer)? {
            timeline.layers.insert(layer.id, layer);
        }
        let active = sql("SELECT disk, layer FROM active WHERE vm = $1").bind(vm.to_string());
        timeline.active = self
            .all(active, |row| Ok((id(row, "disk")?, id(row, "layer")?)))?
            .into_iter()
            .collect();
        Ok(Some(timeline))
    }

    /// Records changes of a machine's timeline, and what follows from them for lists and quotas.
    ///
    /// # Errors
    /// When the database fails.
    pub fn record(
        &mut self,
        timeline: &mut Timeline,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let (vm, account) = (timeline.vm.id, timeline.vm.account);
        if changes.is_empty() {
            // All that follows from it is as it was; only its operation has moved on.
            let query = sql("UPDATE vm SET revision = revision + 1 WHERE id = $1");
            return self.run(query.bind(vm.to_string()));
        }
        // What another machine has done to what is shared with this one was recorded by itself.
        self.mark_shared(timeline)?;
        let mut others = self.sharers_if(timeline, changes)?;
        let was = self.usage_of(vm)?;
        let frees = freed_by_each(timeline);
        for change in changes {
            self.record_one(vm, account, change)?;
            timeline.apply(change);
        }
        others.extend(self.sharers_if(timeline, changes)?);
        for &sharer in others.iter().chain(others.first().map(|_| &vm)) {
            self.record_shared(sharer)?;
        }
        self.mark_shared(timeline)?;
        self.record_totals(timeline, was, &frees)?;
        for other in others {
            if let Some(other) = self.timeline(other)? {
                let (was, frees) = (self.usage_of(other.vm.id)?, BTreeMap::new());
                self.record_totals(&other, was, &frees)?;
            }
        }
        Ok(())
    }

    /// What is derived of a timeline and kept beside it; what was read of it before is old now.
    fn record_totals(
        &mut self,
        timeline: &Timeline,
        was: Usage,
        frees: &BTreeMap<SnapshotId, u64>,
    ) -> Result<(), StoreError> {
        for (id, size) in freed_by_each(timeline) {
            if frees.get(&id).copied().unwrap_or(0) != size {
                self.set_size(id, size)?;
            }
        }
        let is = timeline.usage();
        if was != is {
            self.add_usage(timeline.vm.account, was, is)?;
        }
        let restless = timeline.vm.reclaim.is_some() || next(timeline).is_some();
        self.run(
            sql("UPDATE vm SET snapshots = $1, bytes = $2, restless = $3, growth_bytes = $4,
                 revision = revision + 1 WHERE id = $5")
            .bind(number(is.snapshots))
            .bind(number(is.bytes))
            .bind(restless)
            .bind(number(timeline.growth_bytes()))
            .bind(timeline.vm.id.to_string()),
        )
    }

    /// What a machine is recorded to use.
    fn usage_of(&mut self, vm: VmId) -> Result<Usage, StoreError> {
        let query = sql("SELECT snapshots, bytes FROM vm WHERE id = $1").bind(vm.to_string());
        let usage = self.one(query, |row| {
            Ok(Usage { snapshots: count(row, "snapshots")?, bytes: count(row, "bytes")? })
        });
        Ok(usage?.unwrap_or_default())
    }

    /// The machines that share layers with this one, if it shares any.
    fn sharers_if(
        &mut self,
        timeline: &Timeline,
        changes: &[Change],
    ) -> Result<BTreeSet<VmId>, StoreError> {
        let added = |change: &Change| matches!(change, Change::LayerAdded(layer) if layer.shared);
        if timeline.layers.values().any(|layer| layer.shared) || changes.iter().any(added) {
            return Ok(self.sharers(timeline.vm.id)?.into_iter().collect());
        }
        Ok(BTreeSet::new())
    }

    /// Records which layers of a machine another one has as well.
    fn record_shared(&mut self, vm: VmId) -> Result<(), StoreError> {
        let query = sql("UPDATE layer SET shared = EXISTS (SELECT 1 FROM layer AS other
                WHERE other.id = layer.id AND other.vm <> layer.vm)
             WHERE vm = $1");
        self.run(query.bind(vm.to_string()))
    }

    /// Reads which layers another machine has as well.
    fn mark_shared(&mut self, timeline: &mut Timeline) -> Result<(), StoreError> {
        let query = sql("SELECT id FROM layer WHERE vm = $1 AND shared");
        let shared: BTreeSet<LayerId> = self
            .all(query.bind(timeline.vm.id.to_string()), |row| id(row, "id"))?
            .into_iter()
            .collect();
        for layer in timeline.layers.values_mut() {
            layer.shared = shared.contains(&layer.id);
        }
        Ok(())
    }

    fn record_one(
        &mut self,
        vm: VmId,
        account: AccountId,
        change: &Change,
    ) -> Result<(), StoreError> {
        match change {
            Change::VmState(state) => self.set(vm, STATE, Some(word(state))),
            Change::VmConfig(config) => self.set(vm, CONFIG, Some(json(config))),
            Change::VmSettings(settings) => self.set(vm, SETTINGS, Some(json(settings))),
            Change::VmName(name) => self.set(vm, NAME, Some(name.clone())),
            Change::VmGeneration(id) => self.set(vm, GENERATION, Some(id.to_string())),
            Change::VmCurrent(id) => self.set(vm, CURRENT_SNAPSHOT, id.map(|id| id.to_string())),
            Change::VmOperation(id) => self.set(vm, OPERATION, id.map(|id| id.to_string())),
            Change::VmReclaim(id) => self.set(vm, RECLAIM, id.map(|id| id.to_string())),
            Change::VmFindings(found) => {
                self.set(vm, FINDINGS, (!found.is_empty()).then(|| json(found)))
            }
            Change::VmGone => self.remove_vm(vm),
            Change::SnapshotAdded(snapshot) => self.add_snapshot(snapshot, account),
            Change::SnapshotChanged(id, change) => self.change_snapshot(*id, change),
            Change::SnapshotGone(id) => self.remove_snapshot(*id),
            Change::LayerAdded(layer) => self.add_layer(vm, layer),
            Change::LayerMoved { layer, parent } => {
                let parent = parent.map(|id| id.to_string());
                self.run(
                    sql("UPDATE layer SET parent = $1 WHERE vm = $2 AND id = $3")
                        .bind(parent)
                        .bind(vm.to_string())
                        .bind(layer.to_string()),
                )
            }
            Change::LayerSize { layer, size_bytes } => {
                // A shared file is as large in every machine.
                self.run(
                    sql("UPDATE layer SET size_bytes = $1 WHERE id = $2")
                        .bind(number(*size_bytes))
                        .bind(layer.to_string()),
                )
            }
            Change::LayerGone(id) => self.run(
                sql("DELETE FROM layer WHERE vm = $1 AND id = $2")
                    .bind(vm.to_string())
                    .bind(id.to_string()),
            ),
            Change::DiskActive { disk, layer } => {
                self.unmark_active(vm, *disk)?;
                self.run(
                    sql("INSERT INTO active (vm, disk, layer) VALUES ($1, $2, $3)
                             ON CONFLICT (vm, disk) DO UPDATE SET layer = $3")
                    .bind(vm.to_string())
                    .bind(disk.to_string())
                    .bind(layer.to_string()),
                )
            }
            Change::DiskGone(disk) => {
                for statement in [
                    "DELETE FROM active WHERE vm = $1 AND disk = $2",
                    "DELETE FROM layer WHERE vm = $1 AND disk = $2",
                ] {
                    let query = sql(statement).bind(vm.to_string());
                    self.run(query.bind(disk.to_string()))?;
                }
                Ok(())
            }
        }
    }

    fn set(
        &mut self,
        vm: VmId,
        statement: &'static str,
        value: Option<String>,
    ) -> Result<(), StoreError> {
        self.run(sql(statement).bind(value).bind(vm.to_string()))
    }

    fn add_layer(&mut self, vm: VmId, layer: &Layer) -> Result<(), StoreError> {
        let query = sql("INSERT INTO layer (id, vm, disk, parent, format, rank, size_bytes)
             VALUES ($1, $2, $3, $4, $5, $6, $7)");
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
    }

    fn remove_vm(&mut self, vm: VmId) -> Result<(), StoreError> {
        let statements = [
            "DELETE FROM snapshot_layer WHERE vm = $1",
            "DELETE FROM snapshot WHERE vm = $1",
            "DELETE FROM active WHERE vm = $1",
            "DELETE FROM layer WHERE vm = $1",
            "DELETE FROM vm WHERE id = $1",
        ];
        for statement in statements {
            self.run(sql(statement).bind(vm.to_string()))?;
        }
        Ok(())
    }
}

fn layer(row: &Row<'_>) -> Result<Layer, StoreError> {
    let rank: i64 = row.get("rank")?;
    Ok(Layer {
        id: id(row, "id")?,
        disk: id(row, "disk")?,
        parent: maybe_id(row, "parent")?,
        format: from_word(row, "format")?,
        rank: u32::try_from(rank).unwrap_or(0),
        size_bytes: count(row, "size_bytes")?,
        shared: row.get("shared")?,
    })
}
