//! Commands on their way from a request to the engine.

use super::{Answer, App, How, stored};
use std::sync::Arc;
use std::time::Duration;
use tintype_model::access::{Action, Caller};
use tintype_model::operation::{Command, Operation};
use tintype_model::timeline::Timeline;
use tintype_model::{Refusal, SnapshotId};
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
        mut unit: Unit<'_>,
        timeline: Timeline,
        caller: &Caller,
        how: How,
        order: Order,
    ) -> Answer<rest::Operation> {
        let operation = self.take(&mut unit, timeline, caller, how, order).await?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        self.accepted(operation).await
    }

    /// Takes an order in a transaction that the caller commits.
    pub(super) async fn take(
        &self,
        unit: &mut Unit<'_>,
        mut timeline: Timeline,
        caller: &Caller,
        how: How,
        order: Order,
    ) -> Answer<Operation> {
        if how.force {
            caller.may_ever(Action::ForceLimit)?;
        }
        let Order { command, snapshot, forbidden } = order;
        let asker = how.asker(caller);
        let operation =
            self.admit(unit, &mut timeline, asker, how.queue, command, snapshot).await?;
        forbidden.map_or(Ok(operation), Err)
    }

    /// Begins an operation that was recorded, and shows it.
    pub(super) async fn accepted(
        self: &Arc<Self>,
        operation: Operation,
    ) -> Answer<rest::Operation> {
        self.begin(operation.id).await;
        self.follow(operation.id, Duration::ZERO).await
    }
}
