//! The agent of a host in memory: guests and layers are [`Fake`], the hand that performs on them is
//! the real one.

use crate::hand::Hand;
use crate::journal::{Journals, begun};
use crate::memory::Memory;
use crate::sight;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tintype_drivers::fake::Fake;
use tintype_drivers::{Host, Hypervisor};
use tintype_model::effect::{Effect, Outcome};
use tintype_model::finding::{Repair, Sighting};
use tintype_model::layer::Format;
use tintype_model::manifest::{Manifest, Survey};
use tintype_model::vm::VmState;
use tintype_model::{EffectId, Refusal, VmId};
use tintype_wire::agent::{Agent, HostFacts, Inspected, Journaled, OnRecord, Progress};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

const GIB: u64 = 1 << 30;

/// An effect that is under way: about which machine, whether in the background, and what stops it.
type Running = (VmId, bool, Arc<AtomicBool>);

/// The agent of a host in memory.
pub struct FakeAgent {
    hand: Hand<Arc<Fake>>,
    turns: Mutex<BTreeMap<VmId, Arc<AsyncMutex<()>>>>,
    running: Mutex<BTreeMap<EffectId, Running>>,
}

impl Default for FakeAgent {
    /// One of a host without machines, on which everything goes well.
    fn default() -> Self {
        Self::new(Arc::default(), Memory::default())
    }
}

impl FakeAgent {
    /// One that performs on these machines, with its journals on this shelf.
    pub fn new(fake: Arc<Fake>, shelf: Memory) -> Self {
        let hand = Hand::new(fake, Journals::on(shelf));
        Self { hand, turns: Mutex::default(), running: Mutex::default() }
    }

    /// One effect at a time for each machine.
    pub fn turn(&self, vm: VmId) -> Arc<AsyncMutex<()>> {
        Arc::clone(self.turns.lock().expect("no holder panics").entry(vm).or_default())
    }

    /// From now on an effect is under way; answers what is set to stop it.
    pub fn enter(&self, id: EffectId, effect: &Effect) -> Arc<AtomicBool> {
        let stop = Arc::<AtomicBool>::default();
        let background = matches!(effect, Effect::Reclaim { .. });
        let running = (effect.vm(), background, Arc::clone(&stop));
        self.running.lock().expect("no holder panics").insert(id, running);
        stop
    }

    /// It is under way no more.
    pub fn leave(&self, id: EffectId) {
        self.running.lock().expect("no holder panics").remove(&id);
    }

    /// Performs an effect here and now.
    pub fn act(&self, id: EffectId, effect: &Effect, stop: &Arc<AtomicBool>) -> Outcome {
        self.hand.perform(id, effect, Arc::new(Mutex::new(begun("begun"))), stop)
    }

    fn host(&self) -> &Fake {
        self.hand.host()
    }
}

#[async_trait]
impl Agent for FakeAgent {
    async fn perform(&self, id: EffectId, effect: Effect) -> Outcome {
        let stop = self.enter(id, &effect);
        let turn = self.turn(effect.vm());
        let _turn = turn.lock().await;
        let outcome = self.act(id, &effect, &stop);
        self.leave(id);
        outcome
    }

    async fn forget(&self, id: EffectId) {
        self.hand.forget(id);
    }

    async fn journaled(&self) -> BTreeMap<EffectId, Journaled> {
        self.hand.journaled()
    }

    async fn settle(&self, id: EffectId, recorded: Option<OnRecord>) {
        self.hand.settle(id, recorded.as_ref());
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
        Ok(Inspected { format: Format::Raw, size_bytes: GIB, allocated_bytes: 1 << 20 })
    }

    async fn readable(&self, _path: String) -> Result<(), Refusal> {
        Ok(())
    }

    async fn host(&self) -> HostFacts {
        HostFacts {
            capabilities: self.host().capabilities().clone(),
            memory_free_bytes: 1000 * GIB,
            memory_total_bytes: 1000 * GIB,
            pool_free_bytes: 1000 * GIB,
            pool_total_bytes: 1000 * GIB,
            pool_path: "/pool".into(),
        }
    }

    async fn guests(&self) -> BTreeMap<VmId, VmState> {
        self.hand.tidy();
        let state = |guest| if guest { VmState::Running } else { VmState::Stopped };
        self.host().machines().into_iter().map(|(vm, guest)| (vm, state(guest))).collect()
    }

    async fn look(&self, vm: VmId, settle: BTreeSet<String>) -> Option<Sighting> {
        let _turn = self.turn(vm).try_lock_owned().ok()?;
        sight::look(self.hand.host(), vm, &settle).ok()
    }

    async fn survey(&self) -> Vec<Survey> {
        let host = self.hand.host();
        host.premises().machines().into_iter().map(|vm| sight::survey(host, vm)).collect()
    }

    async fn repair(&self, vm: VmId, repair: Repair) -> Result<String, Refusal> {
        let turn = self.turn(vm);
        let _turn = turn.lock().await;
        sight::repair(self.hand.host(), vm, &repair)
    }

    async fn describe(&self, vm: VmId, manifest: Manifest) -> Result<(), Refusal> {
        sight::describe(self.hand.host(), vm, &manifest)
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
