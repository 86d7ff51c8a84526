//! Serves a snapshot's memory to a machine that runs already: what it touches first, the rest
//! behind.
//!
//! It is a process of its own, so that the machine gets its memory whoever dies. It ends when all
//! is served, or the machine is gone.

mod pages;
mod touched;

use self::pages::Pages;
use self::touched::Touched;
use super::direct::Direct;
use super::folder::served_directly;
use super::huge_pages::{Haste, join};
use super::mapped_ram::{FormatError, Layout};
use super::process::{Process, spawn_apart};
use super::qmp::connect;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long QEMU may take to open its socket.
const PATIENCE: Duration = Duration::from_secs(30);
/// What may be on its way in the socket: a page that is waited for is behind it.
const ON_THE_WAY: usize = 64 << 10;

/// What to serve to whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// Where QEMU waits for memory.
    pub socket: PathBuf,
    /// The memory file.
    pub memory: PathBuf,
    /// Where it is kept which of it was touched first. None if the machine runs already, and was
    /// served by somebody who died.
    pub touched: Option<PathBuf>,
    /// Which process the machine is, as it was recorded.
    pub process: PathBuf,
    /// Where its memory begins in the process, if that was found out.
    pub memory_at: PathBuf,
    /// The mark that it has loaded its devices.
    pub loaded: PathBuf,
}

impl Job {
    /// The way into the machine's memory, if it waits for pages and we may.
    fn direct(&self) -> Option<Direct> {
        let (process, at) = self.memory()?;
        Direct::into(process, at)
    }

    /// The process that the machine is, and where its memory begins there.
    fn memory(&self) -> Option<(Process, u64)> {
        let process = serde_json::from_slice(&fs::read(&self.process).ok()?).ok()?;
        Some((process, fs::read_to_string(&self.memory_at).ok()?.parse().ok()?))
    }
}

/// How page servers are started.
#[derive(Clone, Debug)]
pub enum PageServers {
    /// As processes: this program, which has to call [`run`] with its last argument.
    Processes(PathBuf, Vec<String>),
    /// As threads, for tests.
    Threads,
}

impl PageServers {
    pub(super) fn start(&self, job: &Job) -> io::Result<()> {
        let text = serde_json::to_string(job)?;
        match self {
            Self::Threads => {
                let work = move || {
                    if let Err(error) = run(&text) {
                        tracing::warn!(%error, "serving memory");
                    }
                };
                drop(thread::Builder::new().name("page server".to_owned()).spawn(work)?);
            }
            Self::Processes(program, args) => {
                let mut command = Command::new(program);
                command.args(args).arg(text).stdin(Stdio::null()).stdout(Stdio::null());
                spawn_apart(&mut command)?;
            }
        }
        Ok(())
    }
}

/// Why memory could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The job is not one.
    #[error("{0}")]
    Job(#[from] serde_json::Error),
    /// The file or the socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is not a memory file.
    #[error("{0}")]
    Format(#[from] FormatError),
    /// The machine went before it had everything.
    #[error("the machine is gone")]
    Gone,
    /// Pages were placed directly before, and cannot be now.
    #[error("there is no way into the machine's memory")]
    NoWay,
    /// It says that it could not take it.
    #[error("the machine did not take its memory: {0}")]
    Refused(u32),
}

impl ServeError {
    /// Whether the machine went, and nobody needs its memory any more.
    fn is_gone(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self {
            Self::Gone => true,
            Self::Io(error) => matches!(error.kind(), BrokenPipe | ConnectionReset),
            Self::Job(_) | Self::Format(_) | Self::NoWay | Self::Refused(_) => false,
        }
    }
}

/// Serves a job, as [`PageServers`] passes it, until the machine has everything or is gone.
///
/// # Errors
/// When the machine does not get everything.
pub fn run(job: &str) -> Result<(), ServeError> {
    match serve(&serde_json::from_str(job)?) {
        Err(error) if error.is_gone() => Ok(()),
        other => other,
    }
}

fn serve(job: &Job) -> Result<(), ServeError> {
    let file = File::open(&job.memory)?;
    let layout = Layout::read(&file)?;
    let before = job.touched.as_deref().map(|touched| (Touched::read(touched, &layout), touched));
    if let Some((before, _)) = &before {
        // While the machine starts.
        before.read_ahead(&file, &layout);
    }
    let stream = reach(job)?;
    rustix::net::sockopt::set_socket_send_buffer_size(&stream, ON_THE_WAY)
        .map_err(io::Error::from)?;
    let mut pages = Pages::new(job, &file, &layout, stream)?;
    match before {
        Some((before, touched)) => pages.serve_from_the_beginning(before, touched)?,
        None => pages.go_on()?,
    }
    match pages.close()? {
        0 => {
            let _ = fs::remove_file(served_directly(&job.memory));
            fs::remove_file(&job.memory)?;
            // It came in pieces; the machine runs better without, and is sooner protected.
            if let (Some((process, at)), Some(main)) = (job.memory(), layout.main()) {
                join(process, at, main.length, Haste::Idle, |_| process.is_alive());
            }
            Ok(())
        }
        status => Err(ServeError::Refused(status)),
    }
}

/// Connects to the machine, unless somebody gives it up before it has opened its socket.
fn reach(job: &Job) -> Result<UnixStream, ServeError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match connect(&job.socket) {
            Err(_) if !job.memory.exists() => return Err(ServeError::Gone),
            Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(1)),
            other => return Ok(other?),
        }
    }
}
