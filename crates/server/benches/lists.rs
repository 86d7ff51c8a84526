//! Lists and creates with a database as large as a cloud's: `cargo xtask bench lists`.
//!
//! The server answers over HTTP on loopback, with an agent that takes every order and ends none, so
//! that what is measured is what the server does. Client and server share the machine.

#[path = "../tests/told/mod.rs"]
mod told;

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tintype_server::app::{App, Machine, Options};
use tintype_server::{Gate, router};
use tintype_store::Store;
use told::ToldAgent;

/// The binary's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many rounds there are: others work on the same machine, now more, now less.
const ROUNDS: usize = 5;
/// How often each list is asked for in a round.
const TIMES: usize = 200;
/// How many clients create at the same time.
const CLIENTS: u32 = 64;
/// For how long in a round.
const CREATING: Duration = Duration::from_secs(3);

struct Server {
    url: String,
    admin: String,
    client: Client,
}

impl Server {
    /// A list, and how long the server took, by its own clock.
    async fn get(&self, token: &str, path: &str) -> Result<(Value, Duration)> {
        let request = self.client.get(format!("{}{path}", self.url)).bearer_auth(token);
        let response = request.send().await?.error_for_status()?;
        let timing = response.headers().get("server-timing").context("it tells")?.to_str()?;
        let ms: f64 = timing.rsplit('=').next().unwrap_or_default().parse()?;
        Ok((response.json().await?, Duration::from_secs_f64(ms / 1000.0)))
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(&self.admin);
        Ok(request.json(&body).send().await?.error_for_status()?.json().await?)
    }

    /// A token of a new user with this role in this account.
    async fn user(&self, name: &str, role: &str, account: &str) -> Result<String> {
        let new = json!({ "name": name, "role": role, "account": account });
        self.post("/v1/users", new).await?;
        let made = self.post("/v1/tokens", json!({ "user": name })).await?;
        Ok(made["secret"].as_str().context("it is shown")?.to_owned())
    }
}

fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse().ok());
    let machines: u32 = numbers.next().unwrap_or(20_000);
    let each: u32 = numbers.next().unwrap_or(50);
    tokio::runtime::Runtime::new()?.block_on(bench(machines, each))
}

async fn bench(machines: u32, each: u32) -> Result<()> {
    let data = TempDir::new()?;
    let file = data.path().join("tintype.db");
    let begun = Instant::now();
    let store = Store::open(&file)?;
    store.seed(machines, each).await?;
    store.close().await;
    eprintln!("seeded {machines} machines, {} snapshots: {:?}", machines * each, begun.elapsed());
    let size = std::fs::metadata(&file)?.len() >> 20;
    println!("{machines} machines, {} snapshots, a database of {size} MiB\n", machines * each);

    let binary = binary_start(data.path())?;
    let begun = Instant::now();
    let store = Store::open(&file)?;
    let agent = Arc::new(ToldAgent { hangs: true, ..ToldAgent::default() });
    let app = App::start(store, agent, Arc::new(Machine), Options::on("host")).await?;
    let started = begun.elapsed();
    let admin = app.local_token(None).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let gate = Arc::new(Gate::new(address, &[], false));
    let service = router(app, gate).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("http://{address}");
    let server = Server { url, admin, client: Client::new() };
    lists(&server, machines, each).await?;
    creates(server, machines).await?;
    println!("\n| start | |\n|---|---|");
    println!("| database opened, control plane ready | {} |", ms(started));
    if let Some(started) = binary {
        println!("| `tintype serve` until it answers, hypervisor looked at | {} |", ms(started));
    }
    Ok(())
}

