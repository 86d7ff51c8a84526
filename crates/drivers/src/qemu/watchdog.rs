//! The watchdog: a process of its own that lets a stopped guest run again when tintype dies or
//! hangs. Nobody has to restart anything.
//!
//! It is armed before the first stop, over a socket. When the socket closes while something is
//! armed, or a deadline passes, it heals.

use super::commands::{
    BlockJobCancel, Cont, JobFinalize, MigrateCancel, MigrationStatus, QueryMigrate,
};
use super::folder::Folder;
use super::guest_agent::{FREEZING, PROMPT, has_agent, thaw};
use super::process::{Process, spawn_apart};
use super::qmp::{Qmp, QmpError};
use crate::steps;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a guest may be held before the watchdog steps in. With the time to heal it stays
/// under the 5 s that are promised.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);
/// How long a memory save may take to be armed before the guest goes on without it.
const ARMING: Duration = Duration::from_millis(1000);
/// How long what was said to a new guest may take to have an effect.
const SETTLING: Duration = Duration::from_millis(300);

/// How to let a guest run again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Heal {
    /// It was stopped over QMP.
    Resume {
        /// Its QMP server for the watchdog.
        socket: PathBuf,
    },
    /// Its memory is being saved, at the end of which QEMU stops it by itself.
    EndSave {
        /// Its QMP server for the watchdog.
        socket: PathBuf,
    },
    /// Its filesystems were frozen.
    Thaw {
        /// The port of its agent.
        agent: PathBuf,
        /// Its QMP server for the watchdog.
        socket: PathBuf,
    },
    /// A merge is about to end, and a disk of the guest waits for it.
    EndMerge {
        /// Its QMP server for the watchdog.
        socket: PathBuf,
        /// The merge.
        job: String,
        /// The file that says that all is merged.
        mark: PathBuf,
    },
    /// Its process is held, and another may have taken over.
    GoOn {
        /// The process that is held.
        old: Process,
        /// The process that may have taken over; it is killed if it has not.
        new: Process,
        /// The new one's QMP server for the watchdog.
        socket: PathBuf,
        /// The machine's folder, where the new one is marked as current if it has taken over.
        folder: PathBuf,
        /// The new one's number.
        number: u32,
    },
}

impl Heal {
    /// How long to wait for whoever is about to do it.
    fn deadline(&self) -> Duration {
        match self {
            // It is found, freezes, is held, and found again.
            Self::Thaw { .. } => PROMPT + FREEZING + DEADLINE + PROMPT,
            Self::Resume { .. }
            | Self::EndSave { .. }
            | Self::EndMerge { .. }
            | Self::GoOn { .. } => DEADLINE,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Said {
    Arm { id: u64, heal: Heal },
    Renew { id: u64 },
    Disarm { id: u64 },
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    fired: bool,
}

/// A connection to the watchdog.
#[derive(Debug)]
pub struct Watch {
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    last: u64,
}

impl Watch {
    /// Starts a watchdog process: `command` has to call [`run`] on its standard input.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        spawn_apart(&mut command)?;
        Self::over(ours)
    }

    /// Talks to a watchdog at the other end of a socket.
    ///
    /// # Errors
    /// When the socket cannot be shared.
    pub fn over(stream: UnixStream) -> io::Result<Self> {
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Self { line: Mutex::new(Line { reader, writer: stream, last: 0 }) })
    }

    /// Arms it; nothing may be stopped before this has returned.
    ///
    /// # Errors
    /// When the watchdog does not answer: then nothing may be stopped.
    pub fn arm(&self, heal: Heal) -> io::Result<Armed<'_>> {
        let id = {
            let mut line = self.line.lock().expect("no holder panics");
            line.last += 1;
            line.last
        };
        steps::around("watchdog arm", || self.say(&Said::Arm { id, heal }))?;
        Ok(Armed { watch: self, id, open: true })
    }

    fn say(&self, said: &Said) -> io::Result<Answer> {
        let mut line = self.line.lock().expect("no holder panics");
        let mut text = serde_json::to_string(said)?;
        text.push('\n');
        line.writer.write_all(text.as_bytes())?;
        let mut answer = String::new();
        if line.reader.read_line(&mut answer)? == 0 {
            return Err(io::Error::other("the watchdog is gone"));
        }
        Ok(serde_json::from_str(&answer)?)
    }
}

/// An armed watchdog.
#[derive(Debug)]
pub struct Armed<'a> {
    watch: &'a Watch,
    id: u64,
    open: bool,
}

impl Armed<'_> {
    /// Says that all is well, and that it will be said again before the deadline.
    pub fn renew(&self) -> io::Result<()> {
        let said = Said::Renew { id: self.id };
        refuse_fired(&steps::around("poll watchdog renew", || self.watch.say(&said))?)
    }

    /// Leaves the healing to the watchdog, when its deadline has come.
    pub fn leave(mut self) {
        self.open = false;
    }

    /// Disarms it; an error when it has stepped in, or is gone, so that the guest may have run.
    pub fn disarm(mut self) -> io::Result<()> {
        self.open = false;
        let answer =
            steps::around("watchdog disarm", || self.watch.say(&Said::Disarm { id: self.id }))?;
        refuse_fired(&answer)
    }
}

