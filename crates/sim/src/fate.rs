//! What is drawn from the seed: what happens next, and what goes wrong when.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tintype_model::Moment;
use tintype_server::app::Ground;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

/// When every world begins: 2026-01-01, in milliseconds.
const BEGINNING: i64 = 1_767_225_600_000;

/// What every part of a world shares.
#[derive(Debug)]
pub(crate) struct Fate {
    random: Mutex<fastrand::Rng>,
    doom: Mutex<Option<Doom>>,
    /// All processes of tintype are dead; nothing of theirs happens any more.
    dead: AtomicBool,
    /// Told when everything dies.
    death: Notify,
    /// How far the host's clock is from where it should be.
    skew_ms: AtomicI64,
    /// When the process that lives now has begun, by its fake clock, which begins anew with each.
    begun: Mutex<Option<Instant>>,
    /// How long those before it have lived, in milliseconds.
    before_ms: AtomicI64,
}

/// What is to go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Doom {
    /// So many steps still go well.
    pub(crate) steps: u32,
    /// Then this happens.
    pub(crate) ends: Ends,
}

/// How steps end that do not go well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ends {
    /// Everything dies.
    Death,
    /// So many steps fail.
    Failures(u32),
}

/// Thrown where everything dies.
#[derive(Debug)]
pub(crate) struct Death;

impl Fate {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            doom: Mutex::default(),
            dead: AtomicBool::new(false),
            death: Notify::new(),
            skew_ms: AtomicI64::new(0),
            begun: Mutex::default(),
            before_ms: AtomicI64::new(0),
        })
    }

    /// Draws.
    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.lock().expect("no holder panics"))
    }

    /// A number below `most`.
    pub(crate) fn below(&self, most: u64) -> u64 {
        self.draw(|random| random.u64(0..most))
    }

    /// Whether it happens, `percent` times of a hundred.
    pub(crate) fn happens(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub(crate) fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() {
            return None;
        }
        of.get(self.below(of.len() as u64) as usize)
    }

    fn doom(&self) -> MutexGuard<'_, Option<Doom>> {
        self.doom.lock().expect("no holder panics")
    }

    /// Has something go wrong, or nothing any more.
    pub(crate) fn decree(&self, doom: Option<Doom>) {
        *self.doom() = doom;
    }

    /// A step of the host: whether it goes well. Unwinds if everything dies there.
    pub(crate) fn step(&self) -> bool {
        match self.next() {
            Some(Ends::Death) => {
                self.die();
                resume_unwind(Box::new(Death));
            }
            Some(Ends::Failures(_)) => false,
            None => !self.is_dead(),
        }
    }

    /// A commit of the database: whether it goes well. Who dies there dies before or after it.
    pub(crate) fn commits(&self) -> bool {
        if self.is_dead() {
            return false;
        }
        match self.next() {
            Some(Ends::Death) => {
                let after = self.happens(50);
                self.die();
                after
            }
            Some(Ends::Failures(_)) => false,
            None => true,
        }
    }

    fn next(&self) -> Option<Ends> {
        let mut doom = self.doom();
        let Doom { steps, ends } = doom.as_mut()?;
        if *steps > 0 {
            *steps -= 1;
            return None;
        }
        let now = *ends;
        *doom = match now {
            Ends::Failures(left) if left > 1 => {
                Some(Doom { steps: 0, ends: Ends::Failures(left - 1) })
            }
            Ends::Failures(_) | Ends::Death => None,
        };
        Some(now)
    }

    pub(crate) fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.death.notify_one();
    }

    /// What `life` comes to, unless everything dies before.
    pub(crate) async fn unless_dead<T>(&self, life: impl Future<Output = T>) -> Option<T> {
        let death = async {
            // What is told may be an earlier death.
            while !self.is_dead() {
                self.death.notified().await;
            }
        };
        tokio::select! {
            biased;
            () = death => None,
            come = life => (!self.is_dead()).then_some(come),
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// A new process begins.
    pub(crate) fn begin(&self) {
        *self.begun.lock().expect("no holder panics") = Some(Instant::now());
        self.dead.store(false, Ordering::SeqCst);
    }

    /// The process ends, and its clock with it.
    pub(crate) fn end(&self) {
        self.before_ms.store(self.elapsed(), Ordering::SeqCst);
        *self.begun.lock().expect("no holder panics") = None;
    }

    /// True time since the beginning, in milliseconds.
    pub(crate) fn elapsed(&self) -> i64 {
        let begun = *self.begun.lock().expect("no holder panics");
        let lived = begun.map_or(0, |begun| begun.elapsed().as_millis() as i64);
        self.before_ms.load(Ordering::SeqCst) + lived
    }

    /// The clock jumps.
    pub(crate) fn jump(&self, ms: i64) {
        self.skew_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Ground for Fate {
    fn now(&self) -> Moment {
        Moment(BEGINNING + self.elapsed() + self.skew_ms.load(Ordering::SeqCst))
    }

    fn fresh(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.draw(|random| random.u128(..)).to_le_bytes())
            .into_uuid()
    }
}
