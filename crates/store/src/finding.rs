//! What is known of the files on a host, and which machines have yet to be described there.

use crate::codec::{from_json, id, json};
use crate::sql::sql;
use crate::{StoreError, Unit};
use std::collections::BTreeMap;
use tintype_model::change::{Change, SnapshotChange};
use tintype_model::finding::Mark;
use tintype_model::layer::LayerFile;
use tintype_model::manifest::layer_file;
use tintype_model::snapshot::{Snapshot, SnapshotState, memory_name};
use tintype_model::timeline::Timeline;
use tintype_model::{DiskId, SnapshotId, VmId};

impl Unit {
    /// The marks of a machine's files, by name.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub fn marks(&mut self, vm: VmId) -> Result<BTreeMap<String, Mark>, StoreError> {
        let layers = sql("SELECT id, format, mark FROM layer WHERE vm = $1 AND mark IS NOT NULL");
        let layers = self.all(layers.bind(vm.to_string()), |row| {
            let (id, format): (String, String) = (row.get("id")?, row.get("format")?);
            Ok((format!("{id}.{format}"), from_json(row, "mark")?))
        })?;
        let memories = sql("SELECT id, memory_mark FROM snapshot
             WHERE vm = $1 AND memory_mark IS NOT NULL");
        let memories = self.all(memories.bind(vm.to_string()), |row| {
            Ok((memory_name(id(row, "id")?), from_json(row, "memory_mark")?))
        })?;
        Ok(layers.into_iter().chain(memories).collect())
    }

    /// Remembers what a file of a machine is like, or forgets it so that it is taken as it is seen
    /// next.
    ///
    /// # Errors
    /// When the database fails.
    pub fn set_mark(
        &mut self,
        vm: VmId,
        file: &str,
        mark: Option<&Mark>,
    ) -> Result<(), StoreError> {
        let mark = mark.map(json);
        if let Some(LayerFile { id, .. }) = layer_file(file) {
            return self.run(
                sql("UPDATE layer SET mark = $1 WHERE vm = $2 AND id = $3")
                    .bind(mark)
                    .bind(vm.to_string())
                    .bind(id.to_string()),
            );
        }
        let Some(snapshot) = memory_of(file) else { return Ok(()) };
        self.run(
            sql("UPDATE snapshot SET memory_mark = $1 WHERE vm = $2 AND id = $3")
                .bind(mark)
                .bind(vm.to_string())
                .bind(snapshot.to_string()),
        )
    }

    /// The layer that a disk was written to is about to be frozen: what it is like then is seen
    /// next.
    pub(crate) fn unmark_active(&mut self, vm: VmId, disk: DiskId) -> Result<(), StoreError> {
        self.run(
            sql("UPDATE layer SET mark = NULL WHERE vm = $1
                 AND id = (SELECT layer FROM active WHERE vm = $1 AND disk = $2)")
            .bind(vm.to_string())
            .bind(disk.to_string()),
        )
    }

    /// The machines of which something is not as it was recorded.
    ///
    /// # Errors
    /// When the database fails.
    pub fn vms_found(&mut self) -> Result<Vec<VmId>, StoreError> {
        let query = sql("SELECT id FROM vm WHERE findings IS NOT NULL ORDER BY name");
        self.all(query, |row| id(row, "id"))
    }

    /// How often a machine's timeline was recorded, if there is the machine.
    ///
    /// # Errors
    /// When the database fails.
    pub fn revision(&mut self, vm: VmId) -> Result<Option<i64>, StoreError> {
        let query = sql("SELECT revision FROM vm WHERE id = $1").bind(vm.to_string());
        self.one(query, |row| row.get("revision"))
    }

    /// How often each machine's timeline was recorded.
    ///
    /// # Errors
    /// When the database fails.
    pub fn revisions(&mut self) -> Result<Vec<(VmId, i64)>, StoreError> {
        let query = sql("SELECT id, revision FROM vm");
        self.all(query, |row| Ok((id(row, "id")?, row.get("revision")?)))
    }

    /// Records a machine that was found as it is, with how often it had been recorded.
    ///
    /// # Errors
    /// When the database fails.
    pub fn take_in(&mut self, timeline: &Timeline, revision: i64) -> Result<(), StoreError> {
        self.add_vm(&timeline.vm)?;
        let mut growing = Timeline::of(timeline.vm.clone());
        let layers = timeline.layers.values().cloned().map(Change::LayerAdded);
        let active = timeline.active.iter();
        let active = active.map(|(&disk, &layer)| Change::DiskActive { disk, layer });
        let mut changes: Vec<Change> = layers.chain(active).collect();
        for snapshot in timeline.snapshots.values() {
            changes.push(Change::SnapshotAdded(Box::new(snapshot.clone())));
            let again = again(snapshot);
            changes.extend(again.map(|change| Change::SnapshotChanged(snapshot.id, change)));
        }
        changes.push(Change::VmCurrent(timeline.vm.current));
        changes.push(Change::VmOperation(timeline.vm.operation));
        changes.push(Change::VmReclaim(timeline.vm.reclaim));
        self.record(&mut growing, &changes)?;
        let query = sql("UPDATE vm SET revision = $1 + 1 WHERE id = $2");
        self.run(query.bind(revision).bind(timeline.vm.id.to_string()))
    }
}

/// What has happened to a snapshot since it was asked for.
fn again(snapshot: &Snapshot) -> impl Iterator<Item = SnapshotChange> {
    let come_to = match (snapshot.state, &snapshot.reason) {
        (SnapshotState::Unavailable, Some(reason)) => SnapshotChange::Unavailable(reason.clone()),
        (SnapshotState::Creating, _) => SnapshotChange::State(SnapshotState::Creating),
        _ => SnapshotChange::Ready {
            at: snapshot.ready_at.unwrap_or(snapshot.created_at),
            pause_ms: snapshot.pause_ms,
            memory_bytes: snapshot.memory_bytes,
            consistency: snapshot.consistency,
            reason: snapshot.reason.clone(),
            layers: snapshot.layers.clone(),
        },
    };
    let passing = matches!(snapshot.state, SnapshotState::Reverting | SnapshotState::Deleting);
    let passing = passing.then_some(SnapshotChange::State(snapshot.state));
    let verified = snapshot.verified_at.map(SnapshotChange::Verified);
    [come_to].into_iter().chain(passing).chain(verified)
}

/// The snapshot whose memory file is called so.
fn memory_of(file: &str) -> Option<SnapshotId> {
    file.strip_suffix(".memory")?.parse().ok()
}
