//! A host in memory, with the agent that really performs on it: guests and layers are
//! [`Fake`], journals are on a shelf in memory, and fate decides at every step.

use crate::fate::{Death, Fate};
use crate::shelf::Memory;
use crate::truth::Contents;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tintype_agent::{Hand, Journals, begun};
use tintype_drivers::fake::Fake;
use tintype_drivers::{Host, Hypervisor, Volume};
use tintype_model::effect::{After, Effect, Outcome};
use tintype_model::layer::Format;
use tintype_model::vm::VmState;
use tintype_model::{EffectId, Refusal, VmId};
use tintype_wire::agent::{Agent, HostFacts, Inspected, Progress};
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::time::sleep;

const GIB: u64 = 1 << 30;

/// What outlives every process: guests, layers and journals.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) fake: Arc<Fake>,
    pub(crate) shelf: Memory,
    pub(crate) contents: Arc<Mutex<Contents>>,
}

/// The fake as something that a hand holds.
struct Held(Arc<Fake>);

impl Host for Held {
    fn hypervisor(&self) -> &dyn Hypervisor {
        &*self.0
    }

    fn volume(&self) -> &dyn Volume {
        &*self.0
    }
}

/// An effect that is under way: about which machine, whether in the background, and what stops it.
type Running = (VmId, bool, Arc<AtomicBool>);

/// The agent, as long as its process lives.
pub(crate) struct SimAgent {
    fate: Arc<Fate>,
    ground: Ground,
    hand: Hand<Held>,
    turns: Mutex<BTreeMap<VmId, Arc<AsyncMutex<()>>>>,
    running: Mutex<BTreeMap<EffectId, Running>>,
}

impl SimAgent {
    pub(crate) fn new(fate: Arc<Fate>, ground: Ground) -> Self {
        let hand = Hand::new(Held(Arc::clone(&ground.fake)), Journals::on(ground.shelf.clone()));
        Self { fate, ground, hand, turns: Mutex::default(), running: Mutex::default() }
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

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.ground.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs here and now, or dies of it.
    fn act(&self, id: EffectId, effect: &Effect, stop: &Arc<AtomicBool>) -> Option<Outcome> {
        if let Effect::TakeSnapshot(take) = effect {
            self.contents().expect(&self.ground.fake, take);
        }
        let known = self.ground.shelf.knows(id);
        let progress = Arc::new(Mutex::new(begun("begun")));
        let acted =
            catch_unwind(AssertUnwindSafe(|| self.hand.perform(id, effect, progress, stop)));
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
        let (vm, stop) = (effect.vm(), Arc::<AtomicBool>::default());
        let background = matches!(effect, Effect::Reclaim { .. });
        let running = (vm, background, Arc::clone(&stop));
        self.running.lock().expect("no holder panics").insert(id, running);
        self.travel().await;
        let turn = Arc::clone(self.turns.lock().expect("no holder panics").entry(vm).or_default());
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
        self.running.lock().expect("no holder panics").remove(&id);
        outcome
    }

    async fn forget(&self, id: EffectId) {
        self.live().await;
        if catch_unwind(AssertUnwindSafe(|| self.hand.forget(id))).is_err() {
            pending().await
        }
    }

    async fn forget_but(&self, open: BTreeSet<EffectId>) {
        self.live().await;
        if catch_unwind(AssertUnwindSafe(|| self.hand.forget_but(&open))).is_err() {
            pending().await
        }
    }

    fn progress(&self, _id: EffectId) -> Option<Progress> {
        None
    }

    fn give_way(&self, vm: VmId) {
        let running = self.running.lock().expect("no holder panics");
        for (_, _, stop) in running.values().filter(|(of, background, _)| *of == vm && *background)
        {
            stop.store(true, Ordering::SeqCst);
        }
    }

    fn cancel(&self, id: EffectId) {
        if let Some((_, _, stop)) = self.running.lock().expect("no holder panics").get(&id) {
            stop.store(true, Ordering::SeqCst);
        }
    }

    async fn inspect(&self, _path: String) -> Result<Inspected, Refusal> {
        self.live().await;
        Ok(Inspected { format: Format::Raw, size_bytes: GIB, allocated_bytes: 1 << 20 })
    }

    async fn readable(&self, _path: String) -> Result<(), Refusal> {
        self.live().await;
        Ok(())
    }

    async fn host(&self) -> HostFacts {
        self.live().await;
        HostFacts {
            capabilities: self.ground.fake.capabilities().clone(),
            memory_free_bytes: 1000 * GIB,
            memory_total_bytes: 1000 * GIB,
            pool_free_bytes: 1000 * GIB,
            pool_total_bytes: 1000 * GIB,
            pool_path: "/pool".into(),
        }
    }

    async fn guests(&self) -> BTreeMap<VmId, VmState> {
        self.live().await;
        if catch_unwind(AssertUnwindSafe(|| self.hand.tidy())).is_err() {
            pending::<()>().await;
        }
        let state = |guest| if guest { VmState::Running } else { VmState::Stopped };
        self.ground.fake.machines().into_iter().map(|(vm, guest)| (vm, state(guest))).collect()
    }

    fn console_address(&self, _vm: VmId) -> String {
        "none".into()
    }

    async fn console(&self, _vm: VmId) -> mpsc::Receiver<Vec<u8>> {
        mpsc::channel(1).1
    }

    async fn type_in(&self, _vm: VmId, _bytes: Vec<u8>) -> Result<(), Refusal> {
        Ok(())
    }
}
