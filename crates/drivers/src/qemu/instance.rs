//! One QEMU process of a machine.

use super::commands::{AddFd, HumanMonitorCommand, QueryBlock, Quit, RemoveFd, SystemPowerdown};
use super::folder::Folder;
use super::launch::{self, Begin};
use super::process::Process;
use super::qmp::{Qmp, QmpError, Sent};
use crate::steps;
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use tintype_model::capability::Capabilities;
use tintype_model::effect::Launch;

/// How long a new process may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// What can go wrong with a process.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// QMP.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// Files.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It ended while it started; what it said last.
    #[error("QEMU did not start: {0}")]
    Ended(String),
    /// There is none.
    #[error("no such process")]
    Absent,
    /// It is held, and would not answer.
    #[error("the process is held")]
    Held,
    /// It is there and does not answer.
    #[error("the guest's process does not answer")]
    Mute,
}

/// One QEMU process.
#[derive(Debug)]
pub struct Instance {
    number: u32,
    process: Process,
    qmp: Qmp,
    folder: Folder,
}

impl Instance {
    /// Starts a process for a machine and waits until it answers.
    pub(super) fn launch(
        folder: &Folder,
        launch: &Launch,
        capabilities: &Capabilities,
        begin: Begin,
    ) -> Result<Self, InstanceError> {
        Starting::launch(folder, folder.new_instance()?, launch, capabilities, begin)?.answers()
    }

    /// Finds a process that was started earlier, perhaps by a tintype that is gone.
    pub fn adopt(folder: &Folder, number: u32) -> Result<Self, InstanceError> {
        let process = Self::recorded(folder, number).ok_or(InstanceError::Absent)?;
        if !process.is_alive() {
            return Err(InstanceError::Absent);
        }
        if process.is_held() {
            return Err(InstanceError::Held);
        }
        let qmp = Qmp::connect(&folder.instance(number).join("qmp.sock"))?;
        Ok(Self { number, process, qmp, folder: folder.clone() })
    }

    /// The process that was recorded for an instance, alive or not. One that was started and not
    /// recorded yet is found by the folder it works in and its sockets.
    pub(super) fn recorded(folder: &Folder, number: u32) -> Option<Process> {
        let text = fs::read(folder.record(number)).ok();
        let recorded = text.and_then(|text| serde_json::from_slice(&text).ok());
        recorded.or_else(|| find_by_socket(number, folder))
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its process.
    pub fn process(&self) -> Process {
        self.process
    }

    /// The folder of its machine.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The connection to it.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// The socket of a QMP server of its own for the watchdog.
    pub fn watch_socket(&self) -> PathBuf {
        self.folder.instance(self.number).join("watch.sock")
    }

    /// The socket of the port at which the guest agent listens.
    pub(super) fn agent_socket(&self) -> PathBuf {
        self.folder.instance(self.number).join("agent.sock")
    }

    /// Whether it is there.
    pub fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// Whether QEMU told that the guest shut down, or that it was asked to end.
    pub fn was_shut_down(&self) -> bool {
        self.qmp.wait_for(Duration::ZERO, |event| event.name == "SHUTDOWN").is_some()
    }

    /// Presses the power button and waits; says whether the guest went off by itself.
    pub fn power_down(&self, patience: Duration) -> bool {
        self.qmp.run(&SystemPowerdown {}).is_ok() && self.process.wait(patience)
    }

    /// Ends it: politely, so that images are closed, then not.
    pub fn end(&self) {
        self.process.go_on();
        let _ = self.qmp.run(&Quit {});
        if !self.process.wait(Duration::from_secs(5)) {
            self.process.kill();
        }
    }

    /// Asks where its guest's memory begins, in the process.
    pub(super) fn ask_memory_at(&self) -> Result<AskedMemoryAt<'_>, QmpError> {
        self.qmp.send(&HumanMonitorCommand { command_line: "gpa2hva 0" }).map(AskedMemoryAt)
    }

    /// Where its guest's memory begins, in the process.
    pub(super) fn memory_at(&self) -> Result<Option<u64>, QmpError> {
        self.ask_memory_at()?.answer()
    }

