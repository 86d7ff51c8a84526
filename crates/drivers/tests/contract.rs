//! The contract of a host: what every hypervisor and volume keep. The fake one and the real one
//! (QEMU and qcow2, with a guest that runs) pass the same cases.

mod bench;

use bench::qemu::QemuHost;
use bench::{Bench, Host, Remembered, done, failed};
use tintype_drivers::fake::Fake;
use tintype_model::SnapshotId;
use tintype_model::layer::DEPTH_MOST;
use tintype_model::operation::{Command, CreateSnapshot, Power};
use tintype_model::refusal::Code;
use tintype_model::snapshot::{Consistency, Kind, Quiesce, Road};
use tintype_model::tree::Scope;
use tintype_model::vm::VmState;
use uuid::Uuid;

fn both(number: u64) -> Remembered {
    Remembered { ram: number, disks: vec![number, number] }
}

/// C2, E5, E17: memory and disks of one instant come back, and the guest goes on from there; from
/// running and from off.
fn memory_and_disks_come_back(bench: &Bench<impl Host>) {
    let vm = bench.running();
    bench.host.write(vm, 1);
    let one = bench.taken(vm, Kind::DiskAndMemory);
    bench.host.write(vm, 2);
    let before = bench.timeline(vm).vm.generation;
    done(bench.revert(vm, one, Power::AsTaken));
    assert_eq!(bench.host.read(vm), both(1));
    assert_ne!(bench.timeline(vm).vm.generation, before);
    done(bench.stop(vm));
    done(bench.revert(vm, one, Power::AsTaken));
    assert_eq!(bench.host.read(vm), both(1));
    assert_eq!(bench.timeline(vm).vm.current, Some(one));
}

/// E2, E5: whichever road memory was saved on, all of it comes back, also after the other; and
/// the machine goes on as if none had been taken.
fn either_road_saves_all(bench: &Bench<impl Host>) {
    let vm = bench.running();
    let mut snapshots = Vec::new();
    for (number, road) in [(1, Road::Precopy), (2, Road::Background), (3, Road::Precopy)] {
        bench.host.write(vm, number);
        let snapshot = bench.taken_by(vm, road);
        let saving = bench.timeline(vm).snapshots[&snapshot].saving.unwrap();
        assert_eq!(saving.road, road);
        assert_eq!(bench.host.read(vm), both(number));
        snapshots.push((number, snapshot));
    }
    bench.host.write(vm, 4);
    for (number, snapshot) in snapshots {
        done(bench.verify(vm, snapshot));
        done(bench.revert(vm, snapshot, Power::AsTaken));
        assert_eq!(bench.host.read(vm), both(number));
        bench.settle(vm);
    }
}

/// E6, E18, R3, R15: a snapshot of disks leaves the machine off; started, it has those disks.
fn disks_come_back_and_the_machine_is_off(bench: &Bench<impl Host>) {
    let vm = bench.running();
    bench.host.write(vm, 1);
    let one = bench.taken(vm, Kind::Disk);
    bench.host.write(vm, 2);
    done(bench.revert(vm, one, Power::AsTaken));
    assert_eq!(bench.timeline(vm).vm.state, VmState::Stopped);
    assert_eq!(bench.host.hypervisor().state(vm), VmState::Stopped);
    let off = bench.taken(vm, Kind::Disk);
    done(bench.revert(vm, off, Power::Start));
    assert_eq!(bench.host.read(vm), Remembered { ram: 0, disks: vec![1, 1] });
}

/// A11, E15, E33, E34, E35, R8: a tree with branches; any node can be gone back to, and deleting
/// one harms no other.
fn branches_are_independent(bench: &Bench<impl Host>) {
    let vm = bench.running();
    bench.host.write(vm, 1);
    let one = bench.taken(vm, Kind::DiskAndMemory);
    bench.host.write(vm, 2);
    let two = bench.taken(vm, Kind::DiskAndMemory);
    done(bench.revert(vm, one, Power::AsTaken));
    bench.host.write(vm, 3);
    let three = bench.taken(vm, Kind::DiskAndMemory);
    bench.host.write(vm, 4);
    done(bench.delete(vm, Scope::One(one)));
    bench.settle(vm);
    assert_eq!(bench.host.read(vm), both(4));
    done(bench.revert(vm, two, Power::AsTaken));
    assert_eq!(bench.host.read(vm), both(2));
    bench.settle(vm);
    done(bench.revert(vm, three, Power::AsTaken));
    assert_eq!(bench.host.read(vm), both(3));
    done(bench.delete(vm, Scope::Subtree(two)));
    bench.settle(vm);
    assert_eq!(bench.host.read(vm), both(3));
    done(bench.delete(vm, Scope::All));
    bench.settle(vm);
    assert_eq!(bench.host.read(vm), both(3));
    let timeline = bench.timeline(vm);
    assert_eq!(timeline.layers.len(), 2, "each disk is one layer");
    assert!(timeline.layers.values().all(|layer| layer.parent.is_none()));
}

