//! The host, as it is shown and set.

use super::{Answer, App, stored};
use crate::view;
use tintype_model::Refusal;
use tintype_model::access::{Action, Caller};
use tintype_model::capability::Support;
use tintype_model::refusal::Code;
use tintype_wire::rest;

impl App {
    /// The host we run on.
    ///
    /// # Errors
    /// When the caller may not see it.
    pub async fn show_host(&self, caller: &Caller) -> Answer<rest::Host> {
        caller.may_ever(Action::ReadHosts)?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let enabled = unit.host_snapshots_enabled(self.host.id).map_err(stored)?;
        drop(unit);
        let facts = self.agent.host().await;
        let capabilities = facts.capabilities;
        Ok(rest::Host {
            snapshots_enabled: enabled,
            kind: capabilities.kind,
            id: self.host.id,
            name: self.host.name.clone(),
            hypervisor: capabilities.hypervisor,
            platform: view::platform(&capabilities.platform),
            accels: capabilities.accels.iter().map(|&a| view::accel(a).to_owned()).collect(),
            memory_snapshots_refused: refused(capabilities.background_snapshots),
            memory_on_demand_refused: refused(capabilities.memory_on_demand),
            quiesce_refused: refused(capabilities.quiesce),
            uefi_refused: refused(capabilities.uefi),
            memory_free_bytes: facts.memory_free_bytes,
            memory_total_bytes: facts.memory_total_bytes,
        })
    }

    /// Switches snapshots on or off for a host (E30).
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn edit_host(
        &self,
        caller: &Caller,
        name_or_id: &str,
        edit: &rest::EditHost,
    ) -> Answer<rest::Host> {
        caller.may_ever(Action::ManageHosts)?;
        self.this_host(name_or_id)?;
        let enabled = edit.snapshots_enabled;
        let mut unit = self.store.write().await.map_err(stored)?;
        unit.enable_on_host(self.host.id, enabled).map_err(stored)?;
        let detail = format!("{}: snapshots-enabled {enabled}", self.host.name);
        self.tell(&mut unit, caller, "host-edited", None, detail)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        self.show_host(caller).await
    }

    /// The kinds of hypervisors there are.
    ///
    /// # Errors
    /// When the caller may not see them.
    pub async fn hypervisors(&self, caller: &Caller) -> Answer<Vec<rest::Hypervisor>> {
        caller.may_ever(Action::ReadHosts)?;
        let capabilities = self.agent.host().await.capabilities;
        let mut unit = self.store.read().await.map_err(stored)?;
        let enabled = unit.kind_snapshots_enabled(&capabilities.kind).map_err(stored)?;
        Ok(vec![rest::Hypervisor {
            kind: capabilities.kind,
            snapshots_enabled: enabled,
            snapshot_cap: view::limit(capabilities.snapshot_cap),
        }])
    }

    /// Switches snapshots on or off for a kind of hypervisor (E30).
    ///
    /// # Errors
    /// When the caller may not, or there is no such kind.
    pub async fn edit_hypervisor(
        &self,
        caller: &Caller,
        kind: &str,
        edit: &rest::EditHypervisor,
    ) -> Answer<rest::Hypervisor> {
        caller.may_ever(Action::ManageHosts)?;
        let unknown = || Refusal::new(Code::UnknownHypervisor).detail(kind);
        if self.agent.host().await.capabilities.kind != kind {
            return Err(unknown());
        }
        let enabled = edit.snapshots_enabled;
        let mut unit = self.store.write().await.map_err(stored)?;
        unit.enable_on_kind(kind, enabled).map_err(stored)?;
        let detail = format!("{kind}: snapshots-enabled {enabled}");
        self.tell(&mut unit, caller, "hypervisor-edited", None, detail)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        self.hypervisors(caller).await?.pop().ok_or_else(unknown)
    }
}

fn refused(support: Support) -> Option<String> {
    match support {
        Support::Yes => None,
        Support::No(why) => Some(why),
    }
}
