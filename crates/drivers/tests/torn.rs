//! The torn-snapshot detector: memory of one moment and a disk of another is found, not assumed
//! away.

mod bench;

use bench::qemu::QemuHost;
use bench::{Bench, done};
use serde_json::json;
use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;
use tintype_drivers::Volume;
use tintype_drivers::qemu::Instance;
use tintype_drivers::qemu::commands::{
    AddFd, BlockdevAdd, Capability, Cont, Migrate, MigrateSetCapabilities, MigrationStatus,
    QueryMigrate, Stop, Transaction,
};
use tintype_model::change::{Change, SnapshotChange};
use tintype_model::layer::{Format, Layer, LayerFile};
use tintype_model::operation::Power;
use tintype_model::snapshot::{Kind, Road, SnapshotState, memory_name};
use tintype_model::{LayerId, SnapshotId, VmId};
use uuid::Uuid;

/// Blocks each disk is sent in a second.
const RATE: u64 = 150;
/// How many writes late a disk is switched to tear a snapshot.
const LATE: u64 = 5;

fn assert_whole(bench: &Bench<QemuHost>, vm: VmId) {
    let blocks = bench.host.guest(vm).blocks().unwrap();
    assert_eq!(blocks.len(), 2);
    assert!(blocks.iter().all(|disk| disk.is_whole()), "{blocks:?}");
}

/// How many snapshots are taken and gone back to.
fn snapshots() -> usize {
    std::env::var("TINTYPE_SNAPSHOTS").map_or(20, |most| most.parse().unwrap())
}

/// E2, E5: snapshots, on either road, of a guest that writes to both disks; after a revert to any
/// of them RAM and disks are of one moment.
#[test]
fn snapshots_under_write_load_are_whole() {
    let bench = Bench::new(QemuHost::new());
    let vm = bench.running();
    bench.host.guest(vm).write(RATE).unwrap();
    let mut last: Option<SnapshotId> = None;
    for n in 0..snapshots() {
        let road = if n % 2 == 0 { Road::Background } else { Road::Precopy };
        let snapshot = bench.taken_by(vm, road);
        done(bench.revert(vm, snapshot, Power::AsTaken));
        thread::sleep(Duration::from_millis(50));
        assert_whole(&bench, vm);
        if let Some(last) = last.replace(snapshot) {
            done(bench.delete(vm, tintype_model::tree::Scope::One(last)));
        }
        bench.settle(vm);
    }
    assert_whole(&bench, vm);
}

/// The detector finds a snapshot that was torn on purpose: the second disk is switched a few writes
/// after the first disk and the memory.
#[test]
fn a_disk_switched_late_is_found() {
    let bench = Bench::new(QemuHost::new());
    let vm = bench.running();
    bench.host.guest(vm).write(RATE).unwrap();
    thread::sleep(Duration::from_millis(500));
    let snapshot = bench.taken(vm, Kind::DiskAndMemory);
    tear(&bench, vm, snapshot);
    done(bench.revert(vm, snapshot, Power::AsTaken));
    thread::sleep(Duration::from_millis(200));
    let blocks = bench.host.guest(vm).blocks().unwrap();
    assert!(blocks.iter().any(|disk| disk.torn > 0), "{blocks:?}");
}

/// Replaces what a snapshot holds by something torn: memory and first disk of one moment, second
/// disk of [`LATE`] writes later.
fn tear(bench: &Bench<QemuHost>, vm: VmId, snapshot: SnapshotId) {
    let instance = bench.host.qemu.instance(vm).unwrap();
    let timeline = bench.timeline(vm);
    let disks: Vec<_> = timeline.vm.config.disks.iter().map(|disk| disk.id).collect();
    let mut changes = Vec::new();
    let mut switches = Vec::new();
    for &disk in &disks {
        let old = timeline.layers[&timeline.active[&disk]].clone();
        let new = LayerFile { id: LayerId(Uuid::new_v4()), format: Format::Qcow2 };
        bench.host.qemu.volume().overlay(vm, new, old.file()).unwrap();
        instance.qmp().run(&BlockdevAdd(overlay_options(new))).unwrap();
        switches.push(json!({ "type": "blockdev-snapshot", "data": {
            "node": node(old.id), "overlay": node(new.id) } }));
        changes.extend([
            Change::LayerAdded(Layer {
                id: new.id,
                parent: Some(old.id),
                rank: 0,
                size_bytes: 0,
                ..old.clone()
            }),
            Change::DiskActive { disk, layer: new.id },
            Change::SnapshotChanged(snapshot, SnapshotChange::Layer(disk, old.id)),
        ]);
    }
    save_torn(bench, vm, snapshot, &instance, &switches);
    changes.push(Change::SnapshotChanged(snapshot, SnapshotChange::State(SnapshotState::Ready)));
    bench.apply(vm, &changes);
}

fn save_torn(
    bench: &Bench<QemuHost>,
    vm: VmId,
    snapshot: SnapshotId,
    instance: &Instance,
    switches: &[serde_json::Value],
) {
    let qmp = instance.qmp();
    let path = bench.host.folder(vm).path().join(memory_name(snapshot));
    let theirs = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    qmp.run_with(&AddFd { fdset_id: 9 }, Some(theirs.as_fd())).unwrap();
    let capabilities = ["background-snapshot", "mapped-ram"]
        .map(|capability| Capability { capability, state: true })
        .to_vec();
    qmp.run(&MigrateSetCapabilities { capabilities }).unwrap();
    let switch = |n: usize| Transaction { actions: vec![switches[n].clone()] };
    qmp.run(&Stop {}).unwrap();
    qmp.run(&switch(0)).unwrap();
    qmp.run(&Migrate { uri: "file:/dev/fdset/9".to_owned() }).unwrap();
    while qmp.run(&QueryMigrate {}).unwrap().ram.is_none_or(|r| r.normal + r.duplicate == 0) {}
    qmp.run(&Cont {}).unwrap();
    // By writes, not by time: a guest whose memory is being saved may stand still for long.
    let guest = bench.host.guest(vm);
    let written = || guest.blocks().unwrap()[1].ram;
    let first = written();
    while written() < first + LATE {
        thread::sleep(Duration::from_millis(5));
    }
    qmp.run(&switch(1)).unwrap();
    while qmp.run(&QueryMigrate {}).unwrap().status != Some(MigrationStatus::Completed) {
        thread::sleep(Duration::from_millis(5));
    }
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let layout = tintype_drivers::qemu::mapped_ram::Layout::read(&file).unwrap();
    layout.fill_bitmaps(&file).unwrap();
}

fn node(layer: LayerId) -> String {
    format!("l{}", &layer.0.simple().to_string()[2..])
}

fn overlay_options(file: LayerFile) -> serde_json::Value {
    json!({
        "driver": "qcow2",
        "node-name": node(file.id),
        "backing": null,
        "file": {
            "driver": "file",
            "node-name": format!("f{}", &node(file.id)[1..]),
            "filename": file.name(),
        },
    })
}
