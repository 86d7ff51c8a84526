//! The state machines, drawn by walking through them: whatever the model answers to every event in
//! every state it can come to is in `docs/states.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use tintype_model::capability::Capabilities;
use tintype_model::change::Change;
use tintype_model::config::{Accel, Config, Disk, Firmware, Platform, Role};
use tintype_model::effect::{After, Facts, NewDisk, Outcome, Source};
use tintype_model::layer::{Format, Layer, LayerFile};
use tintype_model::operation::{
    Asker, AttachDisk, CloneVm, ClonedDisk, Command, Conditions, CreateSnapshot, CreateVm,
    DeleteSnapshots, DetachDisk, Ending, Event, ExportSnapshot, Operation, Phase, ResizeDisk,
    RevertTo, Scene, SetVm, StopVm, VerifySnapshot, accept, step,
};
use tintype_model::quota::{Quota, Usage};
use tintype_model::refusal::Code;
use tintype_model::settings::{Limit, Settings};
use tintype_model::snapshot::{Kind, SnapshotState};
use tintype_model::timeline::Timeline;
use tintype_model::tree::Scope;
use tintype_model::vm::{Vm, VmState};
use tintype_model::{AccountId, DiskId, LayerId, Moment, OperationId, Refusal, SnapshotId, VmId};
use uuid::Uuid;

/// Where the drawing is.
pub(crate) const STATES: &str = "docs/states.md";

const SNAPSHOTS: &str = "\
# States

Made by `cargo xtask tidy --write`, by walking through the model with every event; CI compares
it.

## Snapshots

```mermaid
stateDiagram-v2
";

const OPERATIONS: &str = "\
```

What is neither `ready` nor `unavailable` belongs to an operation that has not ended: it ends with
it.

## Operations

Whoever dies, the next control plane begins what is `waiting`, sends the effect of what is
`performing` again, under the same id (the host's journal knows how far it came, and it is finished
or undone), and lets in who is `queued` where nobody holds the machine.
";

/// From where, by what, to where.
type Edges = BTreeMap<(String, String), BTreeSet<String>>;

/// What is found by walking.
#[derive(Default)]
struct Map {
    /// Of operations, by kind.
    operations: BTreeMap<&'static str, Edges>,
    /// Of snapshots.
    snapshots: Edges,
}

/// The document.
pub(crate) fn document() -> String {
    let mut map = Map::default();
    for (before, command) in commands() {
        map.walk(&before, &command);
    }
    let mut text = String::from(SNAPSHOTS);
    draw(&mut text, &map.snapshots);
    text.push_str(OPERATIONS);
    for (kind, edges) in &map.operations {
        let _ = write!(text, "\n### {kind}\n\n| in | on | becomes |\n|---|---|---|\n");
        for ((from, to), events) in edges {
            let events: Vec<&str> = events.iter().map(String::as_str).collect();
            let _ = writeln!(text, "| {from} | {} | {to} |", events.join(", "));
        }
    }
    text
}

fn draw(text: &mut String, edges: &Edges) {
    for ((from, to), why) in edges {
        let why: Vec<&str> = why.iter().map(String::as_str).collect();
        let _ = writeln!(text, "    {from} --> {to} : {}", why.join(", "));
    }
}

impl Map {
    /// Walks through every phase that an operation can come to.
    fn walk(&mut self, before: &Timeline, command: &Command) {
        let mut ids = 1000;
        let mut fresh = move || {
            ids += 1;
            Uuid::from_u128(ids)
        };
        let (operation, accepted) = admit(before, command);
        self.note_snapshots(before, &accepted, command.kind());
        let queued = Operation { phase: Phase::Queued, ..operation.clone() };
        let mut open = vec![(queued, before.clone()), (operation, accepted)];
        let mut seen = BTreeSet::new();
        while let Some((operation, timeline)) = open.pop() {
            if !seen.insert(word(&operation.phase)) || operation.has_ended() {
                continue;
            }
            for (event, called) in events() {
                let scene = Scene { timeline: &timeline, at: Moment(2), fresh: &mut fresh };
                let step = step(&operation, scene, event);
                if step.phase == operation.phase {
                    continue;
                }
                let mut after = timeline.clone();
                apply(&mut after, &step.changes);
                self.note_snapshots(&timeline, &after, command.kind());
                let edge = (word(&operation.phase), word(&step.phase));
                let edges = self.operations.entry(command.kind()).or_default();
                edges.entry(edge).or_default().insert(called.to_owned());
                open.push((Operation { phase: step.phase, ..operation.clone() }, after));
            }
        }
    }

