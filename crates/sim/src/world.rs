//! One world, from its beginning until all is quiet.

use crate::fate::{Doom, Ends, Fate};
use crate::host::{Ground, SimAgent};
use crate::people;
use crate::truth::{Contents, Records};
use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tintype_agent::Memory;
use tintype_drivers::fake::Fake;
use tintype_model::SnapshotId;
use tintype_model::access::Caller;
use tintype_server::app::{App, Options};
use tintype_store::{Store, StoreError};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

/// How many events a world has before it is left alone, at least and at most.
const EVENTS: std::ops::Range<u64> = 10..60;
/// How long everything may take to come to rest once nothing goes wrong any more.
const PATIENCE_S: u64 = 600;

/// What went wrong in a world.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flaw {
    /// The number that the world was drawn from.
    pub seed: u64,
    /// After how many events.
    pub event: u64,
    /// What.
    pub what: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, event {}: {}", self.seed, self.event, self.what)
    }
}

/// What happened in a world.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Story {
    /// A line for each event, if they were asked for.
    pub lines: Vec<String>,
    /// How many events there were.
    pub events: u64,
    /// How often everything was killed.
    pub deaths: u64,
    /// How often the database was lost.
    pub losses: u64,
    /// Whether something was left behind on the host that a check of it found, and put aside.
    pub repaired: u64,
}

