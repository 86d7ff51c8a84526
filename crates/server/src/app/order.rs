//! Commands on their way from a request to the engine.

use super::engine::Asked;
use super::manifest::Recorded;
use super::{Answer, App, How, stored};
use std::sync::Arc;
use tintype_model::access::{Action, Caller};
use tintype_model::operation::{Command, Operation};
use tintype_model::refusal::Code;
use tintype_model::timeline::Timeline;
use tintype_model::{OperationId, Refusal, SnapshotId};
use tintype_store::Unit;
use tintype_wire::rest;

/// A command for a machine.
pub(super) struct Order {
    /// What to do.
    pub(super) command: Command,
    /// The snapshot it is about.
    pub(super) snapshot: Option<SnapshotId>,
    /// What outside the machine stands against it. What the machine's own rules say comes first: a
    /// full pool is nobody's first concern.
    pub(super) forbidden: Option<Refusal>,
}

impl Order {
    pub(super) fn new(command: Command) -> Self {
        Self { command, snapshot: None, forbidden: None }
    }

    pub(super) fn about(self, snapshot: SnapshotId) -> Self {
        Self { snapshot: Some(snapshot), ..self }
    }

    pub(super) fn unless(self, forbidden: Option<Refusal>) -> Self {
        Self { forbidden, ..self }
    }
}

impl App {
    /// Takes an order in a transaction that was begun, and begins with it.
    pub(super) async fn give(
        self: &Arc<Self>,
        mut unit: Unit,
        mut timeline: Timeline,
        caller: &Caller,
        how: How,
        order: Order,
    ) -> Answer<rest::Operation> {
        let operation = self.take(&mut unit, &mut timeline, caller, how, order)?;
        self.go(unit, timeline, operation).await
    }

    /// Begins with an order that was taken, in the same transaction if nothing is in its way, and
    /// shows it.
    pub(super) async fn go(
        self: &Arc<Self>,
        mut unit: Unit,
        mut timeline: Timeline,
        mut operation: Operation,
    ) -> Answer<rest::Operation> {
        let begun = self.begin_within(&mut unit, &mut timeline, &mut operation);
        let begun = begun.map_err(stored)?;
        let account = timeline.vm.account;
        unit.put_operation(&operation, account).map_err(stored)?;
        let revision = unit.revision(timeline.vm.id).map_err(stored)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        let shown = self.show(&operation);
        let recorded = revision.map(|revision| Recorded { timeline, revision });
        self.go_on(operation, begun, recorded);
        Ok(shown)
    }

    /// Takes an order in a transaction that the caller commits.
    pub(super) fn take(
        &self,
        unit: &mut Unit,
        timeline: &mut Timeline,
        caller: &Caller,
        how: How,
        order: Order,
    ) -> Answer<Operation> {
        if how.force {
            caller.may_ever(Action::ForceLimit)?;
        }
        let Order { command, snapshot, forbidden } = order;
        let id = caller.once.unwrap_or_else(|| OperationId(self.fresh()));
        if unit.operation(id).map_err(stored)?.is_some() {
            return Err(Refusal::new(Code::KeyReused)
                .detail("the same request was accepted meanwhile")
                .hint("ask again for its answer"));
        }
        let asked = Asked { id, asker: how.asker(caller), queue: how.queue };
        let operation = self.admit(unit, timeline, asked, command, snapshot)?;
        forbidden.map_or(Ok(operation), Err)
    }
}
