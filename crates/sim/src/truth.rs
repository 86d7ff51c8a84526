//! What has to hold after every event, and what has to have come of everything in the end.

use crate::host::Ground;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tintype_drivers::fake::{Blocks, Fake};
use tintype_model::access::Reach;
use tintype_model::effect::{After, Revert, TakeSnapshot};
use tintype_model::finding::Finding;
use tintype_model::layer::DEPTH_MOST;
use tintype_model::operation::{Operation, Phase};
use tintype_model::quota::Usage;
use tintype_model::reclaim::Reclaim;
use tintype_model::snapshot::{Kind, Snapshot, SnapshotState};
use tintype_model::timeline::Timeline;
use tintype_model::{AccountId, DiskId, LayerId, SnapshotId, VmId};
use tintype_store::{Order, Page, Store, StoreError, Unit};

/// What snapshots have to hold, seen by somebody who stood beside when they were taken.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    expected: BTreeMap<SnapshotId, Expected>,
    /// What was seen to be wrong while an agent acted.
    pub(crate) wrong: Option<String>,
    /// What agents did since somebody asked.
    pub(crate) done: Vec<String>,
}

#[derive(Clone, Debug)]
struct Expected {
    ram: Option<Blocks>,
    disks: BTreeMap<DiskId, Blocks>,
}

impl Contents {
    /// Looks at a machine before a snapshot of it is taken. What a guest writes once its disks are
    /// switched is not part of it.
    pub(crate) fn expect(&mut self, fake: &Fake, take: &TakeSnapshot) {
        let on = fake.written_to(take.vm);
        let switched =
            on.is_none_or(|on| take.disks.iter().any(|disk| on[&disk.disk] != disk.active.id));
        let saved = fake.saved_ram(take.vm, take.snapshot).is_some();
        if (switched || saved) && self.expected.contains_key(&take.snapshot) {
            return;
        }
        let seen = |id| fake.seen_through(take.vm, id);
        let disks = take.disks.iter().filter_map(|disk| Some((disk.disk, seen(disk.active.id)?)));
        let expected = Expected { ram: fake.ram(take.vm), disks: disks.collect() };
        self.expected.insert(take.snapshot, expected);
    }

    /// A guest that came back has to be what it was.
    pub(crate) fn compare_guest(&mut self, fake: &Fake, revert: &Revert) {
        let Some(expected) = self.expected.get(&revert.snapshot) else { return };
        let vm = revert.launch.vm;
        if revert.after == After::Resumed && fake.ram(vm) != expected.ram {
            self.wrong = Some(format!("memory of {} came back as another", revert.snapshot));
        }
        for disk in &revert.launch.disks {
            let seen = fake.seen_through(vm, disk.chain[0].id);
            if expected.disks.get(&disk.disk).is_some_and(|blocks| seen.as_ref() != Some(blocks)) {
                self.wrong = Some(format!("a disk of {} came back as another", revert.snapshot));
            }
        }
    }

    /// A snapshot that is ready holds what it has to.
    fn flaw_of(&self, fake: &Fake, snapshot: &Snapshot, work: Option<&Reclaim>) -> Option<String> {
        let expected = self.expected.get(&snapshot.id)?;
        let there = fake.layers(snapshot.vm);
        for (disk, &layer) in &snapshot.layers {
            let gone = !there.contains(&layer);
            let layer = work.filter(|_| gone).and_then(|work| moved(work, layer)).unwrap_or(layer);
            if fake.seen_through(snapshot.vm, layer).as_ref() != expected.disks.get(disk) {
                return Some(format!("snapshot {} has lost what was on {disk}", snapshot.id));
            }
        }
        let saved = fake.saved_ram(snapshot.vm, snapshot.id);
        if snapshot.kind == Kind::DiskAndMemory && saved != expected.ram {
            return Some(format!("snapshot {} has lost its memory", snapshot.id));
        }
        None
    }
}

/// What is recorded of everything, at one moment.
pub(crate) struct Records {
    /// How many rows had been changed by then.
    rows_changed: u64,
    pub(crate) timelines: BTreeMap<VmId, Timeline>,
    pub(crate) open: Vec<Operation>,
    usage: BTreeMap<AccountId, Usage>,
    /// The work on layers that is under way.
    reclaims: BTreeMap<VmId, Reclaim>,
    /// Machines with work on their layers, recorded as such.
    restless: u64,
}

