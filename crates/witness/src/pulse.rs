//! The fast ticks at the agent's port, of every process that is or becomes the machine.

use crate::{Ticks, connect, watch_first};
use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How often a machine's folder is looked at for another process. It has the port long before it
/// ticks.
const LOOK: Duration = Duration::from_millis(20);

/// Follows the fast ticks of a machine; they have to be switched on in the guest (`tick US`).
#[derive(Debug)]
pub struct Pulse {
    ticks: Arc<Mutex<Ticks>>,
    closed: Arc<AtomicBool>,
}

impl Pulse {
    /// Follows the machine with this folder.
    pub fn follow(folder: PathBuf) -> Self {
        let (ticks, closed) = (Arc::<Mutex<Ticks>>::default(), Arc::<AtomicBool>::default());
        let pulse = Self { ticks: Arc::clone(&ticks), closed: Arc::clone(&closed) };
        thread::spawn(move || {
            let mut known = BTreeSet::new();
            while !closed.load(Ordering::SeqCst) {
                for (socket, which) in sockets(&folder) {
                    if known.contains(&which) {
                        continue;
                    }
                    let Ok(stream) = connect(&socket) else { continue };
                    known.insert(which);
                    let ticks = Arc::clone(&ticks);
                    thread::spawn(move || read(BufReader::new(stream), &ticks));
                }
                thread::sleep(LOOK);
            }
        });
        pulse
    }

    /// What was seen of the ticks.
    ///
    /// # Panics
    /// When a reader has panicked.
    pub fn ticks(&self) -> std::sync::MutexGuard<'_, Ticks> {
        self.ticks.lock().expect("no holder panics")
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

/// The ports there are, and which they are: another process may have one at the same place, with
/// the inode of one that is gone.
fn sockets(folder: &Path) -> Vec<(PathBuf, (u64, i64, i64))> {
    let runs = fs::read_dir(folder.join("run")).into_iter().flatten().flatten();
    let numbers = runs.filter(|run| run.file_name().to_string_lossy().parse::<u32>().is_ok());
    let sockets = numbers.map(|run| run.path().join("agent.sock"));
    let which = |meta: Metadata| (meta.ino(), meta.mtime(), meta.mtime_nsec());
    sockets.filter_map(|path| fs::metadata(&path).ok().map(|meta| (path, which(meta)))).collect()
}

fn read(mut reader: BufReader<impl std::io::Read>, ticks: &Mutex<Ticks>) {
    watch_first();
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
        let now = Instant::now();
        if let Ok(number) = line.trim().parse() {
            ticks.lock().expect("no holder panics").add(now, number);
        }
        line.clear();
    }
}
