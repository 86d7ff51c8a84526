//! Going back to a snapshot.
//!
//! The machine as it shall be is made ready in a second process while the first still runs. Only
//! when it is ready is the first held, and only when the second has run does the first go: until
//! then every failure leaves the machine as it was.

use super::commands::{
    Cont, MigrateIncoming, MigrateRecover, MigrateSetCapabilities, MigrationInfo, MigrationStatus,
    QueryMigrate,
};
use super::instance::{Instance, InstanceError, Starting};
use super::launch::{Begin, join_console};
use super::mapped_ram::{FormatError, Layout};
use super::page_server::Job;
use super::qmp::QmpError;
use super::urgent::Urgent;
use super::watchdog::Heal;
use super::{Folder, Qemu, failed};
use crate::diary::{Diary, Note};
use crate::hypervisor::Hypervisor;
use crate::steps;
use crate::volume::Volume;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tintype_model::effect::{After, Facts, Launch, Outcome, Revert};
use tintype_model::refusal::Code;
use tintype_model::snapshot::memory_name;
use tintype_model::vm::VmState;
use tintype_model::{Refusal, SnapshotId, VmId};

/// How often it is asked whether a machine has loaded before it is asked whether that failed.
const FAILURE_LOOKED_FOR: u32 = 16;
/// How long a machine may take to load its devices.
const LOADING: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(super) enum RevertError {
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error(transparent)]
    Instance(#[from] InstanceError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("memory could not be loaded: {0}")]
    Load(String),
    #[error("the reverted machine did not run: it is {0}")]
    DidNotRun(String),
}

pub(super) fn revert(qemu: &Qemu, revert: &Revert, diary: &mut dyn Diary) -> Outcome {
    let result = match revert.after {
        After::Stopped => leave_off(qemu, revert, diary),
        After::Resumed | After::Booted => take_over(qemu, revert, diary),
    };
    match result {
        Ok(facts) => Outcome::Done(facts),
        Err(error) => {
            remove_overlays(qemu, revert);
            let running = qemu.state(revert.launch.vm) == VmState::Running;
            let code = match error {
                RevertError::Load(_) | RevertError::Format(_) => Code::LoadFailed,
                RevertError::Io(_) => Code::StorageFailed,
                _ => Code::HypervisorFailed,
            };
            failed(code, &error, Facts { running, ..Facts::default() })
        }
    }
}

/// The machine will be off: there is nothing to make ready.
fn leave_off(qemu: &Qemu, revert: &Revert, diary: &mut dyn Diary) -> Result<Facts, RevertError> {
    diary.note_durably(Note::Committed)?;
    end_all(qemu, revert);
    Ok(Facts { switched: true, ..Facts::default() })
}

fn end_all(qemu: &Qemu, revert: &Revert) {
    let vm = revert.launch.vm;
    if let Some(old) = qemu.instance(vm) {
        old.process().kill();
    }
    qemu.kill_mute(vm);
    qemu.forget(vm);
    qemu.folder(vm).clear_instances(None);
}

fn take_over(qemu: &Qemu, revert: &Revert, diary: &mut dyn Diary) -> Result<Facts, RevertError> {
    let vm = revert.launch.vm;
    let folder = qemu.folder(vm);
    if qemu.instance(vm).is_none() && qemu.state(vm).is_live() {
        return Err(InstanceError::Mute.into());
    }
    if revert.after == After::Resumed {
        check_memory(&folder, revert.snapshot, &revert.launch)?;
    }
    let new = make_ready(qemu, &folder, revert, diary)?;
    let old = qemu.instance(vm);
    let begun = Instant::now();
    match switch(qemu, &folder, old.as_deref(), &new) {
        Ok(()) => {}
        Err(error) => {
            new.process().kill();
            if let Some(old) = &old {
                // The watchdog may have marked the new one.
                folder.set_current(old.number());
                old.process().go_on();
            }
            folder.clear_instances(old.as_ref().map(|old| old.number()));
            return Err(error);
        }
    }
    let pause_ms = begun.elapsed().as_millis() as u64;
    folder.set_current(new.number());
    diary.note(Note::Resumed { pause_ms })?;
    if let Some(old) = old {
        old.process().kill_gently();
    }
    folder.clear_instances(Some(new.number()));
    qemu.set_live(vm, Arc::new(new));
    Ok(Facts { switched: true, running: true, pause_ms: Some(pause_ms), ..Facts::default() })
}

/// Looks at the memory before anything is started or stopped.
pub(super) fn check_memory(
    folder: &Folder,
    snapshot: SnapshotId,
    launch: &Launch,
) -> Result<(), RevertError> {
    let config = &launch.config;
    let file = File::open(folder.path().join(memory_name(snapshot)))?;
    Ok(Layout::read(&file)?.fits(&config.platform.machine, config.memory_bytes)?)
}

