//! Snapshots.

use super::design::{pool_full, refuse_without_memory};
use super::find::{About, unknown_snapshot};
use super::order::Order;
use super::{Answer, App, How, stored};
use crate::view;
use std::sync::Arc;
use tintype_model::access::{Action, Caller};
use tintype_model::change::{Change, SnapshotChange};
use tintype_model::effect::After;
use tintype_model::operation::{
    Command, CreateSnapshot, DeleteSnapshots, ExportSnapshot, Power, RevertTo, VerifySnapshot,
    check_expiry, refuse_user,
};
use tintype_model::quota::reserved_bytes;
use tintype_model::refusal::Code;
use tintype_model::snapshot::{Kind, Quiesce, Road};
use tintype_model::tree::Scope;
use tintype_model::{Moment, Refusal, SnapshotId, name};
use tintype_store::{Page, SnapshotFilter};
use tintype_wire::rest;

/// Which snapshots to list.
#[derive(Clone, Debug, Default)]
pub struct SnapshotQuery {
    /// Of this machine, by name or id.
    pub vm: Option<String>,
    /// Of this account, by name or id.
    pub account: Option<String>,
    /// Of this domain and those beneath, by name or id.
    pub domain: Option<String>,
    /// What else.
    pub filter: SnapshotFilter,
}

impl App {
    /// A snapshot.
    ///
    /// # Errors
    /// When there is none; so for all of these.
    pub async fn snapshot(&self, caller: &Caller, id: SnapshotId) -> Answer<rest::Snapshot> {
        let mut unit = self.store.read().await.map_err(stored)?;
        self.find_vm_of(&mut unit, caller, Action::ReadVm, id)?;
        let listed = unit.listed_snapshot(id).map_err(stored)?;
        Ok(view::snapshot(&listed.ok_or_else(|| unknown_snapshot(id))?))
    }

    /// A page of snapshots (E19, E20, C31).
    ///
    /// # Errors
    /// When a machine, account or domain is unknown.
    pub async fn snapshots(
        &self,
        caller: &Caller,
        query: SnapshotQuery,
        page: &Page,
    ) -> Answer<rest::List<rest::Snapshot>> {
        caller.may_ever(Action::ReadVm)?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let mut filter = query.filter;
        if let Some(vm) = query.vm {
            filter.vm = Some(self.find_vm(&mut unit, caller, Action::ReadVm, &vm)?);
        }
        let (account, domain) = (query.account.as_deref(), query.domain.as_deref());
        (filter.account, filter.domain) =
            self.account_and_domain(&mut unit, caller, account, domain)?;
        let found = unit.snapshots(caller.reach(), &filter, page).map_err(stored)?;
        let last = found.last().map(|listed| &listed.snapshot);
        let last = last.map(|s| (s.created_at, s.name.as_str(), s.id.0));
        let next = view::next(page, found.len(), last);
        Ok(rest::List { items: found.iter().map(view::snapshot).collect(), next })
    }

