//! Moves operations on: from accepted to begun, from performed to ended. Every move is one
//! transaction that reads, asks the model and records.

use super::{Answer, App, now, stored};
use std::sync::Arc;
use std::time::Duration;
use tintype_model::operation::{Command, Event, Operation, Phase, Scene, accept, step};
use tintype_model::reclaim::must_fold_first;
use tintype_model::refusal::Code;
use tintype_model::timeline::Timeline;
use tintype_model::{OperationId, Refusal, SnapshotId};
use tintype_store::{StoreError, Unit};
use uuid::Uuid;

/// How long to wait before a failed database is asked again.
const AGAIN: Duration = Duration::from_millis(500);

impl App {
    /// Admits a command in a transaction that the caller commits.
    pub(super) async fn admit(
        &self,
        unit: &mut Unit<'_>,
        timeline: &Timeline,
        command: Command,
        snapshot: Option<SnapshotId>,
    ) -> Answer<Operation> {
        let id = OperationId(Uuid::new_v4());
        let at = now();
        let capabilities = self.agent.host().await.capabilities;
        let changes = accept(timeline, id, &command, &capabilities, at)?;
        let phase = Phase::Waiting;
        let vm = timeline.vm.id;
        let operation =
            Operation { id, vm, snapshot, command, phase, created_at: at, ended_at: None };
        unit.record(vm, &changes).await.map_err(stored)?;
        unit.put_operation(&operation).await.map_err(stored)?;
        Ok(operation)
    }

    /// Begins an operation if nothing is in its way; else sees to it that it soon is not.
    pub(super) async fn begin(self: &Arc<Self>, id: OperationId) {
        let begun = loop {
            match self.try_begin(id).await {
                Ok(begun) => break begun,
                Err(error) => self.wait_for_database(&error).await,
            }
        };
        match begun {
            Begun::Performs => {
                tokio::spawn(Arc::clone(self).perform(id));
            }
            Begun::Waits(vm) => {
                self.agent.give_way(vm);
                self.kick(vm);
            }
            Begun::Over => {}
        }
    }

    async fn try_begin(&self, id: OperationId) -> Result<Begun, StoreError> {
        let mut unit = self.store.write().await?;
        let Some(operation) = unit.operation(id).await? else {
            return Ok(Begun::Over);
        };
        if operation.phase != Phase::Waiting {
            return Ok(Begun::Over);
        }
        let Some(timeline) = unit.timeline(operation.vm).await? else {
            return Ok(Begun::Over);
        };
        let folds = matches!(operation.command, Command::CreateSnapshot(_));
        if timeline.vm.reclaim.is_some() || folds && must_fold_first(&timeline) {
            return Ok(Begun::Waits(operation.vm));
        }
        self.move_on(unit, operation, &timeline, Event::Begin).await?;
        Ok(Begun::Performs)
    }

    /// Has the agent perform what an operation has planned, and records how it ended.
    async fn perform(self: Arc<Self>, id: OperationId) {
        let Some((effect_id, effect, vm)) = self.planned(id).await else {
            return;
        };
        let outcome = self.agent.perform(effect_id, effect).await;
        while let Err(error) = self.conclude(id, outcome.clone()).await {
            self.wait_for_database(&error).await;
        }
        self.agent.forget(effect_id).await;
        self.ended.notify_waiters();
        self.kick(vm);
    }

    async fn planned(
        &self,
        id: OperationId,
    ) -> Option<(tintype_model::EffectId, tintype_model::effect::Effect, tintype_model::VmId)> {
        let operation = loop {
            let read = async { self.store.read().await?.operation(id).await };
            match read.await {
                Ok(operation) => break operation?,
                Err(error) => self.wait_for_database(&error).await,
            }
        };
        match operation.phase {
            Phase::Performing { id, effect } => Some((id, *effect, operation.vm)),
            Phase::Waiting | Phase::Ended(_) => None,
        }
    }

    async fn conclude(
        &self,
        id: OperationId,
        outcome: tintype_model::effect::Outcome,
    ) -> Result<(), StoreError> {
        let mut unit = self.store.write().await?;
        let Some(operation) = unit.operation(id).await? else {
            return Ok(());
        };
        let Some(timeline) = unit.timeline(operation.vm).await? else {
            return Ok(());
        };
        self.move_on(unit, operation, &timeline, Event::Performed(outcome)).await
    }

    /// Takes back an operation that has not begun.
    pub(super) async fn cancel(&self, id: OperationId) -> Answer<()> {
        let mut unit = self.store.write().await.map_err(stored)?;
        let operation = unit.operation(id).await.map_err(stored)?;
        let operation =
            operation.ok_or_else(|| Refusal::new(Code::UnknownOperation).detail(id.to_string()))?;
        if operation.phase != Phase::Waiting {
            return Err(Refusal::new(Code::OperationRuns)
                .detail(format!("{} {id} has begun or is over", operation.command.kind()))
                .blocked_by([id.0]));
        }
        let timeline = unit.timeline(operation.vm).await.map_err(stored)?;
        let Some(timeline) = timeline else {
            return Ok(());
        };
        self.move_on(unit, operation, &timeline, Event::Cancel).await.map_err(stored)?;
        self.ended.notify_waiters();
        Ok(())
    }

    /// One transition: the model decides, the store records.
    async fn move_on(
        &self,
        mut unit: Unit<'_>,
        mut operation: Operation,
        timeline: &Timeline,
        event: Event,
    ) -> Result<(), StoreError> {
        let at = now();
        let scene = Scene { timeline, at, fresh: &mut Uuid::new_v4 };
        let step = step(&operation, scene, event);
        operation.phase = step.phase;
        if operation.has_ended() {
            operation.ended_at = Some(at);
        }
        unit.record(operation.vm, &step.changes).await?;
        unit.put_operation(&operation).await?;
        unit.commit().await
    }

    /// Takes up what was under way when an earlier control plane died.
    pub(super) async fn take_up_operations(self: &Arc<Self>) -> Result<(), StoreError> {
        for operation in self.store.read().await?.open_operations().await? {
            match operation.phase {
                Phase::Performing { .. } => {
                    tokio::spawn(Arc::clone(self).perform(operation.id));
                }
                Phase::Waiting => self.begin(operation.id).await,
                Phase::Ended(_) => {}
            }
        }
        Ok(())
    }

    pub(super) async fn wait_for_database(&self, error: &StoreError) {
        tracing::error!(%error, "the database failed; trying again");
        tokio::time::sleep(AGAIN).await;
    }
}

enum Begun {
    Performs,
    Waits(tintype_model::VmId),
    Over,
}