fn make_ready(
    qemu: &Qemu,
    folder: &Folder,
    revert: &Revert,
    diary: &mut dyn Diary,
) -> Result<Instance, RevertError> {
    let begin = match revert.after {
        After::Resumed => Begin::Load,
        After::Booted | After::Stopped => Begin::Held,
    };
    let begun = Instant::now();
    let number = folder.new_instance()?;
    let on_demand = qemu.capabilities.memory_on_demand.is_yes();
    let starting = Starting::launch(folder, number, &revert.launch, &qemu.capabilities, begin)?;
    if begin == Begin::Load && on_demand {
        // It has time for that while QEMU starts.
        serve_memory(qemu, folder, number, revert.snapshot)?;
    }
    let instance = starting.answers()?;
    let started = begun.elapsed();
    let ready = diary
        .note(Note::Launched { instance: instance.number() })
        .map_err(RevertError::from)
        .and_then(|()| match begin {
            Begin::Run | Begin::Held => Ok(()),
            Begin::Load | Begin::Apart => {
                if on_demand {
                    load_on_demand(folder, &instance)?;
                } else {
                    load(&instance, revert.snapshot)?;
                }
                Ok(join_console(&instance, &qemu.capabilities)?)
            }
        });
    if let Err(error) = ready {
        instance.process().kill();
        folder.clear_instances(folder.current());
        return Err(error);
    }
    tracing::debug!(?started, ready = ?begun.elapsed(), "the next process is ready");
    Ok(instance)
}

/// The socket at which an instance waits for memory, as it names it itself.
fn incoming_socket(number: u32) -> String {
    format!("run/{number}/incoming.sock")
}

/// Has somebody serve a snapshot's memory to an instance that starts.
fn serve_memory(
    qemu: &Qemu,
    folder: &Folder,
    number: u32,
    snapshot: SnapshotId,
) -> Result<(), RevertError> {
    folder.keep_memory(snapshot, number)?;
    let job = job(folder, number, Some(folder.touched(snapshot)));
    Ok(steps::around("spawn page server", || qemu.page_servers.start(&job))?)
}

