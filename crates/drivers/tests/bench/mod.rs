//! A bench for drivers: a host, and machines on it that are driven as agent and server do it,
//! with their timelines kept by the model alone.
#![allow(unreachable_pub, missing_docs, dead_code)]

pub mod qemu;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use tintype_drivers::diary::Scrap;
use tintype_drivers::fake::Fake;
use tintype_model::change::Change;
use tintype_model::config::{Config, Disk, Kernel, Role};
use tintype_model::effect::{Effect, Facts, NewDisk, Outcome, Source};
use tintype_model::layer::{Format, Layer, LayerFile};
use tintype_model::operation::{
    Asker, Command, Conditions, CreateSnapshot, DeleteSnapshots, Event, ExportSnapshot, Operation,
    Phase, Power, RevertTo, Scene, StopVm, VerifySnapshot, accept, step,
};
use tintype_model::quota::Quota;
use tintype_model::reclaim;
use tintype_model::refusal::Code;
use tintype_model::settings::{Limit, Settings};
use tintype_model::snapshot::{Kind, Road};
use tintype_model::timeline::Timeline;
use tintype_model::tree::Scope;
use tintype_model::vm::{Vm, VmState};
use tintype_model::{AccountId, DiskId, LayerId, Moment, OperationId, Refusal, SnapshotId, VmId};
use uuid::Uuid;

pub const DISK_BYTES: u64 = 64 << 20;
pub const MEMORY_BYTES: u64 = 192 << 20;

/// What a guest remembers: a number in RAM, and one on each disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    pub ram: u64,
    pub disks: Vec<u64>,
}

/// A host that machines run on, real or not, with guests that can be asked.
pub trait Host: tintype_drivers::Host {
    /// Makes what a machine boots from.
    fn make_boot_files(&self, vm: VmId);
    /// Waits until a guest has booted.
    fn wait_until_up(&self, vm: VmId);
    /// Has a guest write a number to RAM and to each disk.
    fn write(&self, vm: VmId, number: u64);
    /// Asks a guest for its numbers.
    fn read(&self, vm: VmId) -> Remembered;
    fn damage_memory(&self, vm: VmId, snapshot: SnapshotId);
    /// The files that a guest's disks are made of, topmost first.
    fn chains(&self, vm: VmId) -> Vec<Vec<String>>;
}

impl Host for Fake {
    fn make_boot_files(&self, _vm: VmId) {}

    fn wait_until_up(&self, _vm: VmId) {}

    fn write(&self, vm: VmId, number: u64) {
        self.write_ram(vm, 0, number);
        self.write_disks(vm, 0, number);
    }

    fn read(&self, vm: VmId) -> Remembered {
        Remembered { ram: self.read_ram(vm, 0), disks: self.read_disks(vm, 0) }
    }

    fn damage_memory(&self, vm: VmId, snapshot: SnapshotId) {
        Fake::damage_memory(self, vm, snapshot);
    }

    fn chains(&self, vm: VmId) -> Vec<Vec<String>> {
        let name = |id| LayerFile { id, format: Format::Qcow2 }.name();
        let chains = Fake::chains(self, vm).into_iter();
        chains.map(|chain| chain.into_iter().map(name).collect()).collect()
    }
}

pub struct Bench<H: Host> {
    pub host: H,
    timelines: RefCell<BTreeMap<VmId, Timeline>>,
}

impl<H: Host> Bench<H> {
    pub fn new(host: H) -> Self {
        Self { host, timelines: RefCell::default() }
    }

    /// A machine with two disks that runs.
    pub fn running(&self) -> VmId {
        let vm = self.create(2);
        done(self.run(vm, Command::StartVm));
        self.host.wait_until_up(vm);
        vm
    }

    pub fn create(&self, disks: usize) -> VmId {
        let vm = VmId(Uuid::new_v4());
        self.host.volume().prepare(vm).unwrap();
        self.host.make_boot_files(vm);
        let disk =
            |_| Disk { id: DiskId(Uuid::new_v4()), size_bytes: DISK_BYTES, role: Role::Data };
        let disks: Vec<Disk> = (0..disks).map(disk).collect();
        let mut timeline = Timeline::of(self.machine(vm, disks.clone()));
        for disk in disks {
            let layer = LayerFile { id: LayerId(Uuid::new_v4()), format: Format::Qcow2 };
            let source = Source::Empty;
            let new = NewDisk { disk: disk.id, layer, size_bytes: DISK_BYTES, source };
            self.host.volume().create(vm, &new).unwrap();
            timeline.apply(&Change::LayerAdded(Layer::fresh(layer, disk.id, None)));
            timeline.apply(&Change::DiskActive { disk: disk.id, layer: layer.id });
        }
        self.timelines.borrow_mut().insert(vm, timeline);
        vm
    }

