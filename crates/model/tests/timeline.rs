//! Random histories of one machine against a small reference model that copies everything: the
//! tree is the same, and every snapshot holds what it held, whatever was reverted, deleted, merged
//! and folded since.

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::test_runner::Config as ProptestConfig;
use std::collections::BTreeMap;
use tintype_model::capability::{Capabilities, Support};
use tintype_model::change::Change;
use tintype_model::config::{Accel, Config, Disk, Firmware, Platform, Role};
use tintype_model::effect::{Effect, Facts, Outcome};
use tintype_model::layer::{DEPTH_MOST, Format, Layer, LayerFile};
use tintype_model::operation::{
    Command, CreateSnapshot, DeleteSnapshots, Event, Operation, Phase, Power, RevertTo, Scene,
    accept, step,
};
use tintype_model::reclaim::{self, Reclaim};
use tintype_model::snapshot::Kind;
use tintype_model::timeline::Timeline;
use tintype_model::tree::Scope;
use tintype_model::vm::{Vm, VmState};
use tintype_model::{DiskId, LayerId, Moment, OperationId, SnapshotId, VmId};
use uuid::Uuid;

type Content = BTreeMap<u8, u64>;

#[derive(Debug, Clone)]
enum Act {
    Write(u8),
    Take,
    Revert(usize),
    DeleteOne(usize),
    DeleteSubtree(usize),
    DeleteChildren(usize),
    DeleteAll,
    Settle(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..8_u8).prop_map(Act::Write),
        6 => Just(Act::Take),
        3 => any::<usize>().prop_map(Act::Revert),
        3 => any::<usize>().prop_map(Act::DeleteOne),
        1 => any::<usize>().prop_map(Act::DeleteSubtree),
        1 => any::<usize>().prop_map(Act::DeleteChildren),
        1 => Just(Act::DeleteAll),
        4 => (0..6_usize).prop_map(Act::Settle),
    ];
    proptest::collection::vec(act, 0..120)
}

/// What happens, by copying.
#[derive(Default)]
struct Reference {
    now: Content,
    current: Option<SnapshotId>,
    snapshots: BTreeMap<SnapshotId, (Option<SnapshotId>, Content)>,
}

impl Reference {
    fn delete(&mut self, which: &[SnapshotId]) {
        for &id in which {
            let Some((parent, _)) = self.snapshots.remove(&id) else {
                continue;
            };
            for (its_parent, _) in self.snapshots.values_mut() {
                if *its_parent == Some(id) {
                    *its_parent = parent;
                }
            }
            if self.current == Some(id) {
                self.current = parent;
            }
        }
    }

    fn below(&self, top: SnapshotId) -> Vec<SnapshotId> {
        let is_below = |id: SnapshotId| {
            let mut at = self.snapshots[&id].0;
            while let Some(parent) = at {
                if parent == top {
                    return true;
                }
                at = self.snapshots[&parent].0;
            }
            false
        };
        self.snapshots.keys().copied().filter(|&id| is_below(id)).collect()
    }
}

/// A machine with one disk, its layers as they would lie on storage.
struct Machine {
    timeline: Timeline,
    layers: BTreeMap<LayerId, Content>,
    ids: u128,
    writes: u64,
}

impl Machine {
    fn new() -> Self {
        let disk = DiskId(Uuid::from_u128(1));
        let base = LayerId(Uuid::from_u128(2));
        let config = Config {
            vcpus: 1,
            memory_bytes: 1 << 20,
            firmware: Firmware::Bios,
            kernel: None,
            nics: Vec::new(),
            disks: vec![Disk { id: disk, size_bytes: 1 << 20, role: Role::Data }],
            platform: platform(),
        };
        let mut timeline = Timeline::of(Vm {
            id: VmId(Uuid::from_u128(3)),
            name: "vm".into(),
            state: VmState::Running,
            config,
            generation: Uuid::from_u128(4),
            current: None,
            operation: None,
            reclaim: None,
            created_at: Moment(0),
        });
        let (format, rank) = (Format::Raw, 0);
        let layer = Layer { id: base, disk, parent: None, format, rank, size_bytes: 1 };
        timeline.apply(&Change::LayerAdded(layer));
        timeline.apply(&Change::DiskActive { disk, layer: base });
        let layers = BTreeMap::from([(base, Content::new())]);
        Self { timeline, layers, ids: 100, writes: 0 }
    }

