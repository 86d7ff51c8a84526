//! What is recorded, as it stands on the wire.

use std::collections::BTreeMap;
use tintype_model::config::{Accel, Config, Firmware, Network, Platform, Role};
use tintype_model::finding::{Finding, Repair};
use tintype_model::manifest::{Manifest, Survey};
use tintype_model::operation::{Ending, Forecast, Operation, Phase};
use tintype_model::reclaim::freed_by_each;
use tintype_model::settings::Limit;
use tintype_model::snapshot::Snapshot;
use tintype_model::timeline::Timeline;
use tintype_model::{DiskId, Moment, SnapshotId, VmId};
use tintype_store::{
    Account, Domain, Event, ListedSnapshot, ListedVm, Page, Profile, Token, User, state_of,
};
use tintype_wire::agent::Progress;
use tintype_wire::rest;
use uuid::Uuid;

pub(crate) fn vm(listed: &ListedVm, console: String, findings: Vec<rest::Finding>) -> rest::Vm {
    let vm = &listed.vm;
    let held = vm.operation.zip(listed.operation.clone());
    rest::Vm {
        id: vm.id.0,
        name: vm.name.clone(),
        account: listed.account.clone(),
        state: vm.state.as_str().to_owned(),
        operation: held.map(|(id, kind)| rest::Held { id: id.0, kind }),
        vcpus: vm.config.vcpus,
        memory_bytes: vm.config.memory_bytes,
        firmware: firmware(vm.config.firmware).to_owned(),
        platform: platform(&vm.config.platform),
        disks: disks(&vm.config),
        nics: vm
            .config
            .nics
            .iter()
            .map(|nic| rest::Nic { mac: nic.mac.clone(), network: network(&nic.network) })
            .collect(),
        generation: vm.generation,
        current: vm.current.map(|id| id.0),
        snapshots: listed.snapshots,
        snapshot_bytes: listed.usage.bytes,
        snapshot_limit: limit(vm.settings.snapshot_limit),
        snapshots_allowed: vm.settings.snapshots_allowed,
        memory_allowed: vm.settings.memory_allowed,
        protect_snapshots: vm.settings.protect_snapshots,
        pause_bound_ms: limit(vm.settings.pause_bound),
        console,
        created_at: vm.created_at.to_rfc3339(),
        findings,
    }
}

/// What is not as it was recorded.
pub(crate) fn findings(timeline: &Timeline) -> Vec<rest::Finding> {
    timeline.vm.findings.iter().map(|found| finding(found, timeline)).collect()
}

fn finding(finding: &Finding, timeline: &Timeline) -> rest::Finding {
    rest::Finding {
        vm: timeline.vm.id.0,
        vm_name: timeline.vm.name.clone(),
        kind: finding.word().to_owned(),
        detail: finding.tell(timeline),
        affects: finding.affected(timeline).into_iter().map(|id| id.0).collect(),
        affects_now: finding.affects_now(timeline),
        repair: finding.repair(timeline).map(|repair| repair.tell().to_owned()),
    }
}

pub(crate) fn repaired(found: &Finding, timeline: &Timeline) -> rest::Repaired {
    rest::Repaired { finding: finding(found, timeline), result: None, problem: None }
}

pub(crate) fn stranger(survey: &Survey) -> rest::Stranger {
    let taken = survey.take_up();
    rest::Stranger {
        vm: survey.vm.0,
        name: taken.as_ref().ok().map(|manifest| manifest.timeline.vm.name.clone()),
        problem: taken.err(),
    }
}

/// A folder of a machine that nobody knows, as something that was found.
pub(crate) fn unknown_machine(survey: &Survey, repair: Option<&Repair>) -> rest::Repaired {
    let detail = "there is a folder of a virtual machine that is not in the database".to_owned();
    let finding = rest::Finding {
        vm: survey.vm.0,
        vm_name: survey.vm.to_string(),
        kind: "unknown-machine".to_owned(),
        detail,
        affects: Vec::new(),
        affects_now: false,
        repair: repair.map(|repair| repair.tell().to_owned()),
    };
    rest::Repaired { finding, result: None, problem: None }
}

pub(crate) fn adopted(manifest: &Manifest, known: bool) -> rest::Adopted {
    let timeline = &manifest.timeline;
    rest::Adopted {
        vm: timeline.vm.id.0,
        name: Some(timeline.vm.name.clone()),
        account: Some(manifest.account.clone()),
        snapshots: timeline.snapshots.len() as u64,
        known,
        problem: None,
    }
}

pub(crate) fn not_adopted(vm: VmId, why: String) -> rest::Adopted {
    let (vm, problem) = (vm.0, Some(why));
    rest::Adopted { vm, name: None, account: None, snapshots: 0, known: false, problem }
}

