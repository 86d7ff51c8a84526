//! What is not as it was recorded, as the control plane tells of it, refuses it and repairs it.

mod told;

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use tintype_model::finding::{Mark, Sighting};
use tintype_model::manifest::{Manifest, Survey};
use tintype_model::refusal::Code;
use tintype_model::snapshot::memory_name;
use tintype_model::vm::VmState;
use tintype_model::{SnapshotId, VmId};
use tintype_server::app::How;
use tintype_wire::rest;
use told::{Scene, ToldAgent, code};

/// A machine with a snapshot of disks and memory, and its manifest.
async fn scene() -> Result<(Scene, VmId, SnapshotId, Manifest)> {
    let scene = Scene::new(ToldAgent::default()).await?;
    scene.running().await?;
    let taken = scene.snapshot("one", "disk-and-memory").await?;
    let snapshot = SnapshotId(taken.snapshot.context("it names the snapshot")?);
    let vm = VmId(scene.app.vm(&scene.who, "web").await?.id);
    let manifest = scene.agent.manifests.lock().unwrap()[&vm].clone();
    Ok((scene, vm, snapshot, manifest))
}

/// What is there when all is as the manifest says.
fn all_there(manifest: &Manifest) -> Sighting {
    let timeline = &manifest.timeline;
    let names = timeline.layers.values().map(|layer| layer.file().name());
    let names = names.chain(timeline.snapshots.keys().map(|&id| memory_name(id)));
    let mark = Mark { inode: 1, size_bytes: 1, written_ns: 1 };
    let files: BTreeMap<_, _> = names.map(|name| (name, mark)).collect();
    Sighting { files, revision: Some(manifest.revision), ..Sighting::default() }
}

async fn found(scene: &Scene, vm: VmId, seen: Sighting) -> Result<Vec<rest::Finding>> {
    scene.agent.sightings.lock().unwrap().insert(vm, seen);
    Ok(scene.app.check_host(&scene.who, "host").await?.findings)
}

/// R12, E12: each difference is told as it is, goes when it is gone, and both are events.
#[tokio::test]
async fn each_difference_is_told_until_it_is_gone() -> Result<()> {
    let (scene, vm, snapshot, manifest) = scene().await?;
    let there = all_there(&manifest);
    assert_eq!(found(&scene, vm, there.clone()).await?, []);
    let layer = manifest.timeline.snapshots[&snapshot].layers.values().next().context("a layer")?;
    let layer = manifest.timeline.layers[layer].file().name();
    let memory = memory_name(snapshot);
    let active = manifest.timeline.active.values().next().context("an active layer")?;
    let active = manifest.timeline.layers[active].file().name();
    let other = Mark { inode: 2, size_bytes: 1, written_ns: 1 };
    let later = Mark { inode: 1, size_bytes: 2, written_ns: 2 };
    type Change<'a> = &'a dyn Fn(&mut Sighting);
    let changes: [(&str, bool, Change<'_>); 9] = [
        ("layer-missing", true, &|seen| _ = seen.files.remove(&layer)),
        ("layer-changed", true, &|seen| _ = seen.files.insert(layer.clone(), later)),
        ("layer-changed", true, &|seen| _ = seen.files.insert(active.clone(), other)),
        ("layer-changed", true, &|seen| _ = seen.replaced.insert(active.clone())),
        ("memory-missing", false, &|seen| _ = seen.files.remove(&memory)),
        ("memory-changed", false, &|seen| _ = seen.files.insert(memory.clone(), later)),
        ("unknown-file", false, &|seen| _ = seen.files.insert("strange".into(), other)),
        ("open-elsewhere", false, &|seen| {
            _ = seen.holders.insert(layer.clone(), "cat (process 7)".into());
        }),
        ("guest-held", true, &|seen| seen.held = Some("stopped".into())),
    ];
    for (kind, now, change) in changes {
        let mut seen = there.clone();
        change(&mut seen);
        let found_now = found(&scene, vm, seen).await?;
        let [finding] = found_now.as_slice() else { panic!("{kind}: {found_now:?}") };
        assert_eq!((finding.kind.as_str(), finding.affects_now), (kind, now));
        assert_eq!(scene.app.vm(&scene.who, "web").await?.findings, found_now);
        assert_eq!(found(&scene, vm, there.clone()).await?, [], "{kind}");
    }
    // What the guest writes to changes.
    let mut written = there.clone();
    written.files.insert(active, later);
    assert_eq!(found(&scene, vm, written).await?, []);
    let events = scene.app.events(&scene.who, Some("web"), None, Some(1000)).await?.items;
    let told = |kind: &str| events.iter().filter(|event| event.kind == kind).count();
    assert_eq!((told("vm-found"), told("vm-found-no-more")), (9, 9));
    Ok(())
}

/// R12: a database that knows less than the host, as one that was restored, does nothing to the
/// machine until it is taken up as it is.
#[tokio::test]
async fn an_old_database_touches_nothing_until_it_is_brought_up() -> Result<()> {
    let (scene, vm, snapshot, manifest) = scene().await?;
    let mut newer = manifest.clone();
    newer.revision += 100;
    let renamed = newer.timeline.snapshots.get_mut(&snapshot).context("it is there")?;
    renamed.name = "renamed since".into();
    let seen = all_there(&newer);
    let findings = found(&scene, vm, seen.clone()).await?;
    assert_eq!(findings[0].kind, "outdated");
    let stop = scene.app.stop_vm(&scene.who, How::default(), "web", true).await;
    assert_eq!(code(stop), Code::FilesInDoubt);
    let survey = Survey {
        vm,
        manifest: Some(newer.to_text()),
        sighting: seen.clone(),
        lies_on: BTreeMap::new(),
        written: Default::default(),
        state: VmState::Running,
    };
    *scene.agent.surveys.lock().unwrap() = vec![survey];
    let planned = scene.app.adopt(&scene.who, "host", true).await?;
    assert!(planned.items[0].known);
    assert_eq!(scene.app.snapshot(&scene.who, snapshot).await?.name, "one", "nothing is done");
    scene.app.adopt(&scene.who, "host", false).await?;
    assert_eq!(scene.app.snapshot(&scene.who, snapshot).await?.name, "renamed since");
    assert_eq!(found(&scene, vm, seen).await?, []);
    assert!(scene.app.adopt(&scene.who, "host", false).await?.items.is_empty());
    let account = scene.app.account(&scene.who, "admin").await?;
    assert_eq!(account.snapshots, 1, "what it uses is counted once");
    Ok(())
}
