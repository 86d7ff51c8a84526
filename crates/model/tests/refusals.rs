//! Every refusal of the model, with its code and what it says.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use tintype_model::access::Role;
use tintype_model::capability::{Capabilities, Support};
use tintype_model::change::Change;
use tintype_model::config::{Accel, Config, Disk, Platform, Role as DiskRole};
use tintype_model::effect::{After, NewDisk, Source};
use tintype_model::layer::{Format, Layer, LayerFile};
use tintype_model::operation::{
    Asker, AttachDisk, Command, Conditions, CreateSnapshot, DeleteSnapshots, DetachDisk, Power,
    ResizeDisk, RevertTo, SetVm, StopVm, accept,
};
use tintype_model::quota::{Quota, Usage};
use tintype_model::settings::{Limit, Settings};
use tintype_model::snapshot::{Consistency, Kind, Quiesce, Snapshot, SnapshotState};
use tintype_model::timeline::Timeline;
use tintype_model::tree::Scope;
use tintype_model::vm::{Vm, VmState};
use tintype_model::{AccountId, DiskId, LayerId, Moment, OperationId, SnapshotId, VmId};
use uuid::Uuid;

fn platform() -> Platform {
    Platform { machine: "pc-q35-10.0".into(), cpu: "max".into(), accel: Accel::Tcg }
}

fn capabilities() -> Capabilities {
    Capabilities::complete("qemu", platform())
}

fn config() -> Config {
    Config::bare(platform())
}

const ONE: SnapshotId = SnapshotId(Uuid::from_u128(1));

fn timeline(state: VmState) -> Timeline {
    let mut timeline = Timeline::of(Vm {
        id: VmId(Uuid::from_u128(9)),
        account: AccountId(Uuid::nil()),
        name: "web".into(),
        state,
        config: config(),
        settings: Settings::default(),
        generation: Uuid::nil(),
        current: Some(ONE),
        operation: None,
        reclaim: None,
        created_at: Moment(0),
        findings: BTreeSet::new(),
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
        saving: None,
        pause_ms: None,
        memory_bytes: 0,
        config: config(),
        layers: BTreeMap::new(),
        created_by: "somebody".into(),
        expires_at: None,
        protected: false,
        safety: false,
        verified_at: None,
    })));
    timeline
}

fn create(name: &str, kind: Kind) -> Command {
    Command::CreateSnapshot(CreateSnapshot {
        name: Some(name.to_owned()),
        ..CreateSnapshot::new(SnapshotId(Uuid::from_u128(2)), kind)
    })
}

fn revert() -> Command {
    Command::RevertTo(RevertTo { snapshot: ONE, after: After::Resumed, safety: None })
}

fn asker(role: Role) -> Asker {
    Asker { name: "somebody".into(), role, force: false }
}

fn conditions(capabilities: &Capabilities) -> Conditions<'_> {
    Conditions {
        capabilities,
        snapshots_enabled: true,
        quota: Quota::default(),
        usage: Usage::default(),
        at: Moment(0),
    }
}

/// What a command on such a machine is refused with.
fn said(timeline: &Timeline, command: &Command, capabilities: &Capabilities) -> String {
    told(timeline, command, &asker(Role::Operator), &conditions(capabilities))
}

