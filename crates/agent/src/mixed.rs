//! A host that has a few real machines and many in memory, to try what many machines are to a
//! control plane.

use crate::fake::FakeAgent;
use crate::local::LocalAgent;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tintype_model::effect::{Effect, Outcome};
use tintype_model::finding::{Repair, Sighting};
use tintype_model::manifest::{Manifest, Survey};
use tintype_model::vm::VmState;
use tintype_model::{EffectId, Refusal, VmId};
use tintype_wire::agent::{Agent, HostFacts, Inspected, Journaled, OnRecord, Progress};
use tokio::sync::mpsc;

/// The agent of such a host.
pub struct MixedAgent {
    real: Arc<LocalAgent>,
    fake: FakeAgent,
    /// How many machines are in memory: the first ones.
    most: usize,
    fakes: Mutex<BTreeSet<VmId>>,
}

impl MixedAgent {
    /// One whose first machines, so many, are in memory only.
    pub fn new(real: Arc<LocalAgent>, most: usize) -> Self {
        Self { real, fake: FakeAgent::default(), most, fakes: Mutex::default() }
    }

    /// Who has a machine.
    fn of(&self, vm: VmId) -> &dyn Agent {
        let is_fake = self.fakes.lock().expect("no holder panics").contains(&vm);
        if is_fake { &self.fake } else { &*self.real }
    }

    /// A machine that is made becomes one in memory, as long as there are too few.
    fn admit(&self, effect: &Effect) {
        if let Effect::CreateVm(create) = effect {
            let mut fakes = self.fakes.lock().expect("no holder panics");
            if fakes.len() < self.most {
                fakes.insert(create.vm);
            }
        }
    }
}

#[async_trait]
impl Agent for MixedAgent {
    async fn perform(&self, id: EffectId, effect: Effect) -> Outcome {
        self.admit(&effect);
        self.of(effect.vm()).perform(id, effect).await
    }

    async fn forget(&self, id: EffectId) {
        self.fake.forget(id).await;
        self.real.forget(id).await;
    }

    async fn journaled(&self) -> BTreeMap<EffectId, Journaled> {
        let mut all = self.fake.journaled().await;
        all.extend(self.real.journaled().await);
        all
    }

    async fn settle(&self, id: EffectId, recorded: Option<OnRecord>) {
        self.fake.settle(id, recorded.clone()).await;
        self.real.settle(id, recorded).await;
    }

    fn progress(&self, id: EffectId) -> Option<Progress> {
        self.fake.progress(id).or_else(|| self.real.progress(id))
    }

    fn give_way(&self, vm: VmId) {
        self.of(vm).give_way(vm);
    }

    fn cancel(&self, id: EffectId) {
        self.fake.cancel(id);
        self.real.cancel(id);
    }

    async fn inspect(&self, path: String) -> Result<Inspected, Refusal> {
        self.real.inspect(path).await
    }

    async fn readable(&self, path: String) -> Result<(), Refusal> {
        self.real.readable(path).await
    }

    async fn host(&self) -> HostFacts {
        self.real.host().await
    }

    async fn guests(&self) -> BTreeMap<VmId, VmState> {
        let mut guests = self.fake.guests().await;
        guests.extend(self.real.guests().await);
        guests
    }

    async fn look(&self, vm: VmId, settle: BTreeSet<String>) -> Option<Sighting> {
        self.of(vm).look(vm, settle).await
    }

    async fn survey(&self) -> Vec<Survey> {
        let mut surveys = self.fake.survey().await;
        surveys.extend(self.real.survey().await);
        surveys
    }

    async fn repair(&self, vm: VmId, repair: Repair) -> Result<String, Refusal> {
        self.of(vm).repair(vm, repair).await
    }

    async fn describe(&self, vm: VmId, manifest: Manifest) -> Result<(), Refusal> {
        self.of(vm).describe(vm, manifest).await
    }

    fn console_address(&self, vm: VmId) -> String {
        self.of(vm).console_address(vm)
    }

    async fn console(&self, vm: VmId) -> mpsc::Receiver<Vec<u8>> {
        self.of(vm).console(vm).await
    }

    async fn type_in(&self, vm: VmId, bytes: Vec<u8>) -> Result<(), Refusal> {
        self.of(vm).type_in(vm, bytes).await
    }
}