    fn machine(&self, id: VmId, disks: Vec<Disk>) -> Vm {
        let platform = self.host.hypervisor().capabilities().platform.clone();
        let config = Config {
            memory_bytes: MEMORY_BYTES,
            kernel: Some(Kernel { initrd: true, append: "console=ttyS0 quiet".into() }),
            disks,
            ..Config::bare(platform)
        };
        Vm {
            id,
            account: AccountId(Uuid::nil()),
            name: "bench".into(),
            state: VmState::Stopped,
            config,
            settings: Settings { snapshot_limit: Limit::Unlimited, ..Settings::default() },
            generation: Uuid::new_v4(),
            current: None,
            operation: None,
            reclaim: None,
            created_at: Moment(0),
            findings: BTreeSet::new(),
        }
    }

    pub fn timeline(&self, vm: VmId) -> Timeline {
        self.timelines.borrow()[&vm].clone()
    }

    pub fn stop(&self, vm: VmId) -> Outcome {
        self.run(vm, Command::StopVm(StopVm { force: true }))
    }

    pub fn take(&self, vm: VmId, kind: Kind) -> (SnapshotId, Outcome) {
        let snapshot = SnapshotId(Uuid::new_v4());
        let name = Some(snapshot.to_string());
        let create = CreateSnapshot { name, ..CreateSnapshot::new(snapshot, kind) };
        (snapshot, self.run(vm, Command::CreateSnapshot(create)))
    }

    /// Takes a snapshot with memory on a road, which has to succeed.
    pub fn taken_by(&self, vm: VmId, road: Road) -> SnapshotId {
        let snapshot = SnapshotId(Uuid::new_v4());
        let name = Some(snapshot.to_string());
        let new = CreateSnapshot::new(snapshot, Kind::DiskAndMemory);
        let create = CreateSnapshot { name, road: Some(road), ..new };
        done(self.run(vm, Command::CreateSnapshot(create)));
        snapshot
    }

    /// Takes a snapshot that has to succeed.
    pub fn taken(&self, vm: VmId, kind: Kind) -> SnapshotId {
        let (snapshot, outcome) = self.take(vm, kind);
        done(outcome);
        snapshot
    }

    pub fn revert(&self, vm: VmId, snapshot: SnapshotId, power: Power) -> Outcome {
        let to = RevertTo::new(&self.timeline(vm).snapshots[&snapshot], power, None);
        let outcome = self.run(vm, Command::RevertTo(to));
        if self.timeline(vm).vm.state == VmState::Running {
            self.host.wait_until_up(vm);
        }
        outcome
    }

    /// Goes back, with a snapshot of NOW taken first.
    pub fn revert_safely(&self, vm: VmId, snapshot: SnapshotId) -> (SnapshotId, Outcome) {
        let safety = SnapshotId(Uuid::new_v4());
        let target = &self.timeline(vm).snapshots[&snapshot];
        let to = RevertTo::new(target, Power::AsTaken, Some(safety));
        let outcome = self.run(vm, Command::RevertTo(to));
        if self.timeline(vm).vm.state == VmState::Running {
            self.host.wait_until_up(vm);
        }
        (safety, outcome)
    }

    pub fn verify(&self, vm: VmId, snapshot: SnapshotId) -> Outcome {
        self.run(vm, Command::VerifySnapshot(VerifySnapshot { snapshot }))
    }

    pub fn export(&self, vm: VmId, snapshot: SnapshotId, name: &str) -> Outcome {
        self.run(vm, Command::ExportSnapshot(ExportSnapshot { snapshot, name: name.to_owned() }))
    }

    pub fn delete(&self, vm: VmId, scope: Scope) -> Outcome {
        self.run(vm, Command::DeleteSnapshots(DeleteSnapshots { scope }))
    }

    /// Works on layers until there is nothing left to do; says how much there was.
    pub fn settle(&self, vm: VmId) -> usize {
        for count in 0.. {
            let timeline = self.timeline(vm);
            if timeline.vm.state == VmState::Running {
                self.assert_same_chains(vm);
            }
            let Some(work) = reclaim::next(&timeline) else {
                return count;
            };
            let outcome = self.host.hypervisor().reclaim(vm, &work, &AtomicBool::new(false));
            assert!(matches!(outcome, Outcome::Done(_)), "{work:?}: {outcome:?}");
            self.apply(vm, &work.conclude(&timeline, &outcome));
            assert_eq!(self.timeline(vm).flaw(), None);
        }
        unreachable!("there is an end to it")
    }

    /// What the hypervisor has open is what is recorded.
    fn assert_same_chains(&self, vm: VmId) {
        let timeline = self.timeline(vm);
        let tops = timeline.active.values();
        let mut recorded: Vec<Vec<String>> =
            tops.map(|&top| timeline.chain(top).iter().map(LayerFile::name).collect()).collect();
        let mut open = self.host.chains(vm);
        recorded.sort();
        open.sort();
        assert_eq!(open, recorded);
    }

