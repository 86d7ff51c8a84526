//! Background work on layers: whenever a machine is at rest and its layers are not, a piece of
//! work is sent to the agent. It is no operation, holds no lock, and gives way.

use super::App;
use super::engine::sharers;
use super::journal::Over;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tintype_model::change::Change;
use tintype_model::effect::{Effect, Outcome};
use tintype_model::operation::Phase;
use tintype_model::reclaim::{Reclaim, must_fold_first, next_beside};
use tintype_model::{DiskId, EffectId, OperationId, VmId};
use tintype_store::StoreError;

/// How long to leave a machine's layers alone after work on them failed.
const REST: Duration = Duration::from_secs(30);
/// The same while an operation waits for it.
const SHORT_REST: Duration = Duration::from_secs(2);
/// How often it is looked whether an operation waits.
const NUDGE: Duration = Duration::from_millis(200);

/// What came of a piece of work.
enum Came {
    /// It is done, or gave way; there may be more.
    Done,
    /// Somebody else comes first.
    Over,
    /// It failed.
    Failed,
}

impl App {
    /// Looks whether a machine's layers want work, and does all there is.
    pub(super) fn kick(self: &Arc<Self>, vm: VmId) {
        let app = Arc::clone(self);
        tokio::spawn(async move {
            // Disks on which work has failed: others are gone on with meanwhile.
            let mut failing = BTreeSet::new();
            loop {
                match app.plan_reclaim(vm, &failing).await {
                    Ok(Some((id, work, disk))) => match app.reclaim(vm, id, work).await {
                        Came::Done => {}
                        Came::Over => return,
                        Came::Failed => failing.extend(disk),
                    },
                    Ok(None) if failing.is_empty() => return,
                    Ok(None) => {
                        tokio::time::sleep(REST).await;
                        failing.clear();
                    }
                    Err(error) => app.wait_for_database(&error).await,
                }
            }
        });
    }

    async fn plan_reclaim(
        &self,
        vm: VmId,
        failing: &BTreeSet<DiskId>,
    ) -> Result<Option<(EffectId, Reclaim, Option<DiskId>)>, StoreError> {
        let reads = self.store.read().await?;
        let Some((mut unit, mut timeline)) = self.store.write_about(reads, vm).await? else {
            return Ok(None);
        };
        if timeline.vm.reclaim.is_some() {
            return Ok(None);
        }
        if let Some(holder) = timeline.vm.operation {
            let waits = unit.operation(holder)?.is_some_and(|op| op.phase == Phase::Waiting);
            if !waits || !must_fold_first(&timeline) {
                return Ok(None);
            }
        }
        let Some(work) = next_beside(&timeline, failing) else {
            return Ok(None);
        };
        let disk = work.disk(&timeline);
        let id = EffectId(self.fresh());
        unit.record(&mut timeline, &[Change::VmReclaim(Some(id))])?;
        unit.set_reclaim(vm, &work)?;
        unit.commit().await?;
        Ok(Some((id, work, disk)))
    }

    /// Has a piece of work done.
    async fn reclaim(self: &Arc<Self>, vm: VmId, id: EffectId, work: Reclaim) -> Came {
        self.describe(vm).await;
        let work_on = self.agent.perform(id, Effect::Reclaim { vm, work: work.clone() });
        let outcome = tokio::select! {
            biased;
            outcome = work_on => outcome,
            never = self.keep_giving_way(vm) => match never {},
        };
        let waiting = loop {
            match self.record_reclaim(vm, id, &work, &outcome).await {
                Ok(waiting) => break waiting,
                Err(error) => self.wait_for_database(&error).await,
            }
        };
        self.let_go(Over { id, touched: BTreeSet::from([vm]), unsettled: None }).await;
        if let Some(operation) = waiting {
            if let Outcome::Failed(reason, _) = &outcome {
                tracing::warn!(%vm, %reason, "giving space back failed");
                tokio::time::sleep(SHORT_REST).await;
            }
            Box::pin(self.begin(operation)).await;
            return Came::Over;
        }
        match outcome {
            Outcome::Done(_) => Came::Done,
            // Who it gave way to may have gone: there may be nobody else to look again.
            Outcome::Yielded => Came::Done,
            Outcome::Failed(reason, _) => {
                tracing::warn!(%vm, %reason, "giving space back failed");
                Came::Failed
            }
        }
    }

    /// Asks the agent to give way as long as an operation waits for it to.
    async fn keep_giving_way(&self, vm: VmId) -> Infallible {
        loop {
            tokio::time::sleep(NUDGE).await;
            let waits = async {
                let mut unit = self.store.read().await?;
                let Some(timeline) = unit.timeline(vm)? else { return Ok(false) };
                let Some(holder) = timeline.vm.operation else { return Ok(false) };
                let operation = unit.operation(holder)?;
                let waits = operation.is_some_and(|op| op.phase == Phase::Waiting);
                Ok::<_, StoreError>(waits && !must_fold_first(&timeline))
            };
            if waits.await.unwrap_or(false) {
                self.agent.give_way(vm);
            }
        }
    }

    /// Records the end of a piece of work; answers the operation that waited for it.
    async fn record_reclaim(
        self: &Arc<Self>,
        vm: VmId,
        id: EffectId,
        work: &Reclaim,
        outcome: &Outcome,
    ) -> Result<Option<OperationId>, StoreError> {
        let reads = self.store.read().await?;
        let Some((mut unit, mut timeline)) = self.store.write_about(reads, vm).await? else {
            return Ok(None);
        };
        if timeline.vm.reclaim != Some(id) {
            return Ok(None);
        }
        let mut changes = work.conclude(&timeline, outcome);
        changes.push(Change::VmReclaim(None));
        let sharers = sharers(&mut unit, &timeline).await?;
        unit.record(&mut timeline, &changes)?;
        let waiting = match timeline.vm.operation {
            Some(holder) => unit.operation(holder)?.filter(|op| op.phase == Phase::Waiting),
            None => None,
        };
        unit.commit().await?;
        // What this machine has let go of, another may have to itself now.
        for other in sharers {
            self.kick(other);
        }
        Ok(waiting.map(|operation| operation.id))
    }

    /// Takes up the work that was under way when an earlier control plane died.
    pub(super) async fn take_up_reclaims(self: &Arc<Self>) -> Result<(), StoreError> {
        let vms = self.store.read().await?.restless()?;
        for vm in vms {
            self.take_up_reclaim(vm).await?;
        }
        Ok(())
    }

    /// Goes on with the work that was under way for a machine, and looks for more.
    pub(super) async fn take_up_reclaim(self: &Arc<Self>, vm: VmId) -> Result<(), StoreError> {
        let under_way = self.store.read().await?.reclaim(vm)?;
        let app = Arc::clone(self);
        tokio::spawn(async move {
            if let Some((id, work)) = under_way {
                app.reclaim(vm, id, work).await;
            }
            app.kick(vm);
        });
        Ok(())
    }
}