fn refuse_fired(answer: &Answer) -> io::Result<()> {
    if answer.fired {
        return Err(io::Error::other("the guest was held too long, and the watchdog let it go"));
    }
    Ok(())
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        if self.open {
            let _ = self.watch.say(&Said::Disarm { id: self.id });
        }
    }
}

/// The watchdog's own work, until the other end of `stream` closes.
pub fn run(stream: UnixStream) {
    let Ok(reader) = stream.try_clone() else {
        return;
    };
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            if let Ok(said) = serde_json::from_str::<Said>(&line)
                && sender.send(said).is_err()
            {
                return;
            }
        }
    });
    let mut writer = stream;
    let mut armed: BTreeMap<u64, (Instant, Heal)> = BTreeMap::new();
    loop {
        let next = armed.values().map(|(until, _)| *until).min();
        let wait = next.map_or(Duration::from_secs(3600), |until| {
            until.saturating_duration_since(Instant::now())
        });
        match receiver.recv_timeout(wait) {
            Ok(said) => {
                let fired = match said {
                    Said::Arm { id, heal } => {
                        armed.insert(id, (Instant::now() + heal.deadline(), heal));
                        false
                    }
                    Said::Renew { id } => match armed.get_mut(&id) {
                        Some((until, heal)) => {
                            *until = Instant::now() + heal.deadline();
                            false
                        }
                        None => true,
                    },
                    Said::Disarm { id } => armed.remove(&id).is_none(),
                };
                let answer = serde_json::to_string(&Answer { fired }).unwrap_or_default();
                let _ = writer.write_all(format!("{answer}\n").as_bytes());
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let now = Instant::now();
                armed.retain(|_, (until, work)| *until > now || !start(work.clone()));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let healers: Vec<_> =
        armed.into_values().map(|(_, work)| thread::spawn(move || heal(&work))).collect();
    for healer in healers {
        let _ = healer.join();
    }
}

/// Heals beside other work; true, so that it is armed no more.
fn start(work: Heal) -> bool {
    thread::spawn(move || heal(&work));
    true
}

fn heal(work: &Heal) {
    match work {
        Heal::Resume { socket } => resume(socket, resume_over),
        Heal::EndSave { socket } => resume(socket, end_save_over),
        Heal::Thaw { agent, socket } => thaw_at_last(agent, socket),
        Heal::EndMerge { socket, job, mark } => end_merge(socket, job, mark),
        Heal::GoOn { old, new, socket, folder, number } => {
            thread::sleep(SETTLING);
            let took_over = Qmp::connect(socket)
                .and_then(|qmp| qmp.run_state())
                .is_ok_and(|state| state == "running");
            if took_over {
                Folder::new(folder.clone(), None).set_current(*number);
            } else {
                new.kill();
                old.go_on();
            }
        }
    }
}

/// Lets a guest go on that was stopped over QMP, once its memory is protected or will not be. Does
/// not give up before the guest runs or its process is gone.
fn resume(socket: &Path, over: fn(&Qmp) -> bool) {
    loop {
        match Qmp::connect(socket) {
            Ok(qmp) if over(&qmp) => return,
            Ok(_) => {}
            Err(QmpError::Io(error)) if is_gone(&error) => return,
            Err(_) => {}
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Lets a guest's filesystems be written to again. Does not give up before they are, or nobody is
/// there to ask: a guest that boots has nothing frozen.
fn thaw_at_last(agent: &Path, socket: &Path) {
    while thaw(agent).is_err() {
        match Qmp::connect(socket).and_then(|qmp| has_agent(&qmp)) {
            Ok(true) => {}
            Ok(false) => return,
            Err(QmpError::Io(error)) if is_gone(&error) => return,
            Err(_) => {}
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Nobody listens at a socket any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// Gives up what is not saved yet, with which a guest that was held for it goes on.
fn end_save_over(qmp: &Qmp) -> bool {
    qmp.run(&MigrateCancel {}).is_ok() && resume_over(qmp)
}

/// Says whether the guest runs.
fn resume_over(qmp: &Qmp) -> bool {
    let until = Instant::now() + ARMING;
    while Instant::now() < until && is_arming(qmp) {
        thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..100 {
        match qmp.run_state().as_deref() {
            Ok("running") => return true,
            Ok(_) => drop(qmp.run(&Cont {})),
            Err(_) => return false,
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Ends a merge whose last step waits for a word, and a disk of the guest with it: for good if it
/// is marked that all is merged, else by giving it up.
fn end_merge(socket: &Path, job: &str, mark: &Path) {
    let Ok(qmp) = Qmp::connect(socket) else { return };
    if mark.exists() {
        let _ = qmp.run(&JobFinalize { id: job.to_owned() });
    } else {
        let _ = qmp.run(&BlockJobCancel { device: job.to_owned(), force: true });
    }
}

fn is_arming(qmp: &Qmp) -> bool {
    let Ok(info) = qmp.run(&QueryMigrate {}) else {
        return false;
    };
    let saved = info.ram.is_some_and(|ram| ram.normal + ram.duplicate > 0);
    match info.status {
        Some(MigrationStatus::Setup) => true,
        Some(MigrationStatus::Active) => !saved,
        _ => false,
    }
}
