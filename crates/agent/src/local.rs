//! The agent of the host we run on.

use crate::admission::Admission;
use crate::console::Consoles;
use crate::hand::Hand;
use crate::holders::Holders;
use crate::host;
use crate::journal::{Files, Journals, begun};
use crate::sight;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tintype_drivers::qemu::{Folder, PageServers, ProbeError, Qemu, Watch, probe};
use tintype_drivers::{GuestUser, Hypervisor, Premises, steps, volume};
use tintype_model::config::Accel;
use tintype_model::effect::{Effect, Facts, Outcome};
use tintype_model::finding::{Repair, Sighting};
use tintype_model::manifest::{Manifest, Survey};
use tintype_model::refusal::Code;
use tintype_model::vm::VmState;
use tintype_model::{EffectId, Refusal, VmId};
use tintype_wire::agent::{Agent, HostFacts, Inspected, Journaled, OnRecord, Progress};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

/// How long what was found out about who has files open is good for.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Why an agent cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The hypervisor cannot be used.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The data folder cannot be used.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// Its filesystem cannot be read and written past the page cache.
    #[error("{0}: this filesystem has no direct I/O")]
    NoDirectIo(PathBuf),
}

/// The agent of the host we run on.
pub struct LocalAgent {
    data: PathBuf,
    pool: PathBuf,
    shared: Arc<Shared>,
    consoles: Consoles,
    turns: Mutex<BTreeMap<VmId, Arc<AsyncMutex<()>>>>,
    admission: Admission,
    /// Who has files open, and since when we know.
    holders: Arc<Mutex<Option<(Instant, Holders)>>>,
}

struct Shared {
    hand: Hand<Qemu>,
    progress: Mutex<BTreeMap<EffectId, Arc<Mutex<Progress>>>>,
    /// What is under way.
    running: Mutex<BTreeMap<EffectId, Running>>,
    /// Space promised to saves under way.
    reserved: Mutex<BTreeMap<EffectId, u64>>,
}

/// An effect that is under way, or about to be.
struct Running {
    vm: VmId,
    background: bool,
    /// Set to have it undone, or give way.
    stop: Arc<AtomicBool>,
}

/// How guests are run here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// By what; by the processor where it can if nothing is said.
    pub accel: Option<Accel>,
    /// How many bytes of memory are saved by precopy in a second; 0 for as many as can be.
    pub save_rate: u64,
    /// Whether disks are read and written past the host's page cache.
    pub direct_io: bool,
}

/// The processes beside tintype, which live on when it dies.
#[derive(Debug)]
pub struct Helpers {
    /// Lets guests that are held go on: it has to run the watchdog over its standard input.
    pub watchdog: Command,
    /// Serve memory to machines that run already.
    pub page_servers: PageServers,
}

impl LocalAgent {
    /// Opens the host's data folder, looks at the hypervisor, starts the watchdog and finds the
    /// guests that run.
    ///
    /// # Errors
    /// When the folder or the hypervisor cannot be used.
    pub fn open(data: &Path, manner: Manner, helpers: Helpers) -> Result<Arc<Self>, OpenError> {
        let pool = data.join("pools/default");
        make_folders(data, &pool).map_err(|error| OpenError::Io(data.to_owned(), error))?;
        let data = data.canonicalize().map_err(|error| OpenError::Io(data.to_owned(), error))?;
        let pool = data.join("pools/default");
        let io_error = |error| OpenError::Io(data.clone(), error);
        if manner.direct_io && !volume::takes_direct_io(&pool).map_err(io_error)? {
            return Err(OpenError::NoDirectIo(pool));
        }
        let capabilities = probe(&data.join("host"), manner.accel)?;
        let watch = Arc::new(Watch::spawn(helpers.watchdog).map_err(io_error)?);
        let qemu = Qemu::new(pool.clone(), capabilities, watch, helpers.page_servers)
            .saving_at_most(manner.save_rate)
            .direct_io(manner.direct_io);
        let files = Files::open(data.join("host/journal")).map_err(io_error)?;
        let shared = Shared {
            hand: Hand::new(qemu, Journals::on(files)),
            progress: Mutex::default(),
            running: Mutex::default(),
            reserved: Mutex::default(),
        };
        let agent = Self {
            data: data.clone(),
            pool,
            shared: Arc::new(shared),
            consoles: Consoles::default(),
            turns: Mutex::default(),
            admission: Admission::for_this_host(),
            holders: Arc::default(),
        };
        for vm in agent.shared.hand.host().machines() {
            agent.consoles.follow(vm, agent.folder(vm));
        }
        Ok(Arc::new(agent))
    }

    fn folder(&self, vm: VmId) -> Folder {
        Folder::new(self.pool.join(vm.to_string()), GuestUser::for_guests())
    }

    /// A short name for a machine's console: a socket address has room for 107 characters only.
    fn console_link(&self, vm: VmId) -> PathBuf {
        let short = &vm.0.simple().to_string()[..12];
        self.data.join("console").join(short)
    }

