//! `cargo xtask soak`: many clients hammer one server that has a thousand machines in memory and a
//! few real ones; then many real guests are snapshotted at once. Nothing may fail but what is
//! refused, and nothing may be left over.

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use fastrand::Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tintype_e2e::{TestVm, World, new_vm, rank};
use tintype_wire::client::{Client, ClientError};
use tintype_wire::rest::{
    Host, HostCheck, Limit, List, NewDisk, NewSnapshot, NewVm, Operation, Revert, Snapshot, Vm,
};
use tintype_witness::Pulse;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use uuid::Uuid;

/// So many machines are created at once.
const AT_ONCE: usize = 32;
/// How many snapshots a machine in memory may have.
const LIMIT: u64 = 8;
/// How often it is looked how much memory the server has.
const EVERY: Duration = Duration::from_secs(10);
/// How much larger the server may be in the last third of the time than in the one before.
const GROWTH_MOST: f64 = 1.1;
/// Memory of each guest of those that are snapshotted at once, in MiB.
const SMALL_MIB: u64 = 96;
/// How often each of them ticks, in microseconds. Under emulation a tick costs the host more than a
/// millisecond: were there more, all of them together would leave it no time.
const TICK_US: u64 = 50_000;
/// How often it says something at its console, in milliseconds.
const PACE_MS: u64 = 1000;
/// How long after a snapshot has ended ticks are still waited for.
const AFTER: Duration = Duration::from_millis(300);

#[derive(Parser)]
#[command(about = "Has many clients hammer one server")]
struct Args {
    /// For how long
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// How many clients
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// How many machines in memory
    #[arg(long, default_value_t = 1000)]
    machines: usize,
    /// How many real guests beside them
    #[arg(long, default_value_t = 4)]
    guests: usize,
    /// How many real guests are snapshotted at once in the end
    #[arg(long, default_value_t = 20)]
    together: usize,
}

/// What was seen, by what was asked.
#[derive(Default)]
struct Seen {
    took: BTreeMap<&'static str, Vec<f64>>,
    refused: BTreeMap<String, u64>,
    wrong: Vec<String>,
}

impl Seen {
    fn and(&mut self, other: Self) {
        for (what, took) in other.took {
            self.took.entry(what).or_default().extend(took);
        }
        for (code, times) in other.refused {
            *self.refused.entry(code).or_default() += times;
        }
        self.wrong.extend(other.wrong);
    }
}

/// A client that asks for one thing after the other.
struct Hammer {
    client: Client,
    machines: Arc<Vec<Uuid>>,
    random: Rng,
    seen: Seen,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut world = World::start()?;
    world.serve(&["--fake-machines", &args.machines.to_string()])?;
    let runtime = Runtime::new()?;
    let machines = Arc::new(runtime.block_on(create_all(world.client(), args.machines))?);
    let guests: Vec<TestVm> = (0..args.guests)
        .map(|n| TestVm::boot(&world, &format!("guest-{n}")))
        .collect::<Result<_>>()?;
    eprintln!("{} machines in memory, {} guests run", machines.len(), guests.len());
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let (seen, memory, rounds) = thread::scope(|scope| {
        let world = &world;
        let memory = scope.spawn(move || watch_memory(world, until));
        let real: Vec<_> =
            guests.iter().map(|vm| scope.spawn(move || go_round(world, vm, until))).collect();
        let seen = runtime.block_on(hammer(world.client(), &machines, args.clients, until));
        let rounds = real.into_iter().map(|guest| guest.join().expect("it does not panic"));
        let rounds: Result<Vec<u64>> = rounds.collect();
        let memory = memory.join().expect("it does not panic");
        anyhow::Ok((seen, memory?, rounds?))
    })?;
    come_to_rest(&world)?;
    report(&args, &seen, &memory, &rounds);
    ensure!(seen.wrong.is_empty(), "{} answers are wrong: {:?}", seen.wrong.len(), seen.wrong[0]);
    flat(&memory)?;
    for vm in guests {
        world.post(&vm.path("/stop"), &json!({ "force": true }))?;
    }
    together(&world, &runtime, args.together)
}

