//! The road to the moment that was asked for: memory is write-protected while the guest stands
//! still, and saved behind its back.
//!
//! ```text
//!  sweep     QEMU reads a byte of every page, so that each has an entry        guest runs
//!            that can be protected
//!  hold      stop, switch all disks in one transaction, devices saved and      guest stands still
//!            memory protected by QEMU, cont
//!  save      memory written behind the guest's back, synced                   guest runs
//! ```
//! QEMU sweeps when it is told to save, and stops the guest by itself after it if nobody has. So
//! the guest is stopped while it sweeps: had it not come to its end by then, it has not stopped
//! and protected anything. If that cannot be told for sure, the save is given up, and is done
//! once more with the guest stopped before.

use super::{FDSET, PROMPT, Shot, TakeError, check_save, elapsed_ms, is_saving, save};
use crate::diary::{Diary, Note, now_ms};
use crate::qemu::Qemu;
use crate::qemu::commands::{MigrateCancel, MigrationInfo, MigrationStatus, QueryMigrate, Stop};
use crate::qemu::stream::PAGE;
use crate::qemu::urgent::Urgent;
use crate::qemu::watchdog::Heal;
use std::fs::File;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked how far QEMU is.
const POLL: Duration = Duration::from_millis(1);
/// How long memory may take to be protected before the snapshot is given up.
const ARMING: Duration = Duration::from_secs(3);
/// How much of the sweep that is expected may go by before the guest is stopped, in per cent: it
/// must not have ended when it is.
const AHEAD: u128 = 50;

/// How fast this host sweeps, as seen so far.
#[derive(Debug, Default)]
pub(in crate::qemu) struct Sweeps(Mutex<Option<u128>>);

impl Sweeps {
    /// How long the guest can go on while so much memory is swept.
    fn ahead(&self, memory_bytes: u64) -> Duration {
        let per_gib = self.0.lock().expect("no holder panics").unwrap_or(0);
        let expected = (per_gib * u128::from(memory_bytes)) >> 30;
        Duration::from_micros((expected * AHEAD / 100) as u64)
    }

    /// The quickest counts: who waits for longer than a sweep lasts has waited in vain.
    fn saw(&self, memory_bytes: u64, took: Duration) {
        let per_gib = (took.as_micros() << 30) / u128::from(memory_bytes.max(1));
        let mut least = self.0.lock().expect("no holder panics");
        *least = Some(least.map_or(per_gib, |least| least.min(per_gib)));
    }

    fn forget(&self) {
        *self.0.lock().expect("no holder panics") = None;
    }
}

/// How the guest came to stand still.
enum Held {
    /// Stopped, while QEMU still swept, if it was told to.
    Stopped(Instant),
    /// It may have been stopped by QEMU, and have run on; we have tried to stop it then.
    Unclear(Instant),
}