impl Records {
    /// Reads them, unless nothing was changed since they were `known`.
    pub(crate) async fn read(
        store: &Store,
        known: Option<Arc<Self>>,
    ) -> Result<Arc<Self>, StoreError> {
        let mut unit = store.read().await?;
        let rows_changed = unit.rows_changed();
        if let Some(known) = known.filter(|known| known.rows_changed == rows_changed) {
            return Ok(known);
        }
        let (mut timelines, mut reclaims) = (BTreeMap::new(), BTreeMap::new());
        for (vm, ..) in unit.vm_states()? {
            if let Some(timeline) = unit.timeline(vm)? {
                timelines.insert(vm, timeline);
                reclaims.extend(unit.reclaim(vm)?.map(|(_, work)| (vm, work)));
            }
        }
        Ok(Arc::new(Self {
            rows_changed,
            timelines,
            open: unit.open_operations()?,
            usage: usages(&mut unit)?,
            reclaims,
            restless: unit.reclaims()?,
        }))
    }

    /// What may never be, whatever is under way.
    pub(crate) fn flaw(&self, ground: &Ground) -> Option<String> {
        let mut used: BTreeMap<AccountId, Usage> = BTreeMap::new();
        for timeline in self.timelines.values() {
            let vm = &timeline.vm;
            if let Some(flaw) = timeline.flaw() {
                return Some(format!("{}: {flaw}", vm.name));
            }
            let of = used.entry(vm.account).or_default();
            let usage = timeline.usage();
            (of.snapshots, of.bytes) = (of.snapshots + usage.snapshots, of.bytes + usage.bytes);
            let holders = self.holders(vm.id);
            if holders.len() > 1 {
                return Some(format!("{} is held by {holders:?}", vm.name));
            }
            // A clone is held by the operation of the machine it is made of.
            let open = |holder| self.open.iter().any(|operation| operation.id == holder);
            if vm.operation.is_some_and(|holder| !open(holder)) {
                return Some(format!("{} is held by an operation that is over", vm.name));
            }
            if timeline.depth() > DEPTH_MOST {
                return Some(format!("{}: a chain of {} layers", vm.name, timeline.depth()));
            }
            // Nobody but us touches this host: what an undo has left is all there is to find.
            let unknown = |finding: &&Finding| !matches!(finding, Finding::UnknownFile { .. });
            if let Some(finding) = vm.findings.iter().find(unknown) {
                return Some(format!("{}: {}", vm.name, finding.tell(timeline)));
            }
            if let Some(flaw) = self.layers_flaw(ground, timeline) {
                return Some(format!("{}: {flaw}", vm.name));
            }
            // What it would be started from is what it has written to.
            let at_rest = vm.operation.is_none() && vm.reclaim.is_none();
            let on = ground.fake.written_to(vm.id).filter(|_| at_rest);
            if let Some(on) = on.filter(|on| *on != timeline.active) {
                return Some(format!("{}: the guest writes to {on:?}, other layers", vm.name));
            }
        }
        let wrong = self
            .usage
            .iter()
            .find(|(account, usage)| used.get(account).copied().unwrap_or_default() != **usage);
        wrong.map(|(account, usage)| format!("account {account} is said to use {usage:?}"))
    }

    fn holders(&self, vm: VmId) -> Vec<tintype_model::OperationId> {
        let of = |operation: &&Operation| operation.vm == vm && operation.phase != Phase::Queued;
        self.open.iter().filter(of).map(|operation| operation.id).collect()
    }

    /// Nothing that somebody needs may be missing, and no snapshot that is ready other than it was.
    fn layers_flaw(&self, ground: &Ground, timeline: &Timeline) -> Option<String> {
        let vm = timeline.vm.id;
        let leaving = |operation: &Operation| {
            operation.vm == vm
                && operation.phase != Phase::Queued
                && matches!(operation.command.kind(), "delete-vm" | "create-vm" | "clone-vm")
        };
        if self.open.iter().any(leaving) {
            return None;
        }
        let contents = ground.contents.lock().expect("no holder panics");
        let ready = |snapshot: &&Snapshot| {
            matches!(snapshot.state, SnapshotState::Ready | SnapshotState::Reverting)
        };
        let work = self.reclaims.get(&vm);
        let mut ready = timeline.snapshots.values().filter(ready);
        ready.find_map(|snapshot| contents.flaw_of(&ground.fake, snapshot, work))
    }

