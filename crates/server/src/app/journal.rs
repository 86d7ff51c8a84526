//! What hosts have journaled of effects is let go once all that it tells is written down elsewhere:
//! in the database, and beside the layers for whoever finds the host without our database.

use super::App;
use std::collections::BTreeSet;
use tintype_model::{EffectId, VmId};
use tintype_store::StoreError;
use tintype_wire::agent::OnRecord;

/// An effect whose end is recorded, and that the agent has not forgotten yet.
#[derive(Clone, Debug)]
pub(super) struct Over {
    pub(super) id: EffectId,
    /// All machines that were recorded anew by its end.
    pub(super) touched: BTreeSet<VmId>,
    /// If the host does not know how it ended, the machine whose files it made or removed.
    pub(super) unsettled: Option<VmId>,
}

impl App {
    /// Has the agent forget an effect. As long as manifests tell of it as one that is under way its
    /// journal stays: whoever takes the machines up would have it performed once more.
    pub(super) async fn let_go(&self, over: Over) {
        for &vm in &over.touched {
            if !self.describe(vm).await {
                return self.still_to_let_go(over);
            }
        }
        let Some(vm) = over.unsettled else {
            return self.agent.forget(over.id).await;
        };
        match self.on_record(vm).await {
            Ok(recorded) => self.agent.settle(over.id, recorded).await,
            Err(_) => self.still_to_let_go(over),
        }
    }

    fn still_to_let_go(&self, over: Over) {
        self.over.lock().expect("no holder panics").push(over);
    }

    /// Tries again what could not be let go.
    pub(super) async fn let_go_of_the_rest(&self) {
        let rest = std::mem::take(&mut *self.over.lock().expect("no holder panics"));
        for over in rest {
            self.let_go(over).await;
        }
    }

    /// Lets go of all effects, after a start, but those that are still `open`, and those on
    /// machines that are not `known` and may be taken up by their manifests: how they ended is
    /// needed then.
    pub(super) async fn let_go_but(&self, open: &BTreeSet<EffectId>, known: &BTreeSet<VmId>) {
        for (id, journaled) in self.agent.journaled().await {
            let lost = !journaled.described.is_subset(known);
            if open.contains(&id) || lost {
                continue;
            }
            let (touched, unsettled) = (BTreeSet::from_iter(journaled.vm), journaled.unsettled);
            self.let_go(Over { id, touched, unsettled }).await;
        }
    }

    async fn on_record(&self, vm: VmId) -> Result<Option<OnRecord>, StoreError> {
        let timeline = self.store.read().await?.timeline(vm)?;
        Ok(timeline.map(|timeline| OnRecord {
            layers: timeline.layers.into_keys().collect(),
            snapshots: timeline.snapshots.into_keys().collect(),
        }))
    }
}
