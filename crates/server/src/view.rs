//! What is recorded, as it stands on the wire.

use std::collections::BTreeMap;
use tintype_model::config::{Accel, Config, Firmware, Network, Platform, Role};
use tintype_model::operation::{Ending, Forecast, Operation, Phase};
use tintype_model::reclaim::forecast;
use tintype_model::snapshot::Snapshot;
use tintype_model::timeline::Timeline;
use tintype_model::{Moment, SnapshotId};
use tintype_store::{Cursor, Page, state_of};
use tintype_wire::agent::Progress;
use tintype_wire::rest;
use uuid::Uuid;

pub(crate) fn vm(timeline: &Timeline, holder: Option<&Operation>, console: String) -> rest::Vm {
    let vm = &timeline.vm;
    let disks = vm.config.disks.iter().filter(|disk| disk.role == Role::Data);
    rest::Vm {
        id: vm.id.0,
        name: vm.name.clone(),
        state: vm.state.as_str().to_owned(),
        operation: holder.map(|op| rest::Held { id: op.id.0, kind: op.command.kind().to_owned() }),
        vcpus: vm.config.vcpus,
        memory_bytes: vm.config.memory_bytes,
        firmware: firmware(vm.config.firmware).to_owned(),
        platform: platform(&vm.config.platform),
        disks: disks
            .enumerate()
            .map(|(n, disk)| rest::Disk {
                id: disk.id.0,
                name: disk_name(n),
                size_bytes: disk.size_bytes,
            })
            .collect(),
        nics: vm
            .config
            .nics
            .iter()
            .map(|nic| rest::Nic { mac: nic.mac.clone(), network: network(&nic.network) })
            .collect(),
        generation: vm.generation,
        current: vm.current.map(|id| id.0),
        snapshots: timeline.snapshots.len() as u64,
        console,
        created_at: vm.created_at.to_rfc3339(),
    }
}

/// The name that Linux gives the nth virtio disk.
fn disk_name(n: usize) -> String {
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

pub(crate) fn snapshot(timeline: &Timeline, snapshot: &Snapshot) -> rest::Snapshot {
    rest::Snapshot {
        id: snapshot.id.0,
        vm: snapshot.vm.0,
        name: snapshot.name.clone(),
        description: snapshot.description.clone(),
        kind: snapshot.kind.as_str().to_owned(),
        consistency: snapshot.consistency.as_str().to_owned(),
        state: snapshot.state.as_str().to_owned(),
        reason: snapshot.reason.as_ref().map(rest::Problem::from),
        parent: snapshot.parent.map(|id| id.0),
        current: timeline.vm.current == Some(snapshot.id),
        created_at: snapshot.created_at.to_rfc3339(),
        ready_at: snapshot.ready_at.map(Moment::to_rfc3339),
        pause_ms: snapshot.pause_ms,
        size_bytes: forecast(timeline, &[snapshot.id]).freed_bytes,
        memory_bytes: snapshot.memory_bytes,
        config: config(&snapshot.config),
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
        roots: nodes(timeline, &children, None),
        now: rest::Now {
            parent: timeline.vm.current.map(|id| id.0),
            state: timeline.vm.state.as_str().to_owned(),
        },
    }
}

fn nodes(
    timeline: &Timeline,
    children: &BTreeMap<Option<SnapshotId>, Vec<&Snapshot>>,
    parent: Option<SnapshotId>,
) -> Vec<rest::Node> {
    let here = children.get(&parent).into_iter().flatten();
    here.map(|node| rest::Node {
        snapshot: snapshot(timeline, node),
        children: nodes(timeline, children, Some(node.id)),
    })
    .collect()
}

pub(crate) fn delete_plan(timeline: &Timeline, forecast: &Forecast) -> rest::DeletePlan {
    let gone = forecast.gone.iter().map(|id| snapshot(timeline, &timeline.snapshots[id]));
    let moved = forecast.removal.moved.iter();
    rest::DeletePlan {
        snapshots: gone.collect(),
        moved: moved
            .map(|(id, parent)| rest::Moved { snapshot: id.0, parent: parent.map(|id| id.0) })
            .collect(),
        current: forecast.removal.current.map(|id| id.0),
        freed_bytes: forecast.space.freed_bytes,
        merged_bytes: forecast.space.merged_bytes,
        kept_bytes: forecast.space.kept_bytes,
    }
}

pub(crate) fn operation(operation: &Operation, progress: Option<Progress>) -> rest::Operation {
    let (fraction, step) = match (&operation.phase, progress) {
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
        eta: eta(operation, fraction),
        error: match &operation.phase {
            Phase::Ended(Ending::Failed(reason)) => Some(rest::Problem::from(reason)),
            _ => None,
        },
        created_at: operation.created_at.to_rfc3339(),
        ended_at: operation.ended_at.map(Moment::to_rfc3339),
    }
}

/// When it will have ended if it goes on as it did; nothing while that would be a guess.
fn eta(operation: &Operation, fraction: f64) -> Option<String> {
    if operation.has_ended() || fraction < 0.05 {
        return None;
    }
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    let now = i64::try_from(since.as_millis()).ok()?;
    let elapsed = (now - operation.created_at.0) as f64;
    let left = elapsed / fraction * (1.0 - fraction);
    Some(Moment(now + left as i64).to_rfc3339())
}

/// Where the next page begins, if this one is full.
pub(crate) fn next(page: Page, found: usize, last: Option<(Moment, Uuid)>) -> Option<String> {
    let (created_at, id) = last.filter(|_| found >= page.limit as usize)?;
    Some(Cursor { created_at: created_at.0, id }.to_string())
}
