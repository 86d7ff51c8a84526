//! What requests mean: load, ask the model, record in one transaction, answer. HTTP, and whatever
//! else comes to speak to us, call the same functions.

mod engine;
mod host;
mod inventory;
mod operation;
mod reclaim;
mod snapshot;
mod vm;

pub use snapshot::{DeleteTarget, SnapshotQuery};

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tintype_model::refusal::Code;
use tintype_model::timeline::Timeline;
use tintype_model::{Moment, Refusal, VmId};
use tintype_store::{Host, Store, StoreError, Unit};
use tintype_wire::agent::Agent;
use tokio::sync::Notify;
use uuid::Uuid;

/// The control plane.
pub struct App {
    store: Store,
    agent: Arc<dyn Agent>,
    host: Host,
    /// Woken whenever an operation has ended.
    ended: Notify,
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
        host_name: &str,
    ) -> Result<Arc<Self>, StoreError> {
        let first = Host { id: Uuid::new_v4(), name: host_name.to_owned(), pool: Uuid::new_v4() };
        let mut unit = store.write().await?;
        let host = unit.local_host(&first).await?;
        unit.commit().await?;
        let app = Arc::new(Self { store, agent, host, ended: Notify::new() });
        app.take_up_operations().await?;
        app.take_up_reclaims().await?;
        tokio::spawn(Arc::clone(&app).watch_guests());
        Ok(app)
    }

    /// The agent, for what is streamed straight from the host.
    pub fn agent(&self) -> &Arc<dyn Agent> {
        &self.agent
    }

    /// The database, for what is remembered of requests.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The host we run on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Finds a machine by name or id.
    async fn find_vm(&self, unit: &mut Unit<'_>, name_or_id: &str) -> Answer<VmId> {
        let found = match name_or_id.parse() {
            Ok(id) => unit.vm(id).await.map_err(stored)?.map(|vm| vm.id),
            Err(_) => unit.vm_named(name_or_id).await.map_err(stored)?,
        };
        found.ok_or_else(|| unknown_vm(name_or_id))
    }

    /// A machine's timeline, by name or id.
    async fn load(&self, unit: &mut Unit<'_>, name_or_id: &str) -> Answer<Timeline> {
        let id = self.find_vm(unit, name_or_id).await?;
        let timeline = unit.timeline(id).await.map_err(stored)?;
        timeline.ok_or_else(|| unknown_vm(name_or_id))
    }
}

fn unknown_vm(name: &str) -> Refusal {
    Refusal::new(Code::UnknownVm).detail(name).hint("tintype vm list shows those there are")
}

/// A failure of the database, as a refusal.
fn stored(error: StoreError) -> Refusal {
    tracing::error!(%error, "the database failed");
    Refusal::new(Code::Internal).detail(error.to_string())
}

/// Now.
fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
