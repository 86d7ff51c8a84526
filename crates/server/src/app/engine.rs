//! Moves operations on: from accepted to begun, from performed to ended. Every move is one
//! transaction that reads, asks the model and records.

use super::find::unknown_vm;
use super::journal::Over;
use super::manifest::Recorded;
use super::{Answer, App, stored};
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tintype_model::change::Change;
use tintype_model::effect::Outcome;
use tintype_model::operation::{
    Asker, Command, Conditions, Ending, Event, Operation, Phase, Scene, accept, step,
};
use tintype_model::reclaim::must_fold_first;
use tintype_model::refusal::Code;
use tintype_model::timeline::Timeline;
use tintype_model::{OperationId, Refusal, SnapshotId, VmId};
use tintype_store::{StoreError, Unit, state_of};

/// How long to wait before a failed database is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// By whom and how a command is given.
pub(super) struct Asked {
    /// The id that the operation is to have.
    pub(super) id: OperationId,
    /// Who asks.
    pub(super) asker: Asker,
    /// Whether it may get in line.
    pub(super) queue: bool,
}

impl App {
    /// Admits a command in a transaction that the caller goes on with, or has it get in line.
    pub(super) fn admit(
        &self,
        unit: &mut Unit,
        timeline: &mut Timeline,
        asked: Asked,
        command: Command,
        snapshot: Option<SnapshotId>,
    ) -> Answer<Operation> {
        let Asked { id, asker, queue } = asked;
        let mut operation = Operation {
            id,
            vm: timeline.vm.id,
            snapshot,
            command,
            asker,
            phase: Phase::Waiting,
            created_at: self.now(),
            ended_at: None,
        };
        let account = timeline.vm.account;
        match self.judge(unit, timeline, &operation).map_err(stored)? {
            Ok(changes) => unit.record(timeline, &changes).map_err(stored)?,
            Err(refusal) if refusal.code == Code::VmBusy && queue => {
                operation.phase = Phase::Queued;
            }
            Err(refusal) => return Err(refusal),
        }
        let detail = forced(&operation);
        self.tell_of(unit, &operation, account, detail).map_err(stored)?;
        Ok(operation)
    }

    /// What the model says to an operation as things are now.
    fn judge(
        &self,
        unit: &mut Unit,
        timeline: &Timeline,
        operation: &Operation,
    ) -> Result<Answer<Vec<Change>>, StoreError> {
        let capabilities = &self.capabilities;
        let enabled = unit.snapshots_enabled(self.host.id, &capabilities.kind)?;
        let account = unit.account(timeline.vm.account)?;
        let (quota, usage) = account.map(|a| (a.quota, a.usage)).unwrap_or_default();
        let conditions =
            Conditions { capabilities, snapshots_enabled: enabled, quota, usage, at: self.now() };
        let Operation { id, command, asker, .. } = operation;
        Ok(accept(timeline, *id, command, asker, &conditions))
    }

    /// Begins an operation if nothing is in its way; else sees to it that it soon is not.
    pub(super) async fn begin(self: &Arc<Self>, id: OperationId) {
        let begun = loop {
            match self.try_begin(id).await {
                Ok(begun) => break begun,
                Err(error) => self.wait_for_database(&error).await,
            }
        };
        if let Some((begun, operation, recorded)) = begun {
            self.go_on(operation, begun, recorded);
        }
    }

    /// Goes on with an operation after it was tried to begin it.
    pub(super) fn go_on(
        self: &Arc<Self>,
        operation: Operation,
        begun: Begun,
        recorded: Option<Recorded>,
    ) {
        match begun {
            Begun::Performs => {
                tokio::spawn(Arc::clone(self).performing(operation, recorded));
            }
            Begun::Waits(vm) => {
                self.agent.give_way(vm);
                self.kick(vm);
            }
            Begun::Over => {}
        }
    }

