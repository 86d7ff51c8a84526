//! What people ask for, drawn from what there is to ask about.

use crate::fate::Fate;
use crate::truth::Records;
use std::sync::Arc;
use std::time::Duration;
use tintype_model::access::Caller;
use tintype_model::timeline::Timeline;
use tintype_model::tree::Scope;
use tintype_model::vm::VmState;
use tintype_model::{Refusal, SnapshotId};
use tintype_server::app::{App, DeleteTarget, How};
use tintype_wire::rest;

/// Most machines there are.
const MACHINES_MOST: usize = 4;
const MIB: u64 = 1 << 20;

/// Somebody who asks something of a machine.
#[derive(Clone, Copy)]
struct Asking<'a> {
    fate: &'a Fate,
    app: &'a Arc<App>,
    who: &'a Caller,
    how: How,
    of: &'a Timeline,
}

/// Asks for something; says what, and what was answered.
pub(crate) async fn ask(fate: &Fate, app: &Arc<App>, who: &Caller, now: &Records) -> String {
    let machines: Vec<&Timeline> = now.timelines.values().collect();
    let few = machines.len() < MACHINES_MOST;
    let Some(&of) = fate.pick(&machines).filter(|_| !(few && fate.happens(15))) else {
        return create(fate, app, who).await;
    };
    let how = How { queue: fate.happens(20), force: fate.happens(20) };
    if of.vm.state == VmState::Stopped && fate.happens(30) {
        let vm = of.vm.id.to_string();
        return told(format!("start {}", of.vm.name), app.start_vm(who, how, &vm).await);
    }
    let asking = Asking { fate, app, who, how, of };
    match fate.below(100) {
        0..35 => take(asking).await,
        35..75 => about_snapshots(asking).await,
        75..80 => cancel(fate, app, who, now).await,
        _ => about_machine(asking).await,
    }
}

fn told<T>(what: String, answer: Result<T, Refusal>) -> String {
    match answer {
        Ok(_) => format!("{what}: accepted"),
        Err(refusal) => format!("{what}: {}", refusal.code),
    }
}

async fn create(fate: &Fate, app: &Arc<App>, who: &Caller) -> String {
    let name = format!("vm{}", fate.below(1000));
    let disk = |_| rest::NewDisk { size_bytes: Some(64 * MIB), file: None };
    let disks = (0..=fate.below(2)).map(disk).collect();
    let new = rest::NewVm {
        name: name.clone(),
        memory_bytes: 64 * MIB,
        vcpus: 1,
        disks,
        snapshot_limit: Some(rest::Limit::Most(100)),
        ..Default::default()
    };
    told(format!("create {name}"), app.create_vm(who, How::default(), new).await)
}

async fn take(asking: Asking<'_>) -> String {
    let Asking { fate, app, who, how, of } = asking;
    let kind = if fate.happens(50) { "disk-and-memory" } else { "disk" };
    let expires_at = fate.happens(10).then(|| {
        tintype_model::Moment(app.now().0 + 1000 + fate.below(30_000) as i64).to_rfc3339()
    });
    let new = rest::NewSnapshot {
        kind: Some(kind.to_owned()),
        protected: fate.happens(5),
        expires_at,
        ..Default::default()
    };
    let vm = of.vm.id.to_string();
    told(format!("snapshot {} {kind}", of.vm.name), app.create_snapshot(who, how, &vm, new).await)
}

async fn about_snapshots(asking: Asking<'_>) -> String {
    let Asking { fate, app, who, how, of } = asking;
    let ids: Vec<SnapshotId> = of.snapshots.keys().copied().collect();
    let Some(&id) = fate.pick(&ids) else { return take(asking).await };
    let name = &of.snapshots[&id].name;
    match fate.below(100) {
        0..40 => {
            let power = [None, Some("as-taken"), Some("start"), Some("stopped")];
            let power = fate.pick(&power).copied().flatten().map(str::to_owned);
            let revert = rest::Revert { power, safety: fate.happens(20) };
            told(format!("revert to {name}"), app.revert(who, how, id, &revert).await)
        }
        40..85 => {
            let target = match fate.below(10) {
                0..6 => DeleteTarget::Of(Scope::One(id)),
                6..8 => DeleteTarget::Of(Scope::Subtree(id)),
                8 => DeleteTarget::Of(Scope::Children(id)),
                _ => DeleteTarget::All(of.vm.id.to_string()),
            };
            told(format!("delete {target:?}"), app.delete_snapshots(who, how, &target).await)
        }
        85..93 => {
            let edit = rest::EditSnapshot {
                name: Some(format!("name {}", fate.below(1000))),
                protected: fate.happens(50).then(|| fate.happens(20)),
                ..Default::default()
            };
            told(format!("edit {name}"), app.edit_snapshot(who, id, edit).await)
        }
        _ => told(format!("verify {name}"), app.verify_snapshot(who, how, id).await),
    }
}

async fn cancel(fate: &Fate, app: &Arc<App>, who: &Caller, now: &Records) -> String {
    let Some(operation) = fate.pick(&now.open) else { return "nothing to cancel".to_owned() };
    let what = format!("cancel {}", operation.command.kind());
    told(what, app.cancel_operation(who, operation.id, Duration::ZERO).await)
}

async fn about_machine(asking: Asking<'_>) -> String {
    let Asking { fate, app, who, how, of } = asking;
    let (vm, name) = (of.vm.id.to_string(), &of.vm.name);
    match fate.below(100) {
        0..40 => told(format!("start {name}"), app.start_vm(who, how, &vm).await),
        40..55 => told(format!("stop {name}"), app.stop_vm(who, how, &vm, fate.happens(50)).await),
        55..70 => {
            let ids: Vec<SnapshotId> = of.snapshots.keys().copied().collect();
            let snapshot = fate.pick(&ids).filter(|_| fate.happens(60)).map(|id| id.0);
            let linked = fate.happens(60);
            let clone = rest::CloneVm { name: format!("vm{}", fate.below(1000)), snapshot, linked };
            told(format!("clone {name}, linked {linked}"), app.clone_vm(who, how, &vm, clone).await)
        }
        70..80 => {
            let disk = rest::NewDisk { size_bytes: Some(64 * MIB), file: None };
            told(format!("attach to {name}"), app.attach_disk(who, how, &vm, disk).await)
        }
        80..86 => {
            let Some(disk) = fate.pick(&of.vm.config.disks) else { return "no disk".to_owned() };
            let disk = disk.id.to_string();
            told(format!("detach from {name}"), app.detach_disk(who, how, &vm, &disk).await)
        }
        86..92 => {
            let Some(disk) = fate.pick(&of.vm.config.disks) else { return "no disk".to_owned() };
            let (id, size) = (disk.id.to_string(), disk.size_bytes + 64 * MIB);
            let resized = app.resize_disk(who, how, &vm, &id, size).await;
            told(format!("grow a disk of {name}"), resized)
        }
        _ => told(format!("delete {name}"), app.delete_vm(who, how, &vm).await),
    }
}
