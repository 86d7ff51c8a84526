//! Virtual machines.

use super::design::{
    check_memory, check_vcpus, first_layers, new_mac, nics, pool_full, refuse_without_memory,
};
use super::find::unknown_snapshot;
use super::order::Order;
use super::{Answer, App, Ground, How, stored};
use crate::view;
use std::collections::BTreeSet;
use std::sync::Arc;
use tintype_model::access::{Action, Caller};
use tintype_model::change::Change;
use tintype_model::config::{Config, Disk, Network, Nic};
use tintype_model::operation::{
    CloneVm, ClonedDisk, Command, CreateVm, SetVm, StopVm, refuse_delete,
};
use tintype_model::refusal::Code;
use tintype_model::settings::Settings;
use tintype_model::timeline::Timeline;
use tintype_model::vm::{Vm, VmState};
use tintype_model::{AccountId, DiskId, LayerId, Refusal, SnapshotId, VmId, name};
use tintype_store::{DEFAULT_PROFILE, ListedVm, Page, StoreError, Unit, VmFilter};
use tintype_wire::rest;

/// Which machines to list.
#[derive(Clone, Debug, Default)]
pub struct VmQuery {
    /// Of this account, by name or id.
    pub account: Option<String>,
    /// Of this domain and those beneath, by name or id.
    pub domain: Option<String>,
    /// What else.
    pub filter: VmFilter,
}

/// What a change of a machine has come to.
#[derive(Debug)]
pub enum Edited {
    /// The machine as it is now.
    AtOnce(Box<rest::Vm>),
    /// An operation does it.
    Accepted(Box<rest::Operation>),
}

impl App {
    /// A machine.
    ///
    /// # Errors
    /// When there is none; so for all of these.
    pub async fn vm(&self, caller: &Caller, vm: &str) -> Answer<rest::Vm> {
        let mut unit = self.store.read().await.map_err(stored)?;
        let id = self.find_vm(&mut unit, caller, Action::ReadVm, vm)?;
        self.show_vm(&mut unit, id)
    }

    fn show_vm(&self, unit: &mut Unit, id: VmId) -> Answer<rest::Vm> {
        let listed = unit.listed_vm(id).map_err(stored)?;
        let unknown = || super::find::unknown_vm(&id.to_string());
        let listed = listed.ok_or_else(unknown)?;
        self.shown(unit, &listed).map_err(stored)
    }

    /// The id of a machine whose console the caller may use.
    ///
    /// # Errors
    /// When there is none, or the caller may not.
    pub async fn console_of(&self, caller: &Caller, vm: &str) -> Answer<VmId> {
        let mut unit = self.store.read().await.map_err(stored)?;
        self.find_vm(&mut unit, caller, Action::UseConsole, vm)
    }

    /// A page of machines.
    ///
    /// # Errors
    /// When an account or domain is unknown.
    pub async fn vms(
        &self,
        caller: &Caller,
        query: VmQuery,
        page: &Page,
    ) -> Answer<rest::List<rest::Vm>> {
        caller.may_ever(Action::ReadVm)?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let mut filter = query.filter;
        (filter.account, filter.domain) = self.account_and_domain(
            &mut unit,
            caller,
            query.account.as_deref(),
            query.domain.as_deref(),
        )?;
        let found = unit.vms(caller.reach(), &filter, page).map_err(stored)?;
        let last = found.last().map(|l| (l.vm.created_at, l.vm.name.as_str(), l.vm.id.0));
        let next = view::next(page, found.len(), last);
        let items = found.iter().map(|listed| self.shown(&mut unit, listed));
        let items = items.collect::<Result<_, _>>().map_err(stored)?;
        Ok(rest::List { items, next })
    }

    fn shown(&self, unit: &mut Unit, listed: &ListedVm) -> Result<rest::Vm, StoreError> {
        let vm = &listed.vm;
        let found = if vm.findings.is_empty() { None } else { unit.timeline(vm.id)? };
        let findings = found.as_ref().map(view::findings).unwrap_or_default();
        Ok(view::vm(listed, self.agent.console_address(vm.id), findings))
    }