    fn note_snapshots(&mut self, before: &Timeline, after: &Timeline, kind: &str) {
        let state = |timeline: &Timeline, id| {
            let snapshot = timeline.snapshots.get(&id);
            snapshot.map_or("[*]".to_owned(), |snapshot| state_word(snapshot.state).to_owned())
        };
        let ids: BTreeSet<SnapshotId> =
            before.snapshots.keys().chain(after.snapshots.keys()).copied().collect();
        for id in ids {
            let edge = (state(before, id), state(after, id));
            if edge.0 != edge.1 {
                self.snapshots.entry(edge).or_default().insert(kind.to_owned());
            }
        }
    }
}

/// A command that was admitted, and the machine as it is recorded then.
fn admit(before: &Timeline, command: &Command) -> (Operation, Timeline) {
    let id = OperationId(Uuid::from_u128(6));
    let asker = Asker::tintype();
    let conditions = Conditions {
        capabilities: &Capabilities::complete("any", platform()),
        snapshots_enabled: true,
        quota: Quota::default(),
        usage: Usage::default(),
        at: Moment(1),
    };
    let changes = accept(before, id, command, &asker, &conditions);
    let changes = changes.unwrap_or_else(|refusal| panic!("{}: {refusal}", command.kind()));
    let mut after = before.clone();
    apply(&mut after, &changes);
    let operation = Operation {
        id,
        vm: before.vm.id,
        snapshot: None,
        command: command.clone(),
        asker,
        phase: Phase::Waiting,
        created_at: Moment(1),
        ended_at: None,
    };
    (operation, after)
}

fn apply(timeline: &mut Timeline, changes: &[Change]) {
    for change in changes {
        timeline.apply(change);
    }
}

fn state_word(state: SnapshotState) -> &'static str {
    match state {
        SnapshotState::Creating => "creating",
        SnapshotState::Ready => "ready",
        SnapshotState::Reverting => "reverting",
        SnapshotState::Deleting => "deleting",
        SnapshotState::Unavailable => "unavailable",
    }
}

fn word(phase: &Phase) -> String {
    match phase {
        Phase::Queued => "queued".to_owned(),
        Phase::Waiting => "waiting".to_owned(),
        Phase::Performing { effect, cancelled, failed, .. } => {
            let cancelled = if *cancelled { ", to be undone" } else { "" };
            let failed = if failed.is_some() { ", cleaning up" } else { "" };
            format!("performing {}{cancelled}{failed}", effect.word())
        }
        Phase::Ended(Ending::Succeeded) => "**succeeded**".to_owned(),
        Phase::Ended(Ending::Failed(_)) => "**failed**".to_owned(),
        Phase::Ended(Ending::Cancelled) => "**cancelled**".to_owned(),
    }
}

/// Everything that can happen.
fn events() -> Vec<(Event, &'static str)> {
    let facts = |switched| Facts { switched, running: true, ..Facts::default() };
    let reason = || Refusal::new(Code::StorageFailed);
    vec![
        (Event::Begin, "begin"),
        (Event::Performed(Outcome::Done(facts(true))), "done"),
        (Event::Performed(Outcome::Failed(reason(), facts(false))), "failed"),
        (Event::Performed(Outcome::Failed(reason(), facts(true))), "failed once switched"),
        (Event::Performed(Outcome::Yielded), "gave way"),
        (Event::Cancel, "cancel"),
        (Event::Refused(reason()), "refused in its turn"),
    ]
}

const DISK: DiskId = DiskId(Uuid::from_u128(2));

fn platform() -> Platform {
    Platform { machine: "m".into(), cpu: "c".into(), accel: Accel::Tcg }
}

