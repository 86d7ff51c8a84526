//! The control plane with an agent that says what it is told to say: what a host that is full,
//! fails or dies does to what is recorded.

use anyhow::{Result, bail};
use async_trait::async_trait;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tintype_model::capability::{Capabilities, Support};
use tintype_model::config::{Accel, Platform};
use tintype_model::effect::{Effect, Facts, Outcome};
use tintype_model::layer::Format;
use tintype_model::refusal::Code;
use tintype_model::tree::Scope;
use tintype_model::vm::VmState;
use tintype_model::{EffectId, OperationId, Refusal, SnapshotId, VmId};
use tintype_server::app::{App, DeleteTarget};
use tintype_store::Store;
use tintype_wire::agent::{Agent, HostFacts, Inspected, Progress};
use tintype_wire::rest;
use tokio::sync::mpsc;

const GIB: u64 = 1 << 30;

/// Performs nothing, and says that it was done, or what it was told to say.
struct ToldAgent {
    free_bytes: u64,
    memory_bytes: u64,
    /// Answers to further snapshots; done, when there is none.
    answers: Mutex<VecDeque<Outcome>>,
    guests: Mutex<BTreeMap<VmId, VmState>>,
    performed: Mutex<Vec<(EffectId, &'static str)>>,
    /// Whether snapshots are never answered, as by an agent that hangs.
    hangs: bool,
}

impl Default for ToldAgent {
    fn default() -> Self {
        Self {
            free_bytes: 100 * GIB,
            memory_bytes: 100 * GIB,
            answers: Mutex::default(),
            guests: Mutex::default(),
            performed: Mutex::default(),
            hangs: false,
        }
    }
}

#[async_trait]
impl Agent for ToldAgent {
    async fn perform(&self, id: EffectId, effect: Effect) -> Outcome {
        self.performed.lock().unwrap().push((id, effect.word()));
        let done = Outcome::Done(Facts { switched: true, running: true, ..Facts::default() });
        match &effect {
            Effect::StartVm(launch) => {
                self.guests.lock().unwrap().insert(launch.vm, VmState::Running);
                done
            }
            Effect::TakeSnapshot(_) if self.hangs => std::future::pending().await,
            Effect::TakeSnapshot(_) => self.answers.lock().unwrap().pop_front().unwrap_or(done),
            _ => done,
        }
    }

    async fn forget(&self, _id: EffectId) {}

    fn progress(&self, _id: EffectId) -> Option<Progress> {
        None
    }

    fn give_way(&self, _vm: VmId) {}

    async fn inspect(&self, _path: String) -> Result<Inspected, Refusal> {
        Ok(Inspected { format: Format::Raw, size_bytes: 5 * GIB, allocated_bytes: 5 * GIB })
    }

    async fn readable(&self, _path: String) -> Result<(), Refusal> {
        Ok(())
    }

    async fn host(&self) -> HostFacts {
        let platform = Platform { machine: "m".into(), cpu: "c".into(), accel: Accel::Tcg };
        HostFacts {
            capabilities: Capabilities {
                hypervisor: "told".into(),
                machines: vec![platform.machine.clone()],
                accels: vec![platform.accel],
                platform,
                background_snapshots: Support::Yes,
                shared_console: Support::Yes,
                uefi: Support::No("none here".into()),
            },
            memory_free_bytes: self.memory_bytes,
            memory_total_bytes: self.memory_bytes,
            pool_free_bytes: self.free_bytes,
            pool_total_bytes: self.free_bytes,
            pool_path: "/pool".into(),
        }
    }

    async fn guests(&self) -> BTreeMap<VmId, VmState> {
        self.guests.lock().unwrap().clone()
    }

    fn console_address(&self, _vm: VmId) -> String {
        "unix:/console".into()
    }

    async fn console(&self, _vm: VmId) -> mpsc::Receiver<Vec<u8>> {
        mpsc::channel(1).1
    }

    async fn type_in(&self, _vm: VmId, _bytes: Vec<u8>) -> Result<(), Refusal> {
        Ok(())
    }
}

struct Scene {
    data: TempDir,
    app: Arc<App>,
    agent: Arc<ToldAgent>,
}

impl Scene {
    async fn new(agent: ToldAgent) -> Result<Self> {
        let data = TempDir::new()?;
        let agent = Arc::new(agent);
        let app = start(&data, Arc::clone(&agent)).await?;
        Ok(Self { data, app, agent })
    }

    /// A machine that runs, with 1 GiB of memory.
    async fn running(&self) -> Result<()> {
        let accepted = self.app.create_vm(new_vm("web")).await?;
        self.ended(accepted).await?;
        let accepted = self.app.start_vm("web").await?;
        self.ended(accepted).await?;
        Ok(())
    }

    async fn ended(&self, accepted: rest::Operation) -> Result<rest::Operation> {
        let id = OperationId(accepted.id);
        let ended = self.app.operation(id, Duration::from_secs(10)).await?;
        if !ended.has_ended() {
            bail!("{} does not end", ended.kind);
        }
        Ok(ended)
    }