/// A machine that is off is pruned as one that runs.
fn pruning_works_while_the_machine_is_off(bench: &Bench<impl Host>) {
    let vm = bench.running();
    let mut snapshots = Vec::new();
    for number in 1..=3 {
        bench.host.write(vm, number);
        snapshots.push(bench.taken(vm, Kind::Disk));
    }
    bench.host.write(vm, 4);
    done(bench.stop(vm));
    done(bench.delete(vm, Scope::One(snapshots[1])));
    bench.settle(vm);
    done(bench.revert(vm, snapshots[2], Power::Start));
    assert_eq!(bench.host.read(vm).disks, [3, 3]);
    done(bench.stop(vm));
    done(bench.delete(vm, Scope::All));
    bench.settle(vm);
    assert_eq!(bench.timeline(vm).layers.len(), 2);
    done(bench.run(vm, Command::StartVm));
    bench.host.wait_until_up(vm);
    assert_eq!(bench.host.read(vm).disks, [3, 3]);
}

/// A revert that cannot load its target leaves the machine as it was, running.
fn a_damaged_target_changes_nothing(bench: &Bench<impl Host>) {
    let vm = bench.running();
    bench.host.write(vm, 1);
    let one = bench.taken(vm, Kind::DiskAndMemory);
    bench.host.write(vm, 2);
    bench.host.damage_memory(vm, one);
    let before = bench.timeline(vm);
    let (code, facts) = failed(bench.revert(vm, one, Power::AsTaken));
    assert_eq!((code, facts.running), (Code::LoadFailed, true));
    assert_eq!(bench.timeline(vm), before);
    assert_eq!(bench.host.read(vm), both(2));
    // The way out: the disks of that instant, without the memory.
    done(bench.revert(vm, one, Power::Stopped));
    assert_eq!(bench.timeline(vm).vm.state, VmState::Stopped);
}

/// However many snapshots there are, the disks in use have few layers, and every snapshot holds
/// what it held.
fn many_snapshots_make_no_long_chain(bench: &Bench<impl Host>) {
    let vm = bench.running();
    let mut snapshots = Vec::new();
    for number in 1..=20 {
        bench.host.write(vm, number);
        snapshots.push(bench.taken(vm, Kind::Disk));
        assert!(bench.timeline(vm).depth() <= DEPTH_MOST);
        bench.settle(vm);
        assert!(bench.timeline(vm).depth() <= 9, "depth {}", bench.timeline(vm).depth());
    }
    bench.host.write(vm, 99);
    assert_eq!(bench.host.read(vm).disks, [99, 99]);
    for (n, &snapshot) in snapshots.iter().enumerate().step_by(7) {
        done(bench.revert(vm, snapshot, Power::Start));
        assert_eq!(bench.host.read(vm).disks, [n as u64 + 1, n as u64 + 1]);
        bench.settle(vm);
    }
    done(bench.delete(vm, Scope::All));
    bench.settle(vm);
    assert_eq!(bench.timeline(vm).layers.len(), 2);
    assert_eq!(bench.host.read(vm).disks, [15, 15]);
}

/// What is gone already can be removed again, and a merge or fold that is done can be done again.
fn work_on_layers_may_be_repeated(bench: &Bench<impl Host>) {
    let vm = bench.running();
    bench.host.write(vm, 1);
    let one = bench.taken(vm, Kind::Disk);
    bench.host.write(vm, 2);
    done(bench.delete(vm, Scope::One(one)));
    let calm = std::sync::atomic::AtomicBool::new(false);
    loop {
        let timeline = bench.timeline(vm);
        let work = tintype_model::reclaim::next(&timeline);
        let Some(work) = work else { break };
        done(bench.host.hypervisor().reclaim(vm, &work, &calm));
        let again = bench.host.hypervisor().reclaim(vm, &work, &calm);
        bench.apply(vm, &work.conclude(&timeline, &again));
        done(again);
        assert_eq!(bench.host.read(vm), both(2));
    }
    done(bench.host.hypervisor().remove_memory(vm, &[one]));
    done(bench.host.hypervisor().remove_memory(vm, &[one]));
}

/// R4: a revert with safety loses nothing; the next one's safety snapshot replaces it, and one that
/// fails leaves none.
fn a_safe_revert_can_be_gone_back_from(bench: &Bench<impl Host>) {
    let vm = bench.running();
    bench.host.write(vm, 1);
    let one = bench.taken(vm, Kind::DiskAndMemory);
    bench.host.write(vm, 2);
    let (first, outcome) = bench.revert_safely(vm, one);
    done(outcome);
    assert_eq!(bench.host.read(vm), both(1));
    done(bench.revert(vm, first, Power::AsTaken));
    assert_eq!(bench.host.read(vm), both(2));
    bench.host.write(vm, 3);
    let (second, outcome) = bench.revert_safely(vm, one);
    done(outcome);
    let kept = bench.timeline(vm).snapshots;
    assert!(kept.contains_key(&second) && !kept.contains_key(&first), "the next replaces it");
    bench.host.damage_memory(vm, one);
    let before = bench.timeline(vm).snapshots.len();
    bench.revert_safely(vm, one);
    assert_eq!(bench.timeline(vm).snapshots.len(), before, "none is left of one that failed");
    assert_eq!(bench.host.read(vm), both(1));
}