    /// The snapshot tree of a machine (C33, C34).
    ///
    /// # Errors
    /// When the machine is unknown.
    pub async fn tree(&self, caller: &Caller, vm: &str) -> Answer<rest::Tree> {
        Ok(view::tree(&self.read_about(caller, Action::ReadVm, vm).await?))
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// When it cannot be taken.
    pub async fn create_snapshot(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        vm: &str,
        new: rest::NewSnapshot,
    ) -> Answer<rest::Operation> {
        let kind = match new.kind.as_deref() {
            None | Some("disk") => Kind::Disk,
            Some("disk-and-memory") => Kind::DiskAndMemory,
            Some(other) => return Err(unknown_word("kind", other, "disk or disk-and-memory")),
        };
        let quiesce = match new.quiesce.as_deref() {
            None | Some("no") => Quiesce::No,
            Some("try") => Quiesce::Try,
            Some("required") => Quiesce::Required,
            Some(other) => return Err(unknown_word("quiesce", other, "no, try or required")),
        };
        let road = match (new.road.as_deref(), kind) {
            (None, _) => None,
            (Some("background"), Kind::DiskAndMemory) => Some(Road::Background),
            (Some("precopy"), Kind::DiskAndMemory) => Some(Road::Precopy),
            (Some("background" | "precopy"), Kind::Disk) => {
                return Err(Refusal::new(Code::InvalidRequest)
                    .detail("road says how memory is saved, and none is wanted")
                    .hint("leave it out, or ask for disk-and-memory"));
            }
            (Some(other), _) => return Err(unknown_word("road", other, "background or precopy")),
        };
        let host = self.agent.host().await;
        let expires_at = new.expires_at.as_deref().map(Moment::from_rfc3339).transpose()?;
        let (unit, timeline) = self.write_about(caller, Action::CreateSnapshot, vm).await?;
        let snapshot = SnapshotId(self.fresh());
        let create = CreateSnapshot {
            snapshot,
            name: new.name,
            description: new.description.unwrap_or_default(),
            kind,
            quiesce,
            road,
            expires_at,
            protected: new.protected,
        };
        let needed = reserved_bytes(kind, timeline.vm.config.memory_bytes);
        // What the machine's own rules say comes first: a full pool is nobody's first concern.
        let full = (host.pool_free_bytes < needed).then(|| pool_full(host.pool_free_bytes, needed));
        let order = Order::new(Command::CreateSnapshot(create)).about(snapshot).unless(full);
        self.give(unit, timeline, caller, how, order).await
    }

    /// Goes back to a snapshot; without one, to the current (R7).
    ///
    /// # Errors
    /// When it cannot be gone back to.
    pub async fn revert(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        id: SnapshotId,
        revert: &rest::Revert,
    ) -> Answer<rest::Operation> {
        let power = match revert.power.as_deref() {
            None | Some("as-taken") => Power::AsTaken,
            Some("start") => Power::Start,
            Some("stopped") => Power::Stopped,
            Some(other) => return Err(unknown_word("power", other, "as-taken, start or stopped")),
        };
        let host = self.agent.host().await;
        let (unit, timeline) = self.write_about(caller, Action::RevertSnapshot, id).await?;
        let snapshot = &timeline.snapshots[&id];
        let safety = revert.safety.then(|| SnapshotId(self.fresh()));
        let to = RevertTo::new(snapshot, power, safety);
        let needs = snapshot.config.memory_bytes;
        let short = match to.after {
            After::Stopped => None,
            After::Booted | After::Resumed => refuse_without_memory(&host, needs).err(),
        };
        let room = safety.map_or(0, |_| reserved_bytes(Kind::DiskAndMemory, needs));
        let full = host.pool_free_bytes < room;
        let short = short.or_else(|| full.then(|| pool_full(host.pool_free_bytes, room)));
        let order = Order::new(Command::RevertTo(to)).about(id).unless(short);
        self.give(unit, timeline, caller, how, order).await
    }

    /// What a revert would lose.
    ///
    /// # Errors
    /// When the snapshot is unknown.
    pub async fn plan_revert(&self, caller: &Caller, id: SnapshotId) -> Answer<rest::Plan> {
        let timeline = self.read_about(caller, Action::RevertSnapshot, id).await?;
        Ok(view::plan_revert(&timeline, &timeline.snapshots[&id]))
    }

    /// Proves that a snapshot is whole.
    ///
    /// # Errors
    /// When it cannot be tried.
    pub async fn verify_snapshot(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        id: SnapshotId,
    ) -> Answer<rest::Operation> {
        let host = self.agent.host().await;
        let (unit, timeline) = self.write_about(caller, Action::VerifySnapshot, id).await?;
        let snapshot = &timeline.snapshots[&id];
        let short = match snapshot.kind {
            Kind::Disk => None,
            Kind::DiskAndMemory => refuse_without_memory(&host, snapshot.config.memory_bytes).err(),
        };
        let command = Command::VerifySnapshot(VerifySnapshot { snapshot: id });
        let order = Order::new(command).about(id).unless(short);
        self.give(unit, timeline, caller, how, order).await
    }

    /// Writes a snapshot to a folder of the pool, in files that plain QEMU opens.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn export_snapshot(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        id: SnapshotId,
        export: rest::Export,
    ) -> Answer<rest::Operation> {
        caller.may_ever(Action::ExportSnapshot)?;
        let host = self.agent.host().await;
        let (unit, timeline) = self.write_about(caller, Action::ExportSnapshot, id).await?;
        let snapshot = &timeline.snapshots[&id];
        let layers = timeline.layers.values().map(|layer| layer.size_bytes);
        let needed = snapshot.memory_bytes + layers.sum::<u64>();
        let full = (host.pool_free_bytes < needed).then(|| pool_full(host.pool_free_bytes, needed));
        let default = || ExportSnapshot::default_name(&timeline.vm.name, id);
        let name = export.name.unwrap_or_else(default);
        let command = Command::ExportSnapshot(ExportSnapshot { snapshot: id, name });
        let order = Order::new(command).about(id).unless(full);
        self.give(unit, timeline, caller, how, order).await
    }

