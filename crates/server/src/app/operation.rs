//! Operations: shown, waited for, taken back.

use super::{Answer, App, stored};
use crate::view;
use std::time::Duration;
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
    pub async fn operation(&self, id: OperationId, wait: Duration) -> Answer<rest::Operation> {
        let until = tokio::time::Instant::now() + wait;
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Listens before looking, so that an end in between is not missed.
            ended.as_mut().enable();
            let mut unit = self.store.read().await.map_err(stored)?;
            let operation = unit.operation(id).await.map_err(stored)?;
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
        vm: Option<String>,
        state: Option<String>,
        page: Page,
    ) -> Answer<rest::List<rest::Operation>> {
        let mut unit = self.store.read().await.map_err(stored)?;
        let vm = match vm {
            Some(vm) => Some(self.find_vm(&mut unit, &vm).await?),
            None => None,
        };
        let filter = OperationFilter { vm, state };
        let found = unit.operations(&filter, page).await.map_err(stored)?;
        let last = found.last().map(|operation| (operation.created_at, operation.id.0));
        let next = view::next(page, found.len(), last);
        Ok(rest::List { items: found.iter().map(|operation| self.show(operation)).collect(), next })
    }

    /// Takes an operation back that has not begun.
    ///
    /// # Errors
    /// When it has.
    pub async fn cancel_operation(&self, id: OperationId) -> Answer<rest::Operation> {
        self.cancel(id).await?;
        self.operation(id, Duration::ZERO).await
    }

    /// An operation as it is shown, with how far the agent is.
    pub(super) fn show(&self, operation: &Operation) -> rest::Operation {
        let progress = match &operation.phase {
            Phase::Performing { id, .. } => self.agent.progress(*id),
            Phase::Waiting | Phase::Ended(_) => None,
        };
        view::operation(operation, progress)
    }
}
