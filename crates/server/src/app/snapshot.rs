//! Snapshots.

use super::vm::{pool_full, refuse_without_memory};
use super::{Answer, App, stored};
use crate::view;
use std::sync::Arc;
use tintype_model::change::{Change, SnapshotChange};
use tintype_model::effect::After;
use tintype_model::operation::{Command, CreateSnapshot, DeleteSnapshots, Power, RevertTo};
use tintype_model::refusal::Code;
use tintype_model::snapshot::{Kind, Snapshot};
use tintype_model::timeline::Timeline;
use tintype_model::tree::Scope;
use tintype_model::{Refusal, SnapshotId, name};
use tintype_store::{Page, SnapshotFilter, Unit};
use tintype_wire::rest;
use uuid::Uuid;

/// Room for device state and layers beside a snapshot's memory, in bytes.
const ROOM: u64 = 32 << 20;

/// Which snapshots to list.
#[derive(Clone, Debug, Default)]
pub struct SnapshotQuery {
    /// Of this machine, by name or id.
    pub vm: Option<String>,
    /// What else.
    pub filter: SnapshotFilter,
}

impl App {
    /// A snapshot.
    ///
    /// # Errors
    /// When there is none; so for all of these.
    pub async fn snapshot(&self, id: SnapshotId) -> Answer<rest::Snapshot> {
        let mut unit = self.store.read().await.map_err(stored)?;
        let timeline = timeline_of(&mut unit, id).await?;
        Ok(view::snapshot(&timeline, &timeline.snapshots[&id]))
    }

    /// A page of snapshots (E19, E20, C31).
    ///
    /// # Errors
    /// When the machine is unknown.
    pub async fn snapshots(
        &self,
        query: SnapshotQuery,
        page: Page,
    ) -> Answer<rest::List<rest::Snapshot>> {
        let mut unit = self.store.read().await.map_err(stored)?;
        let mut filter = query.filter;
        if let Some(vm) = query.vm {
            filter.vm = Some(self.find_vm(&mut unit, &vm).await?);
        }
        let found = unit.snapshots(&filter, page).await.map_err(stored)?;
        let last = found.last().map(|snapshot| (snapshot.created_at, snapshot.id.0));
        let next = view::next(page, found.len(), last);
        let mut items = Vec::new();
        let mut timeline: Option<Timeline> = None;
        for snapshot in &found {
            if timeline.as_ref().is_none_or(|timeline| timeline.vm.id != snapshot.vm) {
                timeline = unit.timeline(snapshot.vm).await.map_err(stored)?;
            }
            items.extend(timeline.as_ref().map(|timeline| view::snapshot(timeline, snapshot)));
        }
        Ok(rest::List { items, next })
    }