/// Makes machines in memory, each with a snapshot; half of them run.
async fn create_all(client: &Client, count: usize) -> Result<Vec<Uuid>> {
    let disk = NewDisk { size_bytes: Some(1 << 30), file: None };
    let mut made = Vec::new();
    let mut making = JoinSet::new();
    for n in 0..count {
        if making.len() == AT_ONCE {
            made.push(making.join_next().await.context("some are being made")???);
        }
        let (client, disk) = (client.clone(), disk.clone());
        making.spawn(async move {
            let new = NewVm {
                name: format!("fake-{n}"),
                memory_bytes: 1 << 30,
                vcpus: 1,
                disks: vec![disk],
                snapshot_limit: Some(Limit::Most(LIMIT)),
                ..NewVm::default()
            };
            let id = done(&client, client.post("/v1/vms", &new).await?).await?.vm;
            if n % 2 == 0 {
                let start = client.post(&format!("/v1/vms/{id}/start"), &json!({})).await?;
                done(&client, start).await?;
            }
            anyhow::Ok(id)
        });
    }
    while let Some(id) = making.join_next().await {
        made.push(id??);
    }
    Ok(made)
}

async fn done(client: &Client, accepted: Operation) -> Result<Operation> {
    let ended = client.follow(accepted.id, |_| {}).await?;
    match ended.error {
        Some(problem) => bail!("{problem}"),
        None => Ok(ended),
    }
}

async fn hammer(
    client: &Client,
    machines: &Arc<Vec<Uuid>>,
    clients: usize,
    until: Instant,
) -> Seen {
    let mut running = JoinSet::new();
    for n in 0..clients {
        let (client, machines) = (client.clone(), Arc::clone(machines));
        let random = Rng::with_seed(n as u64);
        let mut hammer = Hammer { client, machines, random, seen: Seen::default() };
        running.spawn(async move {
            while Instant::now() < until {
                hammer.strike().await;
            }
            hammer.seen
        });
    }
    let mut all = Seen::default();
    while let Some(seen) = running.join_next().await {
        all.and(seen.expect("a client does not panic"));
    }
    all
}

impl Hammer {
    /// Asks for something: three times of four to see something, else to change something.
    async fn strike(&mut self) {
        let vm = self.machines[self.random.usize(..self.machines.len())];
        match self.random.u8(0..100) {
            0..25 => self.read("a page of snapshots", "/v1/snapshots?sort=-created").await,
            25..45 => self.read("a machine", &format!("/v1/vms/{vm}")).await,
            45..58 => self.read("a tree", &format!("/v1/vms/{vm}/tree")).await,
            58..68 => self.read("a page of machines", "/v1/vms?limit=100").await,
            68..75 => self.read("what runs", "/v1/operations?state=running").await,
            75..88 => self.create(vm).await,
            88..94 => self.revert(vm).await,
            _ => self.delete(vm).await,
        }
    }

    async fn read(&mut self, what: &'static str, path: &str) {
        let client = self.client.clone();
        self.time(what, client.get::<Value>(path)).await;
    }

    async fn create(&mut self, vm: Uuid) {
        let kind = if self.random.bool() { "disk" } else { "disk-and-memory" };
        let new = NewSnapshot { kind: Some(kind.into()), ..NewSnapshot::default() };
        let (client, path) = (self.client.clone(), format!("/v1/vms/{vm}/snapshots"));
        let create = client.post::<Operation>(&path, &new);
        if let Some(accepted) = self.time("create, until accepted", create).await {
            self.see_through("create, until it is there", &accepted).await;
        }
    }

    async fn revert(&mut self, vm: Uuid) {
        let Some(snapshot) = self.one_of(vm).await else { return };
        let (client, path) = (self.client.clone(), format!("/v1/snapshots/{snapshot}/revert"));
        let revert = Revert::default();
        let revert = client.post::<Operation>(&path, &revert);
        if let Some(accepted) = self.time("revert, until accepted", revert).await {
            self.see_through("revert, until it is there", &accepted).await;
        }
    }

    async fn delete(&mut self, vm: Uuid) {
        let Some(snapshot) = self.one_of(vm).await else { return };
        let (client, path) = (self.client.clone(), format!("/v1/snapshots/{snapshot}"));
        self.time("delete, until accepted", client.delete::<Operation>(&path)).await;
    }

    /// A snapshot of a machine, if it has one.
    async fn one_of(&mut self, vm: Uuid) -> Option<Uuid> {
        let (client, path) = (self.client.clone(), format!("/v1/vms/{vm}/snapshots"));
        let list = self.time("a machine's snapshots", client.get::<List<Snapshot>>(&path)).await?;
        let at = self.random.usize(..list.items.len().max(1));
        list.items.get(at).map(|snapshot| snapshot.id)
    }

    /// What an operation comes to: done, or refused when its turn came.
    async fn see_through(&mut self, what: &'static str, accepted: &Operation) {
        let client = self.client.clone();
        let Some(ended) = self.time(what, client.follow(accepted.id, |_| {})).await else { return };
        match ended.error {
            Some(problem) if problem.status >= 500 => self.seen.wrong.push(problem.to_string()),
            Some(problem) => *self.seen.refused.entry(problem.code).or_default() += 1,
            None => {}
        }
    }