    async fn try_begin(
        &self,
        id: OperationId,
    ) -> Result<Option<(Begun, Operation, Option<Recorded>)>, StoreError> {
        let Some((mut unit, mut operation, mut timeline)) = self.write_on(id).await? else {
            return Ok(None);
        };
        let begun = self.begin_within(&mut unit, &mut timeline, &mut operation)?;
        unit.put_operation(&operation, timeline.vm.account)?;
        let revision = unit.revision(timeline.vm.id)?;
        unit.commit().await?;
        let recorded = revision.map(|revision| Recorded { timeline, revision });
        Ok(Some((begun, operation, recorded)))
    }

    /// Begins an operation that waits, in a transaction in which the caller records it, unless
    /// background work has to give way first or layers have to be folded.
    pub(super) fn begin_within(
        &self,
        unit: &mut Unit,
        timeline: &mut Timeline,
        operation: &mut Operation,
    ) -> Result<Begun, StoreError> {
        if operation.phase != Phase::Waiting {
            return Ok(Begun::Over);
        }
        let folds = operation.command.adds_layers();
        if timeline.vm.reclaim.is_some() || folds && must_fold_first(timeline) {
            return Ok(Begun::Waits(operation.vm));
        }
        let scene = Scene { timeline: &*timeline, at: self.now(), fresh: &mut || self.fresh() };
        let step = step(operation, scene, Event::Begin);
        operation.phase = step.phase;
        unit.record(timeline, &step.changes)?;
        Ok(Begun::Performs)
    }

    /// [`App::perform`], which begins others that begin others.
    fn performing(
        self: Arc<Self>,
        operation: Operation,
        recorded: Option<Recorded>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(self.perform(operation, recorded))
    }

    /// Has the agent perform what an operation has planned, one effect after the other, and records
    /// how it ended.
    async fn perform(self: Arc<Self>, operation: Operation, recorded: Option<Recorded>) {
        let mut phase = operation.phase;
        // Whoever finds the host without our database finds what is done to it, unless that could
        // not be written down.
        let _ = match recorded {
            Some(recorded) => self.describe_as(recorded).await,
            None => self.describe(operation.vm).await,
        };
        while let Phase::Performing { id, effect, .. } = phase {
            let outcome = self.agent.perform(id, *effect).await;
            let concluded = loop {
                match self.conclude(operation.id, outcome.clone()).await {
                    Ok(concluded) => break concluded,
                    Err(error) => self.wait_for_database(&error).await,
                }
            };
            let touched = concluded.iter().flat_map(|(_, after)| after.kick.clone());
            let touched = touched.chain([operation.vm]).collect();
            self.let_go(Over { id, touched, unsettled: None }).await;
            let Some((reached, after)) = concluded else { return };
            phase = reached;
            self.carry_on(after).await;
        }
    }

    /// Does what a recorded transition asks for, and wakes who waits for an end.
    async fn carry_on(self: &Arc<Self>, after: After) {
        for vm in after.kick {
            self.kick(vm);
        }
        for next in after.begin {
            self.begin(next).await;
        }
        self.ended.notify_waiters();
    }

    /// Records an outcome, and how far the operation is then, if there is the operation still.
    async fn conclude(
        &self,
        id: OperationId,
        outcome: Outcome,
    ) -> Result<Option<(Phase, After)>, StoreError> {
        let Some((unit, operation, timeline)) = self.write_on(id).await? else { return Ok(None) };
        self.move_on(unit, operation, timeline, Event::Performed(outcome)).await.map(Some)
    }

