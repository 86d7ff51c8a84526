//! What requests mean: load, ask the model, record in one transaction, answer. HTTP, and whatever
//! else comes to speak to us, call the same functions. Whoever calls says who asks; whether that
//! one may is decided first, once, by `model::access`.

mod check;
mod database;
mod design;
mod disk;
mod engine;
mod event;
mod expiry;
mod find;
mod ground;
mod host;
mod inventory;
mod journal;
mod manifest;
mod operation;
mod order;
mod people;
mod pool;
mod profile;
mod reclaim;
mod snapshot;
mod token;
mod vm;

pub use disk::DiskSize;
pub use find::How;
pub use ground::{Ground, Machine};
pub use snapshot::{DeleteTarget, SnapshotQuery};
pub use vm::{Edited, VmQuery};

use journal::Over;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tintype_model::capability::Capabilities;
use tintype_model::refusal::Code;
use tintype_model::{Moment, Refusal, VmId};
use tintype_store::{Host, Store, StoreError};
use tintype_wire::agent::Agent;
use token::Attempts;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// The control plane.
pub struct App {
    store: Store,
    agent: Arc<dyn Agent>,
    ground: Arc<dyn Ground>,
    host: Host,
    /// What its hypervisor can do.
    capabilities: Capabilities,
    /// Woken whenever an operation has ended.
    ended: Notify,
    /// Told whenever something was recorded as an event.
    news: watch::Sender<()>,
    /// Who tried to sign in, and how often.
    attempts: Attempts,
    /// The revision of each machine that its manifest tells of.
    described: Mutex<BTreeMap<VmId, i64>>,
    /// Effects that the agent is still to forget.
    over: Mutex<Vec<Over>>,
}

/// What whoever runs it decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The name of the host we run on, if none is known yet.
    pub host_name: String,
    /// How often the files of all machines are compared with what is recorded.
    pub check_every: Duration,
}

impl Options {
    /// How often files are looked at if nobody says otherwise.
    pub const CHECK_EVERY: Duration = Duration::from_secs(10);

    /// What is usual, on a host of this name.
    pub fn on(host_name: &str) -> Self {
        Self { host_name: host_name.to_owned(), check_every: Self::CHECK_EVERY }
    }
}

/// An answer or a coded no.
pub type Answer<T> = Result<T, Refusal>;

impl App {
    /// A control plane over a database and the agent of the host we run on. What was under way
    /// when an earlier one died goes on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn start(
        store: Store,
        agent: Arc<dyn Agent>,
        ground: Arc<dyn Ground>,
        options: Options,
    ) -> Result<Arc<Self>, StoreError> {
        let (id, pool) = (ground.fresh(), ground.fresh());
        let first = Host { id, name: options.host_name, pool };
        let mut unit = store.write().await?;
        let host = unit.local_host(&first)?;
        unit.commit().await?;
        let capabilities = agent.host().await.capabilities;
        let app = Arc::new(Self {
            store,
            agent,
            ground,
            host,
            capabilities,
            ended: Notify::new(),
            news: watch::Sender::new(()),
            attempts: Attempts::default(),
            described: Mutex::default(),
            over: Mutex::default(),
        });
        app.take_up_operations().await?;
        app.take_up_reclaims().await?;
        tokio::spawn(Arc::clone(&app).watch_guests());
        tokio::spawn(Arc::clone(&app).watch_files(options.check_every));
        tokio::spawn(Arc::clone(&app).watch_pool());
        tokio::spawn(Arc::clone(&app).keep_manifests());
        tokio::spawn(Arc::clone(&app).expire_snapshots());
        Ok(app)
    }

    /// The agent, for what is streamed straight from the host.
    pub fn agent(&self) -> &Arc<dyn Agent> {
        &self.agent
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.ground.now()
    }

    /// An id that nobody had before.
    fn fresh(&self) -> Uuid {
        self.ground.fresh()
    }

    /// The database, for what is remembered of requests.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// A failure of the database, as a refusal.
fn stored(error: StoreError) -> Refusal {
    tracing::error!(%error, "the database failed");
    Refusal::new(Code::Internal).detail(error.to_string())
}