    fn active(&self) -> LayerId {
        *self.timeline.active.values().next().unwrap()
    }

    fn seen(&self, top: LayerId) -> Content {
        let mut content = Content::new();
        for file in self.timeline.chain(top).iter().rev() {
            content.extend(self.layers[&file.id].clone());
        }
        content
    }

    fn run(&mut self, snapshot: Option<SnapshotId>, command: Command) {
        let capabilities = capabilities();
        let id = OperationId(Uuid::from_u128(7));
        let changes = accept(&self.timeline, id, &command, &capabilities, Moment(0)).unwrap();
        self.apply(&changes);
        let vm = self.timeline.vm.id;
        let (phase, created_at) = (Phase::Waiting, Moment(0));
        let mut operation =
            Operation { id, vm, snapshot, command, phase, created_at, ended_at: None };
        self.step(&mut operation, Event::Begin);
        let Phase::Performing { effect, .. } = operation.phase.clone() else { panic!() };
        match &*effect {
            Effect::TakeSnapshot(take) => {
                self.layers.insert(take.disks[0].overlay, Content::new());
            }
            Effect::Revert(revert) => {
                self.layers.insert(revert.launch.disks[0].chain[0].id, Content::new());
            }
            _ => {}
        }
        let facts = Facts { switched: true, running: true, ..Facts::default() };
        self.step(&mut operation, Event::Performed(Outcome::Done(facts)));
        assert!(operation.has_ended());
    }

    fn step(&mut self, operation: &mut Operation, event: Event) {
        let mut ids = self.ids;
        let mut fresh = || {
            ids += 1;
            Uuid::from_u128(ids.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
        };
        let scene = Scene { timeline: &self.timeline, at: Moment(0), fresh: &mut fresh };
        let step = step(operation, scene, event);
        self.ids = ids;
        operation.phase = step.phase;
        self.apply(&step.changes);
    }

    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.timeline.apply(change);
        }
    }

    /// Does one piece of background work; says whether there was one.
    fn reclaim(&mut self) -> bool {
        let Some(work) = reclaim::next(&self.timeline) else { return false };
        match &work {
            Reclaim::Remove { .. } => {}
            Reclaim::Merge { child, into, .. } => {
                let upper = self.layers[&child.id].clone();
                self.layers.get_mut(&into.id).unwrap().extend(upper);
            }
            Reclaim::Fold { chain, base, fresh, .. } => {
                let length = chain.iter().position(|file| file == base).unwrap();
                let mut folded = Content::new();
                for LayerFile { id, .. } in chain[..length].iter().rev() {
                    folded.extend(self.layers[id].clone());
                }
                self.layers.insert(fresh.id, folded);
            }
        }
        let changes = work.conclude(&self.timeline, &Facts::default());
        self.apply(&changes);
        self.layers.retain(|id, _| self.timeline.layers.contains_key(id));
        true
    }
}

fn platform() -> Platform {
    Platform { machine: "m".into(), cpu: "c".into(), accel: Accel::Tcg }
}

fn capabilities() -> Capabilities {
    Capabilities {
        hypervisor: "test".into(),
        platform: platform(),
        machines: vec!["m".into()],
        accels: vec![Accel::Tcg],
        background_snapshots: Support::Yes,
        shared_console: Support::Yes,
        uefi: Support::Yes,
    }
}