    /// Creates a machine.
    ///
    /// # Errors
    /// When it cannot be.
    pub async fn create_vm(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        new: rest::NewVm,
    ) -> Answer<rest::Operation> {
        caller.may_ever(Action::CreateVm)?;
        name::check_vm_name(&new.name)?;
        let host = self.agent.host().await;
        let (config, disks) = self.design(caller, &new, &host).await?;
        let mut unit = self.store.write().await.map_err(stored)?;
        let account = new.account.as_deref();
        let account = self.find_account(&mut unit, caller, Action::CreateVm, account)?.id;
        let settings = self.first_settings(&mut unit, caller, &new)?;
        refuse_taken(&mut unit, account, &new.name)?;
        let vm = new_vm(&*self.ground, account, new.name, config, settings);
        unit.add_vm(&vm).map_err(stored)?;
        let mut timeline = Timeline::of(vm);
        unit.record(&mut timeline, &first_layers(&disks)).map_err(stored)?;
        let create = CreateVm { disks, kernel: new.kernel, initrd: new.initrd };
        let command = Command::CreateVm(create);
        self.give(unit, timeline, caller, how, Order::new(command)).await
    }

    /// The settings of a new machine: those of its profile (C23), and what an operator says else.
    fn first_settings(
        &self,
        unit: &mut Unit,
        caller: &Caller,
        new: &rest::NewVm,
    ) -> Answer<Settings> {
        let default = DEFAULT_PROFILE.to_string();
        let wanted = new.profile.as_deref().unwrap_or(&default);
        let profile = unit.profile(wanted).map_err(stored)?;
        let mut settings =
            profile.ok_or_else(|| Refusal::new(Code::UnknownProfile).detail(wanted))?.settings;
        if let Some(limit) = new.snapshot_limit {
            caller.may_ever(Action::SetVm)?;
            settings.snapshot_limit = view::to_limit(limit);
        }
        Ok(settings)
    }

    /// Boots a machine.
    ///
    /// # Errors
    /// When it cannot be.
    pub async fn start_vm(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        vm: &str,
    ) -> Answer<rest::Operation> {
        let host = self.agent.host().await;
        let (unit, timeline) = self.write_about(caller, Action::PowerVm, vm).await?;
        refuse_without_memory(&host, timeline.vm.config.memory_bytes)?;
        self.give(unit, timeline, caller, how, Order::new(Command::StartVm)).await
    }

    /// Stops a machine. By force it always does: what holds the machine is cancelled, and the power
    /// is cut as soon as that has ended (R9).
    ///
    /// # Errors
    /// When it cannot be.
    pub async fn stop_vm(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        vm: &str,
        force: bool,
    ) -> Answer<rest::Operation> {
        let (unit, timeline) = self.write_about(caller, Action::PowerVm, vm).await?;
        let holder = timeline.vm.operation;
        let how = How { queue: how.queue || force, ..how };
        let stop = Command::StopVm(StopVm { force });
        let accepted = self.give(unit, timeline, caller, how, Order::new(stop)).await?;
        if let Some(holder) = holder.filter(|_| force)
            && let Err(refusal) = self.cancel(holder).await
        {
            tracing::debug!(%refusal, "what runs first ends by itself");
        }
        Ok(accepted)
    }

    /// What deleting a machine would do (R1).
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub async fn plan_delete_vm(&self, caller: &Caller, vm: &str) -> Answer<rest::Plan> {
        let timeline = self.read_about(caller, Action::DeleteVm, vm).await?;
        refuse_delete(&timeline)?;
        Ok(view::plan_delete_vm(&timeline))
    }

    /// Deletes a machine with its snapshots.
    ///
    /// # Errors
    /// When it cannot be.
    pub async fn delete_vm(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        vm: &str,
    ) -> Answer<rest::Operation> {
        let (unit, timeline) = self.write_about(caller, Action::DeleteVm, vm).await?;
        self.give(unit, timeline, caller, how, Order::new(Command::DeleteVm)).await
    }