    /// Hands it a descriptor under a number.
    pub(super) fn give(&self, fd: BorrowedFd<'_>, fdset_id: u32) -> Result<(), QmpError> {
        self.qmp.run_with(&AddFd { fdset_id }, Some(fd)).map(drop)
    }

    /// Takes the descriptors under a number back.
    pub(super) fn take_back(&self, fdset_id: u32) {
        let _ = self.qmp.run(&RemoveFd { fdset_id });
    }

    /// The files that the disks are made of now, topmost first.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn chains(&self) -> Result<Vec<Vec<String>>, QmpError> {
        let devices = self.qmp.run(&QueryBlock {})?;
        let images = devices.into_iter().filter_map(|device| Some(device.inserted?.image));
        Ok(images.map(|image| image.files()).collect())
    }

    /// The chain of files, topmost first, of the disk that `file` is part of; `None` if no disk
    /// uses it.
    pub(super) fn chain_with(&self, file: &str) -> Result<Option<Vec<String>>, QmpError> {
        Ok(self.chains()?.into_iter().find(|chain| chain.iter().any(|name| name == file)))
    }
}

/// Somebody asked where a guest's memory begins.
pub(super) struct AskedMemoryAt<'a>(Sent<'a, HumanMonitorCommand>);

impl AskedMemoryAt<'_> {
    /// Waits for the answer; nothing if it is not known.
    pub(super) fn answer(self) -> Result<Option<u64>, QmpError> {
        let told = self.0.answer()?;
        let address = told.trim_end().rsplit_once(" is 0x").map(|(_, address)| address);
        Ok(address.and_then(|address| u64::from_str_radix(address, 16).ok()))
    }
}

/// A process that does not answer yet. Who drops it ends it.
pub(super) struct Starting<'a> {
    folder: &'a Folder,
    number: u32,
    process: Option<Process>,
}

impl<'a> Starting<'a> {
    /// Starts a process with a number for which a folder was made.
    pub(super) fn launch(
        folder: &'a Folder,
        number: u32,
        launch: &Launch,
        capabilities: &Capabilities,
        begin: Begin,
    ) -> Result<Self, InstanceError> {
        let mut command = launch::command(folder, number, launch, capabilities, begin)?;
        let mut child = steps::around("spawn qemu", || command.spawn())?;
        // The command holds our copies of descriptors that the process has inherited.
        drop(command);
        let process = Process::find(child.id()).ok_or(InstanceError::Absent)?;
        thread::spawn(move || child.wait());
        let starting = Self { folder, number, process: Some(process) };
        let text = serde_json::to_vec(&process).map_err(std::io::Error::other)?;
        steps::around("file write process", || fs::write(folder.record(number), text))?;
        Ok(starting)
    }

    /// Waits until it answers.
    pub(super) fn answers(mut self) -> Result<Instance, InstanceError> {
        let process = self.process.ok_or(InstanceError::Absent)?;
        let (number, folder) = (self.number, self.folder);
        let path = folder.instance(number).join("qmp.sock");
        let until = Instant::now() + START_PATIENCE;
        loop {
            let ended = !process.is_alive();
            match Qmp::connect(&path) {
                Ok(qmp) => {
                    self.process = None;
                    return Ok(Instance { number, process, qmp, folder: folder.clone() });
                }
                Err(error) if ended || Instant::now() > until => {
                    return Err(
                        last_words(folder, number).map_or(error.into(), InstanceError::Ended)
                    );
                }
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if let Some(process) = self.process {
            process.kill();
        }
    }
}

fn last_words(folder: &Folder, number: u32) -> Option<String> {
    let log = fs::read_to_string(folder.log(number)).ok()?;
    log.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}

fn find_by_socket(number: u32, folder: &Folder) -> Option<Process> {
    let socket = format!("unix:run/{number}/qmp.sock,");
    let processes = fs::read_dir("/proc").ok()?;
    processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).find_map(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let here = fs::read_link(format!("/proc/{pid}/cwd")).ok()? == folder.path();
        let ours = here && String::from_utf8_lossy(&command).contains(&socket);
        ours.then(|| Process::find(pid)).flatten()
    })
}
