//! Taking a snapshot of a running guest: what is common to all ways, and its undo.
//!
//! First overlays are opened, a descriptor for memory is handed over and data is flushed ahead,
//! while the guest runs. Then it is held: the watchdog is armed, all disks are switched in one
//! transaction. What is saved of memory is of that instant, because nothing runs in between; there
//! are two roads to it, `take/background.rs` and `take/precopy.rs`. What to do after a crash is in
//! `take/recover.rs`.

mod background;
mod behind;
mod precopy;
mod recover;

pub(super) use background::Sweeps;
pub(super) use recover::recover;

use super::commands::{
    BlockdevAdd, BlockdevDel, Cont, Migrate, MigrateSetCapabilities, MigrateSetParameters,
    MigrationInfo, MigrationStatus, QueryMigrate, Transaction,
};
use super::guest_agent::{AgentError, Frozen};
use super::huge_pages::{Haste, join};
use super::instance::Instance;
use super::launch::{layer_node, layer_options};
use super::mapped_ram::{FormatError, Layout};
use super::qmp::QmpError;
use super::revert::on_demand;
use super::share::{ShareError, share};
use super::warm::warm;
use super::watchdog::Armed;
use super::{Folder, Qemu, failed};
use crate::diary::{Diary, Note};
use crate::hypervisor::Hypervisor;
use crate::steps;
use crate::volume::Volume;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use tintype_model::effect::{Facts, Freeze, Outcome, TakeSnapshot};
use tintype_model::refusal::{Code, Refusal};
use tintype_model::snapshot::{Quiesce, Road, memory_name};
use tintype_model::vm::VmState;

/// The number under which QEMU knows the memory file.
const FDSET: u32 = 7;
/// How long memory may be joined into huge pages ahead, for each GiB: the moment that was asked for
/// must not become another.
const JOINING: Duration = Duration::from_millis(800);
/// Answers that take longer than this while memory is saved count as standstill.
const PROMPT: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("memory could not be saved: {0}")]
    Save(String),
    #[error("{0}")]
    Quiesce(#[from] AgentError),
    #[error("memory could not be saved: the guest writes to it faster than it is saved")]
    TooFast,
    #[error("the guest is {0}, not running")]
    NotRunning(String),
    #[error("it was cancelled")]
    Cancelled,
}

struct Shot<'a> {
    take: &'a TakeSnapshot,
    instance: &'a Instance,
    folder: Folder,
    /// How memory is saved now.
    road: Road,
    /// How fast by precopy, in bytes a second; 0 for as fast as can be.
    save_rate: u64,
    facts: Facts,
}

pub(super) fn take(qemu: &Qemu, take: &TakeSnapshot, diary: &mut dyn Diary) -> Outcome {
    let Some(instance) = qemu.instance(take.vm) else {
        for disk in &take.disks {
            let _ = qemu.volume.remove(take.vm, disk.overlay_file());
        }
        return failed(Code::GuestLost, &"there is no process that answers", Facts::default());
    };
    let mut shot = Shot::new(qemu, take, &instance, take.road);
    let result = shot.run(qemu, diary);
    match result {
        Ok(()) => shot.done(qemu),
        Err(error) => shot.undo(qemu, &error),
    }
}

impl<'a> Shot<'a> {
    fn new(qemu: &Qemu, take: &'a TakeSnapshot, instance: &'a Instance, road: Road) -> Self {
        let (folder, save_rate) = (qemu.folder(take.vm), qemu.save_rate);
        Self { take, instance, folder, road, save_rate, facts: Facts::default() }
    }
}

