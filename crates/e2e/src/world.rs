//! A server of its own with a data folder of its own, that can be killed and started again.

use crate::small_pool::{Filesystem, SmallPool};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tintype_wire::client::{Client, ClientError};
use tintype_wire::rest::{Operation, Problem};
use tokio::runtime::Runtime;

/// A server and its data.
pub struct World {
    small_pool: Option<SmallPool>,
    data: TempDir,
    server: Option<Child>,
    client: Option<Client>,
    runtime: Runtime,
}

/// The binary, as `cargo build` leaves it beside the tests.
fn binary() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let folders = here.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("tintype")).find(|path| path.exists());
    found.context("the binary is not built: cargo build")
}

impl World {
    /// Starts a server with an empty data folder.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> Result<Self> {
        Self::start_in(TempDir::new()?, None)
    }

    /// Starts a server that does not look at files by itself while a test lasts: what is done to
    /// them is for the operation to find that meets it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_unwatched() -> Result<Self> {
        let mut world = Self::start()?;
        world.serve(&["--check-every", "3600"])?;
        Ok(world)
    }

    /// Starts a server whose pool is a filesystem of its own, of so many MiB.
    ///
    /// # Errors
    /// When it does not start, or the filesystem cannot be made.
    pub fn start_on_small_pool(mib: u64) -> Result<Self> {
        Self::start_on(mib, Filesystem::Ext4)
    }

    /// Starts a server whose pool is a filesystem of this kind, of so many MiB.
    ///
    /// # Errors
    /// As for [`World::start_on_small_pool`].
    pub fn start_on(mib: u64, kind: Filesystem) -> Result<Self> {
        let data = TempDir::new()?;
        let at = data.path().join("pools/default");
        let pool = SmallPool::mount(&data.path().join("pool.img"), &at, mib, kind)?;
        Self::start_in(data, Some(pool))
    }

    /// Starts a server whose data folder, database and journals included, is a filesystem of its
    /// own, of so many MiB.
    ///
    /// # Errors
    /// As for [`World::start_on_small_pool`].
    pub fn start_on_own_disk(mib: u64) -> Result<Self> {
        let data = TempDir::new()?;
        let image = data.path().with_extension("img");
        let disk = SmallPool::mount(&image, data.path(), mib, Filesystem::Ext4)?;
        Self::start_in(data, Some(disk))
    }

    /// The host loses its power, and has it again: no process is left, nor what was not synced.
    ///
    /// # Errors
    /// When it is no filesystem of its own.
    pub fn lose_power(&mut self) -> Result<()> {
        self.small_pool()?.cut_power()?;
        self.kill();
        end_guests(&self.pool());
        end_helpers(self.data.path());
        self.small_pool()?.restore_power()
    }

    fn start_in(data: TempDir, small_pool: Option<SmallPool>) -> Result<Self> {
        let runtime = Runtime::new()?;
        let mut world = Self { small_pool, data, server: None, client: None, runtime };
        world.serve(&[])?;
        Ok(world)
    }

    /// The pool, if it is small.
    ///
    /// # Errors
    /// When it is not.
    pub fn small_pool(&self) -> Result<&SmallPool> {
        self.small_pool.as_ref().context("the pool is not a filesystem of its own")
    }

    /// Has servers read these settings from now on.
    ///
    /// # Errors
    /// When they cannot be written down.
    pub fn set(&self, settings: &str) -> Result<()> {
        Ok(fs::write(self.settings(), settings)?)
    }

    fn settings(&self) -> PathBuf {
        self.data.path().join("serve.toml")
    }

    /// Starts the server again, with further options; one that runs is killed first.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(&mut self, options: &[&str]) -> Result<()> {
        self.kill();
        let mut server = Command::new(binary()?);
        server.arg("serve").args(["--listen", "127.0.0.1:0", "--data"]).arg(self.data.path());
        if self.settings().exists() {
            server.arg("--config").arg(self.settings());
        }
        let mut server = server
            .args(options)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::OpenOptions::new().create(true).append(true).open(self.log())?)
            .spawn()?;
        let mut line = String::new();
        let out = server.stdout.take().context("its output is piped")?;
        BufReader::new(out).read_line(&mut line)?;
        self.server = Some(server);
        if !line.starts_with("tintype: listening on http") {
            bail!("the server did not start: {line:?}\n{}", self.said());
        }
        let (url, token) = self.access()?;
        self.client = Some(Client::new(&url, &token, None)?);
        Ok(())
    }

    /// Where everything is.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The folder of all machines.
    pub fn pool(&self) -> PathBuf {
        self.data.path().join("pools/default")
    }

    fn log(&self) -> PathBuf {
        self.data.path().join("serve.log")
    }

    /// What the servers said.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The server's resident memory.
    ///
    /// # Errors
    /// When there is no server.
    pub fn memory_bytes(&self) -> Result<u64> {
        let server = self.server.as_ref().context("a server runs")?;
        let status = fs::read_to_string(format!("/proc/{}/status", server.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.context("a process says how much it has")? << 10)
    }

    /// Kills the server as suddenly as can be.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Waits until the server has died by itself; says by which signal.
    ///
    /// # Errors
    /// When it lives on.
    pub fn wait_for_death(&mut self, patience: Duration) -> Result<Option<i32>> {
        use std::os::unix::process::ExitStatusExt;
        let until = Instant::now() + patience;
        let server = self.server.as_mut().context("a server runs")?;
        while Instant::now() < until {
            if let Some(status) = server.try_wait()? {
                self.server = None;
                return Ok(status.signal());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("the server lives on")
    }

    /// The client.
    ///
    /// # Panics
    /// Never: a world has served once.
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("a world has served once")
    }

    /// Waits for something asynchronous.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Reads something.
    ///
    /// # Errors
    /// When the server says no; so for all of these.
    pub fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        Ok(self.wait(self.client().get(path))?)
    }

    /// Asks for something and sees it through.
    ///
    /// # Errors
    /// When it is refused or fails.
    pub fn post(&self, path: &str, body: &impl serde::Serialize) -> Result<Operation> {
        let accepted: Operation = self.wait(self.client().post(path, body))?;
        self.see_through(&accepted)
    }

    /// Removes something and sees it through.
    ///
    /// # Errors
    /// When it is refused or fails.
    pub fn delete(&self, path: &str) -> Result<Operation> {
        let accepted: Operation = self.wait(self.client().delete(path))?;
        self.see_through(&accepted)
    }

    /// Asks for something that is refused; answers the problem.
    ///
    /// # Errors
    /// When it is not refused.
    pub fn refused(&self, path: &str, body: &impl serde::Serialize) -> Result<Problem> {
        match self.wait(self.client().post::<serde_json::Value>(path, body)) {
            Err(ClientError::Problem(problem)) => Ok(*problem),
            Ok(answer) => bail!("not refused: {answer}"),
            Err(error) => Err(error.into()),
        }
    }

    fn see_through(&self, accepted: &Operation) -> Result<Operation> {
        let ended = self.wait(self.client().follow(accepted.id, |_| {}))?;
        match &ended.error {
            Some(problem) => Err(problem.clone().into()),
            None => Ok(ended),
        }
    }

    /// Runs the command line against this server.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn tintype(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command(args)?.output()?)
    }

    /// Runs the command line against this server; answers what it printed.
    ///
    /// # Errors
    /// When it does not succeed, with what it said.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.tintype(args)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{args:?}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The command line against this server, to be run.
    ///
    /// # Errors
    /// When there is no server.
    pub fn command(&self, args: &[&str]) -> Result<Command> {
        let (url, token) = self.access()?;
        let mut command = Command::new(binary()?);
        command.args(args).env("TINTYPE_URL", url).env("TINTYPE_TOKEN", token).stdin(Stdio::null());
        Ok(command)
    }

    /// The server's address, and the token of its first administrator.
    ///
    /// # Errors
    /// When there is no server.
    pub fn access(&self) -> Result<(String, String)> {
        let text = fs::read_to_string(self.data.path().join("client.toml"))?;
        let access: toml::Table = text.parse()?;
        let key = |name: &str| access.get(name).and_then(toml::Value::as_str).unwrap_or_default();
        Ok((key("url").to_owned(), key("token").to_owned()))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
        end_guests(&self.pool());
        if std::thread::panicking() || std::env::var_os("TINTYPE_SAID").is_some() {
            eprintln!("the server said:\n{}", self.said());
        }
    }
}

/// Ends the processes that were started for machines in this pool, and only these.
fn end_guests(pool: &Path) {
    let machines = fs::read_dir(pool).into_iter().flatten().flatten();
    for process in machines.flat_map(|machine| vms_processes(&machine.path())) {
        if let Some(pid) = rustix::process::Pid::from_raw(process) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Ends what serves memory to machines in this data folder.
fn end_helpers(data: &Path) {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let data = data.as_os_str().as_encoded_bytes();
    for process in all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let serves = line.windows(11).any(|word| word == b"page-server")
            && line.windows(data.len()).any(|word| word == data);
        if let Some(pid) = rustix::process::Pid::from_raw(process).filter(|_| serves) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The ids of the processes that work in a machine's folder.
pub(crate) fn vms_processes(folder: &Path) -> Vec<i32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| {
        let here = fs::read_link(format!("/proc/{id}/cwd"));
        let command = fs::read_to_string(format!("/proc/{id}/comm"));
        here.is_ok_and(|here| here == folder)
            && command.is_ok_and(|command| command.starts_with("qemu-system"))
    })
    .collect()
}
