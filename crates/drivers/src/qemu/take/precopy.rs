//! The road with the shorter pause: memory is saved while the guest runs, what it writes meanwhile
//! is saved again, and it stands still only for what is left in the end.
//!
//! ```text
//!  save      all memory, then what was written meanwhile, again and again     guest runs
//!  hold      QEMU stops the guest by itself before the last of it; switch     guest stands still
//!            all disks in one transaction, save the rest and the devices, cont
//! ```
//! What is saved is memory of the instant of the switch, because nothing runs in between.

use super::behind::Behind;
use super::{Shot, TakeError, check_save, elapsed_ms, save};
use crate::diary::{Diary, Note, now_ms};
use crate::qemu::Qemu;
use crate::qemu::commands::{
    MigrateContinue, MigrateSetParameters, MigrationInfo, MigrationStatus, QueryMigrate,
};
use crate::qemu::urgent::Urgent;
use crate::qemu::watchdog::{Armed, Heal};
use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked how far QEMU is, which says by itself when it holds the guest: each
/// answer takes processors' time from guests.
const LOOK: Duration = Duration::from_millis(10);
/// How often the watchdog is told that all is well while memory is saved.
const RENEWED: Duration = Duration::from_millis(500);
/// What QEMU calls it when a save has come to another state.
const PROGRESS: &str = "MIGRATION";
/// How long saving the last of it may take, in milliseconds, so that it is begun.
const REST_MS: u64 = 2;
/// How fast, in bytes a second. QEMU would go by how fast it was until then, but that was memory
/// that lies together, and the last of it are pages here and there.
const REST_RATE: u64 = 500 << 20;
/// After so many rounds through memory more is allowed for the last of it, twice as much each time.
const ROUNDS: u64 = 4;
/// What is allowed at most, if this road is to be taken whatever it costs.
const REST_MOST_MS: u64 = 512;
/// More threads than this are not asked to save memory.
const THREADS_MOST: usize = 4;
/// However little memory there is, it is nearly through when so much is left, in bytes.
const NEARLY_LEAST: u64 = 64 << 20;

impl Shot<'_> {
    /// Saves memory and switches the disks at the end of it.
    pub(super) fn save_then_hold(
        &mut self,
        qemu: &Qemu,
        memory: &File,
        diary: &mut dyn Diary,
    ) -> Result<(), TakeError> {
        // Before this thread is urgent, which what it starts would be as well.
        let mut behind = Behind::begin(memory, self.take.memory_bytes, self.save_rate)?;
        let _urgent = Urgent::begin();
        let armed = qemu.watch.arm(Heal::EndSave { socket: self.instance.watch_socket() })?;
        let waited = self.wait_until_held(&mut behind, &armed, diary);
        let held = waited.and_then(|()| self.switch_and_finish(diary));
        let completed = Instant::now();
        if held.is_err() {
            // Where QEMU has just held the guest by itself, nothing else lets it go on.
            self.give_up_saving();
        }
        let pause = || held.as_ref().ok().map(|ms| ms + elapsed_ms(completed.elapsed()));
        let gone_on = self.let_go(armed, pause, diary);
        held.and(gone_on)
    }

    /// Saves until QEMU holds the guest for what is left.
    fn wait_until_held(
        &self,
        behind: &mut Behind,
        armed: &Armed<'_>,
        diary: &mut dyn Diary,
    ) -> Result<(), TakeError> {
        let qmp = self.instance.qmp();
        let mut rest_ms = REST_MS;
        qmp.forget_events(PROGRESS);
        qmp.run(&MigrateSetParameters::rest_within(rest_ms, REST_RATE))?;
        qmp.run(&MigrateSetParameters::threads(threads()))?;
        qmp.run(&save())?;
        let mut renewed = Instant::now();
        loop {
            let info = qmp.run(&QueryMigrate {})?;
            check_save(&info)?;
            if info.status == Some(MigrationStatus::PreSwitchover) {
                return Ok(());
            }
            if diary.is_cancelled() {
                return Err(TakeError::Cancelled);
            }
            tell(&info, diary);
            let rate = if is_nearly_through(&info) {
                behind.leave()
            } else {
                behind.follow(written(&info))
            };
            if let Some(rate) = rate {
                qmp.run(&MigrateSetParameters::at_most(rate))?;
            }
            while allowed_ms(&info) > rest_ms {
                rest_ms *= 2;
                if rest_ms > self.take.turns_beyond_ms.unwrap_or(REST_MOST_MS) {
                    return Err(TakeError::TooFast);
                }
                qmp.run(&MigrateSetParameters::rest_within(rest_ms, REST_RATE))?;
            }
            if renewed.elapsed() > RENEWED {
                armed.renew()?;
                renewed = Instant::now();
            }
            qmp.wait_for(LOOK, |event| event.name == PROGRESS);
        }
    }

    /// Answers how long QEMU held the guest until all was saved, in milliseconds.
    fn switch_and_finish(&mut self, diary: &mut dyn Diary) -> Result<u64, TakeError> {
        diary.note(Note::Stopping { at_ms: now_ms() })?;
        let qmp = self.instance.qmp();
        qmp.run(&self.switch())?;
        let go_on = qmp.send(&MigrateContinue { state: "pre-switchover" })?;
        self.switched(diary)?;
        go_on.answer()?;
        loop {
            let info = qmp.run(&QueryMigrate {})?;
            check_save(&info)?;
            if self.has_finished(&info)? {
                return Ok(info.downtime.unwrap_or(0));
            }
            thread::sleep(Duration::from_micros(300));
        }
    }

    /// After a crash: memory is whole if QEMU had come to its end, and else is given up, by the
    /// watchdog or here.
    pub(super) fn was_finished(&self) -> Result<bool, TakeError> {
        self.has_finished(&self.instance.qmp().run(&QueryMigrate {})?)
    }

    /// QEMU says first that all is saved, and leaves the state in which a guest cannot go on a
    /// moment later.
    fn has_finished(&self, info: &MigrationInfo) -> Result<bool, TakeError> {
        let saved = info.status == Some(MigrationStatus::Completed);
        Ok(saved && self.instance.qmp().run_state()? != "finish-migrate")
    }
}

/// How many threads save memory: half of this host's processors are left to its guests.
fn threads() -> usize {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, THREADS_MOST)
}

fn tell(info: &MigrationInfo, diary: &mut dyn Diary) {
    if let Some(ram) = info.ram.as_ref().filter(|ram| ram.total > 0) {
        diary.tell("saving memory", 1.0 - ram.remaining as f64 / ram.total as f64);
    }
}

/// How much of the file is written, from its beginning: all once memory was gone through.
fn written(info: &MigrationInfo) -> u64 {
    info.ram.as_ref().map_or(0, |ram| {
        if ram.dirty_sync_count > 1 { ram.total } else { ram.total.saturating_sub(ram.remaining) }
    })
}

/// Whether the guest may be held soon, whose disks are flushed then.
fn is_nearly_through(info: &MigrationInfo) -> bool {
    info.ram.as_ref().is_some_and(|ram| ram.remaining < (ram.total / 64).max(NEARLY_LEAST))
}

/// How long saving the last of it may take after so many rounds.
fn allowed_ms(info: &MigrationInfo) -> u64 {
    let rounds = info.ram.as_ref().map_or(0, |ram| ram.dirty_sync_count);
    REST_MS << rounds.saturating_sub(ROUNDS).min(16)
}
