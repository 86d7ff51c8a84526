//! QEMU, driven by QMP.
//!
//! A machine has a folder with its layers and memory files; each QEMU process of it (an
//! *instance*) has a folder `run/<number>` in there with its sockets and what is needed to find it
//! again. QEMU runs with the machine's folder as its working directory and is given relative paths
//! only, so that it needs no permission on anything above.

pub mod commands;
mod direct;
mod export;
mod folder;
mod guest_agent;
mod huge_pages;
mod instance;
mod launch;
pub mod mapped_ram;
mod page_server;
mod postcopy;
mod premises;
mod probe;
mod process;
mod qmp;
mod reclaim;
mod revert;
mod share;
mod stream;
mod take;
mod urgent;
mod verify;
mod warm;
mod watchdog;

pub use folder::Folder;
pub use guest_agent::{AgentError, GuestAgent};
pub use instance::Instance;
pub use page_server::{PageServers, run as run_page_server};
pub use postcopy::{Said, understand};
pub use probe::{ProbeError, probe};
pub use qmp::{Event, Heard, Qmp, QmpError, read_message};
pub use watchdog::{Watch, run as run_watchdog};

use self::process::Process;
use crate::diary::{Diary, Note};
use crate::guest_user::GuestUser;
use crate::hypervisor::Hypervisor;
use crate::premises::Premises;
use crate::volume::Volume;
use crate::volume::qcow2::Qcow2;
use commands::Cont;
use rustix::fs::statvfs;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tintype_model::capability::Capabilities;
use tintype_model::effect::{
    Effect, Export, Facts, Launch, Outcome, ResizeDisk, Revert, StopVm, TakeSnapshot, Verify,
};
use tintype_model::layer::LayerFile;
use tintype_model::reclaim::Reclaim;
use tintype_model::refusal::{Code, Refusal};
use tintype_model::vm::VmState;
use tintype_model::{SnapshotId, VmId};

/// So much has to be free again before a guest that found no room goes on, in bytes.
const ROOM: u64 = 16 << 20;

/// QEMU on this host.
pub struct Qemu {
    root: PathBuf,
    capabilities: Capabilities,
    user: Option<GuestUser>,
    volume: Qcow2,
    watch: Arc<Watch>,
    page_servers: PageServers,
    sweeps: take::Sweeps,
    /// How many bytes of memory are saved in a second at most while the guest's writes wait for
    /// nothing; 0 for as many as can be.
    save_rate: u64,
    /// Whether layers are opened past the host's page cache.
    direct_io: bool,
    live: Mutex<BTreeMap<VmId, Arc<Instance>>>,
    /// How machines ended that were not asked to.
    ended: Mutex<BTreeMap<VmId, VmState>>,
}

impl Qemu {
    /// Drives the machines whose folders lie in `root`; finds the processes that run already.
    pub fn new(
        root: PathBuf,
        capabilities: Capabilities,
        watch: Arc<Watch>,
        page_servers: PageServers,
    ) -> Self {
        let user = GuestUser::for_guests();
        let volume = Qcow2::new(root.clone(), user);
        let qemu = Self {
            root,
            capabilities,
            user,
            volume,
            watch,
            page_servers,
            sweeps: take::Sweeps::default(),
            save_rate: 0,
            direct_io: false,
            live: Mutex::default(),
            ended: Mutex::default(),
        };
        qemu.adopt_all();
        qemu
    }

    /// Memory is saved no faster than this on the road on which that does not hold the guest up,
    /// in bytes a second.
    #[must_use]
    pub fn saving_at_most(self, save_rate: u64) -> Self {
        Self { save_rate, ..self }
    }

    /// Layers that are opened from now on are read and written past the host's page cache.
    #[must_use]
    pub fn direct_io(self, direct_io: bool) -> Self {
        Self { direct_io, ..self }
    }

    /// The volume whose files the machines are made of.
    pub fn volume(&self) -> &Qcow2 {
        &self.volume
    }

    /// The process that is the machine now, if it is there and answers. One that did not answer
    /// before is tried again.
    pub fn instance(&self, vm: VmId) -> Option<Arc<Instance>> {
        if let Some(known) = self.known(vm) {
            return Some(known);
        }
        let folder = self.folder(vm);
        let number = folder.current()?;
        let instance = Arc::new(Instance::adopt(&folder, number).ok()?);
        self.set_live(vm, Arc::clone(&instance));
        Some(instance)
    }

    /// The process that we are connected to; how it ended, if it has, is kept.
    fn known(&self, vm: VmId) -> Option<Arc<Instance>> {
        let mut live = self.live.lock().expect("no holder panics");
        let instance = live.get(&vm)?;
        if instance.is_alive() {
            return Some(Arc::clone(instance));
        }
        let state = if instance.was_shut_down() { VmState::Stopped } else { VmState::Crashed };
        self.ended.lock().expect("no holder panics").insert(vm, state);
        live.remove(&vm);
        None
    }