    /// How long an answer takes; what is refused is counted, anything else that fails is wrong.
    async fn time<T>(
        &mut self,
        what: &'static str,
        asked: impl Future<Output = Result<T, ClientError>>,
    ) -> Option<T> {
        let begun = Instant::now();
        let answer = asked.await;
        self.seen.took.entry(what).or_default().push(begun.elapsed().as_secs_f64() * 1000.0);
        match answer {
            Ok(answer) => Some(answer),
            Err(ClientError::Problem(problem)) if problem.status < 500 => {
                *self.seen.refused.entry(problem.code).or_default() += 1;
                None
            }
            Err(error) => {
                self.seen.wrong.push(format!("{what}: {error:?}"));
                None
            }
        }
    }
}

/// Takes a real guest to a snapshot, on, and back, again and again; says how often.
fn go_round(world: &World, vm: &TestVm, until: Instant) -> Result<u64> {
    let runtime = Runtime::new()?;
    let client = world.client();
    let ask = |path: String, body: Value| {
        runtime.block_on(async { done(client, client.post(&path, &body).await?).await })
    };
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        vm.guest.set_nonce(round)?;
        let new = json!({ "name": format!("r{round}"), "kind": "disk-and-memory" });
        let taken = ask(vm.path("/snapshots"), new)?;
        let id = taken.snapshot.context("it names the snapshot")?;
        vm.guest.set_nonce(0)?;
        ask(format!("/v1/snapshots/{id}/revert"), json!({}))?;
        vm.wait_until_up()?;
        ensure!(vm.guest.nonce()? == round, "{} is not as it was", vm.name);
        let path = format!("/v1/snapshots/{id}");
        runtime.block_on(async { done(client, client.delete(&path).await?).await })?;
    }
    Ok(round)
}

/// The server's resident memory, in MiB, every few seconds.
fn watch_memory(world: &World, until: Instant) -> Result<Vec<f64>> {
    let mut seen = Vec::new();
    while Instant::now() < until {
        seen.push(world.memory_bytes()? as f64 / f64::from(1 << 20));
        thread::sleep(EVERY);
    }
    Ok(seen)
}

/// The median of the memory in the last third of the time is no more than in the one before.
fn flat(memory: &[f64]) -> Result<()> {
    let third = memory.len() / 3;
    if third == 0 {
        return Ok(());
    }
    let median = |of: &[f64]| {
        let mut of = of.to_vec();
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    };
    let (before, last) = (median(&memory[third..2 * third]), median(&memory[2 * third..]));
    ensure!(last <= before * GROWTH_MOST, "memory grows: {before:.0} MiB, then {last:.0} MiB");
    Ok(())
}

/// Everything ends, and nothing is left over.
fn come_to_rest(world: &World) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let running: List<Operation> = world.get("/v1/operations?state=running")?;
        if running.items.is_empty() {
            break;
        }
        ensure!(Instant::now() < until, "it goes on: {:?}", running.items);
        thread::sleep(Duration::from_millis(200));
    }
    for state in ["creating", "reverting", "deleting", "unavailable"] {
        let stuck: List<Snapshot> = world.get(&format!("/v1/snapshots?state={state}"))?;
        ensure!(stuck.items.is_empty(), "{state}: {:?}", stuck.items);
    }
    let host = world.get::<List<Host>>("/v1/hosts")?.items.remove(0);
    let path = format!("/v1/hosts/{}/check", host.id);
    let check: HostCheck = world.wait(world.client().post(&path, &json!({})))?;
    ensure!(check.findings.is_empty() && check.strangers.is_empty(), "found: {check:?}");
    Ok(())
}

fn report(args: &Args, seen: &Seen, memory: &[f64], rounds: &[u64]) {
    let asked: usize = seen.took.values().map(Vec::len).sum();
    let refused: u64 = seen.refused.values().sum();
    println!(
        "{} clients, {} s: {asked} requests and waits, {refused} refused, {} wrong.\n",
        args.clients,
        args.seconds,
        seen.wrong.len()
    );
    println!("| what, as a client sees it | times | p50 ms | p99 ms |\n|---|---|---|---|");
    for (what, took) in &seen.took {
        println!("| {what} | {} | {:.1} | {:.1} |", took.len(), rank(took, 50), rank(took, 99));
    }
    let codes = seen.refused.iter().map(|(code, times)| format!("{code} {times}"));
    println!("\nRefused: {}.", codes.collect::<Vec<_>>().join(", "));
    let rounds_told: Vec<String> = rounds.iter().map(u64::to_string).collect();
    println!(
        "\nRounds of snapshot, revert and delete with {} real guests, each as it was: {}.",
        rounds.len(),
        rounds_told.join(", ")
    );
    let memory: Vec<String> = memory.iter().step_by(6).map(|mib| format!("{mib:.0}")).collect();
    println!("\nThe server's resident memory, each minute, in MiB: {}.", memory.join(", "));
}