/// A machine, on or off, whose only disk has one layer.
fn machine(state: VmState) -> Timeline {
    let config = Config {
        vcpus: 1,
        memory_bytes: 1 << 30,
        firmware: Firmware::Bios,
        kernel: None,
        nics: Vec::new(),
        disks: vec![Disk { id: DISK, size_bytes: 1 << 30, role: Role::Data }],
        platform: platform(),
    };
    let mut timeline = Timeline::of(Vm {
        id: VmId(Uuid::from_u128(1)),
        account: AccountId(Uuid::from_u128(3)),
        name: "vm".into(),
        state,
        config,
        settings: Settings { snapshot_limit: Limit::Unlimited, ..Settings::default() },
        generation: Uuid::from_u128(4),
        current: None,
        operation: None,
        reclaim: None,
        created_at: Moment(0),
        findings: BTreeSet::new(),
    });
    let layer = layer(5);
    timeline.apply(&Change::LayerAdded(Layer::fresh(layer, DISK, None)));
    timeline.apply(&Change::DiskActive { disk: DISK, layer: layer.id });
    timeline
}

fn layer(n: u128) -> LayerFile {
    LayerFile { id: LayerId(Uuid::from_u128(n)), format: Format::Qcow2 }
}

/// The same machine with a snapshot that holds its memory.
fn with_snapshot(state: VmState) -> Timeline {
    let create = Command::CreateSnapshot(CreateSnapshot::new(ONE, Kind::DiskAndMemory));
    let mut n = 100;
    let mut fresh = || {
        n += 1;
        Uuid::from_u128(n)
    };
    let (mut operation, mut timeline) = admit(&machine(VmState::Running), &create);
    let facts = Facts { switched: true, running: true, memory_bytes: 1, ..Facts::default() };
    for event in [Event::Begin, Event::Performed(Outcome::Done(facts))] {
        let scene = Scene { timeline: &timeline, at: Moment(1), fresh: &mut fresh };
        let step = step(&operation, scene, event);
        operation.phase = step.phase;
        apply(&mut timeline, &step.changes);
    }
    timeline.vm.state = state;
    timeline
}

const ONE: SnapshotId = SnapshotId(Uuid::from_u128(7));

/// Each command, and a machine that it can be asked of.
fn commands() -> Vec<(Timeline, Command)> {
    let disk = NewDisk { disk: DISK, layer: layer(8), size_bytes: 1, source: Source::Empty };
    let (on, off) = (VmState::Running, VmState::Stopped);
    let clone = |linked| {
        Command::CloneVm(CloneVm {
            clone: VmId(Uuid::from_u128(9)),
            from: None,
            linked,
            disks: vec![ClonedDisk {
                of: DISK,
                disk: DiskId(Uuid::from_u128(10)),
                layer: LayerId(Uuid::from_u128(11)),
                role: Role::Data,
                size_bytes: 1 << 30,
            }],
        })
    };
    let revert = |after, safety| Command::RevertTo(RevertTo { snapshot: ONE, after, safety });
    let take =
        |kind| Command::CreateSnapshot(CreateSnapshot::new(SnapshotId(Uuid::from_u128(12)), kind));
    let set = SetVm { vcpus: None, memory_bytes: Some(2 << 30), nics: None, discard_memory: true };
    let safety = Some(SnapshotId(Uuid::from_u128(13)));
    vec![
        (
            machine(off),
            Command::CreateVm(CreateVm { disks: vec![disk.clone()], kernel: None, initrd: None }),
        ),
        (machine(off), Command::StartVm),
        (machine(on), Command::StopVm(StopVm { force: false })),
        (machine(off), Command::DeleteVm),
        (machine(off), clone(true)),
        (with_snapshot(off), Command::SetVm(Box::new(set))),
        (machine(off), Command::AttachDisk(AttachDisk { disk })),
        (machine(off), Command::DetachDisk(DetachDisk { disk: DISK })),
        (machine(off), Command::ResizeDisk(ResizeDisk { disk: DISK, size_bytes: 2 << 30 })),
        (machine(on), take(Kind::DiskAndMemory)),
        (machine(off), take(Kind::Disk)),
        (with_snapshot(on), revert(After::Resumed, None)),
        (with_snapshot(on), revert(After::Resumed, safety)),
        (with_snapshot(on), Command::DeleteSnapshots(DeleteSnapshots { scope: Scope::One(ONE) })),
        (with_snapshot(on), Command::VerifySnapshot(VerifySnapshot { snapshot: ONE })),
        (
            with_snapshot(on),
            Command::ExportSnapshot(ExportSnapshot { snapshot: ONE, name: "web".to_owned() }),
        ),
    ]
}
