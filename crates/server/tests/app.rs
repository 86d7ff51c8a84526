//! The control plane with an agent that says what it is told to say: what a host that is full,
//! fails or dies does to what is recorded.

mod told;

use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tintype_model::effect::{Facts, Outcome};
use tintype_model::refusal::Code;
use tintype_model::tree::Scope;
use tintype_model::{OperationId, Refusal, SnapshotId};
use tintype_server::app::{DeleteTarget, How};
use tintype_wire::rest;
use told::{GIB, Scene, ToldAgent, code, new_vm, start};

/// C38: space is asked before anything is written.
#[tokio::test]
async fn a_full_pool_is_found_before_and_not_after() -> Result<()> {
    let scene = Scene::new(ToldAgent { free_bytes: GIB / 2, ..ToldAgent::default() }).await?;
    scene.running().await?;
    let memory = rest::NewSnapshot { kind: Some("disk-and-memory".into()), ..Default::default() };
    assert_eq!(
        code(scene.app.create_snapshot(&scene.who, How::default(), "web", memory).await),
        Code::PoolFull
    );
    assert!(scene.app.tree(&scene.who, "web").await?.roots.is_empty(), "nothing was recorded");
    assert_eq!(scene.app.vm(&scene.who, "web").await?.operation, None);
    assert_eq!(scene.snapshot("disks", "disk").await?.state, "succeeded");
    let file = rest::NewDisk { size_bytes: None, file: Some("/big".into()) };
    let big = rest::NewVm { disks: vec![file], ..new_vm("big") };
    assert_eq!(code(scene.app.create_vm(&scene.who, How::default(), big).await), Code::PoolFull);
    assert_eq!(code(scene.app.vm(&scene.who, "big").await), Code::UnknownVm);
    Ok(())
}

/// A revert needs room for two guests for a moment, and none when the machine will be off.
#[tokio::test]
async fn too_little_memory_for_two_guests_is_found_before() -> Result<()> {
    let mut scene = Scene::new(ToldAgent::default()).await?;
    scene.running().await?;
    let taken = scene.snapshot("taken", "disk-and-memory").await?;
    let id = SnapshotId(taken.snapshot.expect("it names the snapshot"));
    let short = ToldAgent { memory_bytes: GIB / 2, ..ToldAgent::default() };
    let guests = scene.agent.guests.lock().unwrap().clone();
    *short.guests.lock().unwrap() = guests;
    scene.app = start(&scene.data, Arc::new(short)).await?;
    let as_taken = rest::Revert::default();
    assert_eq!(
        code(scene.app.revert(&scene.who, How::default(), id, &as_taken).await),
        Code::HostMemoryShort
    );
    assert_eq!(scene.app.snapshot(&scene.who, id).await?.state, "ready");
    let stopped = rest::Revert { power: Some("stopped".into()), ..Default::default() };
    let accepted = scene.app.revert(&scene.who, How::default(), id, &stopped).await?;
    assert_eq!(scene.ended(accepted).await?.state, "succeeded");
    Ok(())
}

/// C38, C39: a snapshot that could not be completed is unavailable with its reason; it does not
/// block the machine, cannot be gone back to, and can be deleted.
#[tokio::test]
async fn a_failed_snapshot_is_unavailable_and_in_nobodys_way() -> Result<()> {
    let scene = Scene::new(ToldAgent::default()).await?;
    scene.running().await?;
    let reason = Refusal::new(Code::StorageFailed).detail("no space left on device");
    let facts = Facts { switched: true, running: true, ..Facts::default() };
    scene.agent.answers.lock().unwrap().push_back(Outcome::Failed(reason, facts));
    let failed = scene.snapshot("broken", "disk-and-memory").await?;
    assert_eq!(failed.state, "failed");
    assert_eq!(failed.error.map(|error| error.code), Some("storage-failed".into()));
    let id = SnapshotId(failed.snapshot.expect("it names the snapshot"));
    let broken = scene.app.snapshot(&scene.who, id).await?;
    assert_eq!((broken.state.as_str(), broken.current), ("unavailable", false));
    assert!(broken.reason.expect("a reason").detail.contains("no space left"));
    let vm = scene.app.vm(&scene.who, "web").await?;
    assert_eq!((vm.state.as_str(), vm.operation, vm.current), ("running", None, None));
    let as_taken = rest::Revert::default();
    assert_eq!(
        code(scene.app.revert(&scene.who, How::default(), id, &as_taken).await),
        Code::SnapshotUnavailable
    );
    assert_eq!(scene.snapshot("good", "disk-and-memory").await?.state, "succeeded");
    let accepted = scene
        .app
        .delete_snapshots(&scene.who, How::default(), &DeleteTarget::Of(Scope::One(id)))
        .await?;
    assert_eq!(scene.ended(accepted).await?.state, "succeeded");
    assert_eq!(code(scene.app.snapshot(&scene.who, id).await), Code::UnknownSnapshot);
    Ok(())
}

/// E29: what was under way when a control plane died is sent again by the next, under the same id,
/// so that an agent that knows it does not do it twice.
#[tokio::test]
async fn what_was_under_way_goes_on_after_a_restart() -> Result<()> {
    let mut scene = Scene::new(ToldAgent { hangs: true, ..ToldAgent::default() }).await?;
    scene.running().await?;
    let new = rest::NewSnapshot { name: Some("one".into()), ..Default::default() };
    let accepted = scene.app.create_snapshot(&scene.who, How::default(), "web", new).await?;
    let id = OperationId(accepted.id);
    let waited = scene.app.operation(&scene.who, id, Duration::from_millis(300)).await?;
    assert_eq!(waited.state, "running");
    let sent = *scene.agent.performed.lock().unwrap().last().expect("an effect was sent");
    let next = Arc::new(ToldAgent::default());
    let guests = scene.agent.guests.lock().unwrap().clone();
    *next.guests.lock().unwrap() = guests;
    scene.app = start(&scene.data, Arc::clone(&next)).await?;
    let ended = scene.app.operation(&scene.who, id, Duration::from_secs(10)).await?;
    assert_eq!(ended.state, "succeeded");
    assert!(next.performed.lock().unwrap().contains(&sent), "the same effect under the same id");
    let snapshot =
        scene.app.snapshot(&scene.who, SnapshotId(accepted.snapshot.expect("named"))).await?;
    assert_eq!((snapshot.state.as_str(), snapshot.current), ("ready", true));
    Ok(())
}

/// Who takes up the host without our database must not find as under way what is over.
#[tokio::test]
async fn a_journal_stays_until_the_manifest_tells_of_the_end() -> Result<()> {
    let scene = Scene::new(ToldAgent::default()).await?;
    scene.running().await?;
    scene.agent.full.store(true, Ordering::SeqCst);
    let new = rest::NewSnapshot { name: Some("one".into()), ..Default::default() };
    let accepted = scene.app.create_snapshot(&scene.who, How::default(), "web", new).await?;
    let id = OperationId(accepted.id);
    let ended = scene.app.operation(&scene.who, id, Duration::from_secs(10)).await?;
    assert_eq!(ended.state, "succeeded", "the snapshot does not wait for it");
    let (taken, _) = *scene.agent.performed.lock().unwrap().last().expect("an effect was sent");
    let forgotten = || scene.agent.forgotten.lock().unwrap().contains(&taken);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!forgotten());
    scene.agent.full.store(false, Ordering::SeqCst);
    let until = Instant::now() + Duration::from_secs(30);
    while !forgotten() {
        assert!(Instant::now() < until, "it is never forgotten");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