/// Takes a snapshot with memory of many real guests at once; each can be gone back to.
fn together(world: &World, runtime: &Runtime, count: usize) -> Result<()> {
    let guests = (0..count).map(|n| {
        let vm = TestVm::from(world, &new_vm(&format!("together-{n}"), SMALL_MIB, 1)?)?;
        vm.start(world)?;
        vm.guest.pace(PACE_MS)?;
        vm.guest.tick(TICK_US)?;
        vm.guest.set_nonce(n as u64 + 1)?;
        let pulse = Pulse::follow(vm.folder().to_owned());
        Ok((vm, pulse))
    });
    let guests: Vec<(TestVm, Pulse)> = guests.collect::<Result<_>>()?;
    // Each alone first, while the others run.
    let alone = guests.iter().map(|(vm, pulse)| {
        let begun = Instant::now();
        let snapshot = vm.snapshot(world, "alone", "disk-and-memory")?;
        thread::sleep(AFTER);
        let held = Held::seen(pulse, begun, &snapshot)?;
        vm.delete(world, &snapshot, "one")?;
        Ok(held)
    });
    let alone: Vec<Held> = alone.collect::<Result<_>>()?;
    let begun = Instant::now();
    runtime.block_on(async {
        let mut taking = JoinSet::new();
        for (vm, _) in &guests {
            let (client, path) = (world.client().clone(), vm.path("/snapshots"));
            let new = json!({ "name": "at once", "kind": "disk-and-memory" });
            taking.spawn(async move { done(&client, client.post(&path, &new).await?).await });
        }
        while let Some(done) = taking.join_next().await {
            done??;
        }
        anyhow::Ok(())
    })?;
    let took = begun.elapsed();
    thread::sleep(AFTER);
    let at_once = guests.iter();
    let at_once = at_once.map(|(vm, pulse)| Held::seen(pulse, begun, &vm.named(world, "at once")?));
    let at_once: Vec<Held> = at_once.collect::<Result<_>>()?;
    for (n, (vm, _)) in guests.iter().enumerate() {
        vm.guest.set_nonce(0)?;
        let snapshot = vm.named(world, "at once")?;
        vm.revert(world, &snapshot)?;
        ensure!(vm.guest.nonce()? == n as u64 + 1, "{} is not as it was", vm.name);
    }
    for (vm, _) in &guests {
        let shown: Vm = vm.show(world)?;
        ensure!(shown.operation.is_none() && shown.findings.is_empty(), "{shown:?}");
    }
    println!(
        "\n{count} guests of {SMALL_MIB} MiB that tick every {} ms, each snapshotted with memory \
         while the others run, one after the other, then all at once (all there after {:.1} s, \
         all gone back to, each as it was); in milliseconds:\n\n\
         | | one after the other | at once |\n|---|---|---|",
        TICK_US / 1000,
        took.as_secs_f64(),
    );
    let row = |what: &str, of: fn(&Held) -> f64| {
        println!("| {what} | {} | {} |", spread(&alone, of), spread(&at_once, of));
    };
    row("held, by Tintype's clock", |held| held.pause_ms);
    row("longest time without a tick", |held| held.gap_ms);
    Ok(())
}

/// How long a guest stood still for a snapshot, in milliseconds.
struct Held {
    /// By Tintype's clock.
    pause_ms: f64,
    /// The longest time without a tick.
    gap_ms: f64,
}

impl Held {
    /// Who asked for the snapshot then.
    fn seen(pulse: &Pulse, since: Instant, snapshot: &Snapshot) -> Result<Self> {
        let gap = pulse.ticks().largest_gap(since, Instant::now()).context("it ticks")?;
        let pause_ms = snapshot.pause_ms.context("it was held")? as f64;
        Ok(Self { pause_ms, gap_ms: gap.length.as_secs_f64() * 1000.0 })
    }
}

/// The least, the median and the most.
fn spread(held: &[Held], of: fn(&Held) -> f64) -> String {
    let mut ms: Vec<f64> = held.iter().map(of).collect();
    ms.sort_unstable_by(f64::total_cmp);
    let (least, median, most) = (ms[0], ms[ms.len() / 2], ms[ms.len() - 1]);
    format!("{least:.0} to {most:.0} (median {median:.0})")
}
