//! What requests mean: load, ask the model, record in one transaction, answer. HTTP, and whatever
//! else comes to speak to us, call the same functions. Whoever calls says who asks; whether that
//! one may is decided first, once, by `model::access`.

mod design;
mod disk;
mod engine;
mod event;
mod expiry;
mod find;
mod ground;
mod host;
mod inventory;
mod operation;
mod order;
mod people;
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

use std::sync::Arc;
use tintype_model::capability::Capabilities;
use tintype_model::refusal::Code;
use tintype_model::{Moment, Refusal};
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
        host_name: &str,
    ) -> Result<Arc<Self>, StoreError> {
        let (id, pool) = (ground.fresh(), ground.fresh());
        let first = Host { id, name: host_name.to_owned(), pool };
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
        });
        app.take_up_operations().await?;
        app.take_up_reclaims().await?;
        tokio::spawn(Arc::clone(&app).watch_guests());
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
