//! What lies beside the layers of a machine.
//!
//! What is fed is the text itself, or edits of a manifest as it is written: for each two bytes that
//! choose a value in it, one that says what becomes of it, and two that choose another.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tintype_model::capability::Capabilities;
use tintype_model::config::{Accel, Platform};
use tintype_model::finding::{Finding, Mark, Sighting, compare, unmarked};
use tintype_model::manifest::{Manifest, Survey};
use tintype_model::operation::Event;
use tintype_model::operation::{
    Asker, Command, Conditions, CreateSnapshot, DeleteSnapshots, Operation, Phase, Power, RevertTo,
    Scene, StopVm, accept, launch, step,
};
use tintype_model::quota::{Quota, Usage};
use tintype_model::reclaim::{begun, forecast, freed_by_each, next};
use tintype_model::snapshot::Kind;
use tintype_model::timeline::Timeline;
use tintype_model::tree::Scope;
use tintype_model::vm::VmState;
use tintype_model::{Moment, OperationId, SnapshotId, VmId};
use uuid::Uuid;

/// A manifest as it is written.
const WRITTEN: &str = include_str!("written.json");
/// So many edits of one are made.
const EDITS_MOST: usize = 32;

/// What is taken up can be lived with: everything that is decided of a timeline comes to an end.
pub fn manifest(bytes: &[u8]) {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if text.starts_with('{') => text.to_owned(),
        _ => edited(bytes),
    };
    let Ok(manifest) = Manifest::read(&text) else { return };
    assert_eq!(Manifest::read(&manifest.to_text()).as_ref(), Ok(&manifest), "as it was");
    let vm = manifest.timeline.vm.id;
    for state in [VmState::Stopped, VmState::Running] {
        let Ok(taken) = survey(vm, &text, &manifest, state).take_up() else { continue };
        assert_eq!(taken.timeline.flaw(), None);
        live(&taken.timeline);
    }
}

/// The machine as it would be found, its layers there.
fn survey(vm: VmId, text: &str, manifest: &Manifest, state: VmState) -> Survey {
    let layers = manifest.timeline.layers.values().map(|layer| layer.file().name());
    let layers: Vec<String> = layers.collect();
    let mark = Mark { inode: 1, size_bytes: 1, written_ns: 1 };
    let files = layers.iter().map(|name| (name.clone(), mark)).collect();
    let later = format!("{}.qcow2", Uuid::from_u128(1));
    let lies_on = layers.first().map(|beneath| (later.clone(), beneath.clone()));
    Survey {
        vm,
        manifest: Some(text.to_owned()),
        sighting: Sighting { files, ..Sighting::default() },
        lies_on: lies_on.into_iter().collect(),
        written: BTreeSet::from([later]),
        state,
    }
}

/// Everything that is asked of a timeline.
fn live(timeline: &Timeline) {
    for &layer in timeline.layers.keys() {
        assert!(timeline.chain(layer).len() <= timeline.layers.len());
    }
    let _ = (timeline.depth(), launch(timeline), begun(timeline), freed_by_each(timeline));
    if let Some(work) = next(timeline) {
        let _ = (work.disk(timeline), work.goes(), work.comes(), work.written());
    }
    let all: Vec<SnapshotId> = timeline.snapshots.keys().copied().collect();
    let _ = forecast(timeline, &all);
    look(timeline);
    let stop = StopVm { force: true };
    let mut commands = vec![Command::StartVm, Command::StopVm(stop), Command::DeleteVm];
    let delete = |scope| Command::DeleteSnapshots(DeleteSnapshots { scope });
    commands.push(delete(Scope::All));
    for kind in [Kind::Disk, Kind::DiskAndMemory] {
        let id = SnapshotId(Uuid::from_u128(2));
        commands.push(Command::CreateSnapshot(CreateSnapshot::new(id, kind)));
    }
    for snapshot in timeline.snapshots.values() {
        let id = snapshot.id;
        commands.extend([Scope::One(id), Scope::Subtree(id), Scope::Children(id)].map(delete));
        let to = |power| Command::RevertTo(RevertTo::new(snapshot, power, None));
        commands.extend([Power::AsTaken, Power::Start, Power::Stopped].map(to));
    }
    commands.into_iter().for_each(|command| order(timeline, command));
}

