//! `tintype serve`: the control plane with this host's agent in it.

use crate::connect::{Access, default_data, write_secret};
use crate::failure::Failure;
use crate::output::line;
use crate::size;
use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use std::fs::{self, File, OpenOptions};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tintype_agent::{Helpers, LocalAgent, Manner, MixedAgent, OpenError};
use tintype_drivers::qemu::{self, PageServers};
use tintype_drivers::steps;
use tintype_model::config::Accel as ModelAccel;
use tintype_server::app::{App, Machine, Options};
use tintype_server::{Gate, router};
use tintype_store::Store;
use tintype_wire::agent::Agent;
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
    /// A file with the server's certificate and those that lead to who is trusted (PEM)
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// A file with the key of that certificate (PEM)
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A name that clients know this server by; may be given several times
    #[arg(long)]
    name: Vec<String>,
    /// Listen without TLS on an address that others reach: tokens can be read on the way
    #[arg(long)]
    plain: bool,
    /// How many seconds pass before files on the host are compared again with what is recorded
    /// [default: 10]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    check_every: Option<u64>,
    /// How much memory of a guest is saved in a second by precopy, such as 200MiB; else, and on the
    /// other road, as much as can be
    #[arg(long, value_parser = size::parse)]
    save_rate: Option<u64>,
    /// Read and write disks past the host's page cache (O_DIRECT), which is left to others then
    #[arg(long)]
    direct_io: bool,
    /// A file with the keys data, listen, accel, tls_cert, tls_key, names, plain, check_every,
    /// save_rate (in bytes) and direct_io; options come first
    #[arg(long)]
    config: Option<PathBuf>,
    /// For tests: die at step N of the first effect of a kind, such as take:12
    #[arg(long, hide = true, value_parser = kill_at)]
    kill_at: Option<(String, u32)>,
    /// For tests: append every numbered step to this file
    #[arg(long, hide = true)]
    trace_steps: Option<PathBuf>,
    /// For tests: the first machines, so many, are in memory only
    #[arg(long, hide = true)]
    fake_machines: Option<usize>,
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
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    plain: bool,
    check_every: Option<NonZeroU64>,
    save_rate: Option<u64>,
    #[serde(default)]
    direct_io: bool,
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
    let tls = args.tls_cert.or(config.tls_cert).zip(args.tls_key.or(config.tls_key));
    if !address.ip().is_loopback() && tls.is_none() && !args.plain && !config.plain {
        return Err(Failure::plain(format!("{address} is reached by others, and TLS is off"), "")
            .hint("give --tls-cert and --tls-key; or --plain, and tokens can be read on the way"));
    }
    let tls = match tls {
        Some((cert, key)) => Some(read_tls(&cert, &key).await?),
        None => None,
    };
    let listener = TcpListener::bind(address).map_err(|error| {
        Failure::plain(format!("cannot listen at {address}"), error.to_string())
    })?;
    let address = listener.local_addr()?;
    let save_rate = args.save_rate.or(config.save_rate).unwrap_or(0);
    let direct_io = args.direct_io || config.direct_io;
    let agent = LocalAgent::open(&data, Manner { accel, save_rate, direct_io }, helpers()?)
        .map_err(cannot_run_guests)?;
    let agent: Arc<dyn Agent> = match args.fake_machines {
        Some(most) => Arc::new(MixedAgent::new(agent, most)),
        None => agent,
    };
    let store = Store::open(&data.join("tintype.db"))
        .map_err(|error| cannot_use(&data.join("tintype.db"), &error))?;
    let every = args.check_every.or(config.check_every.map(NonZeroU64::get));
    let check_every = every.map_or(Options::CHECK_EVERY, Duration::from_secs);
    let options = Options { host_name: host_name(), check_every };
    let app = App::start(store, agent, Arc::new(Machine), options)
        .await
        .map_err(|error| cannot_use(&data.join("tintype.db"), &error))?;
    let names: Vec<String> = args.name.into_iter().chain(config.names).collect();
    let scheme = if tls.is_some() { "https" } else { "http" };
    leave_access(&app, &data, &format!("{scheme}://{address}")).await?;
    let gate = Arc::new(Gate::new(address, &names, tls.is_some()));
    line(&format!("tintype: listening on {scheme}://{address} (data {})", data.display()));
    answer(listener, tls, router(app, gate)).await
}

