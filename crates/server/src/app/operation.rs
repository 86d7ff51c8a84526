//! Operations: shown, waited for, taken back.

use super::{Answer, App, stored};
use crate::view;
use std::sync::Arc;
use std::time::Duration;
use tintype_model::access::{Action, Caller};
use tintype_model::operation::{Operation, Phase};
use tintype_model::refusal::Code;
use tintype_model::{OperationId, Refusal};
use tintype_store::{OperationFilter, Page};
use tintype_wire::rest;

impl App {
    /// An operation, at once or when it has ended, if that is soon enough.
    ///
    /// # Errors
    /// When there is none; so for all of these.
    pub async fn operation(
        &self,
        caller: &Caller,
        id: OperationId,
        wait: Duration,
    ) -> Answer<rest::Operation> {
        self.find_operation(caller, Action::ReadVm, id).await?;
        self.follow(id, wait).await
    }

    /// The operation that a request was accepted as, if it was.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn accepted_as(&self, id: OperationId) -> Answer<Option<rest::Operation>> {
        let mut unit = self.store.read().await.map_err(stored)?;
        let operation = unit.operation(id).map_err(stored)?;
        Ok(operation.map(|operation| self.show(&operation)))
    }

    /// Looks whether there is such an operation and the caller may do this to it.
    async fn find_operation(&self, caller: &Caller, action: Action, id: OperationId) -> Answer<()> {
        let unknown = || Refusal::new(Code::UnknownOperation).detail(id.to_string());
        let mut unit = self.store.read().await.map_err(stored)?;
        let found = unit.operation_of(id).map_err(stored)?;
        let (_, account) = found.ok_or_else(unknown)?;
        let home = self.home(&mut unit, account)?;
        caller.may(action, &home, unknown)
    }

    /// An operation that was just accepted, or that the caller may see.
    pub(super) async fn follow(&self, id: OperationId, wait: Duration) -> Answer<rest::Operation> {
        let until = tokio::time::Instant::now() + wait;
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Listens before looking, so that an end in between is not missed.
            ended.as_mut().enable();
            let mut unit = self.store.read().await.map_err(stored)?;
            let operation = unit.operation(id).map_err(stored)?;
            drop(unit);
            let operation = operation
                .ok_or_else(|| Refusal::new(Code::UnknownOperation).detail(id.to_string()))?;
            if operation.has_ended() || tokio::time::timeout_at(until, ended).await.is_err() {
                return Ok(self.show(&operation));
            }
        }
    }

    /// A page of operations.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn operations(
        &self,
        caller: &Caller,
        vm: Option<String>,
        state: Option<String>,
        page: &Page,
    ) -> Answer<rest::List<rest::Operation>> {
        caller.may_ever(Action::ReadVm)?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let vm = match vm {
            Some(vm) => Some(self.find_vm(&mut unit, caller, Action::ReadVm, &vm)?),
            None => None,
        };
        let filter = OperationFilter { vm, state };
        let found = unit.operations(caller.reach(), &filter, page).map_err(stored)?;
        let last = found.last().map(|operation| (operation.created_at, "", operation.id.0));
        let next = view::next(page, found.len(), last);
        Ok(rest::List { items: found.iter().map(|operation| self.show(operation)).collect(), next })
    }

    /// Takes an operation back: what has begun is undone.
    ///
    /// # Errors
    /// When it is too late.
    pub async fn cancel_operation(
        self: &Arc<Self>,
        caller: &Caller,
        id: OperationId,
        wait: Duration,
    ) -> Answer<rest::Operation> {
        self.find_operation(caller, Action::CancelOperation, id).await?;
        self.cancel(id).await?;
        self.follow(id, wait).await
    }

    /// An operation as it is shown, with how far the agent is.
    pub(super) fn show(&self, operation: &Operation) -> rest::Operation {
        let progress = match &operation.phase {
            Phase::Performing { id, .. } => self.agent.progress(*id),
            Phase::Queued | Phase::Waiting | Phase::Ended(_) => None,
        };
        view::operation(operation, progress, self.now())
    }
}