    /// What other hardware would cost: the snapshots that lose their memory.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn plan_edit_vm(
        &self,
        caller: &Caller,
        vm: &str,
        edit: &rest::EditVm,
    ) -> Answer<rest::Plan> {
        let timeline = self.read_about(caller, Action::ConfigureVm, vm).await?;
        let lost = match other_hardware(&*self.ground, caller, &timeline, edit)? {
            Some(set) => set.refuse(&timeline)?,
            None => Vec::new(),
        };
        Ok(view::plan_lose_memory(&timeline, &lost))
    }

    /// Changes a machine: its name and settings always (C24, C25), its hardware as the rules allow
    /// (R5).
    ///
    /// # Errors
    /// When it cannot be.
    pub async fn edit_vm(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        vm: &str,
        edit: rest::EditVm,
    ) -> Answer<Edited> {
        let (mut unit, mut timeline) = self.write_about(caller, Action::ReadVm, vm).await?;
        let id = timeline.vm.id;
        let changes = self.plain_changes(&mut unit, caller, &timeline, &edit)?;
        let hardware = other_hardware(&*self.ground, caller, &timeline, &edit)?;
        let in_line = how.queue && timeline.vm.operation.is_some();
        let at_once = match &hardware {
            Some(set) if !in_line => set.at_once(&timeline)?,
            _ => None,
        };
        if !changes.is_empty() || hardware.is_some() {
            let account = timeline.vm.account;
            let detail = format!("{}: {}", timeline.vm.name, view::edited(&edit));
            unit.record(&mut timeline, &changes).map_err(stored)?;
            self.tell(&mut unit, caller, "vm-edited", Some(account), detail)?;
        }
        match (at_once, hardware) {
            (None, Some(set)) => {
                let order = Order::new(Command::SetVm(Box::new(set)));
                let accepted = self.give(unit, timeline, caller, how, order).await?;
                return Ok(Edited::Accepted(Box::new(accepted)));
            }
            (at_once, _) => {
                let changes = at_once.unwrap_or_default();
                unit.record(&mut timeline, &changes).map_err(stored)?;
            }
        }
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        let mut unit = self.store.read().await.map_err(stored)?;
        Ok(Edited::AtOnce(Box::new(self.show_vm(&mut unit, id)?)))
    }

    /// The changes that are only records: name and settings.
    fn plain_changes(
        &self,
        unit: &mut Unit,
        caller: &Caller,
        timeline: &Timeline,
        edit: &rest::EditVm,
    ) -> Answer<Vec<Change>> {
        let mut changes = Vec::new();
        if let Some(name) = edit.name.as_ref().filter(|name| **name != timeline.vm.name) {
            caller.may_ever(Action::ConfigureVm)?;
            name::check_vm_name(name)?;
            refuse_taken(unit, timeline.vm.account, name)?;
            changes.push(Change::VmName(name.clone()));
        }
        let mut settings = timeline.vm.settings;
        view::set(&mut settings.snapshots_allowed, edit.snapshots_allowed);
        view::set(&mut settings.memory_allowed, edit.memory_allowed);
        view::set(&mut settings.protect_snapshots, edit.protect_snapshots);
        view::set(&mut settings.snapshot_limit, edit.snapshot_limit.map(view::to_limit));
        view::set(&mut settings.pause_bound, edit.pause_bound_ms.map(view::to_limit));
        let says = edit.snapshots_allowed.is_some()
            || edit.memory_allowed.is_some()
            || edit.protect_snapshots.is_some()
            || edit.snapshot_limit.is_some()
            || edit.pause_bound_ms.is_some();
        if says {
            caller.may_ever(Action::SetVm)?;
            changes.push(Change::VmSettings(settings));
        }
        Ok(changes)
    }

    /// Makes another machine of a machine's disks (C18).
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn clone_vm(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        vm: &str,
        clone: rest::CloneVm,
    ) -> Answer<rest::Operation> {
        name::check_vm_name(&clone.name)?;
        let host = self.agent.host().await;
        let (mut unit, mut timeline) = self.write_about(caller, Action::CloneVm, vm).await?;
        let account = timeline.vm.account;
        refuse_taken(&mut unit, account, &clone.name)?;
        let from = clone.snapshot.map(SnapshotId);
        let config = match from {
            Some(id) => &timeline.snapshots.get(&id).ok_or_else(|| unknown_snapshot(id))?.config,
            None => &timeline.vm.config,
        };
        let sizes = timeline.layers.values().map(|layer| layer.size_bytes);
        let needed = if clone.linked { 0 } else { sizes.sum() };
        if host.pool_free_bytes < needed {
            return Err(pool_full(host.pool_free_bytes, needed));
        }
        if config.nics.iter().any(|nic| matches!(nic.network, Network::Tap(_))) {
            caller.may_ever(Action::UseHost)?;
        }
        let (config, disks) = cloned(&*self.ground, config);
        let fresh = new_vm(&*self.ground, account, clone.name, config, timeline.vm.settings);
        let command =
            Command::CloneVm(CloneVm { clone: fresh.id, from, linked: clone.linked, disks });
        unit.add_vm(&fresh).map_err(stored)?;
        let mut made = Timeline::of(fresh);
        let order = Order { snapshot: from, ..Order::new(command) };
        let operation = self.take(&mut unit, &mut timeline, caller, how, order)?;
        // Nobody begins anything with the clone before it is made.
        let held = [Change::VmOperation(Some(operation.id))];
        unit.record(&mut made, &held).map_err(stored)?;
        self.go(unit, timeline, operation).await
    }
}