/// Runs the world of a seed to its end.
///
/// # Errors
/// The first thing that is wrong with it, and the story up to there.
pub fn run(seed: u64, telling: bool) -> Result<Story, (Flaw, Story)> {
    let mut world = World::new(seed, telling);
    // What is broken in its own eyes panics, and is wrong as well.
    let lived = catch_unwind(AssertUnwindSafe(|| world.live()));
    let lived = lived.unwrap_or_else(|panic| Err(format!("it panicked: {}", words(&*panic))));
    match lived {
        Ok(()) => Ok(world.story),
        Err(what) => Err((Flaw { seed, event: world.story.events, what }, world.story)),
    }
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

struct World {
    fate: Arc<Fate>,
    ground: Ground,
    store: Store,
    /// What is recorded there, as it was read last.
    known: Option<Arc<Records>>,
    story: Story,
    telling: bool,
    /// Events still to come before it is left alone.
    left: u64,
    /// Whether it was started once more after all was quiet.
    restarted: bool,
    /// The snapshots that were ready when the database was lost, until they are there again.
    lost: Option<BTreeSet<SnapshotId>>,
}

/// Why a process of tintype ended.
#[derive(Debug)]
enum End {
    Killed,
    /// It could not start, for this reason.
    Unstarted(String),
    /// All was quiet, and it is started anew.
    Stopped,
    Quiet,
}

/// A process of tintype.
struct Process {
    app: Arc<App>,
    who: Caller,
}

impl World {
    fn new(seed: u64, telling: bool) -> Self {
        let fate = Fate::new(seed);
        let fake = Arc::new(Fake::default());
        let steps = Arc::clone(&fate);
        fake.obey(move |_| steps.step());
        let steps = Arc::clone(&fate);
        let shelf = Memory::obeying(move || steps.step());
        let contents: Arc<Mutex<Contents>> = Arc::default();
        let ground = Ground { fake, shelf, contents };
        let store = store(&fate);
        let left = fate.draw(|random| random.u64(EVENTS));
        let story = Story::default();
        let (known, restarted, lost) = (None, false, None);
        Self { fate, ground, store, known, story, telling, left, restarted, lost }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        let contents = self.ground.contents.lock();
        let done = std::mem::take(&mut contents.unwrap_or_else(PoisonError::into_inner).done);
        if self.telling {
            let seconds = self.fate.elapsed() as f64 / 1000.0;
            self.story.lines.extend(done.iter().map(|line| format!("             {line}")));
            self.story.lines.push(format!("{seconds:9.3} s  {}", what()));
        }
    }

    /// One process after the other, until nothing happens any more.
    fn live(&mut self) -> Result<(), String> {
        loop {
            let runtime = runtime();
            let end = runtime.block_on(self.process());
            self.ground.contents.clear_poison();
            // All its tasks end where they are.
            drop(runtime);
            match end? {
                End::Killed => {
                    self.story.deaths += 1;
                    if self.lost.is_some() {
                        (self.store, self.known) = (store(&self.fate), None);
                    }
                    self.tell(|| "everything is killed, and started again".to_owned());
                }
                // Who looks after processes starts it again.
                End::Unstarted(why) => self.tell(|| format!("it does not start: {why}")),
                End::Stopped => self.tell(|| "everything is stopped, and started again".to_owned()),
                End::Quiet => return Ok(()),
            }
        }
    }

    async fn process(&mut self) -> Result<End, String> {
        self.fate.begin();
        let fate = Arc::clone(&self.fate);
        let end = fate.unless_dead(self.life()).await;
        self.fate.end();
        end.unwrap_or(Ok(End::Killed))
    }

    async fn life(&mut self) -> Result<End, String> {
        let process = match self.start().await {
            Ok(process) => process,
            Err(error) => {
                sleep(Duration::from_secs(1)).await;
                return Ok(End::Unstarted(format!("{error:#}")));
            }
        };
        self.adopt(&process).await?;
        while self.left > 0 {
            self.left -= 1;
            self.story.events += 1;
            self.event(&process).await?;
            self.check().await?;
        }
        self.fate.decree(None);
        self.tell(|| "nothing goes wrong any more".to_owned());
        let records = self.come_to_rest().await?;
        self.rest(&process, records).await
    }

    /// What is recorded once nothing is under way any more.
    async fn come_to_rest(&mut self) -> Result<Arc<Records>, String> {
        for _ in 0..PATIENCE_S {
            sleep(Duration::from_secs(1)).await;
            if self.check().await?.unfinished().is_none() {
                // Journals are thrown away once ends are recorded.
                sleep(Duration::from_secs(10)).await;
                let records = self.check().await?;
                if records.unfinished().is_none() {
                    return Ok(records);
                }
            }
        }
        let unfinished = self.check().await?.unfinished();
        Err(unfinished.unwrap_or_else(|| "it never came to rest".to_owned()))
    }

    /// When all is quiet and was started anew, nothing may be left over: only where a database was
    /// lost, what a check of the host finds and puts aside.
    async fn rest(&mut self, process: &Process, records: Arc<Records>) -> Result<End, String> {
        if !std::mem::replace(&mut self.restarted, true) {
            return Ok(End::Stopped);
        }
        let Some(residue) = records.residue(&self.ground) else { return Ok(End::Quiet) };
        if self.story.losses == 0 {
            return Err(format!("in the end {residue}"));
        }
        self.tell(|| format!("it is checked, for {residue}"));
        let repaired = process.app.repair_host(&process.who, "host", false).await;
        repaired.map_err(|refusal| format!("it is not repaired: {refusal}"))?;
        // What was found stood in the way of work on layers, which goes on now.
        match self.come_to_rest().await?.residue(&self.ground) {
            Some(residue) => Err(format!("in the end {residue}")),
            None => {
                self.story.repaired += 1;
                Ok(End::Quiet)
            }
        }
    }

    /// Takes up what the host has when the database was lost: what was ready has to be there.
    async fn adopt(&mut self, process: &Process) -> Result<(), String> {
        let Some(ready) = self.lost.clone() else { return Ok(()) };
        let mut tries = 0;
        let adopted = loop {
            match process.app.adopt(&process.who, "host", false).await {
                Ok(adopted) => break adopted,
                // The new database may fail as well.
                Err(refusal) if tries > 30 => return Err(format!("not adopted: {refusal}")),
                Err(_) => tries += 1,
            }
        };
        self.tell(|| format!("{} machines are adopted", adopted.items.len()));
        let records = self.check().await?;
        if let Some(id) = ready.difference(&records.whole()).next() {
            return Err(format!("snapshot {id} was lost with the database"));
        }
        self.lost = None;
        Ok(())
    }

    /// Starts a process.
    async fn start(&mut self) -> anyhow::Result<Process> {
        let agent = Arc::new(SimAgent::new(Arc::clone(&self.fate), self.ground.clone()));
        let ground = Arc::clone(&self.fate);
        let app = App::start(self.store.clone(), agent, ground, Options::on("host")).await?;
        let token = app.local_token(None).await?;
        let who = app.authenticate(&token).await?;
        Ok(Process { app, who })
    }

    /// Lets something happen.
    async fn event(&mut self, process: &Process) -> Result<(), String> {
        match self.fate.below(100) {
            0..45 => {
                let records = self.check().await?;
                let asked = people::ask(&self.fate, &process.app, &process.who, &records).await;
                self.tell(|| asked);
            }
            45..70 => self.write(),
            70..82 => self.decree(),
            82..85 => self.fate.die(),
            85..88 => self.end_guests(),
            90..91 => {
                self.lost = Some(self.check().await?.ready());
                self.story.losses += 1;
                self.tell(|| "the database is lost".to_owned());
                self.fate.die();
            }
            88..90 => {
                let hours = self.fate.below(48) as i64 - 24;
                self.fate.jump(hours * 3_600_000);
                self.tell(|| format!("the clock jumps by {hours} hours"));
            }
            _ => {}
        }
        let ms = if self.fate.happens(20) { self.fate.below(40_000) } else { self.fate.below(60) };
        sleep(Duration::from_millis(ms)).await;
        Ok(())
    }

    /// Guests write to their memory and disks.
    fn write(&mut self) {
        for (vm, guest) in self.ground.fake.machines() {
            if guest && self.fate.happens(70) {
                let (at, value) = (self.fate.below(4), self.fate.below(1 << 32));
                self.ground.fake.write_ram(vm, at, value);
                self.ground.fake.write_disks(vm, at, value);
            }
        }
        self.tell(|| "guests write".to_owned());
    }

    /// Decides what goes wrong, and when.
    fn decree(&mut self) {
        let steps = self.fate.below(25) as u32;
        let ends = match self.fate.below(10) {
            0..5 => Ends::Death,
            5..8 => Ends::Failures(1),
            _ => Ends::Failures(1 + self.fate.below(20) as u32),
        };
        let doom = (!self.fate.happens(15)).then_some(Doom { steps, ends });
        self.fate.decree(doom);
        self.tell(|| format!("fate: {doom:?}"));
    }

    fn end_guests(&mut self) {
        if self.fate.happens(40) {
            self.ground.fake.cut_power();
            self.fate.die();
            self.tell(|| "the host loses its power".to_owned());
            return;
        }
        let machines: Vec<_> = self.ground.fake.machines().into_keys().collect();
        if let Some(&vm) = self.fate.pick(&machines) {
            self.ground.fake.crash(vm);
            self.tell(|| format!("the guest of {vm} ends by itself"));
        }
    }

    async fn check(&mut self) -> Result<Arc<Records>, String> {
        let records = Records::read(&self.store, self.known.take())
            .await
            .map_err(|error: StoreError| format!("the database cannot be read: {error}"))?;
        let contents = self.ground.contents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wrong) = &contents.wrong {
            return Err(wrong.clone());
        }
        drop(contents);
        self.known = Some(Arc::clone(&records));
        records.flaw(&self.ground).map_or(Ok(records), Err)
    }
}

/// A database in memory, whose commits fail when fate wants.
fn store(fate: &Arc<Fate>) -> Store {
    let commits = Arc::clone(fate);
    Store::in_memory(move || !commits.commits()).expect("there is memory")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("one thread")
}
