//! Looks after guests: one that ended by itself, or was stopped by somebody else, is recorded as
//! it is.

use super::App;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tintype_model::VmId;
use tintype_model::change::Change;
use tintype_model::vm::VmState;
use tintype_store::StoreError;

/// How often guests are looked at.
const EVERY: Duration = Duration::from_secs(1);

impl App {
    /// Looks after guests for ever.
    pub(super) async fn watch_guests(self: Arc<Self>) {
        loop {
            let guests = self.agent.guests().await;
            if let Err(error) = self.compare(&guests).await {
                self.wait_for_database(&error).await;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn compare(self: &Arc<Self>, guests: &BTreeMap<VmId, VmState>) -> Result<(), StoreError> {
        let vms = self.store.read().await?.vm_ids().await?;
        for id in vms {
            let seen = guests.get(&id).copied().unwrap_or(VmState::Stopped);
            let recorded = self.store.read().await?.vm(id).await?;
            let differs =
                recorded.is_some_and(|vm| vm.operation.is_none() && is_news(vm.state, seen));
            if differs {
                self.look_again(id).await?;
            }
        }
        Ok(())
    }

    /// What was seen may be older than what is recorded: looks again while nobody else can write.
    async fn look_again(self: &Arc<Self>, id: VmId) -> Result<(), StoreError> {
        let mut unit = self.store.write().await?;
        let Some(vm) = unit.vm(id).await? else {
            return Ok(());
        };
        let seen = self.agent.guests().await.get(&id).copied().unwrap_or(VmState::Stopped);
        if vm.operation.is_some() || !is_news(vm.state, seen) {
            return Ok(());
        }
        tracing::info!(vm = vm.name, was = vm.state.as_str(), is = seen.as_str(), "guest changed");
        unit.record(id, &[Change::VmState(seen)]).await?;
        unit.commit().await
    }
}

/// A crash stays a crash until somebody starts the machine again.
fn is_news(recorded: VmState, seen: VmState) -> bool {
    recorded != seen && !(recorded == VmState::Crashed && seen == VmState::Stopped)
}