/// A21: what is whole is proved to be, beside the machine and without touching it; what is damaged
/// is found.
fn a_whole_snapshot_is_told_from_a_damaged_one(bench: &Bench<impl Host>) {
    let vm = bench.running();
    bench.host.write(vm, 1);
    let memory = bench.taken(vm, Kind::DiskAndMemory);
    bench.host.write(vm, 2);
    let disks = bench.taken(vm, Kind::Disk);
    bench.host.write(vm, 3);
    for snapshot in [memory, disks] {
        assert!(done(bench.verify(vm, snapshot)).running);
        assert_eq!(bench.host.read(vm), both(3), "the machine is as it was");
    }
    bench.host.damage_memory(vm, memory);
    let (code, facts) = failed(bench.verify(vm, memory));
    assert_eq!((code, facts.running), (Code::VerifyFailed, true));
    assert_eq!(bench.host.read(vm), both(3));
    done(bench.stop(vm));
    done(bench.verify(vm, disks));
}

/// An export is made beside the machine, once by each name.
fn an_export_leaves_the_machine_as_it_is(bench: &Bench<impl Host>) {
    let vm = bench.running();
    bench.host.write(vm, 1);
    let one = bench.taken(vm, Kind::DiskAndMemory);
    bench.host.write(vm, 2);
    assert!(done(bench.export(vm, one, "one")).running);
    let (code, facts) = failed(bench.export(vm, one, "one"));
    assert_eq!((code, facts.running), (Code::NameTaken, true));
    assert_eq!(bench.host.read(vm), both(2));
    done(bench.stop(vm));
    done(bench.export(vm, one, "two"));
    done(bench.delete(vm, Scope::All));
    bench.settle(vm);
}

/// R15: a guest without an agent cannot be quiesced; who insists has no snapshot, and who does not
/// is told why.
fn without_an_agent_nothing_is_quiesced(bench: &Bench<impl Host>) {
    let vm = bench.running();
    bench.host.write(vm, 1);
    let create = |quiesce| {
        let snapshot = SnapshotId(Uuid::new_v4());
        let name = Some(snapshot.to_string());
        let new = CreateSnapshot::new(snapshot, Kind::Disk);
        let create = CreateSnapshot { name, quiesce, ..new };
        (snapshot, bench.run(vm, Command::CreateSnapshot(create)))
    };
    let (_, insisted) = create(Quiesce::Required);
    let (code, facts) = failed(insisted);
    assert_eq!((code, facts.switched, facts.running), (Code::QuiesceFailed, false, true));
    let (tried, outcome) = create(Quiesce::Try);
    done(outcome);
    let snapshot = &bench.timeline(vm).snapshots[&tried];
    assert_eq!(snapshot.consistency, Consistency::Crash);
    assert_eq!(snapshot.reason.as_ref().map(|no| no.code), Some(Code::QuiesceFailed));
    assert_eq!(bench.host.read(vm), both(1));
}

/// A layer that a snapshot has put on top is blank until the guest writes to it.
fn a_layer_that_was_written_to_is_told_from_a_blank_one(bench: &Bench<impl Host>) {
    let vm = bench.running();
    bench.host.write(vm, 1);
    let are_blank = || -> Vec<bool> {
        let timeline = bench.timeline(vm);
        let tops = timeline.active.values().map(|top| timeline.layers[top].file());
        tops.map(|top| bench.host.volume().is_blank(vm, top).unwrap()).collect()
    };
    bench.taken(vm, Kind::Disk);
    assert_eq!(are_blank(), [true, true]);
    bench.host.write(vm, 2);
    done(bench.stop(vm));
    assert_eq!(are_blank(), [false, false]);
}

macro_rules! contract {
    ($($case:ident)*) => {
        mod fake {
            use super::*;
            $(#[test] fn $case() { super::$case(&Bench::new(Fake::default())); })*
        }
        mod qemu {
            use super::*;
            $(#[test] fn $case() { super::$case(&Bench::new(QemuHost::new())); })*
        }
    };
}

contract! {
    memory_and_disks_come_back
    either_road_saves_all
    disks_come_back_and_the_machine_is_off
    branches_are_independent
    pruning_works_while_the_machine_is_off
    a_damaged_target_changes_nothing
    many_snapshots_make_no_long_chain
    work_on_layers_may_be_repeated
    a_safe_revert_can_be_gone_back_from
    a_whole_snapshot_is_told_from_a_damaged_one
    an_export_leaves_the_machine_as_it_is
    without_an_agent_nothing_is_quiesced
    a_layer_that_was_written_to_is_told_from_a_blank_one
}
