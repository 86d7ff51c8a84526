//! The control plane with an agent that says what it is told to say.
#![allow(unreachable_pub, missing_docs, dead_code)]

pub mod world;

use anyhow::{Result, bail};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tintype_model::access::Caller;
use tintype_model::capability::{Capabilities, Support};
use tintype_model::config::{Accel, Platform};
use tintype_model::effect::{Effect, Facts, Outcome};
use tintype_model::finding::{Repair, Sighting};
use tintype_model::layer::Format;
use tintype_model::manifest::{Manifest, Survey};
use tintype_model::refusal::Code;
use tintype_model::settings::Limit;
use tintype_model::vm::VmState;
use tintype_model::{EffectId, OperationId, Refusal, VmId};
use tintype_server::app::{App, How, Machine, Options};
use tintype_store::Store;
use tintype_wire::agent::{Agent, HostFacts, Inspected, Journaled, OnRecord, Progress};
use tintype_wire::rest;
use tokio::sync::{Notify, mpsc};

pub const GIB: u64 = 1 << 30;

/// Performs nothing, and says that it was done, or what it was told to say.
pub struct ToldAgent {
    pub free_bytes: u64,
    pub memory_bytes: u64,
    /// Answers to further snapshots; done, when there is none.
    pub answers: Mutex<VecDeque<Outcome>>,
    pub guests: Mutex<BTreeMap<VmId, VmState>>,
    pub performed: Mutex<Vec<(EffectId, &'static str)>>,
    /// Whether snapshots are never answered, as by an agent that hangs; until they are cancelled.
    pub hangs: bool,
    /// Whether memory cannot be removed, as from a pool that is broken.
    pub keeps: bool,
    pub cancelled: Mutex<BTreeSet<EffectId>>,
    pub forgotten: Mutex<BTreeSet<EffectId>>,
    /// Whether manifests cannot be written, as on a pool that is full.
    pub full: AtomicBool,
    pub wake: Notify,
    pub capped: Limit,
    /// What is seen of machines; of others nothing.
    pub sightings: Mutex<BTreeMap<VmId, Sighting>>,
    pub surveys: Mutex<Vec<Survey>>,
    pub manifests: Mutex<BTreeMap<VmId, Manifest>>,
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
            keeps: false,
            cancelled: Mutex::default(),
            forgotten: Mutex::default(),
            full: AtomicBool::new(false),
            wake: Notify::new(),
            capped: Limit::Unlimited,
            sightings: Mutex::default(),
            surveys: Mutex::default(),
            manifests: Mutex::default(),
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
            Effect::StopVm(stop) => {
                self.guests.lock().unwrap().remove(&stop.vm);
                done
            }
            Effect::RemoveMemory { .. } if self.keeps => {
                Outcome::Failed(Refusal::new(Code::StorageFailed), Facts::default())
            }
            Effect::TakeSnapshot(_) if self.hangs => loop {
                let cancelled = self.wake.notified();
                if self.cancelled.lock().unwrap().contains(&id) {
                    let facts = Facts { switched: true, running: true, ..Facts::default() };
                    break Outcome::Failed(Refusal::new(Code::Interrupted), facts);
                }
                cancelled.await;
            },
            Effect::TakeSnapshot(_) => self.answers.lock().unwrap().pop_front().unwrap_or(done),
            _ => done,
        }
    }

    async fn forget(&self, id: EffectId) {
        self.forgotten.lock().unwrap().insert(id);
    }

    async fn journaled(&self) -> BTreeMap<EffectId, Journaled> {
        BTreeMap::new()
    }

    async fn settle(&self, _id: EffectId, _recorded: Option<OnRecord>) {}

    fn progress(&self, _id: EffectId) -> Option<Progress> {
        None
    }

    fn give_way(&self, _vm: VmId) {}

    fn cancel(&self, id: EffectId) {
        self.cancelled.lock().unwrap().insert(id);
        self.wake.notify_waiters();
    }

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
                snapshot_cap: self.capped,
                uefi: Support::No("none here".into()),
                ..Capabilities::complete("told", platform)
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

    async fn look(&self, vm: VmId, _settle: BTreeSet<String>) -> Option<Sighting> {
        self.sightings.lock().unwrap().get(&vm).cloned()
    }

    async fn survey(&self) -> Vec<Survey> {
        self.surveys.lock().unwrap().clone()
    }

    async fn repair(&self, _vm: VmId, _repair: Repair) -> Result<String, Refusal> {
        Ok("done".to_owned())
    }

    async fn describe(&self, vm: VmId, manifest: Manifest) -> Result<(), Refusal> {
        if self.full.load(Ordering::SeqCst) {
            return Err(Refusal::new(Code::StorageFailed));
        }
        // A bench has too many to keep.
        if !self.hangs {
            self.manifests.lock().unwrap().insert(vm, manifest);
        }
        Ok(())
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

pub struct Scene {
    pub data: TempDir,
    pub app: Arc<App>,
    pub agent: Arc<ToldAgent>,
    pub who: Caller,
}

impl Scene {
    pub async fn new(agent: ToldAgent) -> Result<Self> {
        let data = TempDir::new()?;
        let agent = Arc::new(agent);
        let app = start(&data, Arc::clone(&agent)).await?;
        let who = app.authenticate(&app.local_token(None).await?).await?;
        Ok(Self { data, app, agent, who })
    }

    /// A machine that runs, with 1 GiB of memory.
    pub async fn running(&self) -> Result<()> {
        let accepted = self.app.create_vm(&self.who, How::default(), new_vm("web")).await?;
        self.ended(accepted).await?;
        let accepted = self.app.start_vm(&self.who, How::default(), "web").await?;
        self.ended(accepted).await?;
        Ok(())
    }

    pub async fn ended(&self, accepted: rest::Operation) -> Result<rest::Operation> {
        let id = OperationId(accepted.id);
        let ended = self.app.operation(&self.who, id, Duration::from_secs(10)).await?;
        if !ended.has_ended() {
            bail!("{} does not end", ended.kind);
        }
        Ok(ended)
    }

    pub async fn snapshot(&self, name: &str, kind: &str) -> Result<rest::Operation> {
        let (name, kind) = (Some(name.to_owned()), Some(kind.to_owned()));
        let new = rest::NewSnapshot { name, kind, ..Default::default() };
        let accepted = self.app.create_snapshot(&self.who, How::default(), "web", new).await?;
        self.ended(accepted).await
    }
}

pub async fn start(data: &TempDir, agent: Arc<ToldAgent>) -> Result<Arc<App>> {
    let store = Store::open(&data.path().join("tintype.db"))?;
    Ok(App::start(store, agent, Arc::new(Machine), Options::on("host")).await?)
}

pub fn new_vm(name: &str) -> rest::NewVm {
    rest::NewVm {
        name: name.into(),
        memory_bytes: GIB,
        vcpus: 1,
        disks: vec![rest::NewDisk { size_bytes: Some(GIB), file: None }],
        ..Default::default()
    }
}

pub fn code<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> Code {
    answer.expect_err("it is refused").code
}
