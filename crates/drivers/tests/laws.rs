//! The three laws that hold for every operation, in a loop over its steps: an effect may run
//! twice; a failure at any step ends in a defined state; an undo may run twice. On the fake host,
//! which fails where it is told to.

mod bench;

use bench::{Bench, Host, Remembered, done};
use tintype_drivers::Hypervisor;
use tintype_drivers::diary::Scrap;
use tintype_drivers::fake::Fake;
use tintype_model::effect::{Effect, Outcome};
use tintype_model::operation::{
    Command, CreateSnapshot, DeleteSnapshots, Event, ExportSnapshot, Operation, Phase, Power,
    RevertTo, StopVm, VerifySnapshot,
};
use tintype_model::snapshot::{Kind, SnapshotState};
use tintype_model::timeline::Timeline;
use tintype_model::tree::Scope;
use tintype_model::vm::VmState;
use tintype_model::{SnapshotId, VmId};
use uuid::Uuid;

/// More steps than any operation has.
const STEPS_MOST: u32 = 100;

/// A machine that runs, with two snapshots, of which the first is not current.
fn scene() -> (Bench<Fake>, VmId, SnapshotId) {
    let bench = Bench::new(Fake::default());
    let vm = bench.running();
    bench.host.write(vm, 1);
    let one = bench.taken(vm, Kind::DiskAndMemory);
    bench.host.write(vm, 2);
    bench.taken(vm, Kind::Disk);
    bench.host.write(vm, 3);
    (bench, vm, one)
}

fn create(kind: Kind) -> Command {
    let snapshot = SnapshotId(Uuid::new_v4());
    let name = Some("new".to_owned());
    Command::CreateSnapshot(CreateSnapshot { name, ..CreateSnapshot::new(snapshot, kind) })
}

fn export(snapshot: SnapshotId) -> ExportSnapshot {
    ExportSnapshot { snapshot, name: "web".to_owned() }
}

/// Every command on that machine, and whether the machine has to be off for it.
fn commands(timeline: &Timeline, one: SnapshotId) -> Vec<(bool, Command)> {
    let to = |power| Command::RevertTo(RevertTo::new(&timeline.snapshots[&one], power, None));
    let delete = |scope| Command::DeleteSnapshots(DeleteSnapshots { scope });
    vec![
        (false, create(Kind::Disk)),
        (false, create(Kind::DiskAndMemory)),
        (true, create(Kind::Disk)),
        (false, to(Power::AsTaken)),
        (false, to(Power::Stopped)),
        (true, to(Power::AsTaken)),
        (true, to(Power::Stopped)),
        (false, delete(Scope::One(one))),
        (false, delete(Scope::Subtree(one))),
        (true, delete(Scope::All)),
        (false, Command::VerifySnapshot(VerifySnapshot { snapshot: one })),
        (true, Command::VerifySnapshot(VerifySnapshot { snapshot: one })),
        (false, Command::ExportSnapshot(export(one))),
        (true, Command::ExportSnapshot(export(one))),
        (true, Command::StartVm),
        (false, Command::StopVm(StopVm { force: true })),
    ]
}

/// Calls `check` with a fresh scene for each command.
fn for_each_command(check: impl Fn(&Bench<Fake>, VmId, Command)) {
    for n in 0.. {
        let (bench, vm, one) = scene();
        let all = commands(&bench.timeline(vm), one);
        let Some((off, command)) = all.into_iter().nth(n) else {
            return;
        };
        if off {
            done(bench.stop(vm));
        }
        check(&bench, vm, command);
    }
}

/// An operation that has begun, and what an agent is asked to do for it.
fn begun(bench: &Bench<Fake>, vm: VmId, command: Command) -> (Operation, Box<Effect>) {
    let mut operation = bench.accept(vm, command);
    bench.step(&mut operation, Event::Begin);
    let Phase::Performing { effect, .. } = operation.phase.clone() else { panic!() };
    (operation, effect)
}

/// What is recorded is sound, agrees with the host, and the machine can be used.
fn assert_defined(bench: &Bench<Fake>, vm: VmId) {
    let timeline = bench.timeline(vm);
    assert_eq!(timeline.flaw(), None);
    assert_eq!(timeline.vm.operation, None);
    assert_eq!(timeline.vm.state, bench.host.hypervisor_state(vm));
    for snapshot in timeline.snapshots.values() {
        let settled = matches!(snapshot.state, SnapshotState::Ready | SnapshotState::Unavailable);
        assert!(settled, "{} is {:?}", snapshot.name, snapshot.state);
    }
    bench.settle(vm);
}

