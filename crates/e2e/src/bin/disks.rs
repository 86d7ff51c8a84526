//! `cargo xtask bench disks`: whether a snapshot of disks stays as short however large the disks
//! are and however many snapshots there are, and what these cost a guest that reads and writes.
//!
//! What is compared is done by turns, on guests that run side by side.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tintype_e2e::{MEMORY_MIB, Pool, TestVm, World, new_vm, rank};
use tintype_witness::{Io, Pulse};

const GIB: u64 = 1 << 30;
/// Time between two ticks, in microseconds.
const TICK_US: u64 = 1000;
/// Blocks that a guest writes to each of its two disks, a second, while it is watched.
const WRITTEN: u64 = 500;
/// How long a guest ticks before it is watched.
const BEFORE: Duration = Duration::from_millis(500);
/// How long it is watched after a snapshot that is there when it is answered: layers that are
/// folded later are not meant.
const AFTER: Duration = Duration::from_millis(50);
/// Blocks of 4 KiB that are read and written at random.
const BLOCKS: u64 = 16_384;
/// How long that is done between two snapshots, and in each round that is measured, in ms.
const BETWEEN_MS: u64 = 50;
const ROUND_MS: u64 = 2000;
/// A guest that is not watched says at its console that it lives, so often, in ms.
const QUIET_MS: u64 = 500;

#[derive(Parser)]
#[command(about = "Measures what snapshots of disks cost, by their number and the disks' size")]
struct Args {
    /// How often each snapshot that is compared is taken
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// How many snapshots lie before the last that are compared with the first
    #[arg(long, default_value_t = 480)]
    before: usize,
    /// With how many snapshots a guest reads and writes
    #[arg(long, default_value_t = 100)]
    snapshots: usize,
    /// In how many rounds that is measured
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

/// A guest that ticks for whoever watches.
struct Watched {
    vm: TestVm,
    pulse: Pulse,
    taken: usize,
}

impl Watched {
    fn boot(world: &World, name: &str, disk_bytes: u64) -> Result<Self> {
        let vm = boot(world, name, disk_bytes)?;
        let pulse = Pulse::follow(vm.folder().to_owned());
        Ok(Self { vm, pulse, taken: 0 })
    }

    /// Takes a snapshot of its disks.
    fn take(&mut self, world: &World) -> Result<()> {
        self.taken += 1;
        self.vm.snapshot(world, &format!("s{}", self.taken), "disk").map(drop)
    }

