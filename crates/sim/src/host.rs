//! A host in memory with the agent that really performs on it, as long as its process lives: fate
//! decides at every step, and on every way.

use crate::fate::{Death, Fate};
use crate::truth::Contents;
use async_trait::async_trait;
use futures::FutureExt;
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tintype_agent::{FakeAgent, Memory};
use tintype_drivers::fake::Fake;
use tintype_model::effect::{After, Effect, Outcome};
use tintype_model::finding::{Repair, Sighting};
use tintype_model::manifest::{Manifest, Survey};
use tintype_model::vm::VmState;
use tintype_model::{EffectId, Refusal, VmId};
use tintype_wire::agent::{Agent, HostFacts, Inspected, Journaled, OnRecord, Progress};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// What outlives every process: guests, layers and journals.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) fake: Arc<Fake>,
    pub(crate) shelf: Memory,
    pub(crate) contents: Arc<Mutex<Contents>>,
}

/// The agent, as long as its process lives.
pub(crate) struct SimAgent {
    fate: Arc<Fate>,
    ground: Ground,
    agent: FakeAgent,
}

impl SimAgent {
    pub(crate) fn new(fate: Arc<Fate>, ground: Ground) -> Self {
        let agent = FakeAgent::new(Arc::clone(&ground.fake), ground.shelf.clone());
        Self { fate, ground, agent }
    }

    /// Messages take their time, most of them little.
    async fn travel(&self) {
        let ms = if self.fate.happens(10) { self.fate.below(3000) } else { self.fate.below(20) };
        sleep(Duration::from_millis(ms)).await;
        self.live().await;
    }

    /// Who is dead does nothing any more.
    async fn live(&self) {
        if self.fate.is_dead() {
            pending::<()>().await;
        }
    }

    /// What a part of the agent comes to; who dies there never answers.
    async fn lives<T>(&self, part: impl Future<Output = T>) -> T {
        self.live().await;
        match AssertUnwindSafe(part).catch_unwind().await {
            Ok(come) => come,
            Err(payload) if payload.is::<Death>() => pending().await,
            Err(bug) => resume_unwind(bug),
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.ground.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs here and now, or dies of it.
    fn act(&self, id: EffectId, effect: &Effect, stop: &Arc<AtomicBool>) -> Option<Outcome> {
        if let Effect::TakeSnapshot(take) = effect {
            self.contents().expect(&self.ground.fake, take);
        }
        let known = self.ground.shelf.knows(id);
        let acted = catch_unwind(AssertUnwindSafe(|| self.agent.act(id, effect, stop)));
        let came = match &acted {
            Ok(Outcome::Done(_)) => "done".to_owned(),
            Ok(Outcome::Failed(reason, _)) => format!("failed, {reason}"),
            Ok(Outcome::Yielded) => "gave way".to_owned(),
            Err(_) => "died".to_owned(),
        };
        self.contents().done.push(format!("agent: {} {id}: {came}", effect.word()));
        match acted {
            Ok(outcome) => {
                if !known {
                    self.judge(effect, &outcome);
                }
                Some(outcome)
            }
            Err(payload) if payload.is::<Death>() => None,
            Err(bug) => resume_unwind(bug),
        }
    }

    fn judge(&self, effect: &Effect, outcome: &Outcome) {
        if let (Effect::Revert(revert), Outcome::Done(_)) = (effect, outcome)
            && revert.after != After::Stopped
        {
            self.contents().compare_guest(&self.ground.fake, revert);
        }
    }
}

#[async_trait]
impl Agent for SimAgent {
    async fn perform(&self, id: EffectId, effect: Effect) -> Outcome {
        self.live().await;
        let stop = self.agent.enter(id, &effect);
        self.travel().await;
        let turn = self.agent.turn(effect.vm());
        let _turn = turn.lock().await;
        self.live().await;
        let Some(mut outcome) = self.act(id, &effect, &stop) else { return pending().await };
        self.travel().await;
        if self.fate.happens(10) {
            // The answer was lost and the order is sent again.
            let Some(again) = self.act(id, &effect, &stop) else { return pending().await };
            outcome = again;
            self.travel().await;
        }
        self.agent.leave(id);
        outcome
    }

    async fn forget(&self, id: EffectId) {
        self.lives(self.agent.forget(id)).await;
    }

    async fn journaled(&self) -> BTreeMap<EffectId, Journaled> {
        self.lives(self.agent.journaled()).await
    }

    async fn settle(&self, id: EffectId, recorded: Option<OnRecord>) {
        self.lives(self.agent.settle(id, recorded)).await;
    }

    fn progress(&self, id: EffectId) -> Option<Progress> {
        self.agent.progress(id)
    }

    fn give_way(&self, vm: VmId) {
        self.agent.give_way(vm);
    }

    fn cancel(&self, id: EffectId) {
        self.agent.cancel(id);
    }

    async fn inspect(&self, path: String) -> Result<Inspected, Refusal> {
        self.lives(self.agent.inspect(path)).await
    }

    async fn readable(&self, path: String) -> Result<(), Refusal> {
        self.lives(self.agent.readable(path)).await
    }

    async fn host(&self) -> HostFacts {
        self.lives(self.agent.host()).await
    }

    async fn guests(&self) -> BTreeMap<VmId, VmState> {
        self.lives(self.agent.guests()).await
    }

    async fn look(&self, vm: VmId, settle: BTreeSet<String>) -> Option<Sighting> {
        let sighting = self.lives(self.agent.look(vm, settle)).await;
        self.live().await;
        sighting
    }

    async fn survey(&self) -> Vec<Survey> {
        self.lives(self.agent.survey()).await
    }

    async fn repair(&self, vm: VmId, repair: Repair) -> Result<String, Refusal> {
        self.lives(self.agent.repair(vm, repair)).await
    }

    async fn describe(&self, vm: VmId, manifest: Manifest) -> Result<(), Refusal> {
        self.lives(self.agent.describe(vm, manifest)).await
    }

    fn console_address(&self, vm: VmId) -> String {
        self.agent.console_address(vm)
    }

    async fn console(&self, vm: VmId) -> mpsc::Receiver<Vec<u8>> {
        self.agent.console(vm).await
    }

    async fn type_in(&self, vm: VmId, bytes: Vec<u8>) -> Result<(), Refusal> {
        self.agent.type_in(vm, bytes).await
    }
}
