//! Every refusal of the model, with its code and what it says.

use std::collections::BTreeMap;
use tintype_model::capability::{Capabilities, Support};
use tintype_model::change::Change;
use tintype_model::config::{Accel, Config, Firmware, Platform};
use tintype_model::effect::After;
use tintype_model::operation::{
    Command, CreateSnapshot, DeleteSnapshots, Power, RevertTo, StopVm, accept,
};
use tintype_model::snapshot::{Consistency, Kind, Snapshot, SnapshotState};
use tintype_model::timeline::Timeline;
use tintype_model::tree::Scope;
use tintype_model::vm::{Vm, VmState};
use tintype_model::{Moment, OperationId, SnapshotId, VmId};
use uuid::Uuid;

fn platform() -> Platform {
    Platform { machine: "pc-q35-10.0".into(), cpu: "max".into(), accel: Accel::Tcg }
}

fn capabilities() -> Capabilities {
    Capabilities {
        hypervisor: "QEMU".into(),
        platform: platform(),
        machines: vec!["pc-q35-10.0".into()],
        accels: vec![Accel::Tcg],
        background_snapshots: Support::Yes,
        shared_console: Support::Yes,
        uefi: Support::Yes,
    }
}

fn config() -> Config {
    Config {
        vcpus: 1,
        memory_bytes: 1 << 20,
        firmware: Firmware::Bios,
        kernel: None,
        nics: Vec::new(),
        disks: Vec::new(),
        platform: platform(),
    }
}

const ONE: SnapshotId = SnapshotId(Uuid::from_u128(1));

fn timeline(state: VmState) -> Timeline {
    let mut timeline = Timeline::of(Vm {
        id: VmId(Uuid::from_u128(9)),
        name: "web".into(),
        state,
        config: config(),
        generation: Uuid::nil(),
        current: Some(ONE),
        operation: None,
        reclaim: None,
        created_at: Moment(0),
    });
    timeline.apply(&Change::SnapshotAdded(Box::new(Snapshot {
        id: ONE,
        vm: timeline.vm.id,
        name: "one".into(),
        description: String::new(),
        kind: Kind::DiskAndMemory,
        consistency: Consistency::Crash,
        state: SnapshotState::Ready,
        reason: None,
        parent: None,
        created_at: Moment(0),
        ready_at: None,
        pause_ms: None,
        memory_bytes: 0,
        config: config(),
        layers: BTreeMap::new(),
    })));
    timeline
}

fn create(name: &str, kind: Kind) -> Command {
    Command::CreateSnapshot(CreateSnapshot {
        snapshot: SnapshotId(Uuid::from_u128(2)),
        name: Some(name.to_owned()),
        description: String::new(),
        kind,
    })
}

fn revert() -> Command {
    Command::RevertTo(RevertTo { snapshot: ONE, after: After::Resumed })
}

/// What a command on such a machine is refused with.
fn said(timeline: &Timeline, command: &Command, capabilities: &Capabilities) -> String {
    let id = OperationId(Uuid::from_u128(5));
    match accept(timeline, id, command, capabilities, Moment(0)) {
        Ok(_) => "accepted".to_owned(),
        Err(no) => format!("{} | {no} | {} | {:?}", no.code, no.hint, no.blocking.len()),
    }
}

fn check(timeline: &Timeline, command: &Command, expected: &str) {
    assert_eq!(said(timeline, command, &capabilities()), expected);
}

/// C22, E7, R15.
#[test]
fn memory_needs_a_running_machine() {
    check(
        &timeline(VmState::Stopped),
        &create("two", Kind::DiskAndMemory),
        "memory-needs-running-vm | a snapshot with memory needs a running virtual machine: \
         web is stopped | start it, or take a snapshot of its disks only | 0",
    );
    check(&timeline(VmState::Stopped), &create("two", Kind::Disk), "accepted");
    check(&timeline(VmState::Running), &create("two", Kind::DiskAndMemory), "accepted");
}

