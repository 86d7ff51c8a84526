//! Compares what a host has with what is recorded, and tells what is not the same. Nothing is
//! repaired until somebody asks for it.

use super::ground::paced;
use super::{Answer, App, stored};
use crate::view;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tintype_model::access::{Action, Caller};
use tintype_model::change::{Change, SnapshotChange};
use tintype_model::finding::{Finding, Repair, compare, give_up, unmarked};
use tintype_model::manifest::Survey;
use tintype_model::refusal::Code;
use tintype_model::timeline::Timeline;
use tintype_model::{Refusal, VmId};
use tintype_store::{Event, StoreError, Unit};
use tintype_wire::rest;

/// How often a machine is looked at again to which something was done meanwhile.
const TRIES: u32 = 50;
/// How long to wait before that.
const AGAIN: Duration = Duration::from_millis(100);

impl App {
    /// Looks at the files of all machines for ever.
    pub(super) async fn watch_files(self: Arc<Self>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            if let Err(error) = self.look_at_each().await {
                self.wait_for_database(&error).await;
            }
        }
    }

    async fn look_at_each(self: &Arc<Self>) -> Result<(), StoreError> {
        let vms = self.store.read().await?.vm_states()?;
        for (vm, _, held) in vms {
            if !held {
                paced(self.look_at(vm)).await?;
            }
        }
        Ok(())
    }

    /// Looks at all machines; answers those to which something is done.
    async fn look_at_all(self: &Arc<Self>) -> Result<Vec<VmId>, StoreError> {
        let mut busy = Vec::new();
        let vms = self.store.read().await?.vm_states()?;
        for (vm, _, held) in vms {
            if held || !self.look_at(vm).await? {
                busy.push(vm);
            }
        }
        Ok(busy)
    }

    /// Looks at the files of a machine, and records what is found; says whether nothing was done
    /// to the machine meanwhile.
    async fn look_at(self: &Arc<Self>, vm: VmId) -> Result<bool, StoreError> {
        let mut unit = self.store.read().await?;
        let Some(revision) = unit.revision(vm)? else { return Ok(true) };
        let marks = unit.marks(vm)?;
        let Some(mut timeline) = unit.timeline(vm)? else { return Ok(true) };
        drop(unit);
        if timeline.vm.operation.is_some() || timeline.vm.reclaim.is_some() {
            return Ok(false);
        }
        let settle = unmarked(&timeline, &marks);
        let Some(sighting) = self.agent.look(vm, settle).await else { return Ok(false) };
        let compared = compare(&timeline, &marks, &sighting, revision);
        if compared.marks.is_empty() && compared.findings == timeline.vm.findings {
            return Ok(true);
        }
        let mut unit = self.store.write().await?;
        if unit.revision(vm)? != Some(revision) {
            return Ok(false);
        }
        for (file, mark) in &compared.marks {
            unit.set_mark(vm, file, Some(mark))?;
        }
        let changed = compared.findings != timeline.vm.findings;
        if changed {
            self.tell_found(&mut unit, &timeline, &compared.findings)?;
            unit.record(&mut timeline, &[Change::VmFindings(compared.findings)])?;
        }
        unit.commit().await?;
        if changed {
            self.spread_news();
            // What is as it was recorded again may be worked on.
            self.kick(vm);
        }
        Ok(true)
    }

    /// Records as events what is new, and what is no more.
    fn tell_found(
        &self,
        unit: &mut Unit,
        timeline: &Timeline,
        found: &BTreeSet<Finding>,
    ) -> Result<(), StoreError> {
        let known = &timeline.vm.findings;
        let new = found.difference(known).map(|finding| ("vm-found", finding));
        let gone = known.difference(found).map(|finding| ("vm-found-no-more", finding));
        for (kind, finding) in new.chain(gone) {
            let detail = finding.tell(timeline);
            tracing::warn!(vm = timeline.vm.name, kind, detail, "the host is not as recorded");
            let account = Some(timeline.vm.account);
            let event = self.event("tintype", kind, account, detail);
            unit.add_event(&Event { vm: Some(timeline.vm.id), ..event })?;
        }
        Ok(())
    }

    /// Looks at all machines now; answers what is not as it was recorded.
    ///
    /// # Errors
    /// When the caller may not, or there is no such host.
    pub async fn check_host(
        self: &Arc<Self>,
        caller: &Caller,
        host: &str,
    ) -> Answer<rest::HostCheck> {
        caller.may_ever(Action::ManageHosts)?;
        self.this_host(host)?;
        let mut busy = self.look_at_all().await.map_err(stored)?;
        for _ in 0..TRIES {
            if busy.is_empty() {
                break;
            }
            tokio::time::sleep(AGAIN).await;
            let mut still = Vec::new();
            for vm in busy {
                if !self.look_at(vm).await.map_err(stored)? {
                    still.push(vm);
                }
            }
            busy = still;
        }
        let mut unit = self.store.read().await.map_err(stored)?;
        let mut findings = Vec::new();
        for vm in unit.vms_found().map_err(stored)? {
            let Some(timeline) = unit.timeline(vm).map_err(stored)? else { continue };
            findings.extend(view::findings(&timeline));
        }
        drop(unit);
        Ok(rest::HostCheck {
            findings,
            strangers: self.strangers().await?.iter().map(view::stranger).collect(),
            busy: busy.into_iter().map(|vm| vm.0).collect(),
        })
    }

    /// The machines that have a folder on the host and are not known.
    async fn strangers(&self) -> Answer<Vec<Survey>> {
        let surveys = self.agent.survey().await;
        let known = self.store.read().await.map_err(stored)?.vm_states().map_err(stored)?;
        let known: BTreeSet<VmId> = known.into_iter().map(|(vm, ..)| vm).collect();
        Ok(surveys.into_iter().filter(|survey| !known.contains(&survey.vm)).collect())
    }

    /// Repairs what was found and can be; with `dry_run` says what would be done.
    ///
    /// # Errors
    /// When the caller may not, or there is no such host.
    pub async fn repair_host(
        self: &Arc<Self>,
        caller: &Caller,
        host: &str,
        dry_run: bool,
    ) -> Answer<rest::List<rest::Repaired>> {
        self.check_host(caller, host).await?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let found = unit.vms_found().map_err(stored)?;
        let mut items = Vec::new();
        let mut planned = Vec::new();
        for vm in found {
            let Some(timeline) = unit.timeline(vm).map_err(stored)? else { continue };
            for finding in &timeline.vm.findings {
                planned.push((view::repaired(finding, &timeline), vm, finding.repair(&timeline)));
            }
        }
        drop(unit);
        for survey in self.strangers().await? {
            // What has a manifest can be adopted, and is not moved.
            let repair = survey.manifest.is_none().then_some(Repair::SetAsideMachine);
            planned.push((view::unknown_machine(&survey, repair.as_ref()), survey.vm, repair));
        }
        for (mut shown, vm, repair) in planned {
            if let (Some(repair), false) = (repair, dry_run) {
                match self.repair(caller, vm, repair).await {
                    Ok(result) => shown.result = Some(result),
                    Err(refusal) => shown.problem = Some(Box::new(refusal.into())),
                }
            }
            items.push(shown);
        }
        if !dry_run {
            self.look_at_all().await.map_err(stored)?;
        }
        Ok(rest::List { items, next: None })
    }

    /// Does one repair, on the host first, if nobody holds the machine; says what was done.
    async fn repair(self: &Arc<Self>, caller: &Caller, vm: VmId, repair: Repair) -> Answer<String> {
        let known = self.store.read().await.map_err(stored)?.vm(vm).map_err(stored)?;
        if let Some(holder) = known.and_then(|vm| vm.operation) {
            return Err(Refusal::new(Code::VmBusy).blocked_by([holder.0]));
        }
        let done = self.agent.repair(vm, repair.clone()).await;
        let mut unit = self.store.write().await.map_err(stored)?;
        let Some(mut timeline) = unit.timeline(vm).map_err(stored)? else { return done };
        let (changes, forgotten, told) = concluded(&timeline, &repair, done)?;
        for file in forgotten {
            unit.set_mark(vm, &file, None).map_err(stored)?;
        }
        unit.record(&mut timeline, &changes).map_err(stored)?;
        let event =
            self.event(&caller.name, "vm-repaired", Some(timeline.vm.account), told.clone());
        unit.add_event(&Event { vm: Some(vm), ..event }).map_err(stored)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        self.kick(vm);
        Ok(told)
    }

    /// Refuses a host that is not this one.
    pub(super) fn this_host(&self, name_or_id: &str) -> Answer<()> {
        if self.host.name == name_or_id || self.host.id.to_string() == name_or_id {
            return Ok(());
        }
        Err(Refusal::new(Code::UnknownHost).detail(name_or_id))
    }
}