fn disks(config: &Config) -> Vec<rest::Disk> {
    let data = config.disks.iter().filter(|disk| disk.role == Role::Data);
    data.enumerate()
        .map(|(n, disk)| rest::Disk {
            id: disk.id.0,
            name: disk_name(n),
            size_bytes: disk.size_bytes,
        })
        .collect()
}

/// The name that Linux gives the nth virtio disk.
pub(crate) fn disk_name(n: usize) -> String {
    let letter = char::from(b'a' + u8::try_from(n).unwrap_or(25).min(25));
    format!("vd{letter}")
}

fn firmware(firmware: Firmware) -> &'static str {
    match firmware {
        Firmware::Bios => "bios",
        Firmware::Uefi => "uefi",
    }
}

pub(crate) fn accel(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg",
    }
}

fn network(network: &Network) -> String {
    match network {
        Network::User => "user".to_owned(),
        Network::Tap(name) => format!("tap:{name}"),
    }
}

pub(crate) fn platform(platform: &Platform) -> rest::Platform {
    rest::Platform {
        machine: platform.machine.clone(),
        cpu: platform.cpu.clone(),
        accel: accel(platform.accel).to_owned(),
    }
}

fn config(config: &Config) -> rest::Config {
    rest::Config {
        vcpus: config.vcpus,
        memory_bytes: config.memory_bytes,
        firmware: firmware(config.firmware).to_owned(),
        platform: platform(&config.platform),
    }
}

pub(crate) fn snapshot(listed: &ListedSnapshot) -> rest::Snapshot {
    let ListedSnapshot { snapshot, vm_name, current, size_bytes } = listed;
    rest::Snapshot {
        id: snapshot.id.0,
        vm: snapshot.vm.0,
        vm_name: vm_name.clone(),
        name: snapshot.name.clone(),
        description: snapshot.description.clone(),
        kind: snapshot.kind.as_str().to_owned(),
        consistency: snapshot.consistency.as_str().to_owned(),
        state: snapshot.state.as_str().to_owned(),
        reason: snapshot.reason.as_ref().map(rest::Problem::from),
        parent: snapshot.parent.map(|id| id.0),
        current: *current,
        created_at: snapshot.created_at.to_rfc3339(),
        ready_at: snapshot.ready_at.map(Moment::to_rfc3339),
        road: snapshot.saving.map(|saving| saving.road.as_str().to_owned()),
        predicted_pause_ms: snapshot.saving.map(|saving| saving.predicted_ms),
        pause_ms: snapshot.pause_ms,
        size_bytes: *size_bytes,
        memory_bytes: snapshot.memory_bytes,
        config: config(&snapshot.config),
        created_by: snapshot.created_by.clone(),
        expires_at: snapshot.expires_at.map(Moment::to_rfc3339),
        protected: snapshot.protected,
        safety: snapshot.safety,
        verified_at: snapshot.verified_at.map(Moment::to_rfc3339),
    }
}

/// A timeline's snapshots as they are shown.
struct Shown<'a> {
    timeline: &'a Timeline,
    frees: BTreeMap<SnapshotId, u64>,
}

impl<'a> Shown<'a> {
    fn new(timeline: &'a Timeline) -> Self {
        Self { timeline, frees: freed_by_each(timeline) }
    }

    fn snapshot(&self, shown: &Snapshot) -> rest::Snapshot {
        snapshot(&ListedSnapshot {
            snapshot: shown.clone(),
            vm_name: self.timeline.vm.name.clone(),
            current: self.timeline.vm.current == Some(shown.id),
            size_bytes: self.frees.get(&shown.id).copied().unwrap_or(0),
        })
    }
}

pub(crate) fn tree(timeline: &Timeline) -> rest::Tree {
    let mut children: BTreeMap<Option<SnapshotId>, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in timeline.snapshots.values() {
        children.entry(snapshot.parent).or_default().push(snapshot);
    }
    for siblings in children.values_mut() {
        siblings.sort_by_key(|snapshot| (snapshot.created_at, snapshot.id));
    }
    rest::Tree {
        vm: timeline.vm.id.0,
        name: timeline.vm.name.clone(),
        roots: nodes(&Shown::new(timeline), &children, None),
        now: rest::Now {
            parent: timeline.vm.current.map(|id| id.0),
            state: timeline.vm.state.as_str().to_owned(),
        },
    }
}

fn nodes(
    shown: &Shown<'_>,
    children: &BTreeMap<Option<SnapshotId>, Vec<&Snapshot>>,
    parent: Option<SnapshotId>,
) -> Vec<rest::Node> {
    let here = children.get(&parent).into_iter().flatten();
    here.map(|node| rest::Node {
        snapshot: shown.snapshot(node),
        children: nodes(shown, children, Some(node.id)),
    })
    .collect()
}