/// Nothing is seen, or all as it is recorded.
fn look(timeline: &Timeline) {
    let marks: BTreeMap<String, Mark> = BTreeMap::new();
    let compared = compare(timeline, &marks, &Sighting::default(), 0);
    for finding in &compared.findings {
        let _ = (finding.tell(timeline), finding.affected(timeline), finding.repair(timeline));
        let _ = (finding.affects_now(timeline), Finding::file(finding, timeline));
    }
    let _ = unmarked(timeline, &marks);
}

/// A command is refused, or planned; what is recorded with it leaves a timeline.
fn order(timeline: &Timeline, command: Command) {
    let platform = Platform { machine: "m".into(), cpu: "c".into(), accel: Accel::Tcg };
    let capabilities = Capabilities::complete("fed", platform);
    let at = Moment(0);
    let conditions = Conditions {
        capabilities: &capabilities,
        snapshots_enabled: true,
        quota: Quota::default(),
        usage: Usage::default(),
        at,
    };
    let id = OperationId(Uuid::from_u128(3));
    let asker = Asker::tintype();
    let Ok(changes) = accept(timeline, id, &command, &asker, &conditions) else { return };
    let mut held = timeline.clone();
    changes.iter().for_each(|change| held.apply(change));
    assert_eq!(held.flaw(), None, "{command:?}");
    let operation = Operation {
        id,
        vm: timeline.vm.id,
        snapshot: None,
        command,
        asker,
        phase: Phase::Waiting,
        created_at: at,
        ended_at: None,
    };
    let mut fresh = (10..).map(Uuid::from_u128);
    let mut fresh = || fresh.next().expect("there are more");
    let scene = Scene { timeline: &held, at, fresh: &mut fresh };
    let begun = step(&operation, scene, Event::Begin);
    begun.changes.iter().for_each(|change| held.apply(change));
    assert_eq!(held.flaw(), None, "{:?}", operation.command);
}

/// A manifest as it is written, but for these edits.
fn edited(edits: &[u8]) -> String {
    let mut manifest: Value = serde_json::from_str(WRITTEN).expect("it is as it is written");
    for edit in edits.chunks_exact(5).take(EDITS_MOST) {
        let &[a, b, what, c, d] = edit else { continue };
        let count = count(&manifest);
        let other = usize::from(u16::from_le_bytes([c, d]));
        let value = match what % 8 {
            0 => Value::Null,
            1 => json!(other),
            2 => json!(u64::MAX - other as u64),
            3 => json!({}),
            4 => json!([]),
            _ => {
                nth(&mut manifest, &mut (other % count)).map_or(Value::Null, |other| other.clone())
            }
        };
        let mut at = usize::from(u16::from_le_bytes([a, b])) % count;
        if let Some(there) = nth(&mut manifest, &mut at) {
            *there = match (what % 8, there.take()) {
                // A key, where there are keys, becomes another text.
                (7, Value::Object(fields)) => renamed(fields, &value),
                _ => value,
            };
        }
    }
    manifest.to_string()
}

/// How many values there are in one, itself counted.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// The value that comes after so many others.
fn nth<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(values) => values.iter_mut().find_map(|value| nth(value, left)),
        Value::Object(fields) => fields.values_mut().find_map(|value| nth(value, left)),
        _ => None,
    }
}

/// The first field by another name.
fn renamed(fields: Map<String, Value>, name: &Value) -> Value {
    let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
    if let (Some(first), Some(name)) = (fields.first_mut(), name.as_str()) {
        first.0 = name.to_owned();
    }
    Value::Object(fields.into_iter().collect())
}