impl Shot<'_> {
    fn run(&mut self, qemu: &Qemu, diary: &mut dyn Diary) -> Result<(), TakeError> {
        let state = self.instance.qmp().run_state()?;
        if state != "running" {
            return Err(TakeError::NotRunning(state));
        }
        self.open_overlays()?;
        let memory = if self.take.memory { Some(self.prepare_memory(diary)?) } else { None };
        self.flush_ahead();
        if diary.is_cancelled() {
            return Err(TakeError::Cancelled);
        }
        if let (Some(memory), Road::Precopy) = (&memory, self.road) {
            match self.save_then_hold(qemu, memory, diary) {
                Err(TakeError::TooFast) if self.take.turns_beyond_ms.is_some() => {
                    self.turn(diary)?
                }
                saved => {
                    saved?;
                    return self.finish_memory(memory, Duration::ZERO, diary);
                }
            }
        }
        let frozen = self.freeze(qemu, diary)?;
        self.hold(qemu, memory.as_ref(), diary)?;
        if let Some(frozen) = frozen {
            self.thaw(frozen, diary)?;
        }
        if let Some(memory) = memory {
            let stalled = self.wait_for_save(diary)?;
            self.finish_memory(&memory, stalled, diary)?;
        }
        Ok(())
    }

    /// Begins anew on the other road, after the save was given up.
    fn turn(&mut self, diary: &mut dyn Diary) -> Result<(), TakeError> {
        tracing::info!(vm = %self.take.vm, "the guest writes faster than its memory is saved");
        diary.note(Note::Turned)?;
        self.instance.take_back(FDSET);
        self.switch_capabilities(false)?;
        self.road = Road::Background;
        self.facts.turned = true;
        self.prepare_memory(diary).map(drop)
    }

    fn open_overlays(&self) -> Result<(), TakeError> {
        for disk in &self.take.disks {
            let direct_io = self.folder.is_direct();
            let mut options = layer_options(disk.overlay_file(), true, None, direct_io);
            options["backing"] = serde_json::Value::Null;
            self.instance.qmp().run(&BlockdevAdd(options))?;
        }
        Ok(())
    }

    /// Opens the memory file ourselves: a file that QEMU opens by name it also closes, on its main
    /// loop, which stands still until the filesystem has found room for everything.
    fn prepare_memory(&self, diary: &mut dyn Diary) -> Result<File, TakeError> {
        self.wait_for_all_memory(diary)?;
        if self.road == Road::Background {
            self.make_memory_quick_to_protect(diary)?;
        }
        self.hand_over_memory()?;
        let file = OpenOptions::new().read(true).write(true).open(self.memory_path())?;
        self.switch_capabilities(true)?;
        // Behind its back the guest waits for the pages that it writes: quickly is best.
        let rate = if self.road == Road::Precopy { self.save_rate } else { 0 };
        self.instance.qmp().run(&MigrateSetParameters::at_most(rate))?;
        Ok(file)
    }

    /// In as few pieces as can be, and none of them untouched.
    fn make_memory_quick_to_protect(&self, diary: &mut dyn Diary) -> Result<(), TakeError> {
        let Some(start) = self.instance.memory_at()? else { return Ok(()) };
        let bytes = self.take.memory_bytes;
        let until = Instant::now() + JOINING.saturating_mul(bytes.div_ceil(1 << 30) as u32);
        join(self.instance.process(), start, bytes, Haste::Awaited, |fraction| {
            diary.tell("joining memory into huge pages", fraction);
            !diary.is_cancelled() && Instant::now() < until
        });
        warm(self.instance, start, bytes, |fraction| {
            diary.tell("touching memory ahead", fraction);
        })?;
        Ok(())
    }

    /// Makes the memory file, or empties it, and hands QEMU its descriptor.
    fn hand_over_memory(&self) -> Result<(), TakeError> {
        let path = self.memory_path();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        // The folder belongs to who guests run as: a link there must lead nowhere.
        options.custom_flags(libc::O_NOFOLLOW);
        // QEMU takes only a descriptor that is opened as it would have opened the file.
        let theirs = steps::around("file create memory", || options.open(&path))?;
        self.folder.give(&path)?;
        self.folder.sync()?;
        Ok(self.instance.give(theirs.as_fd(), FDSET)?)
    }

    /// Memory that still comes in after a revert cannot be protected yet.
    fn wait_for_all_memory(&self, diary: &mut dyn Diary) -> Result<(), TakeError> {
        let qmp = self.instance.qmp();
        loop {
            match qmp.run(&QueryMigrate {})?.status {
                Some(MigrationStatus::PostcopyActive) => {}
                Some(MigrationStatus::PostcopyPaused) => {
                    return Err(TakeError::Save("memory of the last revert is missing".to_owned()));
                }
                _ => break,
            }
            if diary.is_cancelled() {
                return Err(TakeError::Cancelled);
            }
            diary.tell("waiting for memory of the last revert", 0.0);
            thread::sleep(Duration::from_millis(10));
        }
        qmp.run(&on_demand(false))?;
        Ok(())
    }

    fn memory_path(&self) -> PathBuf {
        self.folder.path().join(memory_name(self.take.snapshot))
    }

    fn switch_capabilities(&self, state: bool) -> Result<(), QmpError> {
        let capabilities: &[&str] = match self.road {
            // Whatever was switched on.
            _ if !state => &[
                "background-snapshot",
                "pause-before-switchover",
                "mapped-ram",
                "multifd",
                "events",
            ],
            Road::Background => &["background-snapshot", "mapped-ram"],
            Road::Precopy => &["pause-before-switchover", "mapped-ram", "multifd", "events"],
        };
        self.instance.qmp().run(&MigrateSetCapabilities::switch(capabilities, state)).map(drop)
    }

    /// `stop` flushes every disk; what is flushed before need not be waited for then.
    fn flush_ahead(&self) {
        for disk in &self.take.disks {
            if let Ok(file) = File::open(self.folder.path().join(disk.active.name())) {
                let _ = file.sync_data();
            }
        }
    }

    /// Has the guest hold still, if it is wanted; it may be wanted only if it can be had.
    fn freeze<'a>(
        &mut self,
        qemu: &'a Qemu,
        diary: &mut dyn Diary,
    ) -> Result<Option<Frozen<'a>>, TakeError>
    where
        Self: 'a,
    {
        if self.take.quiesce == Quiesce::No {
            return Ok(None);
        }
        diary.note(Note::Freezing)?;
        match Frozen::freeze(self.instance, &qemu.watch) {
            Ok(frozen) => Ok(Some(frozen)),
            Err(error) => self.do_without(error).map(|()| None),
        }
    }

    fn thaw(&mut self, frozen: Frozen<'_>, diary: &mut dyn Diary) -> Result<(), TakeError> {
        match frozen.thaw() {
            Ok(()) => {
                diary.note(Note::Quiesced)?;
                self.facts.quiesced = true;
                Ok(())
            }
            Err(error) => self.do_without(error),
        }
    }

    /// Goes on with a guest that did not hold still, unless it had to.
    fn do_without(&mut self, error: AgentError) -> Result<(), TakeError> {
        if self.take.quiesce == Quiesce::Required {
            return Err(error.into());
        }
        self.facts.not_quiesced = Some(not_quiesced(&error));
        Ok(())
    }

    /// Lets the guest go on; `pause` tells then how long it stood still, if it did.
    fn let_go(
        &mut self,
        armed: Armed<'_>,
        pause: impl FnOnce() -> Option<u64>,
        diary: &mut dyn Diary,
    ) -> Result<(), TakeError> {
        let resumed = self.instance.qmp().run(&Cont {});
        if let Some(pause_ms) = pause() {
            self.facts.pause_ms = Some(pause_ms);
            diary.note(Note::Resumed { pause_ms })?;
        }
        resumed?;
        Ok(armed.disarm()?)
    }

    /// Has all disks written to the new layers, at one instant.
    fn switch(&self) -> Transaction {
        let actions = self.take.disks.iter().map(|disk| {
            let (node, overlay) = (layer_node(disk.active.id), layer_node(disk.overlay));
            json!({ "type": "blockdev-snapshot", "data": { "node": node, "overlay": overlay } })
        });
        Transaction { actions: actions.collect() }
    }

    fn switched(&mut self, diary: &mut dyn Diary) -> Result<(), TakeError> {
        self.facts.switched = true;
        Ok(diary.note(Note::Switched)?)
    }

    /// Syncs before QEMU closes its copy of the descriptor: otherwise the close does, on the main
    /// loop.
    fn finish_memory(
        &mut self,
        file: &File,
        stalled: Duration,
        diary: &mut dyn Diary,
    ) -> Result<(), TakeError> {
        steps::around("file sync memory", || file.sync_data())?;
        let asked = Instant::now();
        self.instance.take_back(FDSET);
        let closing = asked.elapsed();
        let closing = if closing > PROMPT { closing } else { Duration::ZERO };
        self.switch_capabilities(false)?;
        let pause_ms = self.facts.pause_ms.unwrap_or(0) + elapsed_ms(stalled + closing);
        tracing::debug!(held = self.facts.pause_ms, ?stalled, ?closing, "memory saved");
        self.facts.pause_ms = Some(pause_ms);
        self.seal_memory(file)?;
        diary.note_durably(Note::Saved { memory_bytes: self.facts.memory_bytes, pause_ms })?;
        self.share_memory(file, diary);
        Ok(())
    }

    /// Has what is as in an earlier snapshot take space once. A snapshot without that is as good.
    fn share_memory(&self, file: &File, diary: &mut dyn Diary) {
        let Some(earlier) = self.take.memory_like else { return };
        let go_on = |fraction| {
            diary.tell("sharing memory with the snapshot before", fraction);
            !diary.is_cancelled()
        };
        let shared = File::open(self.folder.path().join(memory_name(earlier)))
            .map_err(ShareError::from)
            .and_then(|earlier| {
                steps::around("file share memory", || share(file, &earlier, go_on))
            });
        match shared {
            Ok(bytes) => tracing::debug!(vm = %self.take.vm, bytes, "memory shared"),
            Err(error) => tracing::debug!(vm = %self.take.vm, %error, "memory is not shared"),
        }
    }

    /// Makes the file one that any QEMU loads, and puts it on disk.
    fn seal_memory(&mut self, file: &File) -> Result<(), TakeError> {
        let layout = Layout::read(file)?;
        if self.road == Road::Background {
            layout.fill_bitmaps(file)?;
        }
        steps::around("file sync memory", || file.sync_all())?;
        self.folder.sync()?;
        self.facts.memory_bytes = file.metadata()?.blocks() * 512;
        Ok(())
    }

    fn done(mut self, qemu: &Qemu) -> Outcome {
        self.facts.running = true;
        self.facts.switched = true;
        for disk in &self.take.disks {
            if let Ok(size) = qemu.volume.allocated_bytes(self.take.vm, disk.active) {
                self.facts.sizes.insert(disk.active.id, size);
            }
        }
        Outcome::Done(self.facts)
    }

    /// Leaves the guest running and nothing of the memory behind. Disks that were switched stay
    /// switched: the layer beneath is merged later.
    fn undo(mut self, qemu: &Qemu, error: &TakeError) -> Outcome {
        let qmp = self.instance.qmp();
        if self.take.memory {
            self.discard_memory();
        }
        self.find_out_whether_switched(qemu);
        if !self.facts.switched {
            for disk in &self.take.disks {
                let _ = qmp.run(&BlockdevDel { node_name: layer_node(disk.overlay) });
                let _ = qemu.volume.remove(self.take.vm, disk.overlay_file());
            }
        }
        if qmp.run_state().is_ok_and(|state| is_held(&state)) {
            let _ = qmp.run(&Cont {});
        }
        self.facts.running = qemu.state(self.take.vm) == VmState::Running;
        let code = match error {
            TakeError::Io(_) => Code::StorageFailed,
            TakeError::NotRunning(_) => Code::VmNotRunning,
            TakeError::Cancelled => Code::Interrupted,
            TakeError::Quiesce(error) => {
                return Outcome::Failed(not_quiesced(error), self.facts);
            }
            _ if !self.instance.is_alive() => Code::GuestLost,
            _ => Code::HypervisorFailed,
        };
        failed(code, error, self.facts)
    }

    /// An order that was not answered may have been carried out. Asks until QEMU has answered,
    /// which it does in the order it was asked, or is gone: then layers that a guest may have
    /// written to are kept.
    fn find_out_whether_switched(&mut self, qemu: &Qemu) {
        while self.instance.is_alive() {
            match self.look() {
                Ok(_) => return,
                Err(error) => tracing::warn!(%error, "asking whether the disks are switched"),
            }
            thread::sleep(Duration::from_millis(200));
        }
        let exists = |disk: &Freeze| qemu.volume.exists(self.take.vm, disk.overlay_file());
        self.facts.switched = self.take.disks.iter().all(exists);
    }

    fn discard_memory(&self) {
        self.give_up_saving();
        self.instance.take_back(FDSET);
        let _ = self.switch_capabilities(false);
        let _ = self.folder.remove_memory(self.take.snapshot);
    }

    /// What a dead tintype left: which disks are switched, by asking.
    fn look(&mut self) -> Result<bool, QmpError> {
        let Some(disk) = self.take.disks.first() else {
            return Ok(true);
        };
        let overlay = disk.overlay_file().name();
        let chain = self.instance.chain_with(&overlay)?;
        self.facts.switched = chain.is_some();
        Ok(self.facts.switched)
    }
}

