//! What a dead tintype left of a snapshot: it is finished, or undone.

use super::{Shot, TakeError, is_held, not_quiesced};
use crate::diary::{Diary, Note};
use crate::hypervisor::had_switched;
use crate::qemu::commands::Cont;
use crate::qemu::guest_agent::{AgentError, Frozen};
use crate::qemu::watchdog::DEADLINE;
use crate::qemu::{Qemu, failed};
use crate::volume::Volume;
use std::fs::OpenOptions;
use tintype_model::effect::{Facts, Outcome, TakeSnapshot};
use tintype_model::refusal::{Code, Refusal};
use tintype_model::snapshot::{Quiesce, Road};

/// After a crash: the guest's memory is good if it was protected before it ran on; what is left to
/// do is to wait for it and to sync. Disks that were switched are a snapshot by themselves.
pub(in crate::qemu) fn recover(
    qemu: &Qemu,
    take: &TakeSnapshot,
    notes: &[Note],
    diary: &mut dyn Diary,
) -> Outcome {
    let Some(instance) = qemu.instance(take.vm) else {
        return without_guest(qemu, take, notes);
    };
    let turned = notes.contains(&Note::Turned);
    let road = if turned { Road::Background } else { take.road };
    let mut shot = Shot::new(qemu, take, &instance, road);
    shot.facts.turned = turned;
    let result = shot.pick_up(notes, diary);
    let outcome = match result {
        Ok(()) => shot.done(qemu),
        Err(error) => match shot.undo(qemu, &error) {
            Outcome::Failed(reason, facts) => {
                Outcome::Failed(Refusal { code: Code::Interrupted, ..reason }, facts)
            }
            other => other,
        },
    };
    if notes.contains(&Note::Freezing) && !notes.contains(&Note::Quiesced) {
        // The guest runs again; thawing what is thawed changes nothing.
        drop(Frozen::assume(&instance, &qemu.watch));
    }
    outcome
}

impl Shot<'_> {
    fn pick_up(&mut self, notes: &[Note], diary: &mut dyn Diary) -> Result<(), TakeError> {
        if !self.look()? {
            return Err(TakeError::Save(
                "it was interrupted before the disks were switched".into(),
            ));
        }
        let finished = self.road == Road::Precopy && self.was_finished()?;
        if is_held(&self.instance.qmp().run_state()?) {
            self.instance.qmp().run(&Cont {})?;
        }
        self.facts.pause_ms = pause_from(notes);
        if self.take.quiesce != Quiesce::No {
            self.facts.quiesced = notes.contains(&Note::Quiesced);
            if !self.facts.quiesced {
                self.do_without(AgentError::Interrupted)?;
            }
        }
        if !self.take.memory {
            return Ok(());
        }
        let saved = notes.iter().find_map(|note| match note {
            Note::Saved { memory_bytes, pause_ms } => Some((*memory_bytes, *pause_ms)),
            _ => None,
        });
        if let Some((memory_bytes, pause_ms)) = saved {
            self.facts.memory_bytes = memory_bytes;
            self.facts.pause_ms = Some(pause_ms);
            return Ok(());
        }
        if !finished && !notes.iter().any(was_protected_in_time) {
            return Err(TakeError::Save("it was interrupted before memory was protected".into()));
        }
        let stalled = self.wait_for_save(diary)?;
        let file = OpenOptions::new().read(true).write(true).open(self.memory_path())?;
        self.finish_memory(&file, stalled, diary)
    }
}

/// The guest is gone as well. Layers that it may have written to are kept; memory that is not
/// known to be on disk is not.
fn without_guest(qemu: &Qemu, take: &TakeSnapshot, notes: &[Note]) -> Outcome {
    let folder = qemu.folder(take.vm);
    let overlays = take.disks.iter().map(|disk| disk.overlay_file());
    let switched = had_switched(&qemu.volume, take, notes);
    let turned = notes.contains(&Note::Turned);
    let mut facts = Facts { switched, turned, pause_ms: pause_from(notes), ..Facts::default() };
    if !switched {
        for overlay in overlays {
            let _ = qemu.volume.remove(take.vm, overlay);
        }
    }
    let saved = notes.iter().find_map(|note| match note {
        Note::Saved { memory_bytes, .. } => Some(*memory_bytes),
        _ => None,
    });
    match saved {
        Some(memory_bytes) if switched => {
            facts.memory_bytes = memory_bytes;
            Outcome::Done(facts)
        }
        None if switched && !take.memory && take.quiesce != Quiesce::Required => {
            let lost = || not_quiesced(&AgentError::Interrupted);
            facts.not_quiesced = (take.quiesce == Quiesce::Try).then(lost);
            Outcome::Done(facts)
        }
        _ => {
            let _ = folder.remove_memory(take.snapshot);
            failed(Code::Interrupted, &"the guest's process ended meanwhile", facts)
        }
    }
}

/// Memory is of the instant of the disks if it was protected before the watchdog can have let the
/// guest go.
fn was_protected_in_time(note: &Note) -> bool {
    matches!(note, Note::Armed { held_ms } if u128::from(*held_ms) < DEADLINE.as_millis())
}

fn pause_from(notes: &[Note]) -> Option<u64> {
    notes.iter().find_map(|note| match note {
        Note::Resumed { pause_ms } => Some(*pause_ms),
        _ => None,
    })
}