    /// The snapshots that are ready, of machines that are not about to go.
    pub(crate) fn ready(&self) -> BTreeSet<SnapshotId> {
        let goes = |operation: &Operation| operation.command.kind() == "delete-vm";
        let going: BTreeSet<VmId> =
            self.open.iter().filter(|operation| goes(operation)).map(|op| op.vm).collect();
        let staying = self.timelines.values().filter(|timeline| !going.contains(&timeline.vm.id));
        let ready = staying.flat_map(|timeline| timeline.snapshots.values());
        let ready = ready.filter(|snapshot| snapshot.state == SnapshotState::Ready);
        ready.map(|snapshot| snapshot.id).collect()
    }

    /// The snapshots that are whole, whatever is done to them.
    pub(crate) fn whole(&self) -> BTreeSet<SnapshotId> {
        let all = self.timelines.values().flat_map(|timeline| timeline.snapshots.values());
        let whole = all.filter(|snapshot| snapshot.state != SnapshotState::Unavailable);
        whole.map(|snapshot| snapshot.id).collect()
    }

    /// What is left to do.
    pub(crate) fn unfinished(&self) -> Option<String> {
        if let Some(operation) = self.open.first() {
            return Some(format!("{} {} does not end", operation.command.kind(), operation.id));
        }
        (self.restless > 0).then(|| format!("layers of {} machines have no rest", self.restless))
    }

    /// What has to have come of everything once all is quiet.
    pub(crate) fn residue(&self, ground: &Ground) -> Option<String> {
        let there = ground.fake.machines();
        for vm in there.keys() {
            if !self.timelines.contains_key(vm) {
                return Some(format!("machine {vm} was left behind on the host"));
            }
        }
        for (vm, timeline) in &self.timelines {
            let name = &timeline.vm.name;
            if timeline.vm.operation.is_some() || timeline.vm.reclaim.is_some() {
                let (operation, reclaim) = (timeline.vm.operation, timeline.vm.reclaim);
                return Some(format!("{name} is held by {operation:?} and {reclaim:?} in the end"));
            }
            let transient = |s: &&Snapshot| {
                !matches!(s.state, SnapshotState::Ready | SnapshotState::Unavailable)
            };
            if let Some(snapshot) = timeline.snapshots.values().find(transient) {
                return Some(format!("{name}: snapshot {} is {:?}", snapshot.id, snapshot.state));
            }
            let recorded: BTreeSet<_> = timeline.layers.keys().copied().collect();
            let layers = ground.fake.layers(*vm);
            if recorded != layers {
                return Some(format!("{name}: layers {recorded:?} are recorded, {layers:?} there"));
            }
            let memories = ground.fake.memories(*vm);
            if let Some(id) = memories.iter().find(|id| !timeline.snapshots.contains_key(id)) {
                return Some(format!("{name}: memory of {id} is there, and no such snapshot"));
            }
        }
        let journals = ground.shelf.len();
        (journals > 0).then(|| format!("{journals} journals were left behind"))
    }
}

/// Where a layer's place was taken by another one, while that is not recorded yet.
fn moved(work: &Reclaim, layer: LayerId) -> Option<LayerId> {
    match work {
        Reclaim::Merge { child, into, .. } => (child.id == layer).then_some(into.id),
        Reclaim::Fold { chain, fresh, .. } => (chain[0].id == layer).then_some(fresh.id),
        Reclaim::Remove { .. } => None,
    }
}

fn usages(unit: &mut Unit) -> Result<BTreeMap<AccountId, Usage>, StoreError> {
    let page = Page::new(Order::Oldest, None, None);
    Ok(unit.accounts(Reach::All, &page)?.into_iter().map(|a| (a.id, a.usage)).collect())
}