    /// Looks after a machine that still gets memory, and gives up what is kept for one that is
    /// gone.
    pub fn tend(&self, vm: VmId) {
        let folder = self.folder(vm);
        if let Some(instance) = self.going(vm) {
            if let Err(error) = revert::go_on_serving(self, &folder, &instance) {
                tracing::warn!(%vm, %error, "memory of the last revert is missing");
            }
        } else if let Some(number) = folder.current()
            && !Instance::recorded(&folder, number).is_some_and(Process::is_alive)
        {
            folder.let_go_of_memory(number);
        }
    }

    /// Lets a guest go on that QEMU has stopped because the pool was full, once there is room. Who
    /// calls sees to it that nothing else is done to the machine meanwhile.
    pub fn wake(&self, vm: VmId) {
        let Some(instance) = self.going(vm) else { return };
        let stopped = instance.qmp().run_state().is_ok_and(|state| state == "io-error");
        if stopped && self.room() >= ROOM {
            tracing::info!(%vm, "there is room again: the guest goes on");
            if let Err(error) = instance.qmp().run(&Cont {}) {
                tracing::warn!(%vm, %error, "the guest does not go on");
            }
        }
    }

    /// The process of a machine, if it is not held by a signal: then it would not answer.
    fn going(&self, vm: VmId) -> Option<Arc<Instance>> {
        self.instance(vm).filter(|instance| !instance.process().is_held())
    }

    /// Free bytes of the pool.
    fn room(&self) -> u64 {
        statvfs(&self.root).map_or(0, |stat| stat.f_bavail * stat.f_frsize)
    }

    /// The folder of a machine.
    pub fn folder(&self, vm: VmId) -> Folder {
        Folder::new(self.root.join(vm.to_string()), self.user).direct_io(self.direct_io)
    }

    /// An instance of a machine that answers. A QMP server has room for one client, so one that
    /// is connected already is not connected to again.
    fn answering(&self, vm: VmId, number: u32) -> Option<Arc<Instance>> {
        let known = self.instance(vm).filter(|instance| instance.number() == number);
        known.or_else(|| Instance::adopt(&self.folder(vm), number).ok().map(Arc::new))
    }

    /// The state of a machine whose process does not answer: there, so not off.
    fn state_unadopted(&self, vm: VmId) -> VmState {
        let folder = self.folder(vm);
        let process = folder.current().and_then(|number| Instance::recorded(&folder, number));
        if process.is_some_and(Process::is_alive) {
            return VmState::Paused;
        }
        let ended = self.ended.lock().expect("no holder panics");
        ended.get(&vm).copied().unwrap_or(VmState::Stopped)
    }

    /// Forgets a machine's process, which was ended as somebody wanted.
    fn forget(&self, vm: VmId) {
        self.live.lock().expect("no holder panics").remove(&vm);
        self.ended.lock().expect("no holder panics").remove(&vm);
    }

    /// Ends a process that does not answer.
    fn kill_mute(&self, vm: VmId) {
        if self.instance(vm).is_some() {
            return;
        }
        let folder = self.folder(vm);
        for number in folder.numbers() {
            if let Some(process) = Instance::recorded(&folder, number) {
                process.kill();
            }
        }
    }

    fn set_live(&self, vm: VmId, instance: Arc<Instance>) {
        self.ended.lock().expect("no holder panics").remove(&vm);
        self.live.lock().expect("no holder panics").insert(vm, instance);
    }

    /// Finds a process that was started for a machine and not marked as its current one.
    fn adopt_stray(&self, vm: VmId) {
        if self.instance(vm).is_some() {
            return;
        }
        let folder = self.folder(vm);
        for number in folder.numbers() {
            if let Some(instance) = self.answering(vm, number) {
                folder.set_current(number);
                self.set_live(vm, instance);
                return;
            }
            if let Some(process) = Instance::recorded(&folder, number) {
                process.kill();
            }
        }
    }

    /// Done, with what a layer takes on disk now.
    fn sized(&self, vm: VmId, layer: LayerFile) -> Outcome {
        let size = self.volume.allocated_bytes(vm, layer).unwrap_or(0);
        Outcome::Done(Facts { sizes: [(layer.id, size)].into(), ..Facts::default() })
    }

    fn adopt_all(&self) {
        for vm in self.machines() {
            let folder = self.folder(vm);
            let Some(number) = folder.current() else {
                continue;
            };
            match Instance::adopt(&folder, number) {
                Ok(instance) => self.set_live(vm, Arc::new(instance)),
                Err(reason) => tracing::debug!(%vm, %reason, "no process to adopt"),
            }
        }
    }
}

impl Hypervisor for Qemu {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn state(&self, vm: VmId) -> VmState {
        let Some(instance) = self.going(vm) else {
            return self.state_unadopted(vm);
        };
        match instance.qmp().run_state() {
            Ok(state) if state == "running" => VmState::Running,
            Ok(_) => VmState::Paused,
            Err(_) if instance.is_alive() => VmState::Paused,
            Err(_) => self.state(vm),
        }
    }