impl Shot<'_> {
    /// Holds the guest, switches its disks, and has its memory protected.
    pub(super) fn hold(
        &mut self,
        qemu: &Qemu,
        memory: Option<&File>,
        diary: &mut dyn Diary,
    ) -> Result<(), TakeError> {
        let _urgent = Urgent::begin();
        let armed = qemu.watch.arm(Heal::Resume { socket: self.instance.watch_socket() })?;
        diary.note(Note::Stopping { at_ms: now_ms() })?;
        let mut begun = Instant::now();
        let held = self.stand_still(qemu, memory, &mut begun).and_then(|saving| {
            self.switch_and_protect(qemu, memory.is_some(), saving, begun, diary)
        });
        let gone_on = self.let_go(armed, || Some(elapsed_ms(begun.elapsed())), diary);
        held.and(gone_on)
    }

    /// Answers whether memory is being saved already.
    fn stand_still(
        &self,
        qemu: &Qemu,
        memory: Option<&File>,
        begun: &mut Instant,
    ) -> Result<bool, TakeError> {
        if memory.is_some() {
            match self.stop_while_sweeping(qemu.sweeps.ahead(self.take.memory_bytes))? {
                Held::Stopped(at) => {
                    *begun = at;
                    return Ok(true);
                }
                Held::Unclear(at) => {
                    tracing::debug!("the sweep had ended; once more, stopped before");
                    *begun = at;
                    qemu.sweeps.forget();
                    self.give_up_saving();
                    self.instance.take_back(FDSET);
                    self.hand_over_memory()?;
                }
            }
        } else {
            *begun = Instant::now();
        }
        self.instance.qmp().run(&Stop {})?;
        Ok(false)
    }

    /// Has QEMU begin to save, and stops the guest before it has swept.
    fn stop_while_sweeping(&self, ahead: Duration) -> Result<Held, TakeError> {
        let qmp = self.instance.qmp();
        let save = qmp.send(&save())?;
        thread::sleep(ahead);
        let at = Instant::now();
        let stop = qmp.send(&Stop {})?;
        let look = qmp.send(&QueryMigrate {})?;
        save.answer()?;
        stop.answer()?;
        let sweeps = look.answer()?.status == Some(MigrationStatus::Setup);
        Ok(if sweeps { Held::Stopped(at) } else { Held::Unclear(at) })
    }

    fn switch_and_protect(
        &mut self,
        qemu: &Qemu,
        memory: bool,
        saving: bool,
        begun: Instant,
        diary: &mut dyn Diary,
    ) -> Result<(), TakeError> {
        let stopped = begun.elapsed();
        let qmp = self.instance.qmp();
        let switch = qmp.send(&self.switch())?;
        let save = if memory && !saving { Some(qmp.send(&save())?) } else { None };
        switch.answer()?;
        self.switched(diary)?;
        let switched = begun.elapsed();
        if let Some(save) = save {
            save.answer()?;
        }
        if memory {
            self.wait_until_protected(qemu)?;
            tracing::debug!(?stopped, ?switched, protected = ?begun.elapsed(), "held");
            diary.note(Note::Armed { held_ms: elapsed_ms(begun.elapsed()) })?;
        }
        Ok(())
    }

    /// The first saved page proves that all memory is write-protected; the status alone does not.
    fn wait_until_protected(&self, qemu: &Qemu) -> Result<(), TakeError> {
        let until = Instant::now() + ARMING;
        loop {
            let info = self.instance.qmp().run(&QueryMigrate {})?;
            check_save(&info)?;
            if info.ram.as_ref().is_some_and(|ram| ram.normal + ram.duplicate > 0) {
                let swept = Duration::from_millis(info.setup_time.unwrap_or(0));
                qemu.sweeps.saw(self.take.memory_bytes, swept);
                return Ok(());
            }
            if Instant::now() > until {
                return Err(TakeError::Save("memory was not protected in time".to_owned()));
            }
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Waits for the end of the save; answers how long QEMU did not answer meanwhile.
    pub(super) fn wait_for_save(&self, diary: &mut dyn Diary) -> Result<Duration, TakeError> {
        let mut stalled = Duration::ZERO;
        loop {
            if diary.is_cancelled() {
                return Err(TakeError::Cancelled);
            }
            let asked = Instant::now();
            let info = self.instance.qmp().run(&QueryMigrate {})?;
            let took = asked.elapsed();
            if took > PROMPT {
                stalled += took;
            }
            check_save(&info)?;
            if info.status == Some(MigrationStatus::Completed) {
                return Ok(stalled);
            }
            tell(&info, diary);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends a save that was begun, whatever has come of it; the guest may stand still then.
    pub(super) fn give_up_saving(&self) {
        let qmp = self.instance.qmp();
        let _ = qmp.run(&MigrateCancel {});
        let until = Instant::now() + ARMING;
        while Instant::now() < until && qmp.run(&QueryMigrate {}).is_ok_and(|info| is_saving(&info))
        {
            thread::sleep(POLL);
        }
    }
}

/// Pages of zeros are done as well, though nothing is written for them.
fn tell(info: &MigrationInfo, diary: &mut dyn Diary) {
    if let Some(ram) = info.ram.as_ref().filter(|ram| ram.total > 0) {
        let done = (ram.normal + ram.duplicate) * PAGE;
        diary.tell("saving memory", done as f64 / ram.total as f64);
    }
}