fn play(machine: &mut Machine, reference: &mut Reference, act: &Act) {
    let pick = |n: usize| {
        let ids: Vec<SnapshotId> = reference.snapshots.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[n % ids.len()])
    };
    let delete = |scope| Command::DeleteSnapshots(DeleteSnapshots { scope });
    match act {
        Act::Write(block) => {
            machine.writes += 1;
            let active = machine.active();
            machine.layers.get_mut(&active).unwrap().insert(*block, machine.writes);
            reference.now.insert(*block, machine.writes);
        }
        Act::Take => {
            while reclaim::must_fold_first(&machine.timeline) {
                assert!(machine.reclaim(), "a chain at its bound can be folded");
            }
            machine.ids += 1;
            let snapshot = SnapshotId(Uuid::from_u128(machine.ids));
            let name = Some(snapshot.to_string());
            let (description, kind) = (String::new(), Kind::DiskAndMemory);
            let create = CreateSnapshot { snapshot, name, description, kind };
            machine.run(Some(snapshot), Command::CreateSnapshot(create));
            let copy = (reference.current, reference.now.clone());
            reference.snapshots.insert(snapshot, copy);
            reference.current = Some(snapshot);
        }
        Act::Revert(n) => {
            let Some(id) = pick(*n) else { return };
            let to = RevertTo::new(&machine.timeline.snapshots[&id], Power::AsTaken);
            machine.run(Some(id), Command::RevertTo(to));
            reference.now = reference.snapshots[&id].1.clone();
            reference.current = Some(id);
        }
        Act::DeleteOne(n) => {
            let Some(id) = pick(*n) else { return };
            machine.run(Some(id), delete(Scope::One(id)));
            reference.delete(&[id]);
        }
        Act::DeleteSubtree(n) => {
            let Some(id) = pick(*n) else { return };
            machine.run(Some(id), delete(Scope::Subtree(id)));
            let mut gone = reference.below(id);
            gone.push(id);
            reference.delete(&gone);
        }
        Act::DeleteChildren(n) => {
            let Some(id) = pick(*n) else { return };
            machine.run(Some(id), delete(Scope::Children(id)));
            let gone = reference.below(id);
            reference.delete(&gone);
        }
        Act::DeleteAll => {
            machine.run(None, delete(Scope::All));
            let gone: Vec<_> = reference.snapshots.keys().copied().collect();
            reference.delete(&gone);
        }
        Act::Settle(pieces) => {
            for _ in 0..*pieces {
                machine.reclaim();
            }
        }
    }
}

fn check(machine: &Machine, reference: &Reference) {
    let timeline = &machine.timeline;
    assert_eq!(timeline.flaw(), None);
    assert!(timeline.depth() <= DEPTH_MOST, "{} layers", timeline.depth());
    assert_eq!(timeline.vm.current, reference.current);
    assert_eq!(machine.seen(machine.active()), reference.now);
    assert_eq!(timeline.snapshots.len(), reference.snapshots.len());
    for (id, (parent, content)) in &reference.snapshots {
        let snapshot = &timeline.snapshots[id];
        assert_eq!(snapshot.parent, *parent);
        let layer = *snapshot.layers.values().next().unwrap();
        assert_eq!(&machine.seen(layer), content, "snapshot {id} changed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A8, A11, E3, E4, E15, R6, R8.
    #[test]
    fn histories_are_as_the_reference_says(acts in acts()) {
        let mut machine = Machine::new();
        let mut reference = Reference::default();
        for act in &acts {
            play(&mut machine, &mut reference, act);
            check(&machine, &reference);
        }
        play(&mut machine, &mut reference, &Act::DeleteAll);
        while machine.reclaim() {
            check(&machine, &reference);
        }
        assert_eq!(machine.timeline.layers.len(), 1, "nothing is kept that nobody needs");
    }
}

/// However fast snapshots are taken, the chain in use stays within its bound.
#[test]
fn five_hundred_snapshots_in_a_row_keep_the_chain_short() {
    let mut machine = Machine::new();
    let mut reference = Reference::default();
    let mut deepest = 0;
    for _ in 0..500 {
        play(&mut machine, &mut reference, &Act::Write(1));
        play(&mut machine, &mut reference, &Act::Take);
        play(&mut machine, &mut reference, &Act::Settle(2));
        deepest = deepest.max(machine.timeline.depth());
    }
    check(&machine, &reference);
    assert!(deepest <= DEPTH_MOST, "{deepest}");
}