/// What somebody is told whose snapshot is not quiesced.
fn not_quiesced(error: &AgentError) -> Refusal {
    let hint = match error {
        AgentError::Absent => "install and start qemu-guest-agent in the guest",
        _ => "see what the guest agent says in the guest's own log",
    };
    Refusal::new(Code::QuiesceFailed).detail(error.to_string()).hint(hint)
}

/// The order to save memory where it was handed over.
fn save() -> Migrate {
    Migrate { uri: format!("file:/dev/fdset/{FDSET}") }
}

fn check_save(info: &MigrationInfo) -> Result<(), TakeError> {
    match info.status {
        Some(
            MigrationStatus::Failed | MigrationStatus::Cancelled | MigrationStatus::Cancelling,
        ) => {
            let why = info.error_desc.clone().unwrap_or_else(|| "it was given up".to_owned());
            Err(TakeError::Save(why))
        }
        _ => Ok(()),
    }
}

fn is_saving(info: &MigrationInfo) -> bool {
    use MigrationStatus::{Active, Cancelling, Device, PreSwitchover, Setup};
    matches!(info.status, Some(Setup | Active | PreSwitchover | Device | Cancelling))
}

/// Whether QEMU waits for a word before the guest goes on.
fn is_held(state: &str) -> bool {
    matches!(state, "paused" | "io-error" | "postmigrate")
}

fn elapsed_ms(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}