    /// How long it stands still for one, in ms. Only then is it busy: others are watched as well.
    fn standstill(&mut self, world: &World) -> Result<f64> {
        Pool::settled(world, &self.vm)?;
        self.vm.guest.write(WRITTEN)?;
        self.vm.guest.tick(TICK_US)?;
        thread::sleep(BEFORE);
        let from = Instant::now();
        self.take(world)?;
        thread::sleep(AFTER);
        let gap = self.pulse.ticks().largest_gap(from, Instant::now()).context("it ticks")?;
        self.vm.guest.write(0)?;
        self.vm.guest.tick(0)?;
        Ok(gap.length.as_secs_f64() * 1000.0)
    }
}

fn boot(world: &World, name: &str, disk_bytes: u64) -> Result<TestVm> {
    let mut new = new_vm(name, MEMORY_MIB, 2)?;
    new.disks.iter_mut().for_each(|disk| disk.size_bytes = Some(disk_bytes));
    let vm = TestVm::from(world, &new)?;
    vm.start(world)?;
    vm.guest.pace(QUIET_MS)?;
    Ok(vm)
}

fn main() -> Result<()> {
    let args = Args::parse();
    println!("| create of the disks: standstill | runs | least ms | p50 ms | p99 ms |");
    println!("|---|---|---|---|---|");
    let sizes = by_size(&args)?;
    let numbers = by_number(&args)?;
    println!("\nMedian by median: {sizes}; {numbers}.\n");
    for (cache, options) in [("page cache", &[][..]), ("O_DIRECT", &["--direct-io"])] {
        reads_and_writes(&args, cache, options)?;
    }
    Ok(())
}

/// A disk that is a thousand times as large, beside one that is not.
fn by_size(args: &Args) -> Result<String> {
    let world = World::start()?;
    let mut small = Watched::boot(&world, "small", GIB)?;
    let mut large = Watched::boot(&world, "large", 1024 * GIB)?;
    let (mut of_small, mut of_large) = (Vec::new(), Vec::new());
    for _ in 0..args.runs {
        of_small.push(small.standstill(&world)?);
        of_large.push(large.standstill(&world)?);
    }
    row("two disks of 1 GiB", &of_small);
    row("two disks of 1 TiB", &of_large);
    Ok(format!("{:.2} × with 1 TiB", rank(&of_large, 50) / rank(&of_small, 50)))
}

/// The last of many snapshots, beside the first of a machine that has none.
fn by_number(args: &Args) -> Result<String> {
    let world = World::start()?;
    let mut old = Watched::boot(&world, "old", GIB)?;
    old.vm.guest.write(WRITTEN)?;
    for _ in 0..args.before {
        old.take(&world)?;
    }
    old.vm.guest.write(0)?;
    let mut new = Watched::boot(&world, "new", GIB)?;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for _ in 0..args.runs {
        first.push(new.standstill(&world)?);
        last.push(old.standstill(&world)?);
    }
    row(&format!("the first {}", args.runs), &first);
    row(&format!("{} to {}", args.before + 1, args.before + args.runs), &last);
    let blocks = old.vm.guest.blocks()?;
    ensure!(blocks.iter().all(|disk| disk.damaged == 0), "{blocks:?}");
    Ok(format!("{:.2} × after {}", rank(&last, 50) / rank(&first, 50), args.before))
}

fn row(what: &str, ms: &[f64]) {
    let (least, p50, p99) = (rank(ms, 0), rank(ms, 50), rank(ms, 99));
    println!("| {what} | {} | {least:.1} | {p50:.1} | {p99:.1} |", ms.len());
}

/// Reads and writes at random of a guest with many snapshots, beside one that has none, under a
/// server with these options.
fn reads_and_writes(args: &Args, cache: &str, options: &[&str]) -> Result<()> {
    let mut world = World::start()?;
    world.serve(options)?;
    let [none, many] = ["none", "many"].map(|name| boot(&world, name, GIB));
    let (none, many) = (none?, many?);
    for vm in [&none, &many] {
        vm.guest.lay(BLOCKS)?;
    }
    for n in 0..args.snapshots {
        many.snapshot(&world, &format!("s{n}"), "disk")?;
        many.guest.io(Io::Write, BLOCKS, BETWEEN_MS)?;
    }
    Pool::settled(&world, &many)?;
    println!(
        "| {cache}, 4 KiB at random a second | no snapshot | {} snapshots | ratio (by round) |",
        args.snapshots
    );
    println!("|---|---|---|---|");
    compare("read", Io::Read, &none, &many, args.rounds)?;
    compare("written", Io::Write, &none, &many, args.rounds)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let taking = scope.spawn(|| take_on_and_on(&world, &many, &over));
        let compared =
            compare("read while more are taken and folded", Io::Read, &none, &many, args.rounds)
                .and_then(|()| compare("written meanwhile", Io::Write, &none, &many, args.rounds));
        over.store(true, Ordering::SeqCst);
        let taken = taking.join().expect("no taker panics")?;
        println!("\nMeanwhile {taken} more were taken.\n");
        compared
    })
}

/// Takes snapshots of a guest that writes, without a pause: what is folded is soon too long again.
fn take_on_and_on(world: &World, vm: &TestVm, over: &AtomicBool) -> Result<usize> {
    let mut taken = 0;
    while !over.load(Ordering::SeqCst) {
        taken += 1;
        vm.snapshot(world, &format!("more-{taken}"), "disk")?;
        thread::sleep(Duration::from_millis(200));
    }
    Ok(taken)
}

/// By turns, a round each.
fn compare(what: &str, act: Io, none: &TestVm, many: &TestVm, rounds: usize) -> Result<()> {
    let rate = |vm: &TestVm| -> Result<f64> {
        let begun = Instant::now();
        let times = vm.guest.io(act, BLOCKS, ROUND_MS)?;
        Ok(times as f64 / begun.elapsed().as_secs_f64())
    };
    let measured = (0..rounds).map(|_| Ok((rate(none)?, rate(many)?)));
    let measured: Vec<(f64, f64)> = measured.collect::<Result<_>>()?;
    let (without, with): (Vec<f64>, Vec<f64>) = measured.iter().copied().unzip();
    let ratios: Vec<f64> = measured.iter().map(|(without, with)| with / without).collect();
    println!(
        "| {what} | {:.0} | {:.0} | {:.2} ({:.2} to {:.2}) |",
        rank(&without, 50),
        rank(&with, 50),
        rank(&ratios, 50),
        rank(&ratios, 0),
        rank(&ratios, 100)
    );
    Ok(())
}
