//! Random histories of one machine against a small reference model that copies everything: the
//! tree is the same, and every snapshot holds what it held, whatever was reverted, deleted, merged
//! and folded since.

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::test_runner::Config as ProptestConfig;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tintype_model::capability::Capabilities;
use tintype_model::change::Change;
use tintype_model::config::{Accel, Config, Disk, Platform, Role};
use tintype_model::effect::{Effect, Facts, Outcome};
use tintype_model::layer::{DEPTH_MOST, Format, Layer, LayerFile};
use tintype_model::operation::{
    Asker, Command, Conditions, CreateSnapshot, DeleteSnapshots, Event, Operation, Phase, Power,
    RevertTo, Scene, accept, step,
};
use tintype_model::quota::Quota;
use tintype_model::reclaim::{self, Reclaim};
use tintype_model::refusal::Code;
use tintype_model::settings::{Limit, Settings};
use tintype_model::snapshot::{Kind, Snapshot};
use tintype_model::timeline::Timeline;
use tintype_model::tree::Scope;
use tintype_model::vm::{Vm, VmState};
use tintype_model::{AccountId, DiskId, LayerId, Moment, OperationId, Refusal, SnapshotId, VmId};
use uuid::Uuid;

type Content = BTreeMap<u8, u64>;

#[derive(Debug, Clone)]
enum Act {
    Write(u8),
    Take,
    Revert(usize),
    RevertSafely(usize),
    Clone(usize),
    ForgetClones,
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
        1 => any::<usize>().prop_map(Act::RevertSafely),
        1 => any::<usize>().prop_map(Act::Clone),
        1 => Just(Act::ForgetClones),
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

/// A file, which may have several names.
type File = Rc<RefCell<Content>>;

/// What a linked clone has of the machine it was made of: each layer with what it says it lies on.
struct LinkedClone {
    ids: Vec<(LayerId, Option<LayerId>)>,
    files: Vec<File>,
    content: Content,
}

/// A machine with one disk, its layers as they would lie on storage.
struct Machine {
    timeline: Timeline,
    layers: BTreeMap<LayerId, File>,
    clones: Vec<LinkedClone>,
    ids: u128,
    writes: u64,
    works: u32,
}

impl Machine {
    fn new() -> Self {
        let disk = DiskId(Uuid::from_u128(1));
        let base = LayerId(Uuid::from_u128(2));
        let config = Config {
            disks: vec![Disk { id: disk, size_bytes: 1 << 20, role: Role::Data }],
            ..Config::bare(platform())
        };
        let mut timeline = Timeline::of(Vm {
            id: VmId(Uuid::from_u128(3)),
            account: AccountId(Uuid::nil()),
            name: "vm".into(),
            state: VmState::Running,
            config,
            settings: Settings { snapshot_limit: Limit::Unlimited, ..Settings::default() },
            generation: Uuid::from_u128(4),
            current: None,
            operation: None,
            reclaim: None,
            created_at: Moment(0),
            findings: BTreeSet::new(),
        });
        let layer = Layer::fresh(LayerFile { id: base, format: Format::Raw }, disk, None);
        timeline.apply(&Change::LayerAdded(layer));
        timeline.apply(&Change::DiskActive { disk, layer: base });
        let layers = BTreeMap::from([(base, File::default())]);
        Self { timeline, layers, clones: Vec::new(), ids: 100, writes: 0, works: 0 }
    }

    fn active(&self) -> LayerId {
        *self.timeline.active.values().next().unwrap()
    }

    fn seen(&self, top: LayerId) -> Content {
        let mut content = Content::new();
        for file in self.timeline.chain(top).iter().rev() {
            content.extend(self.layers[&file.id].borrow().clone());
        }
        content
    }

