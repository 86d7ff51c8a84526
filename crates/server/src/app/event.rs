//! Events: recorded with what they tell of, listed and followed by whoever sees it.

use super::{Answer, App, stored};
use crate::view;
use futures::Stream;
use std::sync::Arc;
use tintype_model::access::{Action, Caller};
use tintype_model::operation::Operation;
use tintype_model::refusal::Code;
use tintype_model::{AccountId, Refusal, VmId};
use tintype_store::{Event, EventFilter, StoreError, Unit, state_of};
use tintype_wire::rest;

/// How many events are read at once for who follows them.
const AT_ONCE: u32 = 500;

impl App {
    /// An event that is about an account.
    pub(super) fn event(
        &self,
        user: &str,
        kind: &str,
        account: Option<AccountId>,
        detail: String,
    ) -> Event {
        Event {
            number: 0,
            at: self.now(),
            user: user.to_owned(),
            kind: kind.to_owned(),
            account,
            vm: None,
            snapshot: None,
            operation: None,
            detail,
        }
    }

    /// Records what an operation has come to.
    pub(super) fn tell_of(
        &self,
        unit: &mut Unit,
        operation: &Operation,
        account: AccountId,
        detail: String,
    ) -> Result<(), StoreError> {
        let state = match state_of(operation) {
            "queued" if operation.phase == tintype_model::operation::Phase::Waiting => "accepted",
            state => state,
        };
        let kind = format!("{}-{state}", operation.command.kind());
        let event = Event {
            vm: Some(operation.vm),
            snapshot: operation.snapshot,
            operation: Some(operation.id),
            ..self.event(&operation.asker.name, &kind, Some(account), detail)
        };
        unit.add_event(&event)
    }

    /// Records what somebody changed.
    pub(super) fn tell(
        &self,
        unit: &mut Unit,
        caller: &Caller,
        kind: &str,
        account: Option<AccountId>,
        detail: String,
    ) -> Answer<()> {
        unit.add_event(&self.event(&caller.name, kind, account, detail)).map_err(stored)
    }

    /// Wakes who follows events, after they were committed.
    pub(super) fn spread_news(&self) {
        self.news.send_replace(());
    }

    /// A page of events.
    ///
    /// # Errors
    /// When the machine is unknown.
    pub async fn events(
        &self,
        caller: &Caller,
        vm: Option<&str>,
        after: Option<&str>,
        limit: Option<u32>,
    ) -> Answer<rest::List<rest::Event>> {
        caller.may_ever(Action::ReadVm)?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let after = after.map_or(Ok(0), str::parse).map_err(|_| {
            Refusal::new(Code::InvalidRequest)
                .detail("after is no number")
                .hint("give what an earlier page said is next")
        })?;
        let limit = limit.unwrap_or(100).clamp(1, 1000);
        let vm = match vm {
            Some(vm) => Some(self.find_vm(&mut unit, caller, Action::ReadVm, vm)?),
            None => None,
        };
        let filter = EventFilter { after, vm, limit };
        let found = unit.events(caller.reach(), &filter).map_err(stored)?;
        let next = found.last().filter(|_| found.len() >= limit as usize);
        let next = next.map(|event| event.number.to_string());
        Ok(rest::List { items: found.iter().map(view::event).collect(), next })
    }

    /// Follows events from now on, or from after the one with this number.
    ///
    /// # Errors
    /// When the machine is unknown.
    pub async fn follow_events(
        self: &Arc<Self>,
        caller: Caller,
        vm: Option<&str>,
        after: Option<i64>,
    ) -> Answer<impl Stream<Item = rest::Event> + use<>> {
        caller.may_ever(Action::ReadVm)?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let vm: Option<VmId> = match vm {
            Some(vm) => Some(self.find_vm(&mut unit, &caller, Action::ReadVm, vm)?),
            None => None,
        };
        let after = match after {
            Some(after) => after,
            None => unit.last_event().map_err(stored)?,
        };
        drop(unit);
        let news = self.news.subscribe();
        let start = (Arc::clone(self), news, after, Vec::new().into_iter());
        Ok(futures::stream::unfold(start, move |(app, mut news, mut after, mut ready)| {
            let reach = caller.reach();
            async move {
                loop {
                    let next: Option<Event> = ready.next();
                    if let Some(event) = next {
                        let shown = view::event(&event);
                        return Some((shown, (app, news, event.number, ready)));
                    }
                    news.mark_unchanged();
                    let filter = EventFilter { after, vm, limit: AT_ONCE };
                    let found = async { app.store.read().await?.events(reach, &filter) };
                    ready = found.await.ok()?.into_iter();
                    if ready.len() == 0 {
                        news.changed().await.ok()?;
                    } else {
                        after = ready.as_slice().last().map_or(after, |event| event.number);
                    }
                }
            }
        }))
    }
}