    /// Takes back an operation: at once if it has not begun, else by having it undone.
    pub(super) async fn cancel(self: &Arc<Self>, id: OperationId) -> Answer<()> {
        let unknown = || Refusal::new(Code::UnknownOperation).detail(id.to_string());
        let found = self.write_on(id).await.map_err(stored)?;
        let (unit, operation, timeline) = found.ok_or_else(unknown)?;
        let kind = operation.command.kind();
        if operation.has_ended() {
            return Err(Refusal::new(Code::OperationEnded).detail(format!("{kind} {id} is over")));
        }
        if !operation.can_be_cancelled() {
            return Err(Refusal::new(Code::OperationRuns)
                .detail(format!("{kind} {id} has begun and ends by itself"))
                .hint("wait for it: tintype operation wait")
                .blocked_by([id.0]));
        }
        let under_way = operation.phase.effect();
        let moved = self.move_on(unit, operation, timeline, Event::Cancel).await;
        let (_, after) = moved.map_err(stored)?;
        if let Some(effect) = under_way {
            self.agent.cancel(effect);
        }
        self.carry_on(after).await;
        Ok(())
    }

    /// Lets the next in line in where nobody holds the machine.
    async fn look_at_line(self: &Arc<Self>, vm: VmId) -> Result<(), StoreError> {
        let mut unit = self.store.write().await?;
        let mut after = After::default();
        if let Some(mut timeline) = unit.timeline(vm)?
            && timeline.vm.operation.is_none()
        {
            self.let_in(&mut unit, &mut timeline, false, &mut after)?;
        }
        unit.commit().await?;
        self.carry_on(after).await;
        Ok(())
    }

    /// Begins to write about an operation and its machine.
    async fn write_on(
        &self,
        id: OperationId,
    ) -> Result<Option<(Unit, Operation, Timeline)>, StoreError> {
        let mut reads = self.store.read().await?;
        let Some(operation) = reads.operation(id)? else { return Ok(None) };
        let Some((mut unit, timeline)) = self.store.write_about(reads, operation.vm).await? else {
            return Ok(None);
        };
        let operation = unit.operation(id)?;
        Ok(operation.map(|operation| (unit, operation, timeline)))
    }

    /// One transition: the model decides, the store records. When the machine is free then, the
    /// next in line is let in.
    async fn move_on(
        &self,
        mut unit: Unit,
        mut operation: Operation,
        mut timeline: Timeline,
        event: Event,
    ) -> Result<(Phase, After), StoreError> {
        let at = self.now();
        let (vm, account) = (operation.vm, timeline.vm.account);
        let sharers = sharers(&mut unit, &timeline).await?;
        let scene = Scene { timeline: &timeline, at, fresh: &mut || self.fresh() };
        let step = step(&operation, scene, event);
        operation.phase = step.phase;
        let gone = step.changes.contains(&Change::VmGone);
        unit.record(&mut timeline, &step.changes)?;
        let mut after = After::default();
        self.record_elsewhere(&mut unit, step.elsewhere, &mut after)?;
        if operation.has_ended() {
            operation.ended_at = Some(at);
            let detail = why(&operation);
            self.tell_of(&mut unit, &operation, account, detail)?;
            after.kick.push(vm);
            after.kick.extend(sharers);
        }
        unit.put_operation(&operation, account)?;
        if operation.has_ended() && timeline.vm.operation.is_none() {
            self.let_in(&mut unit, &mut timeline, gone, &mut after)?;
        }
        unit.commit().await?;
        if operation.has_ended() {
            metrics::counter!("tintype_operations_total", "kind" => operation.command.kind(),
                "state" => state_of(&operation))
            .increment(1);
        }
        self.spread_news();
        Ok((operation.phase, after))
    }

    /// Records what a transition means for another machine, whose line may go on then.
    fn record_elsewhere(
        &self,
        unit: &mut Unit,
        elsewhere: Option<(VmId, Vec<Change>)>,
        after: &mut After,
    ) -> Result<(), StoreError> {
        let Some((other, changes)) = elsewhere else { return Ok(()) };
        let Some(mut other) = unit.timeline(other)? else { return Ok(()) };
        unit.record(&mut other, &changes)?;
        after.kick.push(other.vm.id);
        let gone = changes.contains(&Change::VmGone);
        if gone || other.vm.operation.is_none() {
            self.let_in(unit, &mut other, gone, after)?;
        }
        Ok(())
    }