    /// What deleting would do.
    ///
    /// # Errors
    /// When the snapshot or machine is unknown.
    pub async fn plan_delete(&self, caller: &Caller, target: &DeleteTarget) -> Answer<rest::Plan> {
        let action = Action::DeleteSnapshot;
        let timeline = self.read_about(caller, action, target.about()?).await?;
        let forecast = DeleteSnapshots { scope: target.scope() }.forecast(&timeline)?;
        Ok(view::plan_delete(&timeline, &forecast))
    }

    /// Deletes snapshots.
    ///
    /// # Errors
    /// When they cannot be deleted.
    pub async fn delete_snapshots(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        target: &DeleteTarget,
    ) -> Answer<rest::Operation> {
        let action = Action::DeleteSnapshot;
        let (unit, timeline) = self.write_about(caller, action, target.about()?).await?;
        let command = Command::DeleteSnapshots(DeleteSnapshots { scope: target.scope() });
        let order = Order { snapshot: target.snapshot(), ..Order::new(command) };
        self.give(unit, timeline, caller, how, order).await
    }

    /// Changes name and description (C32).
    ///
    /// # Errors
    /// When the name is not allowed or taken.
    pub async fn edit_snapshot(
        &self,
        caller: &Caller,
        id: SnapshotId,
        edit: rest::EditSnapshot,
    ) -> Answer<rest::Snapshot> {
        let (mut unit, mut timeline) = self.write_about(caller, Action::EditSnapshot, id).await?;
        refuse_user(&timeline, &How::default().asker(caller))?;
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
        if let Some(text) = edit.expires_at {
            let expires_at = match text.as_str() {
                "never" => None,
                moment => Some(Moment::from_rfc3339(moment)?),
            };
            check_expiry(expires_at, self.now())?;
            changes.push(Change::SnapshotChanged(id, SnapshotChange::Expires(expires_at)));
        }
        if let Some(protected) = edit.protected {
            changes.push(Change::SnapshotChanged(id, SnapshotChange::Protected(protected)));
        }
        let account = Some(timeline.vm.account);
        let detail = format!("{}: {:?}", timeline.vm.name, timeline.snapshots[&id].name);
        unit.record(&mut timeline, &changes).map_err(stored)?;
        self.tell(&mut unit, caller, "snapshot-edited", account, detail)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        self.snapshot(caller, id).await
    }
}

fn unknown_word(field: &str, word: &str, known: &str) -> Refusal {
    Refusal::new(Code::InvalidRequest).detail(format!("{field} {word:?}")).hint(known)
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
    fn about(&self) -> Answer<About<'_>> {
        match self {
            Self::All(vm) => Ok(About::Vm(vm)),
            Self::Of(Scope::One(id) | Scope::Subtree(id) | Scope::Children(id)) => {
                Ok(About::Snapshot(*id))
            }
            Self::Of(Scope::All) => Err(Refusal::new(Code::InvalidRequest).detail("all of what?")),
        }
    }

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
