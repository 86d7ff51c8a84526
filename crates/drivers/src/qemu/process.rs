//! Processes that are not our children: found by id and start time, so that a reused id is not
//! taken for the one we knew.

use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, pidfd_open, setpriority_process, setsid,
};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How nice who comes last is.
const LAST: i32 = 19;

/// A process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Process {
    pid: i32,
    /// Clock ticks after boot, from `/proc/PID/stat`.
    started: u64,
}

impl Process {
    /// The process with this id, if there is one.
    pub fn find(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let started = stat(pid)?.started;
        Some(Self { pid, started })
    }

    /// Whether it is still there. A zombie is not, once its last thread has let go of its files.
    pub fn is_alive(self) -> bool {
        self.look().is_some_and(|stat| stat.state != 'Z' || stat.threads > 1)
    }

    /// Whether it is held.
    pub fn is_held(self) -> bool {
        self.look().is_some_and(|stat| stat.state == 'T')
    }

    fn look(self) -> Option<Stat> {
        stat(self.pid).filter(|stat| stat.started == self.started)
    }

    /// Its id.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// A handle that stays this process, if it is there.
    pub(super) fn handle(self) -> Option<OwnedFd> {
        let handle = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        self.is_alive().then_some(handle)
    }

    /// Holds it: it does nothing until [`Process::go_on`].
    pub fn hold(self) {
        self.signal(Signal::STOP);
    }

    /// Ends a hold.
    pub fn go_on(self) {
        self.signal(Signal::CONT);
    }

    /// Ends it at once.
    pub fn kill(self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(10));
    }

    /// Ends it, whose memory is not in a hurry to be given back: freeing it takes a processor 50 ms
    /// and more for each GiB, which somebody else may wait for.
    pub fn kill_gently(self) {
        self.come_last();
        self.kill();
    }

    /// Has it run when nobody else does. Without leave to it comes in its turn.
    fn come_last(self) {
        let proc = PathBuf::from(format!("/proc/{}", self.pid));
        let threads = fs::read_dir(proc.join("task")).into_iter().flatten().flatten();
        for thread in threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok()) {
            let _ = setpriority_process(Pid::from_raw(thread), LAST);
        }
        // Where each session has its share of the processors, how nice a thread is counts within
        // its own only.
        let _ = fs::write(proc.join("autogroup"), LAST.to_string());
    }

    /// Waits until it is gone; says whether it is.
    pub fn wait(self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() > until {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }

    fn signal(self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Starts a helper in a session of its own, so that it outlives us.
pub(super) fn spawn_apart(command: &mut Command) -> io::Result<()> {
    // SAFETY: setsid is one system call, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            setsid()?;
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    thread::spawn(move || child.wait());
    Ok(())
}

/// What `/proc/PID/stat` says of a process.
struct Stat {
    state: char,
    threads: u64,
    started: u64,
}

/// Reads what there is of a process. The command's name, in brackets, may hold anything.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        threads: fields.get(17)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}