/// A plan that removes nothing.
fn harmless(timeline: &Timeline) -> rest::Plan {
    rest::Plan {
        snapshots: Vec::new(),
        moved: Vec::new(),
        current: timeline.vm.current.map(|id| id.0),
        memory_lost: Vec::new(),
        disks: Vec::new(),
        lost: String::new(),
        freed_bytes: 0,
        merged_bytes: 0,
        kept_bytes: 0,
    }
}

pub(crate) fn plan_delete(timeline: &Timeline, forecast: &Forecast) -> rest::Plan {
    let shown = Shown::new(timeline);
    let gone = forecast.gone.iter().map(|id| shown.snapshot(&timeline.snapshots[id]));
    let moved = forecast.removal.moved.iter();
    rest::Plan {
        snapshots: gone.collect(),
        moved: moved
            .map(|(id, parent)| rest::Moved { snapshot: id.0, parent: parent.map(|id| id.0) })
            .collect(),
        current: forecast.removal.current.map(|id| id.0),
        freed_bytes: forecast.space.freed_bytes,
        merged_bytes: forecast.space.merged_bytes,
        kept_bytes: forecast.space.kept_bytes,
        ..harmless(timeline)
    }
}

/// All of a machine goes; what a linked clone has as well stays for the clone.
pub(crate) fn plan_delete_vm(timeline: &Timeline) -> rest::Plan {
    let shown = Shown::new(timeline);
    let layers = timeline.layers.values();
    let size = |shared| {
        layers.clone().filter(|layer| layer.shared == shared).map(|layer| layer.size_bytes).sum()
    };
    let memory: u64 = timeline.snapshots.values().map(|snapshot| snapshot.memory_bytes).sum();
    let own: u64 = size(false);
    rest::Plan {
        snapshots: timeline.snapshots.values().map(|s| shown.snapshot(s)).collect(),
        current: None,
        disks: disks(&timeline.vm.config),
        freed_bytes: memory + own,
        kept_bytes: size(true),
        lost: format!("virtual machine {} with all its disks", timeline.vm.name),
        ..harmless(timeline)
    }
}

/// These snapshots become snapshots of the disks only.
pub(crate) fn plan_lose_memory(timeline: &Timeline, lost: &[SnapshotId]) -> rest::Plan {
    let memory = lost.iter().map(|id| timeline.snapshots[id].memory_bytes);
    rest::Plan {
        memory_lost: lost.iter().map(|id| id.0).collect(),
        freed_bytes: memory.sum(),
        ..harmless(timeline)
    }
}

/// What was done since the current snapshot goes, and with it what nobody has taken.
pub(crate) fn plan_revert(timeline: &Timeline, target: &Snapshot) -> rest::Plan {
    let written = timeline.active.values().filter_map(|id| timeline.layers.get(id));
    let since = timeline.vm.current.and_then(|id| timeline.snapshots.get(&id));
    let since = since.map_or("the machine was made".to_owned(), |s| format!("{:?}", s.name));
    rest::Plan {
        current: Some(target.id.0),
        freed_bytes: written.map(|layer| layer.size_bytes).sum(),
        lost: format!("what {} did since {since}", timeline.vm.name),
        ..harmless(timeline)
    }
}

pub(crate) fn plan_detach(timeline: &Timeline, disk: DiskId) -> rest::Plan {
    let layers = timeline.layers.values().filter(|layer| layer.disk == disk);
    let mut gone = disks(&timeline.vm.config);
    gone.retain(|shown| shown.id == disk.0);
    rest::Plan {
        disks: gone,
        freed_bytes: layers.map(|layer| layer.size_bytes).sum(),
        ..harmless(timeline)
    }
}

pub(crate) fn plan_resize(timeline: &Timeline, before: u64, after: u64) -> rest::Plan {
    let lost = if after < before {
        format!("what is on the last {} bytes of the disk", before - after)
    } else {
        String::new()
    };
    rest::Plan { lost, ..harmless(timeline) }
}

/// Takes over what was given.
pub(crate) fn set<T>(value: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *value = given;
    }
}

pub(crate) fn limit(limit: Limit) -> rest::Limit {
    match limit {
        Limit::Unlimited => rest::Limit::Unlimited(rest::Unlimited::Unlimited),
        Limit::Most(most) => rest::Limit::Most(most),
    }
}

pub(crate) fn to_limit(limit: rest::Limit) -> Limit {
    match limit {
        rest::Limit::Unlimited(_) => Limit::Unlimited,
        rest::Limit::Most(most) => Limit::Most(most),
    }
}

