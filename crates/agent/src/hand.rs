//! The hand on a host: performs each effect once, however often it is sent and whoever dies.

use crate::journal::{Journals, Known};
use crate::litter::Litter;
use crate::perform;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tintype_drivers::Host;
use tintype_model::effect::{Effect, Facts, Outcome};
use tintype_model::refusal::Code;
use tintype_model::{EffectId, Refusal, VmId};
use tintype_wire::agent::{OnRecord, Progress};

/// How long to wait before a journal that cannot be read is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A host and the journal of what is done on it.
#[derive(Debug)]
pub struct Hand<H> {
    host: H,
    journals: Journals,
    /// What effects have left; their journals stay until it is gone.
    litter: Mutex<BTreeMap<EffectId, Left>>,
}

/// What an effect has left.
#[derive(Clone, Debug)]
struct Left {
    litter: Litter,
    /// Whether the outcome is recorded elsewhere, so that it may go.
    forgotten: bool,
}

impl<H: Host> Hand<H> {
    /// A hand that takes up what the journals know.
    pub fn new(host: H, journals: Journals) -> Self {
        Self { host, journals, litter: Mutex::default() }
    }

    /// What it acts on.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// Performs an effect: one that has ended is told again, one that was begun is finished or
    /// undone. Who calls sees to it that no two are about the same machine.
    pub fn perform(
        &self,
        id: EffectId,
        effect: &Effect,
        progress: Arc<Mutex<Progress>>,
        stop: &Arc<AtomicBool>,
    ) -> Outcome {
        let outcome = self.journaled(id, effect, progress, stop).unwrap_or_else(|error| {
            let reason = Refusal::new(Code::StorageFailed).detail(format!("host journal: {error}"));
            let running = self.host.hypervisor().state(effect.vm()).is_live();
            Outcome::Failed(reason, Facts { running, ..Facts::default() })
        });
        // What failed once may succeed when it is sent again: only how it ended last counts.
        let mut all = self.litter.lock().expect("no holder panics");
        match Litter::of(effect, &outcome) {
            Some(litter) => all.insert(id, Left { litter, forgotten: false }),
            None => all.remove(&id),
        };
        outcome
    }

    fn journaled(
        &self,
        id: EffectId,
        effect: &Effect,
        progress: Arc<Mutex<Progress>>,
        stop: &Arc<AtomicBool>,
    ) -> io::Result<Outcome> {
        let known = self.known(id);
        if let Known::Ended(outcome) = known {
            return Ok(outcome);
        }
        let mut journal = self.journals.begin(id, effect, &known, progress, Arc::clone(stop))?;
        let outcome = match known {
            Known::Begun(notes) => {
                tracing::info!(%id, effect = effect.word(), "recovering");
                perform::recover(&self.host, effect, &notes, &mut journal, stop)
            }
            Known::Nothing | Known::Ended(_) => {
                perform::perform(&self.host, effect, &mut journal, stop)
            }
        };
        // What has happened has happened: without this line it is looked at once more.
        if let Err(error) = journal.end(&outcome) {
            tracing::error!(%id, %error, "the end of an effect could not be noted");
        }
        Ok(outcome)
    }

    /// What the journal knows; nothing may be decided before it can be read.
    fn known(&self, id: EffectId) -> Known {
        loop {
            match self.journals.known(id) {
                Ok(known) => return known,
                Err(error) => tracing::error!(%id, %error, "the host journal cannot be read"),
            }
            thread::sleep(AGAIN);
        }
    }

    /// The outcome is recorded elsewhere: throws the journal away, and what the effect left.
    pub fn forget(&self, id: EffectId) {
        let known = self.litter.lock().expect("no holder panics").get(&id).cloned();
        let litter = known.map(|left| left.litter).or_else(|| {
            let (effect, outcome) = self.journals.ended(id).ok()??;
            Litter::of(&effect, &outcome)
        });
        self.throw_away(id, litter);
    }

    /// Forgets every effect but those that are still open elsewhere, and those on machines that are
    /// not `known` there and may be taken up by their manifests: how they ended is needed then.
    /// Answers those of which it is not known how they ended: what they left is for
    /// [`Hand::settle`].
    pub fn forget_but(
        &self,
        open: &BTreeSet<EffectId>,
        known: &BTreeSet<VmId>,
    ) -> BTreeMap<EffectId, VmId> {
        let mut unsettled = BTreeMap::new();
        for id in self.journals.all() {
            let vm = self.journals.vm(id);
            let unknown = vm.filter(|vm| !known.contains(vm));
            let lost = unknown.is_some_and(|vm| self.host.premises().manifest(vm).is_some());
            if open.contains(&id) || lost {
                continue;
            }
            match (vm, self.journals.ended(id)) {
                (Some(vm), Ok(None)) => drop(unsettled.insert(id, vm)),
                _ => self.forget(id),
            }
        }
        unsettled
    }

    /// Throws away the journal of an effect whose end could not be noted, and what it made, except
    /// what is recorded of its machine.
    pub fn settle(&self, id: EffectId, recorded: Option<&OnRecord>) {
        let made = self.journals.begun(id).ok().flatten().and_then(|effect| Litter::made(&effect));
        self.throw_away(id, made.and_then(|made| made.unless_in(recorded)));
    }

    /// Tries again to remove what could not be removed.
    pub fn tidy(&self) {
        let all = self.litter.lock().expect("no holder panics").clone();
        for (id, left) in all.into_iter().filter(|(_, left)| left.forgotten) {
            self.throw_away(id, Some(left.litter));
        }
    }

    fn throw_away(&self, id: EffectId, litter: Option<Litter>) {
        let gone = litter.as_ref().is_none_or(|litter| litter.remove(&self.host));
        if gone {
            self.journals.forget(id);
        }
        let mut all = self.litter.lock().expect("no holder panics");
        match litter.filter(|_| !gone) {
            Some(litter) => all.insert(id, Left { litter, forgotten: true }),
            None => all.remove(&id),
        };
    }
}