    fn run(&mut self, snapshot: Option<SnapshotId>, command: Command) {
        let capabilities = capabilities();
        let id = OperationId(Uuid::from_u128(7));
        let asker = Asker::tintype();
        let conditions = Conditions {
            capabilities: &capabilities,
            snapshots_enabled: true,
            quota: Quota::default(),
            usage: self.timeline.usage(),
            at: Moment(0),
        };
        let changes = accept(&self.timeline, id, &command, &asker, &conditions).unwrap();
        self.apply(&changes);
        let vm = self.timeline.vm.id;
        let (phase, created_at) = (Phase::Waiting, Moment(0));
        let mut operation =
            Operation { id, vm, snapshot, command, asker, phase, created_at, ended_at: None };
        self.step(&mut operation, Event::Begin);
        while let Phase::Performing { effect, .. } = operation.phase.clone() {
            match &*effect {
                Effect::TakeSnapshot(take) => {
                    let like = take.memory_like.map(|id| &self.timeline.snapshots[&id]);
                    assert!(like.is_none_or(|like| like.memory_bytes > 0), "there is its memory");
                    self.layers.insert(take.disks[0].overlay, File::default());
                }
                Effect::Revert(revert) => {
                    self.layers.insert(revert.launch.disks[0].chain[0].id, File::default());
                }
                _ => {}
            }
            let (switched, running, memory_bytes) = (true, true, 1);
            let facts = Facts { switched, running, memory_bytes, ..Facts::default() };
            self.step(&mut operation, Event::Performed(Outcome::Done(facts)));
        }
        assert!(operation.has_ended());
    }

    /// Links a clone to what a snapshot holds, as storage does: the very files, by other names.
    fn clone_of(&mut self, snapshot: SnapshotId, content: Content) {
        let top = *self.timeline.snapshots[&snapshot].layers.values().next().unwrap();
        let chain = self.timeline.chain(top);
        for file in &chain {
            self.timeline.layers.get_mut(&file.id).unwrap().shared = true;
        }
        let parents: Vec<_> = chain.iter().map(|f| self.timeline.layers[&f.id].parent).collect();
        let files = chain.iter().map(|file| Rc::clone(&self.layers[&file.id])).collect();
        let ids = chain.iter().map(|file| file.id).zip(parents).collect();
        self.clones.push(LinkedClone { ids, files, content });
    }

    fn check_clones(&self) {
        for clone in &self.clones {
            let mut seen = Content::new();
            for file in clone.files.iter().rev() {
                seen.extend(file.borrow().clone());
            }
            assert_eq!(seen, clone.content, "what a clone sees has changed");
            for (id, parent) in &clone.ids {
                if let Some(layer) = self.timeline.layers.get(id) {
                    assert_eq!(layer.parent, *parent, "what a shared file lies on has changed");
                }
            }
        }
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
                let upper = self.layers[&child.id].borrow().clone();
                self.layers[&into.id].borrow_mut().extend(upper);
            }
            Reclaim::Fold { chain, base, fresh, .. } => {
                let length = chain.iter().position(|file| file == base).unwrap();
                let mut folded = Content::new();
                for LayerFile { id, .. } in chain[..length].iter().rev() {
                    folded.extend(self.layers[id].borrow().clone());
                }
                self.layers.insert(fresh.id, Rc::new(RefCell::new(folded)));
            }
        }
        self.works += 1;
        let facts = Facts { switched: true, ..Facts::default() };
        let outcome = if self.works.is_multiple_of(3) {
            // What is of the past cannot be removed.
            Outcome::Failed(Refusal::new(Code::StorageFailed), facts)
        } else {
            Outcome::Done(facts)
        };
        self.apply(&work.conclude(&self.timeline, &outcome));
        self.layers.retain(|id, _| self.timeline.layers.contains_key(id));
        true
    }
}

fn platform() -> Platform {
    Platform { machine: "m".into(), cpu: "c".into(), accel: Accel::Tcg }
}

fn capabilities() -> Capabilities {
    Capabilities::complete("test", platform())
}

/// One of the snapshots there are.
fn picked(reference: &Reference, n: usize) -> Option<SnapshotId> {
    let ids: Vec<SnapshotId> = reference.snapshots.keys().copied().collect();
    (!ids.is_empty()).then(|| ids[n % ids.len()])
}

fn prune(machine: &mut Machine, reference: &mut Reference, act: &Act) {
    let pick = |n: usize| picked(reference, n);
    let delete = |scope| Command::DeleteSnapshots(DeleteSnapshots { scope });
    match act {
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
        _ => {}
    }
}