    fn start(&self, launch: &Launch) -> Outcome {
        if self.instance(launch.vm).is_some() {
            return running(Facts::default());
        }
        if self.state(launch.vm).is_live() {
            return mute();
        }
        let folder = self.folder(launch.vm);
        let started = Instance::launch(&folder, launch, &self.capabilities, launch::Begin::Run);
        match started {
            Ok(instance) => {
                folder.set_current(instance.number());
                self.set_live(launch.vm, Arc::new(instance));
                running(Facts::default())
            }
            Err(error) => failed(Code::HypervisorFailed, &error, Facts::default()),
        }
    }

    fn stop(&self, stop: &StopVm) -> Outcome {
        if self.instance(stop.vm).is_none() && self.state(stop.vm).is_live() && !stop.force {
            return mute();
        }
        self.kill_mute(stop.vm);
        if let Some(instance) = self.instance(stop.vm) {
            let patience = std::time::Duration::from_millis(stop.patience_ms);
            if stop.force || !instance.power_down(patience) {
                instance.end();
            }
        }
        self.forget(stop.vm);
        self.folder(stop.vm).clear_instances(None);
        Outcome::Done(Facts::default())
    }

    fn remove(&self, vm: VmId) -> Outcome {
        self.kill_mute(vm);
        if let Some(instance) = self.instance(vm) {
            instance.end();
        }
        self.forget(vm);
        match self.folder(vm).remove() {
            Ok(()) => Outcome::Done(Facts::default()),
            Err(error) => failed(Code::StorageFailed, &error, Facts::default()),
        }
    }

    fn take(&self, take: &TakeSnapshot, diary: &mut dyn Diary) -> Outcome {
        take::take(self, take, diary)
    }

    fn revert(&self, revert: &Revert, diary: &mut dyn Diary) -> Outcome {
        revert::revert(self, revert, diary)
    }

    fn recover(&self, effect: &Effect, notes: &[Note], diary: &mut dyn Diary) -> Outcome {
        match effect {
            Effect::TakeSnapshot(take) => take::recover(self, take, notes, diary),
            Effect::Revert(revert) => revert::recover(self, revert, notes),
            Effect::StartVm(launch) => {
                self.adopt_stray(launch.vm);
                self.start(launch)
            }
            Effect::StopVm(stop) => self.stop(stop),
            Effect::DeleteVm { vm } => {
                self.adopt_stray(*vm);
                self.remove(*vm)
            }
            Effect::RemoveMemory { vm, snapshots } => self.remove_memory(*vm, snapshots),
            Effect::Reclaim { vm, work } => self.reclaim(*vm, work, &AtomicBool::new(false)),
            Effect::ResizeDisk(resize) => self.resize(resize),
            Effect::VerifySnapshot(verify) => verify::recover(self, verify),
            Effect::ExportSnapshot(export) => self.export(export, diary, &AtomicBool::new(false)),
            Effect::CreateVm(_)
            | Effect::CloneDisks(_)
            | Effect::AttachDisk { .. }
            | Effect::DetachDisk { .. } => Outcome::Yielded,
        }
    }

    fn reclaim(&self, vm: VmId, work: &Reclaim, give_way: &AtomicBool) -> Outcome {
        reclaim::reclaim(self, vm, work, give_way)
    }

    fn verify(&self, verify: &Verify, diary: &mut dyn Diary) -> Outcome {
        verify::verify(self, verify, diary)
    }

    fn export(&self, export: &Export, diary: &mut dyn Diary, stop: &AtomicBool) -> Outcome {
        export::export(self, export, diary, stop)
    }

    fn resize(&self, resize: &ResizeDisk) -> Outcome {
        let (vm, layer, size) = (resize.vm, resize.layer, resize.size_bytes);
        if let Some(instance) = self.instance(vm) {
            let node_name = launch::layer_node(layer.id);
            return match instance.qmp().run(&commands::BlockResize { node_name, size }) {
                Ok(_) => self.sized(vm, layer),
                Err(error) => failed(Code::HypervisorFailed, &error, Facts::default()),
            };
        }
        match self.volume.resize(vm, layer, size) {
            Ok(()) => self.sized(vm, layer),
            Err(error) => failed(Code::StorageFailed, &error, Facts::default()),
        }
    }

    fn remove_memory(&self, vm: VmId, snapshots: &[SnapshotId]) -> Outcome {
        let folder = self.folder(vm);
        for &snapshot in snapshots {
            if let Err(error) = folder.remove_memory(snapshot) {
                return failed(Code::StorageFailed, &error, Facts::default());
            }
        }
        Outcome::Done(Facts::default())
    }
}

/// What is said of a process that is there and does not answer.
fn mute() -> Outcome {
    let facts = Facts { running: true, ..Facts::default() };
    failed(Code::HypervisorFailed, &"the guest's process does not answer", facts)
}

fn running(mut facts: Facts) -> Outcome {
    facts.running = true;
    Outcome::Done(facts)
}

fn failed(code: Code, error: &impl std::fmt::Display, facts: Facts) -> Outcome {
    Outcome::Failed(Refusal::new(code).detail(error.to_string()), facts)
}