    /// The snapshot tree of a machine (C33, C34).
    ///
    /// # Errors
    /// When the machine is unknown.
    pub async fn tree(&self, vm: &str) -> Answer<rest::Tree> {
        let mut unit = self.store.read().await.map_err(stored)?;
        Ok(view::tree(&self.load(&mut unit, vm).await?))
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// When it cannot be taken.
    pub async fn create_snapshot(
        self: &Arc<Self>,
        vm: &str,
        new: rest::NewSnapshot,
    ) -> Answer<rest::Operation> {
        let kind = match new.kind.as_deref() {
            None | Some("disk") => Kind::Disk,
            Some("disk-and-memory") => Kind::DiskAndMemory,
            Some(other) => {
                return Err(Refusal::new(Code::InvalidRequest)
                    .detail(format!("kind {other:?}"))
                    .hint("disk or disk-and-memory"));
            }
        };
        let host = self.agent.host().await;
        let mut unit = self.store.write().await.map_err(stored)?;
        let timeline = self.load(&mut unit, vm).await?;
        let snapshot = SnapshotId(Uuid::new_v4());
        let description = new.description.unwrap_or_default();
        let create = CreateSnapshot { snapshot, name: new.name, description, kind };
        let command = Command::CreateSnapshot(create);
        let operation = self.admit(&mut unit, &timeline, command, Some(snapshot)).await?;
        let memory = if kind == Kind::DiskAndMemory { timeline.vm.config.memory_bytes } else { 0 };
        if host.pool_free_bytes < memory + ROOM {
            return Err(pool_full(host.pool_free_bytes, memory + ROOM));
        }
        unit.commit().await.map_err(stored)?;
        self.accepted(operation).await
    }

    /// Goes back to a snapshot; without one, to the current (R7).
    ///
    /// # Errors
    /// When it cannot be gone back to.
    pub async fn revert(
        self: &Arc<Self>,
        id: SnapshotId,
        revert: &rest::Revert,
    ) -> Answer<rest::Operation> {
        let power = match revert.power.as_deref() {
            None | Some("as-taken") => Power::AsTaken,
            Some("start") => Power::Start,
            Some("stopped") => Power::Stopped,
            Some(other) => {
                return Err(Refusal::new(Code::InvalidRequest)
                    .detail(format!("power {other:?}"))
                    .hint("as-taken, start or stopped"));
            }
        };
        let host = self.agent.host().await;
        let mut unit = self.store.write().await.map_err(stored)?;
        let timeline = timeline_of(&mut unit, id).await?;
        let snapshot = &timeline.snapshots[&id];
        let to = RevertTo::new(snapshot, power);
        let needs = snapshot.config.memory_bytes;
        let operation = self.admit(&mut unit, &timeline, Command::RevertTo(to), Some(id)).await?;
        if to.after != After::Stopped {
            refuse_without_memory(&host, needs)?;
        }
        unit.commit().await.map_err(stored)?;
        self.accepted(operation).await
    }

    /// What deleting would do.
    ///
    /// # Errors
    /// When the snapshot or machine is unknown.
    pub async fn plan_delete(&self, target: &DeleteTarget) -> Answer<rest::DeletePlan> {
        let mut unit = self.store.read().await.map_err(stored)?;
        let timeline = self.target(&mut unit, target).await?;
        let forecast = DeleteSnapshots { scope: target.scope() }.forecast(&timeline)?;
        Ok(view::delete_plan(&timeline, &forecast))
    }

    /// Deletes snapshots.
    ///
    /// # Errors
    /// When they cannot be deleted.
    pub async fn delete_snapshots(
        self: &Arc<Self>,
        target: &DeleteTarget,
    ) -> Answer<rest::Operation> {
        let mut unit = self.store.write().await.map_err(stored)?;
        let timeline = self.target(&mut unit, target).await?;
        let command = Command::DeleteSnapshots(DeleteSnapshots { scope: target.scope() });
        let operation = self.admit(&mut unit, &timeline, command, target.snapshot()).await?;
        unit.commit().await.map_err(stored)?;
        self.accepted(operation).await
    }

    async fn target(&self, unit: &mut Unit<'_>, target: &DeleteTarget) -> Answer<Timeline> {
        match target {
            DeleteTarget::All(vm) => self.load(unit, vm).await,
            DeleteTarget::Of(scope) => match scope {
                Scope::One(id) | Scope::Subtree(id) | Scope::Children(id) => {
                    timeline_of(unit, *id).await
                }
                Scope::All => Err(Refusal::new(Code::InvalidRequest).detail("all of what?")),
            },
        }
    }

    /// Changes name and description (C32).
    ///
    /// # Errors
    /// When the name is not allowed or taken.
    pub async fn edit_snapshot(
        &self,
        id: SnapshotId,
        edit: rest::EditSnapshot,
    ) -> Answer<rest::Snapshot> {
        let mut unit = self.store.write().await.map_err(stored)?;
        let mut timeline = timeline_of(&mut unit, id).await?;
        let mut changes = Vec::new();
        if let Some(new) = edit.name {
            name::check_snapshot_name(&new)?;
            if let Some(other) = timeline.named(&new).filter(|other| other.id != id) {
                return Err(Refusal::new(Code::NameTaken)
                    .detail(format!("{} has a snapshot named {new:?}", timeline.vm.name))
                    .blocked_by([other.id.0]));
            }
            changes.push(Change::SnapshotChanged(id, SnapshotChange::Name(new)));
        }
        if let Some(description) = edit.description {
            name::check_description(&description)?;
            changes.push(Change::SnapshotChanged(id, SnapshotChange::Description(description)));
        }
        unit.record(timeline.vm.id, &changes).await.map_err(stored)?;
        unit.commit().await.map_err(stored)?;
        for change in &changes {
            timeline.apply(change);
        }
        Ok(view::snapshot(&timeline, &timeline.snapshots[&id]))
    }
}

/// What a deletion is about.
#[derive(Clone, Debug)]
pub enum DeleteTarget {
    /// One snapshot, or what descends from it.
    Of(Scope),
    /// Every snapshot of a machine.
    All(String),
}

impl DeleteTarget {
    fn scope(&self) -> Scope {
        match self {
            Self::Of(scope) => *scope,
            Self::All(_) => Scope::All,
        }
    }

    fn snapshot(&self) -> Option<SnapshotId> {
        match self {
            Self::Of(Scope::One(id) | Scope::Subtree(id) | Scope::Children(id)) => Some(*id),
            Self::Of(Scope::All) | Self::All(_) => None,
        }
    }
}

async fn timeline_of(unit: &mut Unit<'_>, id: SnapshotId) -> Answer<Timeline> {
    let unknown = || Refusal::new(Code::UnknownSnapshot).detail(id.to_string());
    let snapshot: Snapshot = unit.snapshot(id).await.map_err(stored)?.ok_or_else(unknown)?;
    unit.timeline(snapshot.vm).await.map_err(stored)?.ok_or_else(unknown)
}