    /// Lets the next in line in; those that may not be are over.
    fn let_in(
        &self,
        unit: &mut Unit,
        timeline: &mut Timeline,
        gone: bool,
        after: &mut After,
    ) -> Result<(), StoreError> {
        let account = timeline.vm.account;
        for mut next in Operation::in_turn(unit.line(timeline.vm.id)?) {
            let judged = if gone {
                Err(unknown_vm(&timeline.vm.name))
            } else {
                self.judge(unit, timeline, &next)?
            };
            match judged {
                Ok(changes) => {
                    next.phase = Phase::Waiting;
                    unit.record(timeline, &changes)?;
                    unit.put_operation(&next, account)?;
                    after.begin.push(next.id);
                    return Ok(());
                }
                Err(refusal) => {
                    let at = self.now();
                    let scene = Scene { timeline: &*timeline, at, fresh: &mut || self.fresh() };
                    let step = step(&next, scene, Event::Refused(refusal));
                    next.phase = step.phase;
                    next.ended_at = Some(at);
                    unit.put_operation(&next, account)?;
                    let detail = why(&next);
                    self.tell_of(unit, &next, account, detail)?;
                    self.record_elsewhere(unit, step.elsewhere, after)?;
                }
            }
        }
        Ok(())
    }

    /// Takes up what was under way when an earlier control plane died.
    pub(super) async fn take_up_operations(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut unit = self.store.read().await?;
        let open = unit.open_operations()?;
        let mut effects = BTreeSet::new();
        for operation in &open {
            effects.extend(operation.phase.effect());
        }
        for vm in unit.restless()? {
            effects.extend(unit.reclaim(vm)?.map(|(id, _)| id));
        }
        let known = unit.vm_states()?.into_iter().map(|(vm, ..)| vm).collect();
        drop(unit);
        self.let_go_but(&effects, &known).await;
        for operation in open {
            self.take_up(operation).await?;
        }
        Ok(())
    }

    /// Goes on with an operation that was under way.
    pub(super) async fn take_up(self: &Arc<Self>, operation: Operation) -> Result<(), StoreError> {
        match operation.phase {
            Phase::Performing { .. } => {
                tokio::spawn(Arc::clone(self).performing(operation, None));
            }
            Phase::Waiting => self.begin(operation.id).await,
            Phase::Queued => self.look_at_line(operation.vm).await?,
            Phase::Ended(_) => {}
        }
        Ok(())
    }

    pub(super) async fn wait_for_database(&self, error: &StoreError) {
        tracing::error!(%error, "the database failed; trying again");
        tokio::time::sleep(AGAIN).await;
    }
}

/// What is to be done once a transition is recorded.
#[derive(Default)]
struct After {
    /// The operations whose turn it is.
    begin: Vec<OperationId>,
    /// Machines on whose layers there may be work.
    kick: Vec<VmId>,
}

/// What an event says of an operation that passes limits.
fn forced(operation: &Operation) -> String {
    if operation.asker.force { "with --force".to_owned() } else { String::new() }
}

/// Why an operation has failed.
fn why(operation: &Operation) -> String {
    match &operation.phase {
        Phase::Ended(Ending::Failed(reason)) => reason.to_string(),
        _ => String::new(),
    }
}

/// What came of it when an operation was tried to begin.
pub(super) enum Begun {
    /// An agent is to perform its effect.
    Performs,
    /// Background work on this machine's layers comes first.
    Waits(VmId),
    /// It had begun, or is over, or is in line.
    Over,
}

/// The machines that this one shares layers with.
pub(super) async fn sharers(unit: &mut Unit, timeline: &Timeline) -> Result<Vec<VmId>, StoreError> {
    if timeline.layers.values().any(|layer| layer.shared) {
        return unit.sharers(timeline.vm.id);
    }
    Ok(Vec::new())
}
