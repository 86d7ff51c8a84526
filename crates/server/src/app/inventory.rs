//! Looks after guests: one that ended by itself, or was stopped by somebody else, is recorded as
//! it is.

use super::App;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tintype_model::VmId;
use tintype_model::change::Change;
use tintype_model::vm::{Vm, VmState};
use tintype_store::{Event, StoreError};

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

    async fn compare(&self, guests: &BTreeMap<VmId, VmState>) -> Result<(), StoreError> {
        let vms = self.store.read().await?.vm_states()?;
        for (id, recorded, held) in vms {
            let seen = guests.get(&id).copied().unwrap_or(VmState::Stopped);
            if held || !is_news(recorded, seen) {
                continue;
            }
            let Some(vm) = self.store.read().await?.vm(id)? else { continue };
            if vm.operation.is_none() && is_news(vm.state, seen) {
                self.look_again(&vm).await?;
            }
        }
        Ok(())
    }

    /// What was seen may be older than what is recorded: looks again, and records what is seen
    /// then, if nobody has changed the machine since `known` was read.
    async fn look_again(&self, known: &Vm) -> Result<(), StoreError> {
        let guests = self.agent.guests().await;
        let seen = guests.get(&known.id).copied().unwrap_or(VmState::Stopped);
        let mut unit = self.store.write().await?;
        let Some(mut timeline) = unit.timeline(known.id)? else { return Ok(()) };
        if timeline.vm != *known || !is_news(known.state, seen) {
            return Ok(());
        }
        let (was, is) = (known.state.as_str(), seen.as_str());
        tracing::info!(vm = known.name, was, is, "guest changed");
        unit.record(&mut timeline, &[Change::VmState(seen)])?;
        let told = Event {
            vm: Some(known.id),
            ..self.event(
                "tintype",
                "vm-changed",
                Some(known.account),
                format!("was {was}, is {is}"),
            )
        };
        unit.add_event(&told)?;
        unit.commit().await?;
        self.spread_news();
        Ok(())
    }
}

/// A crash stays a crash until somebody starts the machine again.
fn is_news(recorded: VmState, seen: VmState) -> bool {
    recorded != seen && !(recorded == VmState::Crashed && seen == VmState::Stopped)
}
