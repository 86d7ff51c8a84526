//! The hand on a host: performs each effect once, however often it is sent and whoever dies.

use crate::journal::{Journals, Known};
use crate::litter::Litter;
use crate::perform;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tintype_drivers::Host;
use tintype_model::effect::{Effect, Facts, Outcome};
use tintype_model::refusal::Code;
use tintype_model::{EffectId, Refusal, VmId};
use tintype_wire::agent::{Journaled, OnRecord, Progress};

/// How long to wait before a journal that cannot be read is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A host and the journal of what is done on it.
#[derive(Debug)]
pub struct Hand<H> {
    host: H,
    journals: Journals,
    /// What effects have left; their journals stay until it is gone.
    litter: Mutex<BTreeMap<EffectId, Left>>,
    /// How those effects ended whose end could not be noted.
    unnoted: Mutex<BTreeMap<EffectId, Outcome>>,
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
        Self { host, journals, litter: Mutex::default(), unnoted: Mutex::default() }
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
        let outcome = self.act_by_journal(id, effect, progress, stop).unwrap_or_else(|error| {
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

    fn act_by_journal(
        &self,
        id: EffectId,
        effect: &Effect,
        progress: Arc<Mutex<Progress>>,
        stop: &Arc<AtomicBool>,
    ) -> io::Result<Outcome> {
        if let Some(outcome) = self.unnoted.lock().expect("no holder panics").get(&id) {
            return Ok(outcome.clone());
        }
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
        // What has happened has happened: without this line it is looked at once more by whoever
        // comes after us.
        if let Err(error) = journal.end(&outcome) {
            tracing::error!(%id, %error, "the end of an effect could not be noted");
            self.unnoted.lock().expect("no holder panics").insert(id, outcome.clone());
        }
        Ok(outcome)
    }

    /// Whether an effect was begun, or may have been.
    pub fn has_begun(&self, id: EffectId) -> bool {
        !matches!(self.journals.known(id), Ok(Known::Nothing))
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

    /// The effects that were begun and are not forgotten.
    pub fn journaled(&self) -> BTreeMap<EffectId, Journaled> {
        let journaled = |id| {
            let begun = self.journals.begun(id).ok().flatten();
            let (vm, files_of) = begun.map(|effect| (effect.vm(), effect.files_of())).unzip();
            let unsettled = files_of.filter(|_| matches!(self.journals.ended(id), Ok(None)));
            let has_manifest = |vm: &VmId| self.host.premises().manifest(*vm).is_some();
            let described = vm.into_iter().chain(files_of).filter(has_manifest).collect();
            (id, Journaled { vm, unsettled, described })
        };
        self.journals.all().into_iter().map(journaled).collect()
    }

    /// Throws away the journal of an effect whose end could not be noted, and what it made or was
    /// to remove, except what is recorded of the machine whose files these are.
    pub fn settle(&self, id: EffectId, recorded: Option<&OnRecord>) {
        let begun = self.journals.begun(id).ok().flatten();
        let touched = begun.and_then(|effect| Litter::touched(&effect));
        self.throw_away(id, touched.and_then(|touched| touched.unless_in(recorded)));
    }

    /// Tries again to remove what could not be removed.
    pub fn tidy(&self) {
        let all = self.litter.lock().expect("no holder panics").clone();
        for (id, left) in all.into_iter().filter(|(_, left)| left.forgotten) {
            self.throw_away(id, Some(left.litter));
        }
    }

    fn throw_away(&self, id: EffectId, litter: Option<Litter>) {
        self.unnoted.lock().expect("no holder panics").remove(&id);
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

#[cfg(test)]
mod tests {
    use super::Hand;
    use crate::Memory;
    use crate::journal::{Journals, begun};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    use tintype_drivers::fake::Fake;
    use tintype_drivers::volume::Volume;
    use tintype_model::effect::{Effect, Outcome};
    use tintype_model::{EffectId, VmId};
    use uuid::Uuid;

    /// Neither by who did it, nor by who comes after and finds that it was begun.
    #[test]
    fn what_was_done_is_not_told_as_failed_because_its_end_could_not_be_noted() {
        let full = Arc::new(AtomicBool::new(false));
        let fate = Arc::clone(&full);
        let shelf = Memory::obeying(move || !fate.load(Ordering::SeqCst));
        let fake = Fake::default();
        let vm = VmId(Uuid::from_u128(1));
        fake.prepare(vm).unwrap();
        // The disk is full from the moment at which the machine goes.
        fake.obey(move |_| {
            full.store(true, Ordering::SeqCst);
            true
        });
        let mut hand = Hand::new(fake, Journals::on(shelf.clone()));
        let (id, effect) = (EffectId(Uuid::from_u128(2)), Effect::DeleteVm { vm });
        for _ in 0..2 {
            for _ in 0..2 {
                let progress = Arc::new(Mutex::new(begun("begun")));
                let outcome = hand.perform(id, &effect, progress, &Arc::default());
                assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
            }
            hand = Hand::new(hand.host, Journals::on(shelf.clone()));
        }
    }
}
