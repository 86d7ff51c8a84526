//! What lies beside the layers of each machine and says what they are: written whenever the machine
//! has changed, and read when the database is not what the host has.

use super::ground::paced;
use super::{Answer, App, stored};
use crate::view;
use std::sync::Arc;
use std::time::Duration;
use tintype_model::access::{Action, Caller};
use tintype_model::change::Change;
use tintype_model::manifest::Manifest;
use tintype_model::operation::{Command, Operation};
use tintype_model::quota::{Quota, Usage};
use tintype_model::timeline::Timeline;
use tintype_model::{AccountId, DomainId, VmId};
use tintype_store::{Account, Domain, Event, StoreError, Unit};
use tintype_wire::rest;

/// How often it is looked whether there is something to write.
const EVERY: Duration = Duration::from_secs(2);

/// A machine as it was recorded, and how often it had been.
pub(super) struct Recorded {
    pub(super) timeline: Timeline,
    pub(super) revision: i64,
}

impl App {
    /// Writes manifests of what has changed, for ever.
    pub(super) async fn keep_manifests(self: Arc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.let_go_of_the_rest().await;
            let revisions = async { self.store.read().await?.revisions() };
            match revisions.await {
                Ok(revisions) => {
                    for (vm, revision) in revisions {
                        if !self.is_described(vm, revision) {
                            paced(self.describe(vm)).await;
                        }
                    }
                }
                Err(error) => self.wait_for_database(&error).await,
            }
        }
    }

    fn is_described(&self, vm: VmId, revision: i64) -> bool {
        self.described.lock().expect("no holder panics").get(&vm) == Some(&revision)
    }

    /// Writes the manifest of a machine; answers whether what is there is true, if there is to be
    /// one. That it could not be written is told, and tried again.
    pub(super) async fn describe(&self, vm: VmId) -> bool {
        let recorded = async {
            let mut unit = self.store.read().await?;
            let revision = unit.revision(vm)?;
            let recorded = unit.timeline(vm)?.zip(revision);
            Ok::<_, StoreError>(
                recorded.map(|(timeline, revision)| Recorded { timeline, revision }),
            )
        };
        match recorded.await {
            Ok(Some(recorded)) => self.describe_as(recorded).await,
            Ok(None) => {
                self.described.lock().expect("no holder panics").remove(&vm);
                true
            }
            Err(error) => {
                tracing::warn!(%vm, %error, "a manifest could not be made");
                false
            }
        }
    }

    /// The same, of a machine that was just recorded.
    pub(super) async fn describe_as(&self, recorded: Recorded) -> bool {
        let (vm, revision) = (recorded.timeline.vm.id, recorded.revision);
        let manifest = match self.manifest(recorded).await {
            Ok(None) => return true,
            Ok(Some(manifest)) => manifest,
            Err(error) => {
                tracing::warn!(%vm, %error, "a manifest could not be made");
                return false;
            }
        };
        if let Err(refusal) = self.agent.describe(vm, manifest).await {
            tracing::warn!(%vm, %refusal, "the manifest of a machine could not be written");
            return false;
        }
        self.described.lock().expect("no holder panics").insert(vm, revision);
        true
    }

    async fn manifest(&self, recorded: Recorded) -> Result<Option<Manifest>, StoreError> {
        let Recorded { timeline, revision } = recorded;
        let mut unit = self.store.read().await?;
        let (vm, holder, reclaims) =
            (timeline.vm.id, timeline.vm.operation, timeline.vm.reclaim.is_some());
        let holder = holder.map(|holder| unit.operation(holder)).transpose()?.flatten();
        // A machine that is being made has no folder yet; a clone is held by what makes it.
        let makes =
            |held: &Operation| held.vm != vm || matches!(held.command, Command::CreateVm(_));
        if timeline.layers.is_empty() && holder.as_ref().is_some_and(makes) {
            return Ok(None);
        }
        let Some(account) = unit.account(timeline.vm.account)? else { return Ok(None) };
        let mut domain = Vec::new();
        for id in account.lineage.iter().skip(1) {
            domain.extend(unit.domain(*id)?.map(|domain| domain.name));
        }
        let place = (domain, account.name);
        let mut manifest = Manifest::of(timeline, revision, place, self.now());
        manifest.operation = holder.filter(|held| held.vm == vm);
        if reclaims {
            manifest.reclaim = unit.reclaim(vm)?.map(|(_, work)| work);
        }
        Ok(Some(manifest))
    }

    /// Takes up the machines of this host that the database does not know, or knows as they were
    /// before, by their manifests; with `dry_run` says which.
    ///
    /// # Errors
    /// When the caller may not, or there is no such host.
    pub async fn adopt(
        self: &Arc<Self>,
        caller: &Caller,
        host: &str,
        dry_run: bool,
    ) -> Answer<rest::List<rest::Adopted>> {
        caller.may_ever(Action::ManageHosts)?;
        self.this_host(host)?;
        let surveys = self.agent.survey().await;
        let mut unit = self.store.write().await.map_err(stored)?;
        let (mut items, mut taken) = (Vec::new(), Vec::new());
        for survey in surveys {
            let known = unit.revision(survey.vm).map_err(stored)?;
            match survey.take_up() {
                Ok(manifest) if known.is_some_and(|known| known >= manifest.revision) => {}
                Ok(manifest) => {
                    self.take_in(&mut unit, caller, &manifest).map_err(stored)?;
                    items.push(view::adopted(&manifest, known.is_some()));
                    taken.push(manifest);
                }
                Err(_) if known.is_some() => {}
                Err(why) => items.push(view::not_adopted(survey.vm, why)),
            }
        }
        if !dry_run {
            unit.commit().await.map_err(stored)?;
            self.spread_news();
            self.go_on_with(taken).await.map_err(stored)?;
        }
        Ok(rest::List { items, next: None })
    }

    /// Goes on with what was under way for machines that were taken up.
    async fn go_on_with(self: &Arc<Self>, taken: Vec<Manifest>) -> Result<(), StoreError> {
        for manifest in taken {
            self.take_up_reclaim(manifest.timeline.vm.id).await?;
            if let Some(operation) = manifest.operation {
                self.take_up(operation).await?;
            }
        }
        Ok(())
    }

    /// Records a machine as its manifest and its files say it is.
    fn take_in(
        &self,
        unit: &mut Unit,
        caller: &Caller,
        manifest: &Manifest,
    ) -> Result<(), StoreError> {
        let vm = manifest.timeline.vm.id;
        if let Some(mut older) = unit.timeline(vm)? {
            unit.record(&mut older, &[Change::VmGone])?;
        }
        let mut timeline = manifest.timeline.clone();
        timeline.vm.account = self.account_for(unit, manifest)?;
        let named = unit.vms_named(tintype_model::access::Reach::All, &timeline.vm.name)?;
        if named.iter().any(|(_, account)| *account == timeline.vm.account) {
            timeline.vm.name = format!("{}-{}", timeline.vm.name, &timeline.vm.id.to_string()[..8]);
        }
        unit.take_in(&timeline, manifest.revision)?;
        if let Some(operation) = &manifest.operation {
            unit.put_operation(operation, timeline.vm.account)?;
        }
        if let Some(work) = &manifest.reclaim {
            unit.set_reclaim(vm, work)?;
        }
        let detail = format!("by its manifest of {}", manifest.written_at.to_rfc3339());
        let account = Some(timeline.vm.account);
        let event = self.event(&caller.name, "vm-adopted", account, detail);
        unit.add_event(&Event { vm: Some(vm), ..event })
    }

    /// The account that a manifest names, made with its domains if there is none.
    fn account_for(&self, unit: &mut Unit, manifest: &Manifest) -> Result<AccountId, StoreError> {
        if let Some(account) = unit.account_named(&manifest.account)? {
            return Ok(account.id);
        }
        let mut domain = unit.root_domain()?;
        for name in &manifest.domain {
            let same = unit.domains_named(name)?.into_iter();
            let known = same.into_iter().find(|other| other.parent == Some(domain.id));
            domain = match known {
                Some(known) => known,
                None => {
                    let id = DomainId(self.fresh());
                    let lineage = domain.lineage.iter().copied().chain([id]).collect();
                    let (name, parent) = (name.clone(), Some(domain.id));
                    let made = Domain { id, name, parent, lineage, created_at: self.now() };
                    unit.add_domain(&made)?;
                    made
                }
            };
        }
        let account = Account {
            id: AccountId(self.fresh()),
            name: manifest.account.clone(),
            domain: domain.id,
            lineage: domain.lineage,
            quota: Quota::default(),
            usage: Usage::default(),
            created_at: self.now(),
        };
        unit.add_account(&account)?;
        Ok(account.id)
    }
}