    async fn snapshot(&self, name: &str, kind: &str) -> Result<rest::Operation> {
        let (name, kind) = (Some(name.to_owned()), Some(kind.to_owned()));
        let new = rest::NewSnapshot { name, kind, description: None };
        let accepted = self.app.create_snapshot("web", new).await?;
        self.ended(accepted).await
    }
}

async fn start(data: &TempDir, agent: Arc<ToldAgent>) -> Result<Arc<App>> {
    let store = Store::open(&data.path().join("tintype.db")).await?;
    Ok(App::start(store, agent, "host").await?)
}

fn new_vm(name: &str) -> rest::NewVm {
    rest::NewVm {
        name: name.into(),
        memory_bytes: GIB,
        vcpus: 1,
        disks: vec![rest::NewDisk { size_bytes: Some(GIB), file: None }],
        kernel: None,
        initrd: None,
        append: None,
        firmware: None,
        networks: Vec::new(),
    }
}

fn code<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> Code {
    answer.expect_err("it is refused").code
}

/// C38: space is asked before anything is written.
#[tokio::test]
async fn a_full_pool_is_found_before_and_not_after() -> Result<()> {
    let scene = Scene::new(ToldAgent { free_bytes: GIB / 2, ..ToldAgent::default() }).await?;
    scene.running().await?;
    let memory = rest::NewSnapshot { kind: Some("disk-and-memory".into()), ..Default::default() };
    assert_eq!(code(scene.app.create_snapshot("web", memory).await), Code::PoolFull);
    assert!(scene.app.tree("web").await?.roots.is_empty(), "nothing was recorded");
    assert_eq!(scene.app.vm("web").await?.operation, None);
    assert_eq!(scene.snapshot("disks", "disk").await?.state, "succeeded");
    let file = rest::NewDisk { size_bytes: None, file: Some("/big".into()) };
    let big = rest::NewVm { disks: vec![file], ..new_vm("big") };
    assert_eq!(code(scene.app.create_vm(big).await), Code::PoolFull);
    assert_eq!(code(scene.app.vm("big").await), Code::UnknownVm);
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
    assert_eq!(code(scene.app.revert(id, &as_taken).await), Code::HostMemoryShort);
    assert_eq!(scene.app.snapshot(id).await?.state, "ready");
    let stopped = rest::Revert { power: Some("stopped".into()) };
    let accepted = scene.app.revert(id, &stopped).await?;
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
    let broken = scene.app.snapshot(id).await?;
    assert_eq!((broken.state.as_str(), broken.current), ("unavailable", false));
    assert!(broken.reason.expect("a reason").detail.contains("no space left"));
    let vm = scene.app.vm("web").await?;
    assert_eq!((vm.state.as_str(), vm.operation, vm.current), ("running", None, None));
    let as_taken = rest::Revert::default();
    assert_eq!(code(scene.app.revert(id, &as_taken).await), Code::SnapshotUnavailable);
    assert_eq!(scene.snapshot("good", "disk-and-memory").await?.state, "succeeded");
    let accepted = scene.app.delete_snapshots(&DeleteTarget::Of(Scope::One(id))).await?;
    assert_eq!(scene.ended(accepted).await?.state, "succeeded");
    assert_eq!(code(scene.app.snapshot(id).await), Code::UnknownSnapshot);
    Ok(())
}

/// E29: what was under way when a control plane died is sent again by the next, under the same id,
/// so that an agent that knows it does not do it twice.
#[tokio::test]
async fn what_was_under_way_goes_on_after_a_restart() -> Result<()> {
    let mut scene = Scene::new(ToldAgent { hangs: true, ..ToldAgent::default() }).await?;
    scene.running().await?;
    let new = rest::NewSnapshot { name: Some("one".into()), ..Default::default() };
    let accepted = scene.app.create_snapshot("web", new).await?;
    let id = OperationId(accepted.id);
    let waited = scene.app.operation(id, Duration::from_millis(300)).await?;
    assert_eq!(waited.state, "running");
    let sent = *scene.agent.performed.lock().unwrap().last().expect("an effect was sent");
    let next = Arc::new(ToldAgent::default());
    let guests = scene.agent.guests.lock().unwrap().clone();
    *next.guests.lock().unwrap() = guests;
    scene.app = start(&scene.data, Arc::clone(&next)).await?;
    let ended = scene.app.operation(id, Duration::from_secs(10)).await?;
    assert_eq!(ended.state, "succeeded");
    assert!(next.performed.lock().unwrap().contains(&sent), "the same effect under the same id");
    let snapshot = scene.app.snapshot(SnapshotId(accepted.snapshot.expect("named"))).await?;
    assert_eq!((snapshot.state.as_str(), snapshot.current), ("ready", true));
    Ok(())
}