/// What somebody is told who gives a command under such conditions.
fn told(
    timeline: &Timeline,
    command: &Command,
    asker: &Asker,
    conditions: &Conditions<'_>,
) -> String {
    let id = OperationId(Uuid::from_u128(5));
    match accept(timeline, id, command, asker, conditions) {
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
             00000000-0000-0000-0000-000000000007 holds web | wait for it (tintype operation wait \
             00000000-0000-0000-0000-000000000007), or get in line: --queue | 1",
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
    let disks = RevertTo::new(&timeline.snapshots[&ONE], Power::Stopped, None);
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
        "vm-not-stopped | the virtual machine is not stopped: web is running | stop it first | 0",
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

/// R15: what cannot be promised is refused, where it is insisted on.
#[test]
fn a_guest_that_holds_still_is_promised_only_where_it_can_be_had() {
    let running = timeline(VmState::Running);
    let create = |quiesce, kind| {
        let snapshot = SnapshotId(Uuid::from_u128(2));
        Command::CreateSnapshot(CreateSnapshot { quiesce, ..CreateSnapshot::new(snapshot, kind) })
    };
    check(
        &running,
        &create(Quiesce::Required, Kind::DiskAndMemory),
        "quiesce-with-memory | a snapshot with memory is not quiesced: filesystems frozen for it \
         would be frozen again after every revert | take it without memory to have quiesced \
         disks, or without --quiesce=required | 0",
    );
    check(&running, &create(Quiesce::Try, Kind::DiskAndMemory), "accepted");
    let unable = Capabilities { quiesce: Support::No("it has no agents".into()), ..capabilities() };
    let insisted = said(&running, &create(Quiesce::Required, Kind::Disk), &unable);
    assert!(insisted.starts_with("host-unsuitable"), "{insisted}");
    assert!(insisted.contains("it has no agents | take it without"), "{insisted}");
    assert_eq!(said(&running, &create(Quiesce::Try, Kind::Disk), &unable), "accepted");
}

/// C12, C20, R2, A38: at the limit it is refused, with the oldest named; the hypervisor's cap holds
/// for a machine without a limit of its own; who may pass it says so.
#[test]
fn one_more_than_the_limit_is_refused_and_the_oldest_are_named() {
    let mut full = timeline(VmState::Running);
    full.vm.settings.snapshot_limit = Limit::Most(1);
    check(
        &full,
        &create("two", Kind::Disk),
        "snapshot-limit-reached | the virtual machine has as many snapshots as it may have: web \
         may have 1 snapshots and has 1; the oldest: \"one\" | delete one, or raise the limit: \
         tintype vm set VM --snapshot-limit N | 1",
    );
    full.vm.settings.snapshot_limit = Limit::Unlimited;
    check(&full, &create("two", Kind::Disk), "accepted");
    let capped = Capabilities { snapshot_cap: Limit::Most(1), ..capabilities() };
    let no = said(&full, &create("two", Kind::Disk), &capped);
    assert!(no.starts_with("snapshot-limit-reached"), "{no}");
    let forced = Asker { force: true, ..asker(Role::Administrator) };
    let told = told(&full, &create("two", Kind::Disk), &forced, &conditions(&capped));
    assert_eq!(told, "accepted");
}

/// R10, R4: what could not be completed, and what is there for safety, take nobody's place.
#[test]
fn unavailable_and_safety_snapshots_do_not_count() {
    let mut full = timeline(VmState::Running);
    full.vm.settings.snapshot_limit = Limit::Most(1);
    full.snapshots.get_mut(&ONE).unwrap().state = SnapshotState::Unavailable;
    check(&full, &create("two", Kind::Disk), "accepted");
    let one = full.snapshots.get_mut(&ONE).unwrap();
    (one.state, one.safety) = (SnapshotState::Ready, true);
    check(&full, &create("two", Kind::Disk), "accepted");
    full.snapshots.get_mut(&ONE).unwrap().protected = true;
    let no = said(&full, &create("two", Kind::Disk), &capabilities());
    assert!(no.starts_with("snapshot-limit-reached"), "one that is kept is one like others: {no}");
}

/// C25: a limit below what is there keeps what is there, which can still be worked with.
#[test]
fn a_lowered_limit_keeps_what_exists() {
    let mut over = timeline(VmState::Running);
    over.vm.settings.snapshot_limit = Limit::Most(0);
    check(&over, &revert(), "accepted");
    assert_eq!(over.snapshots.len(), 1);
    let no = said(&over, &create("two", Kind::Disk), &capabilities());
    assert!(no.starts_with("snapshot-limit-reached"), "{no}");
}

/// C1, C19, C21, R13: the settings bind users, and nobody else.
#[test]
fn settings_bind_users_only() {
    let mut machine = timeline(VmState::Running);
    let capabilities = capabilities();
    let conditions = conditions(&capabilities);
    let check = |machine: &Timeline, command: Command, role: Role, expected: &str| {
        let said = told(machine, &command, &asker(role), &conditions);
        assert!(said.starts_with(expected), "{role:?} {command:?}: {said}");
    };
    let memory = create("two", Kind::DiskAndMemory);
    check(&machine, memory.clone(), Role::User, "memory-not-allowed");
    check(&machine, create("two", Kind::Disk), Role::User, "accepted");
    check(&machine, memory.clone(), Role::Operator, "accepted");
    machine.vm.settings.memory_allowed = true;
    check(&machine, memory.clone(), Role::User, "accepted");
    machine.vm.settings.snapshots_allowed = false;
    let delete = Command::DeleteSnapshots(DeleteSnapshots { scope: Scope::One(ONE) });
    for command in [memory.clone(), revert(), delete] {
        check(&machine, command, Role::User, "snapshots-not-allowed");
    }
    check(&machine, memory, Role::Administrator, "accepted");
}

/// E30, R13: switched off, none are taken; what exists can be gone back to and deleted.
#[test]
fn switched_off_snapshots_are_not_taken_and_stay_usable() {
    let machine = timeline(VmState::Running);
    let capabilities = capabilities();
    let off = Conditions { snapshots_enabled: false, ..conditions(&capabilities) };
    let told = |command: Command| told(&machine, &command, &asker(Role::Operator), &off);
    assert!(told(create("two", Kind::Disk)).starts_with("snapshots-disabled"));
    assert_eq!(told(revert()), "accepted");
    let delete = Command::DeleteSnapshots(DeleteSnapshots { scope: Scope::One(ONE) });
    assert_eq!(told(delete), "accepted");
}

/// E13, beyond it: an account's quota of snapshots and bytes; a create reserves its memory.
#[test]
fn a_quota_of_the_account_is_not_passed() {
    let machine = timeline(VmState::Running);
    let capabilities = capabilities();
    let told = |quota: Quota, usage: Usage, kind: Kind| {
        let conditions = Conditions { quota, usage, ..conditions(&capabilities) };
        told(&machine, &create("two", kind), &asker(Role::User), &conditions)
    };
    let of = |snapshots, bytes| Quota { snapshots, bytes };
    let usage = Usage { snapshots: 4, bytes: 100 << 20 };
    let no = told(of(Limit::Most(4), Limit::Unlimited), usage, Kind::Disk);
    assert!(no.starts_with("quota-reached") && no.contains("may have 4 snapshots"), "{no}");
    let tight = of(Limit::Most(5), Limit::Most(120 << 20));
    let no = told(tight, usage, Kind::Disk);
    assert!(no.contains("33554432 are needed"), "{no}");
    assert_eq!(told(of(Limit::Most(5), Limit::Most(132 << 20)), usage, Kind::Disk), "accepted");
}

/// A protected snapshot goes by no way: alone, with a subtree, with all, with its machine.
#[test]
fn what_is_protected_is_not_deleted() {
    let mut machine = timeline(VmState::Stopped);
    machine.snapshots.get_mut(&ONE).unwrap().protected = true;
    let scopes = [Scope::One(ONE), Scope::Subtree(ONE), Scope::All];
    let deletions = scopes.map(|scope| Command::DeleteSnapshots(DeleteSnapshots { scope }));
    for command in deletions.into_iter().chain([Command::DeleteVm]) {
        check(
            &machine,
            &command,
            "snapshot-protected | a snapshot is protected: \"one\" | take the protection away \
             first: tintype snapshot edit VM SNAPSHOT --unprotect | 1",
        );
    }
    let children = Command::DeleteSnapshots(DeleteSnapshots { scope: Scope::Children(ONE) });
    check(&machine, &children, "accepted");
}

/// R1: deleting a machine deletes its snapshots, unless its settings keep them.
#[test]
fn a_machine_goes_with_its_snapshots_unless_they_are_kept() {
    let mut machine = timeline(VmState::Stopped);
    check(&machine, &Command::DeleteVm, "accepted");
    machine.vm.settings.protect_snapshots = true;
    check(
        &machine,
        &Command::DeleteVm,
        "vm-has-snapshots | the virtual machine has snapshots: web has protect-snapshots on | \
         delete its snapshots first | 1",
    );
}

/// E8, E36, R5, R10: no disk comes, goes or changes its size while there are snapshots; one that
/// could not be completed is in nobody's way.
#[test]
fn disks_stay_as_they_are_while_there_are_snapshots() {
    let mut machine = timeline(VmState::Stopped);
    let disk = DiskId(Uuid::from_u128(40));
    let data = Disk { id: disk, size_bytes: 1 << 30, role: DiskRole::Data };
    machine.vm.config.disks.push(data);
    let layer = LayerFile { id: LayerId(Uuid::from_u128(41)), format: Format::Qcow2 };
    let (size_bytes, source) = (1 << 20, Source::Empty);
    let new = NewDisk { disk: DiskId(Uuid::from_u128(42)), layer, size_bytes, source };
    let commands = [
        Command::AttachDisk(AttachDisk { disk: new }),
        Command::DetachDisk(DetachDisk { disk }),
        Command::ResizeDisk(ResizeDisk { disk, size_bytes: 2 << 30 }),
        Command::ResizeDisk(ResizeDisk { disk, size_bytes: 1 << 20 }),
    ];
    for command in &commands {
        check(
            &machine,
            command,
            "vm-has-snapshots | the virtual machine has snapshots: web has \"one\" | delete its \
             snapshots first, or clone it | 1",
        );
    }
    machine.snapshots.get_mut(&ONE).unwrap().state = SnapshotState::Unavailable;
    for command in &commands {
        check(&machine, command, "accepted");
    }
    machine.vm.state = VmState::Running;
    let grow = Command::ResizeDisk(ResizeDisk { disk, size_bytes: 2 << 30 });
    check(&machine, &grow, "accepted");
    for command in [&commands[0], &commands[1], &commands[3]] {
        let no = said(&machine, command, &capabilities());
        assert!(no.starts_with("vm-not-stopped"), "{no}");
    }
}

/// C17, E9, E37, R5: hardware changes freely with snapshots of disks, and with memory snapshots
/// when these may lose their memory; names, tags and limits always.
#[test]
fn hardware_changes_with_memory_snapshots_only_when_these_may_lose_it() {
    let mut machine = timeline(VmState::Stopped);
    let larger = Config { vcpus: 4, ..config() };
    let (vcpus, memory_bytes, nics) = (Some(4), None, None);
    let set = |discard_memory| SetVm { vcpus, memory_bytes, nics: nics.clone(), discard_memory };
    check(
        &machine,
        &Command::SetVm(Box::new(set(false))),
        "vm-has-memory-snapshots | the virtual machine has snapshots with memory: \"one\" | \
         --discard-memory turns these into snapshots of the disks only | 1",
    );
    assert_eq!(set(true).at_once(&machine), Ok(None), "there is memory to be removed");
    check(&machine, &Command::SetVm(Box::new(set(true))), "accepted");
    machine.snapshots.get_mut(&ONE).unwrap().kind = Kind::Disk;
    assert_eq!(
        set(false).at_once(&machine),
        Ok(Some(vec![Change::VmConfig(larger.clone())])),
        "records alone change"
    );
    machine.snapshots.get_mut(&ONE).unwrap().kind = Kind::DiskAndMemory;
    machine.snapshots.get_mut(&ONE).unwrap().protected = true;
    let no = said(&machine, &Command::SetVm(Box::new(set(true))), &capabilities());
    assert!(no.starts_with("snapshot-protected"), "{no}");
    machine.vm.state = VmState::Running;
    let no = said(&machine, &Command::SetVm(Box::new(set(true))), &capabilities());
    assert!(no.starts_with("vm-not-stopped"), "{no}");
}

/// What is read from a manifest may say anything.
#[test]
fn what_is_no_timeline_is_told() {
    let layer = |id: u128, parent: u128| Layer {
        parent: Some(LayerId(Uuid::from_u128(parent))),
        ..Layer::fresh(file(id), DiskId(Uuid::from_u128(7)), None)
    };
    let flaw = |spoil: &dyn Fn(&mut Timeline)| {
        let mut spoilt = timeline(VmState::Stopped);
        assert_eq!(spoilt.flaw(), None);
        spoil(&mut spoilt);
        spoilt.flaw().expect("it is spoilt")
    };
    let of_itself = flaw(&|spoilt| {
        spoilt.apply(&Change::LayerAdded(layer(3, 4)));
        spoilt.apply(&Change::LayerAdded(layer(4, 3)));
    });
    assert!(of_itself.contains("lies on itself"), "{of_itself}");
    let elsewhere = flaw(&|spoilt| {
        let one = spoilt.snapshots.remove(&ONE).expect("it is there");
        let two = SnapshotId(Uuid::from_u128(2));
        spoilt.vm.current = Some(two);
        spoilt.snapshots.insert(two, one);
    });
    assert!(elsewhere.contains("is another"), "{elsewhere}");
    let disk = Disk { id: DiskId(Uuid::from_u128(7)), size_bytes: 512, role: DiskRole::Data };
    let unfounded = flaw(&|spoilt| spoilt.vm.config.disks.push(disk.clone()));
    assert!(unfounded.contains("no active layer"), "{unfounded}");
    let lacking = flaw(&|spoilt| {
        let one = spoilt.snapshots.get_mut(&ONE).expect("it is there");
        one.config.disks.push(disk.clone());
    });
    assert!(lacking.contains("lacks a disk"), "{lacking}");
    let immense = flaw(&|spoilt| spoilt.vm.config.memory_bytes = u64::MAX);
    assert!(immense.contains("bytes"), "{immense}");
}

fn file(id: u128) -> LayerFile {
    LayerFile { id: LayerId(Uuid::from_u128(id)), format: Format::Qcow2 }
}