    /// One effect at a time for each machine.
    fn turn(&self, vm: VmId) -> Arc<AsyncMutex<()>> {
        Arc::clone(self.turns.lock().expect("no holder panics").entry(vm).or_default())
    }

    fn attach_console(&self, vm: VmId) {
        let link = self.console_link(vm);
        if fs::symlink_metadata(&link).is_err() {
            let _ = symlink(self.folder(vm).console_link(), link);
        }
        self.consoles.follow(vm, self.folder(vm));
    }
}

/// Runs what waits for files on a thread where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let failed =
        |error: tokio::task::JoinError| Err(Refusal::new(Code::Internal).detail(error.to_string()));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(failed)
}

fn make_folders(data: &Path, pool: &Path) -> io::Result<()> {
    fs::create_dir_all(data.parent().unwrap_or(Path::new("/")))?;
    for (path, mode) in [
        (data.to_owned(), 0o711),
        (data.join("host"), 0o711),
        (data.join("console"), 0o711),
        (data.join("pools"), 0o711),
        (pool.to_owned(), 0o711),
    ] {
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

impl Shared {
    fn perform(&self, id: EffectId, effect: &Effect, stop: &Arc<AtomicBool>) -> Outcome {
        let _counting = steps::begin(effect.word());
        let progress = self.tell(id, "begun");
        let outcome = self.hand.perform(id, effect, progress, stop);
        self.progress.lock().expect("no holder panics").remove(&id);
        outcome
    }

    /// Tells what an effect does from now on.
    fn tell(&self, id: EffectId, step: &str) -> Arc<Mutex<Progress>> {
        let progress = Arc::new(Mutex::new(begun(step)));
        self.progress.lock().expect("no holder panics").insert(id, Arc::clone(&progress));
        progress
    }

    /// Whether an effect will save memory. One that was begun before waits for nobody: its guest
    /// may be held.
    fn begins_to_save(&self, id: EffectId, effect: &Effect) -> bool {
        matches!(effect, Effect::TakeSnapshot(take) if take.memory) && !self.hand.has_begun(id)
    }

    fn reserve(&self, id: EffectId, effect: &Effect) {
        if let Effect::TakeSnapshot(take) = effect
            && take.memory
        {
            self.reserved.lock().expect("no holder panics").insert(id, take.memory_bytes);
        }
    }
}

#[async_trait]
impl Agent for LocalAgent {
    async fn perform(&self, id: EffectId, effect: Effect) -> Outcome {
        let vm = effect.vm();
        let stop: Arc<AtomicBool> = Arc::default();
        let background = matches!(effect, Effect::Reclaim { .. });
        let running = Running { vm, background, stop: Arc::clone(&stop) };
        self.shared.running.lock().expect("no holder panics").insert(id, running);
        let turn = self.turn(vm);
        let _turn = turn.lock().await;
        let starts = matches!(effect, Effect::StartVm(_) | Effect::Revert(_));
        let deletes = matches!(effect, Effect::DeleteVm { .. });
        self.shared.reserve(id, &effect);
        let waits = || drop(self.shared.tell(id, "waiting until others have saved their memory"));
        let _place = if self.shared.begins_to_save(id, &effect) {
            self.admission.place(&stop, waits).await
        } else {
            None
        };
        let shared = Arc::clone(&self.shared);
        let work = move || shared.perform(id, &effect, &stop);
        let again = work.clone();
        let outcome = match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            // A bug in the middle of an effect: what was begun is recovered by its journal.
            Err(_) => match tokio::task::spawn_blocking(again).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    let reason = Refusal::new(Code::Internal).detail(error.to_string());
                    let running = self.guests().await.get(&vm).is_some_and(|vm| vm.is_live());
                    Outcome::Failed(reason, Facts { running, ..Facts::default() })
                }
            },
        };
        self.shared.reserved.lock().expect("no holder panics").remove(&id);
        self.shared.running.lock().expect("no holder panics").remove(&id);
        if starts {
            self.attach_console(vm);
        }
        if deletes && matches!(outcome, Outcome::Done(_)) {
            self.consoles.forget(vm);
            let _ = fs::remove_file(self.console_link(vm));
        }
        outcome
    }

    async fn forget(&self, id: EffectId) {
        self.shared.hand.forget(id);
    }

    async fn journaled(&self) -> BTreeMap<EffectId, Journaled> {
        self.shared.hand.journaled()
    }

    async fn settle(&self, id: EffectId, recorded: Option<OnRecord>) {
        self.shared.hand.settle(id, recorded.as_ref());
    }

    fn progress(&self, id: EffectId) -> Option<Progress> {
        let all = self.shared.progress.lock().expect("no holder panics");
        all.get(&id).map(|progress| progress.lock().expect("no holder panics").clone())
    }

    fn give_way(&self, vm: VmId) {
        let all = self.shared.running.lock().expect("no holder panics");
        for running in all.values().filter(|running| running.vm == vm && running.background) {
            running.stop.store(true, Ordering::SeqCst);
        }
    }

    fn cancel(&self, id: EffectId) {
        if let Some(running) = self.shared.running.lock().expect("no holder panics").get(&id) {
            running.stop.store(true, Ordering::SeqCst);
        }
    }

    async fn inspect(&self, path: String) -> Result<Inspected, Refusal> {
        let found = volume::inspect(Path::new(&path))?;
        Ok(Inspected {
            format: found.format,
            size_bytes: found.size_bytes,
            allocated_bytes: found.allocated_bytes,
        })
    }

    async fn readable(&self, path: String) -> Result<(), Refusal> {
        let no = |why: String| Refusal::new(Code::BootFileMissing).detail(format!("{path}: {why}"));
        if !Path::new(&path).is_absolute() {
            return Err(no("not a whole path".to_owned()));
        }
        let file = fs::File::open(&path).map_err(|error| no(error.to_string()))?;
        match file.metadata() {
            Ok(meta) if meta.is_file() => Ok(()),
            _ => Err(no("not a plain file".to_owned())),
        }
    }

    async fn host(&self) -> HostFacts {
        let (memory_free_bytes, memory_total_bytes) = tintype_drivers::host::memory();
        let (free, pool_total_bytes) = host::space(&self.pool);
        let reserved: u64 = self.shared.reserved.lock().expect("no holder panics").values().sum();
        HostFacts {
            capabilities: self.shared.hand.host().capabilities().clone(),
            memory_free_bytes,
            memory_total_bytes,
            pool_free_bytes: free.saturating_sub(reserved),
            pool_total_bytes,
            pool_path: self.pool.display().to_string(),
        }
    }

    async fn guests(&self) -> BTreeMap<VmId, VmState> {
        let shared = Arc::clone(&self.shared);
        let machines = self.shared.hand.host().machines();
        let machines: Vec<_> = machines.into_iter().map(|vm| (vm, self.turn(vm))).collect();
        let look = move || {
            shared.hand.tidy();
            let qemu = shared.hand.host();
            let look = |(vm, turn): (VmId, Arc<AsyncMutex<()>>)| {
                qemu.tend(vm);
                // An effect that is performed decides itself whether the guest is held.
                if let Ok(_turn) = turn.try_lock() {
                    qemu.wake(vm);
                }
                (vm, qemu.state(vm))
            };
            machines.into_iter().map(look).collect()
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    async fn look(&self, vm: VmId, settle: BTreeSet<String>) -> Option<Sighting> {
        let turn = self.turn(vm).try_lock_owned().ok()?;
        let (shared, holders) = (Arc::clone(&self.shared), Arc::clone(&self.holders));
        let folder = self.folder(vm);
        let look = move || {
            let _turn = turn;
            let qemu = shared.hand.host();
            let mut sighting = sight::look(qemu, vm, &settle)
                .inspect_err(|error| tracing::warn!(%vm, %error, "cannot look at a machine"))
                .ok()?;
            let mut known = holders.lock().expect("no holder panics");
            let (looked, holders) = match known.take() {
                Some(known) if known.0.elapsed() < LOOK_AGAIN => known,
                _ => (Instant::now(), Holders::look(&qemu.processes())),
            };
            let open = |name: &String| Some((name.clone(), holders.of(&folder.path().join(name))?));
            sighting.holders = sighting.files.keys().filter_map(open).collect();
            *known = Some((looked, holders));
            Some(sighting)
        };
        tokio::task::spawn_blocking(look).await.ok().flatten()
    }

    async fn survey(&self) -> Vec<Survey> {
        let shared = Arc::clone(&self.shared);
        let survey = move || {
            let qemu = shared.hand.host();
            qemu.machines().into_iter().map(|vm| sight::survey(qemu, vm)).collect()
        };
        tokio::task::spawn_blocking(survey).await.unwrap_or_default()
    }

    async fn repair(&self, vm: VmId, repair: Repair) -> Result<String, Refusal> {
        let turn = self.turn(vm);
        let _turn = turn.lock().await;
        let shared = Arc::clone(&self.shared);
        let work = move || sight::repair(shared.hand.host(), vm, &repair);
        blocking(work).await
    }

    async fn describe(&self, vm: VmId, manifest: Manifest) -> Result<(), Refusal> {
        let shared = Arc::clone(&self.shared);
        blocking(move || sight::describe(shared.hand.host(), vm, &manifest)).await
    }

    fn console_address(&self, vm: VmId) -> String {
        format!("unix:{}", self.console_link(vm).display())
    }

    async fn console(&self, vm: VmId) -> mpsc::Receiver<Vec<u8>> {
        self.consoles.listen(vm, self.folder(vm))
    }

    async fn type_in(&self, vm: VmId, bytes: Vec<u8>) -> Result<(), Refusal> {
        if self.consoles.type_in(vm, self.folder(vm), &bytes).await {
            return Ok(());
        }
        let refusal = Refusal::new(Code::ConsoleUnavailable).detail("nobody listens there");
        Err(match &self.shared.hand.host().capabilities().shared_console {
            tintype_model::capability::Support::Yes => refusal.hint("start the virtual machine"),
            tintype_model::capability::Support::No(why) => refusal.hint(why.clone()),
        })
    }
}