/// The hardware that is asked for, if it is other than what the machine has.
fn other_hardware(
    ground: &dyn Ground,
    caller: &Caller,
    timeline: &Timeline,
    edit: &rest::EditVm,
) -> Answer<Option<SetVm>> {
    if let Some(vcpus) = edit.vcpus {
        check_vcpus(vcpus)?;
    }
    if let Some(memory_bytes) = edit.memory_bytes {
        check_memory(memory_bytes)?;
    }
    let before = &timeline.vm.config.nics;
    let networks = edit.networks.as_ref();
    let nics = networks.map(|nets| nics(ground, caller, nets, before)).transpose()?;
    let set = SetVm {
        vcpus: edit.vcpus,
        memory_bytes: edit.memory_bytes,
        nics,
        discard_memory: edit.discard_memory,
    };
    if set.config(timeline) == timeline.vm.config {
        return Ok(None);
    }
    caller.may_ever(Action::ConfigureVm)?;
    Ok(Some(set))
}

fn new_vm(
    ground: &dyn Ground,
    account: AccountId,
    name: String,
    config: Config,
    settings: Settings,
) -> Vm {
    Vm {
        id: VmId(ground.fresh()),
        account,
        name,
        state: VmState::Stopped,
        config,
        settings,
        generation: ground.fresh(),
        current: None,
        operation: None,
        reclaim: None,
        created_at: ground.now(),
        findings: BTreeSet::new(),
    }
}

/// The hardware of a clone: its own disks and addresses.
fn cloned(ground: &dyn Ground, config: &Config) -> (Config, Vec<ClonedDisk>) {
    let mut clone = config.clone();
    for nic in &mut clone.nics {
        *nic = Nic { mac: new_mac(ground), network: nic.network.clone() };
    }
    let mut disks = Vec::new();
    for disk in &mut clone.disks {
        let (id, layer) = (DiskId(ground.fresh()), LayerId(ground.fresh()));
        let (of, size_bytes) = (disk.id, disk.size_bytes);
        disks.push(ClonedDisk { of, disk: id, layer, role: disk.role, size_bytes });
        *disk = Disk { id, ..disk.clone() };
    }
    (clone, disks)
}

/// Refuses a name that another machine of the account has.
fn refuse_taken(unit: &mut Unit, account: AccountId, name: &str) -> Answer<()> {
    let reach = tintype_model::access::Reach::Account(account);
    let taken = unit.vms_named(reach, name).map_err(stored)?;
    let Some((other, _)) = taken.first() else {
        return Ok(());
    };
    Err(Refusal::new(Code::NameTaken)
        .detail(format!("there is a virtual machine named {name}"))
        .hint("choose another name")
        .blocked_by([other.0]))
}