trait State {
    fn hypervisor_state(&self, vm: VmId) -> VmState;
}

impl State for Fake {
    fn hypervisor_state(&self, vm: VmId) -> VmState {
        self.state(vm)
    }
}

/// E25, E27, E28, R10: of every operation, at every step.
#[test]
fn a_failure_at_any_step_ends_in_a_defined_state() {
    for step in 0..STEPS_MOST {
        let failed_somewhere = std::cell::Cell::new(false);
        for_each_command(|bench, vm, command| {
            let before = bench.host.read(vm);
            bench.host.fail_after(Some(step));
            let outcome = bench.run(vm, command);
            let failed = bench.host.has_failed();
            bench.host.fail_after(None);
            if failed {
                failed_somewhere.set(true);
                assert!(matches!(outcome, Outcome::Failed(..)), "step {step}: {outcome:?}");
                let expected = if bench.timeline(vm).vm.state == VmState::Running {
                    before
                } else {
                    Remembered { ram: 0, disks: Vec::new() }
                };
                assert_eq!(bench.host.read(vm), expected);
            }
            assert_defined(bench, vm);
            // It can be pruned to nothing afterwards, whatever happened.
            done(bench.delete(vm, Scope::All));
            bench.settle(vm);
            assert_eq!(bench.timeline(vm).layers.len(), 2);
        });
        if !failed_somewhere.get() {
            assert!(step > 3, "no operation has so few steps");
            return;
        }
    }
    panic!("an operation has more steps than expected");
}

#[test]
fn an_effect_may_run_twice() {
    for_each_command(|bench, vm, command| {
        let (mut operation, effect) = begun(bench, vm, command);
        let mut diary = Scrap::default();
        let first = bench.perform(&effect, &mut diary);
        let seen = bench.host.read(vm);
        let offline = matches!(&*effect, Effect::TakeSnapshot(take) if !take.running);
        let second = if offline {
            bench.perform(&effect, &mut diary)
        } else {
            bench.host.recover(&effect, &diary.0.clone(), &mut diary)
        };
        assert!(matches!(first, Outcome::Done(_)), "{first:?}");
        assert!(matches!(second, Outcome::Done(_)), "{second:?}");
        assert_eq!(bench.host.read(vm), seen);
        bench.step(&mut operation, Event::Performed(second.clone()));
        let once = bench.timeline(vm);
        bench.step(&mut operation, Event::Performed(second));
        assert_eq!(bench.timeline(vm), once, "an outcome told twice is recorded once");
        assert_defined(bench, vm);
    });
}

/// What was done before somebody died is there, though the recovery fails.
#[test]
fn a_recovery_that_fails_says_what_is_there() {
    for_each_command(|bench, vm, command| {
        let (mut operation, effect) = begun(bench, vm, command);
        let mut diary = Scrap::default();
        done(bench.perform(&effect, &mut diary));
        bench.host.fail_after(Some(0));
        let outcome = bench.host.recover(&effect, &diary.0.clone(), &mut diary);
        bench.host.fail_after(None);
        bench.step(&mut operation, Event::Performed(outcome));
        let timeline = bench.timeline(vm);
        assert_eq!((timeline.flaw(), timeline.vm.operation), (None, None));
        assert_eq!(timeline.vm.state.is_live(), bench.host.hypervisor_state(vm).is_live());
    });
}

#[test]
fn an_undo_may_run_twice() {
    for_each_command(|bench, vm, command| {
        let (mut operation, effect) = begun(bench, vm, command);
        let mut diary = Scrap::default();
        bench.host.fail_after(Some(2));
        bench.perform(&effect, &mut diary);
        bench.host.fail_after(None);
        let notes = diary.0.clone();
        let first = bench.host.recover(&effect, &notes, &mut diary);
        let second = bench.host.recover(&effect, &notes, &mut diary);
        let is_done = |outcome: &Outcome| matches!(outcome, Outcome::Done(_));
        assert_eq!(is_done(&first), is_done(&second), "{first:?} {second:?}");
        bench.step(&mut operation, Event::Performed(second));
        let timeline = bench.timeline(vm);
        assert_eq!((timeline.flaw(), timeline.vm.operation), (None, None));
    });
}

#[test]
fn an_operation_that_has_not_begun_can_be_taken_back() {
    for_each_command(|bench, vm, command| {
        let before = bench.timeline(vm);
        let mut operation = bench.accept(vm, command);
        bench.step(&mut operation, Event::Cancel);
        assert_eq!(bench.timeline(vm), before);
        assert!(operation.has_ended());
    });
}