    /// Runs a command as server and agent do, and records what follows.
    pub fn run(&self, vm: VmId, command: Command) -> Outcome {
        let mut operation = self.accept(vm, command);
        self.step(&mut operation, Event::Begin);
        let mut outcome = Outcome::Yielded;
        while let Phase::Performing { effect, .. } = operation.phase.clone() {
            outcome = self.perform(&effect, &mut Scrap::default());
            self.step(&mut operation, Event::Performed(outcome.clone()));
        }
        let timeline = self.timeline(vm);
        assert_eq!(timeline.flaw(), None);
        assert_eq!(timeline.vm.operation, None);
        outcome
    }

    pub fn accept(&self, vm: VmId, command: Command) -> Operation {
        let capabilities = self.host.hypervisor().capabilities();
        let id = OperationId(Uuid::new_v4());
        let asker = Asker::tintype();
        let conditions = Conditions {
            capabilities,
            snapshots_enabled: true,
            quota: Quota::default(),
            usage: self.timeline(vm).usage(),
            at: Moment(0),
        };
        let changes = accept(&self.timeline(vm), id, &command, &asker, &conditions).unwrap();
        self.apply(vm, &changes);
        let phase = Phase::Waiting;
        let created_at = Moment(0);
        Operation { id, vm, snapshot: None, command, asker, phase, created_at, ended_at: None }
    }

    /// What an agent does with an effect.
    pub fn perform(&self, effect: &Effect, diary: &mut Scrap) -> Outcome {
        let hypervisor = self.host.hypervisor();
        let overlays = match effect {
            Effect::TakeSnapshot(take) => {
                take.disks.iter().map(|disk| (disk.overlay_file(), disk.active)).collect()
            }
            Effect::Revert(revert) => {
                revert.launch.disks.iter().map(|disk| (disk.chain[0], disk.chain[1])).collect()
            }
            Effect::VerifySnapshot(verify) => {
                verify.launch.disks.iter().map(|disk| (disk.chain[0], disk.chain[1])).collect()
            }
            _ => Vec::new(),
        };
        for &(overlay, on) in &overlays {
            if let Err(error) = self.host.volume().overlay(effect.vm(), overlay, on) {
                for (overlay, _) in overlays {
                    self.host.volume().remove(effect.vm(), overlay).unwrap();
                }
                let running = hypervisor.state(effect.vm()) == VmState::Running;
                let reason = Refusal::new(Code::StorageFailed).detail(error.to_string());
                return Outcome::Failed(reason, Facts { running, ..Facts::default() });
            }
        }
        match effect {
            Effect::StartVm(launch) => hypervisor.start(launch),
            Effect::StopVm(stop) => hypervisor.stop(stop),
            Effect::TakeSnapshot(take) if !take.running => {
                Outcome::Done(Facts { switched: true, ..Facts::default() })
            }
            Effect::TakeSnapshot(take) => hypervisor.take(take, diary),
            Effect::Revert(revert) => hypervisor.revert(revert, diary),
            Effect::RemoveMemory { vm, snapshots } => hypervisor.remove_memory(*vm, snapshots),
            Effect::DeleteVm { vm } => hypervisor.remove(*vm),
            Effect::VerifySnapshot(verify) => hypervisor.verify(verify, diary),
            Effect::ExportSnapshot(export) => {
                hypervisor.export(export, diary, &AtomicBool::new(false))
            }
            Effect::ResizeDisk(resize) => hypervisor.resize(resize),
            Effect::CreateVm(_)
            | Effect::CloneDisks(_)
            | Effect::AttachDisk { .. }
            | Effect::DetachDisk { .. }
            | Effect::Reclaim { .. } => unreachable!("not done here"),
        }
    }

    pub fn step(&self, operation: &mut Operation, event: Event) {
        let timeline = self.timeline(operation.vm);
        let scene = Scene { timeline: &timeline, at: Moment(0), fresh: &mut Uuid::new_v4 };
        let step = step(operation, scene, event);
        operation.phase = step.phase;
        self.apply(operation.vm, &step.changes);
    }

    pub fn apply(&self, vm: VmId, changes: &[Change]) {
        let mut timelines = self.timelines.borrow_mut();
        let timeline = timelines.get_mut(&vm).unwrap();
        for change in changes {
            timeline.apply(change);
        }
    }
}

impl<H: Host> Drop for Bench<H> {
    fn drop(&mut self) {
        for &vm in self.timelines.borrow().keys() {
            self.host.hypervisor().remove(vm);
        }
    }
}

pub fn done(outcome: Outcome) -> Facts {
    match outcome {
        Outcome::Done(facts) => facts,
        other => panic!("{other:?}"),
    }
}

pub fn failed(outcome: Outcome) -> (Code, Facts) {
    match outcome {
        Outcome::Failed(reason, facts) => (reason.code, facts),
        other => panic!("{other:?}"),
    }
}
