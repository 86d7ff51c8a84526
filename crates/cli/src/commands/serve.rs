//! `tintype serve`: the control plane with this host's agent in it.

use crate::connect::{Access, default_data};
use crate::failure::Failure;
use crate::output::line;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tintype_agent::LocalAgent;
use tintype_drivers::{qemu, steps};
use tintype_model::config::Accel as ModelAccel;
use tintype_server::app::App;
use tintype_server::{Gate, router};
use tintype_store::Store;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const DEFAULT_ADDRESS: &str = "127.0.0.1:7420";
/// How long answers under way may take when the server is asked to end.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where everything is kept [default: /var/lib/tintype, or ~/.local/share/tintype]
    #[arg(long)]
    data: Option<PathBuf>,
    /// The address to listen at [default: 127.0.0.1:7420]; port 0 takes any free one
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// How guests are run [default: auto]
    #[arg(long, value_enum)]
    accel: Option<Accel>,
    /// A file with the keys data, listen and accel; options come first
    #[arg(long)]
    config: Option<PathBuf>,
    /// For tests: die at step N of the first effect of a kind, such as take:12
    #[arg(long, hide = true, value_parser = kill_at)]
    kill_at: Option<(String, u32)>,
    /// For tests: append every numbered step to this file
    #[arg(long, hide = true)]
    trace_steps: Option<PathBuf>,
}

/// How guests are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Accel {
    /// By the processor where it can, else by emulation
    Auto,
    /// By the processor
    Kvm,
    /// By emulation
    Tcg,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    data: Option<PathBuf>,
    listen: Option<SocketAddr>,
    accel: Option<Accel>,
}

fn kill_at(text: &str) -> Result<(String, u32), String> {
    let parsed =
        text.split_once(':').and_then(|(word, n)| Some((word.to_owned(), n.parse().ok()?)));
    parsed.ok_or_else(|| "a kind and a number, such as take:12".to_owned())
}

pub(crate) async fn serve(args: Serve) -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("TINTYPE_LOG").unwrap_or("info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let config = read_config(args.config.as_deref())?;
    if args.kill_at.is_some() || args.trace_steps.is_some() {
        steps::set_plan(steps::Plan { kill_at: args.kill_at, trace: args.trace_steps });
    }
    // What is kept is nobody else's business; guests are given what is theirs.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let data = args.data.or(config.data).unwrap_or_else(default_data);
    fs::create_dir_all(&data).map_err(|error| cannot_use(&data, &error))?;
    let _lock = lock(&data)?;
    let accel = match args.accel.or(config.accel) {
        None | Some(Accel::Auto) => None,
        Some(Accel::Kvm) => Some(ModelAccel::Kvm),
        Some(Accel::Tcg) => Some(ModelAccel::Tcg),
    };
    let address = args.listen.or(config.listen);
    let address = address.unwrap_or_else(|| DEFAULT_ADDRESS.parse().expect("it is an address"));
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::plain(format!("cannot listen at {address}"), error.to_string())
    })?;
    let address = listener.local_addr()?;
    let agent = LocalAgent::open(&data, accel, watchdog_command()?)
        .map_err(|error| Failure::plain("this host cannot run guests", error.to_string()))?;
    let store = Store::open(&data.join("tintype.db"))
        .await
        .map_err(|error| cannot_use(&data.join("tintype.db"), &error))?;
    let app = App::start(store, agent, &host_name())
        .await
        .map_err(|error| cannot_use(&data.join("tintype.db"), &error))?;
    let token = leave_access(&data, address)?;
    let gate = Arc::new(Gate::new(token, address));
    line(&format!("tintype: listening on http://{address} (data {})", data.display()));
    let served = axum::serve(listener, router(app, gate)).with_graceful_shutdown(asked_to_end());
    let overdue = async {
        asked_to_end().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = served => result?,
        () = overdue => {}
    }
    Ok(())
}

fn read_config(path: Option<&Path>) -> Result<Config, Failure> {
    let Some(path) = path else {
        return Ok(Config::default());
    };
    let text = fs::read_to_string(path).map_err(|error| cannot_use(path, &error))?;
    toml::from_str(&text).map_err(|error| cannot_use(path, &error))
}

fn cannot_use(path: &Path, error: &impl std::fmt::Display) -> Failure {
    Failure::plain(format!("cannot use {}", path.display()), error.to_string())
}

/// One server for each data folder: the lock goes with the process.
fn lock(data: &Path) -> Result<File, Failure> {
    let path = data.join("serve.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| cannot_use(&path, &error))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
        |_| {
            Failure::plain(format!("another tintype serves {}", data.display()), "")
                .hint("stop it first, or give another --data")
        },
    )?;
    Ok(file)
}

/// Leaves in the data folder how to reach us; the token stays the same from start to start.
fn leave_access(data: &Path, address: SocketAddr) -> Result<String, Failure> {
    let path = data.join("client.toml");
    let old: Access = fs::read_to_string(&path)
        .ok()
        .and_then(|text| toml::from_str(&text).ok())
        .unwrap_or_default();
    let token = match old.token {
        Some(token) => token,
        None => new_token()?,
    };
    let access = Access { url: Some(format!("http://{address}")), token: Some(token.clone()) };
    let text = toml::to_string(&access).map_err(|error| cannot_use(&path, &error))?;
    let fresh = data.join("client.toml.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(fresh, path)?;
    Ok(token)
}

/// 256 bits from the kernel.
fn new_token() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

async fn asked_to_end() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}

fn watchdog_command() -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("watchdog");
    Ok(command)
}

/// `tintype watchdog`: talks to whoever started it, over standard input.
pub(crate) fn watchdog() {
    if let Ok(stdin) = rustix::io::dup(rustix::stdio::stdin()) {
        let stdin: OwnedFd = stdin;
        qemu::run_watchdog(UnixStream::from(stdin));
    }
}