/// Has an instance come up with its devices only; its memory comes when it is touched, or behind.
fn load_on_demand(folder: &Folder, instance: &Instance) -> Result<(), RevertError> {
    let qmp = instance.qmp();
    let memory_at = instance.ask_memory_at()?;
    let capable = qmp.send(&on_demand(true))?;
    let incoming = format!("unix:{}", incoming_socket(instance.number()));
    let incoming = qmp.send(&MigrateIncoming { uri: incoming })?;
    if let Some(at) = memory_at.answer()? {
        // Who serves memory can do without.
        let _ = fs::write(folder.memory_at(instance.number()), at.to_string());
    }
    capable.answer()?;
    incoming.answer()?;
    let until = Instant::now() + LOADING;
    // Each question takes QEMU some of the time that it needs for loading; both are asked at first,
    // so that a revert has the same steps however long it takes.
    for asked in 0_u32.. {
        if qmp.run_state().map_err(while_loading)? != "inmigrate" {
            break;
        }
        if asked.is_multiple_of(FAILURE_LOOKED_FOR) {
            let info = qmp.run(&QueryMigrate {}).map_err(while_loading)?;
            if info.status == Some(MigrationStatus::Failed) || Instant::now() > until {
                return Err(refused(info));
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    File::create(folder.loaded(instance.number()))?;
    Ok(())
}

/// Sees to it that a machine whose page server died gets the rest of its memory.
pub(super) fn go_on_serving(
    qemu: &Qemu,
    folder: &Folder,
    instance: &Instance,
) -> Result<(), RevertError> {
    let number = instance.number();
    let qmp = instance.qmp();
    if !folder.kept_memory(number).exists()
        || qmp.run(&QueryMigrate {})?.status != Some(MigrationStatus::PostcopyPaused)
    {
        return Ok(());
    }
    tracing::warn!(folder = %folder.path().display(), "a page server died; another goes on");
    qmp.run(&MigrateRecover { uri: format!("unix:{}", incoming_socket(number)) })?;
    let job = job(folder, number, None);
    Ok(qemu.page_servers.start(&job)?)
}

/// Serving an instance the memory that was kept for it.
fn job(folder: &Folder, number: u32, touched: Option<PathBuf>) -> Job {
    Job {
        socket: folder.path().join(incoming_socket(number)),
        memory: folder.kept_memory(number),
        touched,
        process: folder.record(number),
        memory_at: folder.memory_at(number),
        loaded: folder.loaded(number),
    }
}

/// Whether memory comes when it is touched.
pub(super) fn on_demand(state: bool) -> MigrateSetCapabilities {
    MigrateSetCapabilities::switch(&["postcopy-ram"], state)
}

fn while_loading(error: QmpError) -> RevertError {
    match error {
        QmpError::Gone(_) => RevertError::Load("QEMU ended while it loaded".to_owned()),
        other => other.into(),
    }
}

fn refused(info: MigrationInfo) -> RevertError {
    RevertError::Load(info.error_desc.unwrap_or_else(|| "QEMU refused it".to_owned()))
}

/// Has an instance load all of a snapshot's memory.
pub(super) fn load(instance: &Instance, snapshot: SnapshotId) -> Result<(), RevertError> {
    let qmp = instance.qmp();
    let capabilities = |state| MigrateSetCapabilities::switch(&["mapped-ram"], state);
    qmp.run(&capabilities(true))?;
    let uri = format!("file:{}", memory_name(snapshot));
    qmp.run(&MigrateIncoming { uri })?;
    loop {
        let info = qmp.run(&QueryMigrate {}).map_err(while_loading)?;
        match info.status {
            Some(MigrationStatus::Completed) => break,
            Some(MigrationStatus::Failed) => return Err(refused(info)),
            _ => thread::sleep(Duration::from_millis(1)),
        }
    }
    qmp.run(&capabilities(false))?;
    Ok(())
}

/// Holds the old process and lets the new one run.
fn switch(
    qemu: &Qemu,
    folder: &Folder,
    old: Option<&Instance>,
    new: &Instance,
) -> Result<(), RevertError> {
    let _urgent = Urgent::begin();
    let armed = match old {
        Some(old) => Some(qemu.watch.arm(Heal::GoOn {
            old: old.process(),
            new: new.process(),
            socket: new.watch_socket(),
            folder: folder.path().to_owned(),
            number: new.number(),
        })?),
        None => None,
    };
    if let Some(old) = old {
        steps::around("process hold", || old.process().hold());
    }
    new.qmp().run(&Cont {})?;
    let state = new.qmp().run_state()?;
    if state != "running" {
        return Err(RevertError::DidNotRun(state));
    }
    armed.map_or(Ok(()), |armed| armed.disarm())?;
    Ok(())
}

fn remove_overlays(qemu: &Qemu, revert: &Revert) {
    for disk in &revert.launch.disks {
        let _ = qemu.volume.remove(revert.launch.vm, disk.chain[0]);
    }
}

/// After a crash: whichever process runs decides. If the new one ran, the revert happened.
pub(super) fn recover(qemu: &Qemu, revert: &Revert, notes: &[Note]) -> Outcome {
    let vm = revert.launch.vm;
    let folder = qemu.folder(vm);
    if notes.contains(&Note::Committed) {
        end_all(qemu, revert);
        return Outcome::Done(Facts { switched: true, ..Facts::default() });
    }
    let pause_ms = notes.iter().find_map(|note| match note {
        Note::Resumed { pause_ms } => Some(*pause_ms),
        _ => None,
    });
    if let Some(new) = find_winner(qemu, vm, notes) {
        kill_all(&folder, |number| number != new.number());
        folder.set_current(new.number());
        folder.clear_instances(Some(new.number()));
        qemu.set_live(vm, new);
        return Outcome::Done(Facts {
            switched: true,
            running: true,
            pause_ms,
            ..Facts::default()
        });
    }
    if pause_ms.is_some() {
        // It ran, and ended by itself while nobody looked.
        kill_all(&folder, |_| true);
        end_all(qemu, revert);
        return Outcome::Done(Facts { switched: true, ..Facts::default() });
    }
    let left = folder.numbers().into_iter().find_map(|number| {
        let process = Instance::recorded(&folder, number).filter(|process| process.is_alive())?;
        Some((number, process))
    });
    if let Some((number, old)) = left {
        folder.set_current(number);
        old.go_on();
        if let Some(instance) = qemu.answering(vm, number) {
            qemu.set_live(vm, instance);
        }
    }
    folder.clear_instances(left.map(|(number, _)| number));
    remove_overlays(qemu, revert);
    let running = qemu.state(vm) == VmState::Running;
    let reason = Refusal::new(Code::Interrupted)
        .detail("tintype ended before the reverted machine ran; it is as it was");
    Outcome::Failed(reason, Facts { running, ..Facts::default() })
}

/// The new process, if it runs; one that does not is ended.
fn find_winner(qemu: &Qemu, vm: VmId, notes: &[Note]) -> Option<Arc<Instance>> {
    let folder = qemu.folder(vm);
    let current = folder.current();
    let is_new =
        |number| notes.contains(&Note::Launched { instance: number }) || Some(number) > current;
    let runs =
        |instance: &Arc<Instance>| instance.qmp().run_state().is_ok_and(|state| state == "running");
    let new = folder.numbers().into_iter().filter(|&number| is_new(number));
    let winner = new.filter_map(|number| qemu.answering(vm, number)).find(runs);
    let won = winner.as_ref().map(|instance| instance.number());
    kill_all(&folder, |number| is_new(number) && Some(number) != won);
    winner
}

fn kill_all(folder: &Folder, which: impl Fn(u32) -> bool) {
    for number in folder.numbers().into_iter().filter(|&number| which(number)) {
        if let Some(process) = Instance::recorded(folder, number) {
            process.kill();
        }
    }
}
