//! Sees a test guest from the outside: talks to its console and times its ticks.
//!
//! The console is a link that follows the guest from one process to the next, as after a revert;
//! so does the witness.

mod answers;
mod pulse;
mod steal;
mod ticks;

pub use answers::{Blocks, Epochs, Io, Verified};
pub use pulse::Pulse;
pub use steal::Steal;
pub use ticks::{Gap, Ticks};

use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// How often the link is looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(10);

/// A test guest, seen through its console.
#[derive(Debug)]
pub struct Guest {
    shared: Arc<Shared>,
    answers: Mutex<Receiver<String>>,
}

#[derive(Debug)]
struct Shared {
    link: PathBuf,
    ticks: Mutex<Ticks>,
    stream: Mutex<Option<UnixStream>>,
    closed: AtomicBool,
}

impl Guest {
    /// Follows the console that `link` leads to, now or later.
    pub fn follow(link: PathBuf) -> Self {
        let shared = Arc::new(Shared {
            link,
            ticks: Mutex::default(),
            stream: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let (sender, answers) = channel();
        let reader = Arc::clone(&shared);
        thread::spawn(move || reader.read_on(&sender));
        Self { shared, answers: Mutex::new(answers) }
    }

    /// Waits until the guest ticks.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_until_up(&self, patience: Duration) -> Result<()> {
        self.wait_for_tick_after(Instant::now(), patience).map(drop)
    }

    /// The first tick after a moment.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn wait_for_tick_after(&self, moment: Instant, patience: Duration) -> Result<Instant> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some(at) = self.ticks().first_after(moment) {
                return Ok(at);
            }
            thread::sleep(Duration::from_millis(1));
        }
        bail!("the guest did not tick within {patience:?}")
    }

    /// Asks the guest's program something; `ok` is taken off the answer.
    ///
    /// # Errors
    /// When it does not answer, or with an error.
    pub fn ask(&self, command: &str) -> Result<String> {
        let answers = self.answers.lock().expect("no asker panics");
        while answers.try_recv().is_ok() {}
        self.say(command)?;
        let answer = answers
            .recv_timeout(Duration::from_secs(120))
            .with_context(|| format!("the guest did not answer {command:?}"))?;
        match answer.strip_prefix("ok ") {
            Some(rest) => Ok(rest.to_owned()),
            None => bail!("the guest answered {command:?} with {answer:?}"),
        }
    }

    fn say(&self, command: &str) -> Result<()> {
        let mut stream = self.shared.stream.lock().expect("no holder panics");
        let stream = stream.as_mut().context("the console is not connected")?;
        stream.write_all(format!("{command}\n").as_bytes()).context("the console is gone")
    }

    /// What was seen of the ticks.
    pub fn ticks(&self) -> std::sync::MutexGuard<'_, Ticks> {
        self.shared.ticks.lock().expect("no holder panics")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn read_on(&self, answers: &Sender<String>) {
        watch_first();
        let mut target = None;
        let mut stream: Option<UnixStream> = None;
        let mut line = Vec::new();
        let mut buffer = [0; 8192];
        let mut looked = Instant::now();
        while !self.closed.load(Ordering::SeqCst) {
            let mut now = None;
            if stream.is_none() || looked.elapsed() >= LOOK {
                now = fs::canonicalize(&self.link).ok();
                looked = Instant::now();
            }
            if now.is_some() && now != target || stream.is_none() {
                if let Ok(fresh) = connect(&self.link) {
                    let _ = fresh.set_read_timeout(Some(LOOK));
                    *self.stream.lock().expect("no holder panics") = fresh.try_clone().ok();
                    stream = Some(fresh);
                    target = now;
                    line.clear();
                } else if stream.is_none() {
                    thread::sleep(LOOK);
                    continue;
                }
            }
            let Some(open) = stream.as_mut() else {
                continue;
            };
            match open.read(&mut buffer) {
                Ok(0) => stream = None,
                Ok(n) => self.take(&buffer[..n], &mut line, answers),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => stream = None,
            }
        }
    }

    fn take(&self, bytes: &[u8], line: &mut Vec<u8>, answers: &Sender<String>) {
        let now = Instant::now();
        for &byte in bytes {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let text = String::from_utf8_lossy(line).trim().to_owned();
            line.clear();
            if let Some(number) = text.strip_prefix("T ").and_then(|n| n.parse().ok()) {
                self.ticks.lock().expect("no holder panics").add(now, number);
            } else if text.starts_with("ok ") || text.starts_with("error ") {
                let _ = answers.send(text);
            }
        }
    }
}

/// Makes this thread come before all that is not in real time: who watches must not wait for a
/// processor that who is watched keeps busy, or ticks are seen late that came in time. Answers
/// whether it may: without `CAP_SYS_NICE` it may not.
fn watch_first() -> bool {
    let Ok(least) = 1_u8.try_into() else { return false };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    let priority = ThreadPriority::Crossplatform(least);
    set_thread_priority_and_policy(thread_native_id(), priority, policy).is_ok()
}

/// Connects to a socket whose path may be longer than an address can be.
fn connect(path: &Path) -> Result<UnixStream> {
    let target = fs::canonicalize(path)?;
    let folder = File::open(target.parent().context("a socket lies in a folder")?)?;
    let name = target.file_name().context("a socket has a name")?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok(UnixStream::connect(short)?)
}