fn cannot_run_guests(error: OpenError) -> Failure {
    let failure = Failure::plain("this host cannot run guests", error.to_string());
    match error {
        OpenError::NoDirectIo(_) => failure.hint("serve without --direct-io, or on another disk"),
        OpenError::Probe(_) | OpenError::Io(..) => failure,
    }
}

/// Answers requests until asked to end.
async fn answer(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    router: Router,
) -> Result<(), Failure> {
    listener.set_nonblocking(true)?;
    let handle = Handle::new();
    let ending = handle.clone();
    tokio::spawn(async move {
        asked_to_end().await;
        ending.graceful_shutdown(Some(GRACE));
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    match tls {
        Some(tls) => {
            axum_server::from_tcp_rustls(listener, tls)?.handle(handle).serve(service).await?;
        }
        None => axum_server::from_tcp(listener)?.handle(handle).serve(service).await?,
    }
    Ok(())
}

async fn read_tls(cert: &Path, key: &Path) -> Result<RustlsConfig, Failure> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let read = RustlsConfig::from_pem_file(cert, key).await;
    read.map_err(|error| {
        let what = format!("{} and {} are no certificate and key", cert.display(), key.display());
        Failure::plain(what, error.to_string())
    })
}

fn read_config(path: Option<&Path>) -> Result<Config, Failure> {
    let Some(path) = path else {
        return Ok(Config::default());
    };
    let text = fs::read_to_string(path).map_err(|error| cannot_use(path, &error))?;
    toml::from_str(&text).map_err(|error| cannot_use(path, &error))
}

pub(super) fn cannot_use(path: &Path, error: &impl std::fmt::Display) -> Failure {
    Failure::plain(format!("cannot use {}", path.display()), error.to_string())
}

/// One server for each data folder: the lock goes with the process.
pub(super) fn lock(data: &Path) -> Result<File, Failure> {
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

/// Leaves in the data folder how to reach us, with a token of the first administrator's: the one
/// that was left before, while it is good.
async fn leave_access(app: &App, data: &Path, url: &str) -> Result<(), Failure> {
    let path = data.join("client.toml");
    let old: Access = fs::read_to_string(&path)
        .ok()
        .and_then(|text| toml::from_str(&text).ok())
        .unwrap_or_default();
    let token = app
        .local_token(old.token.as_deref())
        .await
        .map_err(|refusal| cannot_use(&data.join("tintype.db"), &refusal))?;
    let access = Access { url: Some(url.to_owned()), token: Some(token), ca: old.ca };
    let text = toml::to_string(&access).map_err(|error| cannot_use(&path, &error))?;
    Ok(write_secret(&path, &text)?)
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

/// This program again, in other roles.
fn helpers() -> Result<Helpers, Failure> {
    let program = std::env::current_exe()?;
    let mut watchdog = Command::new(&program);
    watchdog.arg("watchdog");
    let page_servers = PageServers::Processes(program, vec!["page-server".to_owned()]);
    Ok(Helpers { watchdog, page_servers })
}

/// `tintype watchdog`: talks to whoever started it, over standard input.
pub(crate) fn watchdog() {
    if let Ok(stdin) = rustix::io::dup(rustix::stdio::stdin()) {
        let stdin: OwnedFd = stdin;
        qemu::run_watchdog(UnixStream::from(stdin));
    }
}

/// `tintype page-server`: serves memory to a machine that runs already.
pub(crate) fn page_server(job: &str) -> Result<(), Failure> {
    qemu::run_page_server(job)
        .map_err(|error| Failure::plain("memory could not be served", error.to_string()))
}