/// What is recorded of a repair once the host has done its part, whose files are taken as they are
/// seen next, and what is said of it.
fn concluded(
    timeline: &Timeline,
    repair: &Repair,
    done: Answer<String>,
) -> Answer<(Vec<Change>, Vec<String>, String)> {
    let unavailable = |layer, why: &str| {
        let changes = give_up(timeline, layer, why);
        let told = format!("{} snapshots are unavailable now: {why}", changes.len());
        (changes, Vec::new(), told)
    };
    Ok(match (repair, done) {
        (Repair::AcceptLayer { layer }, Err(refusal)) => {
            unavailable(layer.id, &refusal.to_string())
        }
        (_, Err(refusal)) => return Err(refusal),
        (Repair::AcceptLayer { layer }, Ok(told)) => (Vec::new(), vec![layer.name()], told),
        (Repair::GiveUp { layer }, Ok(_)) => unavailable(*layer, "a layer of it is missing"),
        (Repair::AcceptMemory { snapshot }, Ok(_)) => {
            let file = tintype_model::snapshot::memory_name(*snapshot);
            let told = format!("taken as it is; tintype snapshot verify {snapshot} proves it");
            (Vec::new(), vec![file], told)
        }
        (Repair::ForgetMemory { snapshot }, Ok(_)) => {
            let gone = Change::SnapshotChanged(*snapshot, SnapshotChange::MemoryGone);
            (vec![gone], Vec::new(), "kept as a snapshot of the disks".to_owned())
        }
        (Repair::SetAside { .. } | Repair::SetAsideMachine | Repair::Resume, Ok(told)) => {
            (Vec::new(), Vec::new(), told)
        }
    })
}
