//! Snapshots that were to go by themselves go when their time has come, by the same door as if
//! somebody had asked. What is protected stays, and what is held is asked again.

use super::App;
use super::engine::Asked;
use std::sync::Arc;
use std::time::Duration;
use tintype_model::operation::{Asker, Command, DeleteSnapshots};
use tintype_model::tree::Scope;
use tintype_model::{Moment, OperationId, SnapshotId, VmId};
use tintype_store::StoreError;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);
/// How long a snapshot that could not be deleted is left alone: a minute.
const REST_MS: i64 = 60_000;

impl App {
    /// Looks after expiry for ever.
    pub(super) async fn expire_snapshots(self: Arc<Self>) {
        loop {
            if let Err(error) = self.expire().await {
                self.wait_for_database(&error).await;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn expire(self: &Arc<Self>) -> Result<(), StoreError> {
        let at = self.now();
        let expired = self.store.read().await?.expired_snapshots(at, Moment(at.0 - REST_MS))?;
        for (snapshot, vm) in expired {
            self.expire_one(snapshot, vm).await?;
        }
        Ok(())
    }

    async fn expire_one(self: &Arc<Self>, id: SnapshotId, vm: VmId) -> Result<(), StoreError> {
        let mut unit = self.store.write().await?;
        let Some(mut timeline) = unit.timeline(vm)? else { return Ok(()) };
        let command = Command::DeleteSnapshots(DeleteSnapshots { scope: Scope::One(id) });
        let operation = OperationId(self.fresh());
        let asked = Asked { id: operation, asker: Asker::tintype(), queue: false };
        let admitted = self.admit(&mut unit, &mut timeline, asked, command, Some(id));
        match admitted {
            Ok(operation) => {
                if let Err(refusal) = self.go(unit, timeline, operation).await {
                    tracing::warn!(%id, %refusal, "an expired snapshot stays for now");
                }
            }
            Err(refusal) => tracing::debug!(%id, %refusal, "an expired snapshot stays for now"),
        }
        Ok(())
    }
}