pub(crate) fn profile(profile: &Profile) -> rest::Profile {
    rest::Profile {
        id: profile.id.0,
        name: profile.name.clone(),
        snapshots_allowed: profile.settings.snapshots_allowed,
        memory_allowed: profile.settings.memory_allowed,
        snapshot_limit: limit(profile.settings.snapshot_limit),
        protect_snapshots: profile.settings.protect_snapshots,
        pause_bound_ms: limit(profile.settings.pause_bound),
        created_at: profile.created_at.to_rfc3339(),
    }
}

pub(crate) fn domain(domain: &Domain) -> rest::Domain {
    rest::Domain {
        id: domain.id.0,
        name: domain.name.clone(),
        parent: domain.parent.map(|id| id.0),
        created_at: domain.created_at.to_rfc3339(),
    }
}

pub(crate) fn account(account: &Account) -> rest::Account {
    rest::Account {
        id: account.id.0,
        name: account.name.clone(),
        domain: account.domain.0,
        snapshot_quota: limit(account.quota.snapshots),
        bytes_quota: limit(account.quota.bytes),
        snapshots: account.usage.snapshots,
        bytes: account.usage.bytes,
        created_at: account.created_at.to_rfc3339(),
    }
}

pub(crate) fn user(user: &User) -> rest::User {
    rest::User {
        id: user.id.0,
        name: user.name.clone(),
        account: user.account.0,
        role: user.role.as_str().to_owned(),
        password: user.password.is_some(),
        created_at: user.created_at.to_rfc3339(),
    }
}

pub(crate) fn token(token: &Token) -> rest::Token {
    rest::Token {
        id: token.id.0,
        user: token.user.0,
        name: token.name.clone(),
        scope: token.scope.as_str().to_owned(),
        created_at: token.created_at.to_rfc3339(),
        expires_at: token.expires_at.map(Moment::to_rfc3339),
    }
}

pub(crate) fn event(event: &Event) -> rest::Event {
    rest::Event {
        id: event.number,
        at: event.at.to_rfc3339(),
        user: event.user.clone(),
        kind: event.kind.clone(),
        account: event.account.map(|id| id.0),
        vm: event.vm.map(|id| id.0),
        snapshot: event.snapshot.map(|id| id.0),
        operation: event.operation.map(|id| id.0),
        detail: event.detail.clone(),
    }
}

/// What was asked to be changed, for the record.
pub(crate) fn edited(edit: &rest::EditVm) -> String {
    let fields = serde_json::to_value(edit).unwrap_or_default();
    let given = fields.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    given.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

pub(crate) fn operation(
    operation: &Operation,
    progress: Option<Progress>,
    now: Moment,
) -> rest::Operation {
    let eta = progress.as_ref().filter(|_| !operation.has_ended()).and_then(|p| eta(p, now));
    let (fraction, step) = match (&operation.phase, progress) {
        (Phase::Queued, _) => (0.0, "in line behind another operation".to_owned()),
        (Phase::Waiting, _) => (0.0, "waiting for background work to give way".to_owned()),
        (Phase::Performing { .. }, Some(progress)) => (progress.fraction, progress.step),
        (Phase::Performing { .. }, None) => (0.0, "begun".to_owned()),
        (Phase::Ended(Ending::Succeeded), _) => (1.0, "done".to_owned()),
        (Phase::Ended(Ending::Failed(_)), _) => (1.0, "failed".to_owned()),
        (Phase::Ended(Ending::Cancelled), _) => (1.0, "cancelled".to_owned()),
    };
    rest::Operation {
        id: operation.id.0,
        kind: operation.command.kind().to_owned(),
        state: state_of(operation).to_owned(),
        vm: operation.vm.0,
        snapshot: operation.snapshot.map(|id| id.0),
        progress: fraction,
        step,
        eta,
        error: match &operation.phase {
            Phase::Ended(Ending::Failed(reason)) => Some(rest::Problem::from(reason)),
            _ => None,
        },
        created_by: operation.asker.name.clone(),
        created_at: operation.created_at.to_rfc3339(),
        ended_at: operation.ended_at.map(Moment::to_rfc3339),
    }
}

/// When what is done now will have ended if it goes on as it did; nothing while that would be a
/// guess.
fn eta(progress: &Progress, now: Moment) -> Option<String> {
    if progress.fraction < 0.05 {
        return None;
    }
    let elapsed = (now.0 - progress.since.0) as f64;
    let left = elapsed / progress.fraction * (1.0 - progress.fraction);
    Some(Moment(now.0 + left as i64).to_rfc3339())
}

/// Where the next page begins, if this one is full.
pub(crate) fn next(
    page: &Page,
    found: usize,
    last: Option<(Moment, &str, Uuid)>,
) -> Option<String> {
    let (created_at, name, id) = last.filter(|_| found >= page.limit as usize)?;
    Some(page.place(created_at.0, name, id).to_string())
}
