//! Follows the consoles of guests: the last that was said is kept, and whoever listens hears on.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tintype_drivers::qemu::Folder;
use tintype_model::VmId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// How much of what was said is kept.
const KEPT: usize = 256 << 10;
/// How many pieces a listener may lag behind before it is dropped.
const LAG: usize = 1024;
/// How often a guest that is gone or not there yet is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// The consoles of all machines that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Consoles {
    open: Mutex<BTreeMap<VmId, Arc<Console>>>,
}

#[derive(Debug, Default)]
struct Console {
    said: Mutex<Said>,
    writer: tokio::sync::Mutex<Option<OwnedWriteHalf>>,
}

#[derive(Debug, Default)]
struct Said {
    last: VecDeque<u8>,
    listeners: Vec<mpsc::Sender<Vec<u8>>>,
}

impl Consoles {
    /// Follows a machine's console from now on, from one process to the next.
    pub(crate) fn follow(&self, vm: VmId, folder: Folder) {
        self.console(vm, folder);
    }

    /// Stops following.
    pub(crate) fn forget(&self, vm: VmId) {
        self.open.lock().expect("no holder panics").remove(&vm);
    }

    /// What was said last, then what is said.
    pub(crate) fn listen(&self, vm: VmId, folder: Folder) -> mpsc::Receiver<Vec<u8>> {
        let console = self.console(vm, folder);
        let (sender, receiver) = mpsc::channel(LAG);
        let mut said = console.said.lock().expect("no holder panics");
        let last: Vec<u8> = said.last.iter().copied().collect();
        if last.is_empty() || sender.try_send(last).is_ok() {
            said.listeners.push(sender);
        }
        receiver
    }

    /// Types; says whether there was a guest to hear it.
    pub(crate) async fn type_in(&self, vm: VmId, folder: Folder, bytes: &[u8]) -> bool {
        let console = self.console(vm, folder);
        let mut writer = console.writer.lock().await;
        match writer.as_mut() {
            Some(writer) => writer.write_all(bytes).await.is_ok(),
            None => false,
        }
    }

    fn console(&self, vm: VmId, folder: Folder) -> Arc<Console> {
        let mut open = self.open.lock().expect("no holder panics");
        if let Some(console) = open.get(&vm) {
            return Arc::clone(console);
        }
        let console = Arc::new(Console::default());
        open.insert(vm, Arc::clone(&console));
        tokio::spawn(follow(Arc::downgrade(&console), folder));
        console
    }
}

/// Reads on as long as somebody keeps the console.
async fn follow(console: std::sync::Weak<Console>, folder: Folder) {
    let mut seen = None;
    while let Some(console) = console.upgrade() {
        let current = folder.current();
        let fresh = current.filter(|&number| seen != Some(number));
        if let Some(number) = fresh
            && let Ok(stream) = connect(&folder.tty_socket(number)).await
        {
            seen = Some(number);
            let (reader, writer) = stream.into_split();
            *console.writer.lock().await = Some(writer);
            read_on(&console, reader, &folder, number).await;
            *console.writer.lock().await = None;
        }
        drop(console);
        tokio::time::sleep(LOOK).await;
    }
}

/// Reads until the guest is gone or another process has taken its place.
async fn read_on(console: &Console, mut reader: OwnedReadHalf, folder: &Folder, number: u32) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = tokio::time::timeout(LOOK, reader.read(&mut buffer)).await;
        match read {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(n)) => console.said.lock().expect("no holder panics").add(&buffer[..n]),
            Err(_) if folder.current() != Some(number) => return,
            Err(_) => {}
        }
    }
}

impl Said {
    fn add(&mut self, bytes: &[u8]) {
        self.last.extend(bytes);
        let excess = self.last.len().saturating_sub(KEPT);
        self.last.drain(..excess);
        self.listeners.retain(|listener| listener.try_send(bytes.to_vec()).is_ok());
    }
}

/// Connects to a socket whose path may be longer than an address can be.
async fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
    let name: PathBuf = path.file_name().unwrap_or_default().into();
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short).await
}