async fn lists(server: &Server, machines: u32, each: u32) -> Result<()> {
    let user = server.user("bench-user", "user", "a7").await?;
    let operator = server.user("bench-operator", "operator", "a7").await?;
    let admin = &server.admin;
    let middle = u64::from(machines * each / 2);
    let deep = "t500000_60000000-0000-4000-8000-000000000000";
    let vm = format!("/v1/snapshots?vm=vm{}", machines / 2);
    let rare = format!("/v1/snapshots?keyword=snapshot%20{middle}");
    let queries: Vec<(&str, &str, String)> = vec![
        ("first page", admin, "/v1/snapshots".into()),
        ("a page in the middle", admin, format!("/v1/snapshots?after={deep}")),
        ("newest first", admin, "/v1/snapshots?sort=-created".into()),
        ("by name", admin, "/v1/snapshots?sort=name".into()),
        ("of a machine", admin, vm),
        ("of an account", admin, "/v1/snapshots?account=a7".into()),
        ("of a domain", admin, "/v1/snapshots?domain=d3".into()),
        ("unavailable ones", admin, "/v1/snapshots?state=unavailable".into()),
        ("with memory", admin, "/v1/snapshots?kind=disk-and-memory".into()),
        ("a keyword that few have", admin, rare),
        (
            "a keyword that a thousandth has",
            admin,
            "/v1/snapshots?keyword=upgrade%20of%20777".into(),
        ),
        (
            "a keyword that a thousandth has, by name",
            admin,
            "/v1/snapshots?keyword=upgrade%20of%20777&sort=name".into(),
        ),
        ("a keyword that all have", admin, "/v1/snapshots?keyword=upgrade".into()),
        ("a keyword that nobody has", admin, "/v1/snapshots?keyword=nowhere".into()),
        ("as a user", &user, "/v1/snapshots".into()),
        ("as a user, newest first", &user, "/v1/snapshots?sort=-created".into()),
        ("as a domain's operator", &operator, "/v1/snapshots".into()),
        ("as a domain's operator, by name", &operator, "/v1/snapshots?sort=name".into()),
        ("virtual machines", admin, "/v1/vms".into()),
        ("virtual machines by keyword", admin, "/v1/vms?keyword=vm199".into()),
        ("virtual machines, as a user", &user, "/v1/vms".into()),
    ];
    let mut measured: Vec<[Vec<Duration>; 2]> = vec![Default::default(); queries.len()];
    let mut items = vec![0; queries.len()];
    for _ in 0..ROUNDS {
        for (n, (_, token, path)) in queries.iter().enumerate() {
            let mut taken = Vec::new();
            for _ in 0..TIMES + 20 {
                let (page, took) = server.get(token, path).await?;
                taken.push(took);
                items[n] = page["items"].as_array().map_or(0, Vec::len);
            }
            // The first ones fill caches.
            let mut taken = taken.split_off(20);
            taken.sort();
            for (all, percent) in measured[n].iter_mut().zip([50, 99]) {
                all.push(taken[(taken.len() - 1) * percent / 100]);
            }
        }
    }
    println!("| a page of 100, median of {ROUNDS} rounds (least to most) | items | p50 | p99 |");
    println!("|---|---|---|---|");
    for ((what, ..), (items, [p50, p99])) in queries.iter().zip(items.iter().zip(measured)) {
        println!("| {what} | {items} | {} | {} |", spread(p50, ms), spread(p99, ms));
    }
    Ok(())
}

/// The median of some rounds, and the least and the most.
fn spread<T: Ord + Copy>(mut rounds: Vec<T>, show: impl Fn(T) -> String) -> String {
    rounds.sort();
    let (least, most) = (rounds[0], rounds[rounds.len() - 1]);
    format!("{} ({} to {})", show(rounds[rounds.len() / 2]), show(least), show(most))
}

/// Creates on machine after machine, by many clients at once; each is durable when it is answered.
async fn creates(server: Server, machines: u32) -> Result<()> {
    let server = Arc::new(server);
    let next = Arc::new(AtomicU32::new(0));
    let (mut rates, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| tokio::spawn(create(Arc::clone(&server), Arc::clone(&next), machines)))
            .collect();
        let mut taken = Vec::new();
        for client in clients {
            taken.extend(client.await??);
        }
        ensure!(!taken.is_empty(), "nothing was created");
        taken.sort();
        rates.push((taken.len() as f64 / begun.elapsed().as_secs_f64()) as u64);
        p50.push(taken[(taken.len() - 1) / 2]);
        p99.push(taken[(taken.len() - 1) * 99 / 100]);
    }
    println!("\n| creates, durable when answered | per second | p50 | p99 |\n|---|---|---|---|");
    let rates = spread(rates, |rate| rate.to_string());
    let (p50, p99) = (spread(p50, ms), spread(p99, ms));
    println!("| {CLIENTS} clients at once | {rates} | {p50} | {p99} |");
    Ok(())
}

/// One client's creates in a round.
async fn create(server: Arc<Server>, next: Arc<AtomicU32>, machines: u32) -> Result<Vec<Duration>> {
    let until = Instant::now() + CREATING;
    let mut taken = Vec::new();
    while Instant::now() < until {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= machines {
            break;
        }
        let begun = Instant::now();
        let path = format!("/v1/vms/30000000-0000-4000-8000-{n:012x}/snapshots");
        server.post(&path, json!({ "name": "new" })).await?;
        taken.push(begun.elapsed());
    }
    Ok(taken)
}

/// How long the real binary takes with that database, if it is built.
fn binary_start(data: &Path) -> Result<Option<Duration>> {
    let here = std::env::current_exe()?;
    let binary = here.ancestors().skip(1).take(2).map(|folder| folder.join("tintype"));
    let Some(binary) = binary.into_iter().find(|path| path.exists()) else {
        return Ok(None);
    };
    let begun = Instant::now();
    let mut server = Command::new(binary)
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    let out = server.stdout.take().context("it is piped")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
    let started = begun.elapsed();
    server.kill()?;
    server.wait()?;
    ensure!(line.contains("listening"), "it did not start: {line:?}");
    Ok(Some(started))
}

fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}