/// R14.
#[test]
fn a_name_is_used_once_and_is_a_name() {
    check(
        &timeline(VmState::Running),
        &create("one", Kind::Disk),
        "name-taken | the name is taken: web has a snapshot named \"one\" | choose another name, \
         or none for date and time | 1",
    );
    check(
        &timeline(VmState::Running),
        &create("a\nb", Kind::Disk),
        "name-invalid | the name is not allowed: a snapshot's name of 3 characters was given | \
         1 to 255 characters, none of them a control character | 0",
    );
}

/// E10, E11, R9: the second is refused at once, with the first named.
#[test]
fn refuses_a_second_operation_while_one_runs() {
    let mut busy = timeline(VmState::Running);
    busy.apply(&Change::VmOperation(Some(OperationId(Uuid::from_u128(7)))));
    let all = DeleteSnapshots { scope: Scope::All };
    let commands = [
        create("two", Kind::Disk),
        revert(),
        Command::DeleteSnapshots(all),
        Command::StopVm(StopVm { force: true }),
        Command::StartVm,
        Command::DeleteVm,
    ];
    for command in commands {
        check(
            &busy,
            &command,
            "vm-busy | another operation holds the virtual machine: operation \
             00000000-0000-0000-0000-000000000007 holds web | wait for it: tintype operation wait \
             00000000-0000-0000-0000-000000000007 | 1",
        );
    }
}

/// C38: an unavailable snapshot cannot be gone back to, and can be deleted.
#[test]
fn an_unavailable_snapshot_can_only_be_deleted() {
    let mut broken = timeline(VmState::Running);
    if let Some(snapshot) = broken.snapshots.get_mut(&ONE) {
        snapshot.state = SnapshotState::Unavailable;
    }
    check(
        &broken,
        &revert(),
        "snapshot-unavailable | the snapshot is unavailable: \"one\" is unavailable | an \
         unavailable snapshot can only be deleted | 0",
    );
    let delete = Command::DeleteSnapshots(DeleteSnapshots { scope: Scope::One(ONE) });
    check(&broken, &delete, "accepted");
}

/// Whether memory loads here is known before anything is stopped.
#[test]
fn memory_of_another_platform_is_refused_beforehand() {
    let timeline = timeline(VmState::Running);
    let mut elsewhere = capabilities();
    elsewhere.machines = vec!["pc-q35-9.2".into()];
    let no = said(&timeline, &revert(), &elsewhere);
    assert!(no.starts_with("memory-not-loadable"), "{no}");
    assert!(no.contains("--stopped"), "{no}");
    let mut other_cpu = capabilities();
    other_cpu.platform.cpu = "host".into();
    assert!(said(&timeline, &revert(), &other_cpu).starts_with("memory-not-loadable"));
    let disks = RevertTo::new(&timeline.snapshots[&ONE], Power::Stopped);
    assert_eq!(said(&timeline, &Command::RevertTo(disks), &other_cpu), "accepted");
}

#[test]
fn only_what_runs_is_stopped_and_only_what_is_off_is_started() {
    let stop = Command::StopVm(StopVm { force: false });
    check(&timeline(VmState::Running), &stop, "accepted");
    check(
        &timeline(VmState::Stopped),
        &stop,
        "vm-not-running | the virtual machine is not running: web is stopped |  | 0",
    );
    check(&timeline(VmState::Crashed), &Command::StartVm, "accepted");
    check(
        &timeline(VmState::Running),
        &Command::StartVm,
        "vm-not-stopped | the virtual machine is not stopped: web is running |  | 0",
    );
}

#[test]
fn what_the_host_cannot_do_is_refused_with_its_reason() {
    let mut weak = capabilities();
    weak.background_snapshots = Support::No("the kernel forbids it".into());
    let no = said(&timeline(VmState::Running), &create("two", Kind::DiskAndMemory), &weak);
    assert!(no.starts_with("host-unsuitable") && no.contains("the kernel forbids it"), "{no}");
    weak.machines.clear();
    let no = said(&timeline(VmState::Stopped), &Command::StartVm, &weak);
    assert!(no.starts_with("host-unsuitable"), "{no}");
}