fn play(machine: &mut Machine, reference: &mut Reference, act: &Act) {
    let pick = |n: usize| picked(reference, n);
    match act {
        Act::Write(block) => {
            machine.writes += 1;
            let active = machine.active();
            machine.layers[&active].borrow_mut().insert(*block, machine.writes);
            reference.now.insert(*block, machine.writes);
        }
        Act::Take => {
            while reclaim::must_fold_first(&machine.timeline) {
                assert!(machine.reclaim(), "a chain at its bound can be folded");
            }
            machine.ids += 1;
            let snapshot = SnapshotId(Uuid::from_u128(machine.ids));
            let name = Some(snapshot.to_string());
            let create =
                CreateSnapshot { name, ..CreateSnapshot::new(snapshot, Kind::DiskAndMemory) };
            machine.run(Some(snapshot), Command::CreateSnapshot(create));
            let copy = (reference.current, reference.now.clone());
            reference.snapshots.insert(snapshot, copy);
            reference.current = Some(snapshot);
        }
        Act::Revert(n) => {
            let Some(id) = pick(*n) else { return };
            let to = RevertTo::new(&machine.timeline.snapshots[&id], Power::AsTaken, None);
            machine.run(Some(id), Command::RevertTo(to));
            reference.now = reference.snapshots[&id].1.clone();
            reference.current = Some(id);
        }
        Act::RevertSafely(n) => {
            let Some(id) = pick(*n) else { return };
            let is_old = |s: &&Snapshot| s.safety && s.id != id;
            let old: Vec<_> = machine.timeline.snapshots.values().filter(is_old).collect();
            let old: Vec<SnapshotId> = old.iter().map(|snapshot| snapshot.id).collect();
            while reclaim::must_fold_first(&machine.timeline) {
                assert!(machine.reclaim(), "a chain at its bound can be folded");
            }
            machine.ids += 1;
            let safety = SnapshotId(Uuid::from_u128(machine.ids));
            let target = &machine.timeline.snapshots[&id];
            let to = RevertTo::new(target, Power::AsTaken, Some(safety));
            machine.run(Some(id), Command::RevertTo(to));
            let copy = (reference.current, reference.now.clone());
            reference.snapshots.insert(safety, copy);
            reference.now = reference.snapshots[&id].1.clone();
            reference.current = Some(id);
            reference.delete(&old);
        }
        Act::Clone(n) => {
            let Some(id) = pick(*n) else { return };
            machine.clone_of(id, reference.snapshots[&id].1.clone());
        }
        Act::ForgetClones => {
            machine.clones.clear();
            for layer in machine.timeline.layers.values_mut() {
                layer.shared = false;
            }
        }
        Act::DeleteOne(_) | Act::DeleteSubtree(_) | Act::DeleteChildren(_) | Act::DeleteAll => {
            prune(machine, reference, act);
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
    let safeties = timeline.snapshots.values().filter(|snapshot| snapshot.safety).count();
    assert!(safeties <= 2, "the next safety snapshot replaces the one before");
    machine.check_clones();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A8, A11, E3, E4, E15, R4, R6, R8; clones see what they saw (C18).
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
        play(&mut machine, &mut reference, &Act::ForgetClones);
        while machine.reclaim() {
            check(&machine, &reference);
        }
        assert_eq!(machine.timeline.layers.len(), 1, "nothing is kept that nobody needs");
    }
}

/// E22: however fast snapshots are taken, the chain in use stays within its bound.
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

/// Memory is compared with the nearest that there is before it.
#[test]
fn the_snapshot_before_whose_memory_may_be_alike_is_known() {
    let mut machine = Machine::new();
    let mut reference = Reference::default();
    for _ in 0..3 {
        play(&mut machine, &mut reference, &Act::Take);
    }
    let [first, second, third] = [0, 1, 2].map(|n| picked(&reference, n).unwrap());
    let timeline = &mut machine.timeline;
    assert_eq!(timeline.snapshots[&third].parent, Some(second));
    assert_eq!(timeline.memory_before(third), Some(second));
    timeline.snapshots.get_mut(&second).unwrap().memory_bytes = 0;
    assert_eq!(timeline.memory_before(third), Some(first));
    assert_eq!(timeline.memory_before(first), None);
}
