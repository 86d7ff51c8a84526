//! `cargo xtask bench shutter`: how long a guest stands still for a snapshot, and how soon it is
//! back after a revert, as seen from outside: by ticks that are 1 ms apart.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use std::thread;
use std::time::{Duration, Instant};
use tintype_e2e::{Pool, TestVm, World, new_vm};
use tintype_wire::rest::{Revert, Snapshot};
use tintype_witness::Pulse;

/// Time between two ticks, in microseconds.
const TICK_US: u64 = 1000;
/// How long the guest is watched after each act.
const AFTER: Duration = Duration::from_secs(10);
/// How long it is watched after an act that is done when it is answered.
const SETTLE: Duration = Duration::from_millis(300);
/// Pages that the guest rewrites, a second.
const DIRTIED: u64 = 13_000;
/// Blocks that the guest writes to each of two disks, a second.
const WRITTEN: u64 = 500;

#[derive(Parser)]
#[command(about = "Measures how long a guest stands still, as seen from outside")]
struct Args {
    /// Sizes of the guest's memory, in MiB
    #[arg(long, value_delimiter = ',', default_value = "1024")]
    memory: Vec<u64>,
    /// How often each thing is done
    #[arg(long, default_value_t = 20)]
    runs: usize,
}

/// What was measured of one thing, run after run.
#[derive(Default)]
struct Row {
    what: String,
    taken: Vec<f64>,
}

impl Row {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), taken: Vec::new() }
    }

    fn add(&mut self, took: Duration) {
        self.taken.push(took.as_secs_f64() * 1000.0);
    }

    fn print(mut self) {
        if self.taken.is_empty() {
            return;
        }
        self.taken.sort_by(f64::total_cmp);
        // The nearest rank: of few runs, p99 is the largest.
        let rank = |percent: usize| (self.taken.len() * percent).div_ceil(100).max(1);
        let at = |percent: usize| self.taken[rank(percent) - 1];
        let (p50, p99, least) = (at(50), at(99), at(0));
        println!("| {} | {} | {least:.1} | {p50:.1} | {p99:.1} |", self.what, self.taken.len());
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    println!("| what | runs | least ms | p50 ms | p99 ms |\n|---|---|---|---|---|");
    for &memory in &args.memory {
        measure(memory, args.runs)?;
    }
    Ok(())
}

struct Bench {
    world: World,
    vm: TestVm,
    pulse: Pulse,
    memory: u64,
}

fn measure(memory: u64, runs: usize) -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::from(&world, &new_vm("shutter", memory, 2)?)?;
    vm.start(&world)?;
    vm.guest.fill(75)?;
    vm.guest.dirty(DIRTIED)?;
    vm.guest.write(WRITTEN)?;
    vm.guest.ask(&format!("tick {TICK_US}"))?;
    let pulse = Pulse::follow(vm.folder().to_owned());
    let bench = Bench { world, vm, pulse, memory };
    thread::sleep(Duration::from_secs(3));
    bench.usual()?;
    bench.creates("disk-and-memory", runs)?;
    bench.creates("disk", runs)?;
    bench.reverts(runs)
}

impl Bench {
    fn label(&self, what: &str) -> String {
        format!("{what}, {} GiB", self.memory as f64 / 1024.0)
    }

    /// Ticks that are seen in a second while nothing is done, and the longest time between two.
    fn usual(&self) -> Result<f64> {
        let from = Instant::now();
        thread::sleep(Duration::from_secs(3));
        let ticks = self.pulse.ticks();
        let rate = ticks.count(from, Instant::now()) as f64 / 3.0;
        let gap = ticks.largest_gap(from, Instant::now()).context("it ticks")?.length;
        ensure!(rate > 50.0, "the guest ticks {rate:.0} times a second only");
        eprintln!("usual: {rate:.0} ticks a second, largest gap {gap:?}");
        Ok(rate)
    }

    fn creates(&self, kind: &str, runs: usize) -> Result<()> {
        let mut standstill = Row::new(self.label(&format!("create {kind}: standstill")));
        let mut told = Row::new(self.label(&format!("create {kind}: told")));
        for n in 0..runs {
            let from = Instant::now();
            let snapshot = self.vm.snapshot(&self.world, &format!("s{n}"), kind)?;
            thread::sleep(SETTLE);
            let gap = self.pulse.ticks().largest_gap(from, Instant::now()).context("it ticks")?;
            standstill.add(gap.length);
            told.add(Duration::from_millis(snapshot.pause_ms.unwrap_or_default()));
            self.vm.delete(&self.world, &snapshot, "one")?;
            Pool::settled(&self.world, &self.vm)?;
        }
        standstill.print();
        told.print();
        Ok(())
    }

    fn reverts(&self, runs: usize) -> Result<()> {
        let base = self.vm.snapshot(&self.world, "base", "disk-and-memory")?;
        let usual = self.usual()?;
        let mut back = Row::new(self.label("revert: request to first tick"));
        let mut standstill = Row::new(self.label("revert: standstill"));
        let mut worst = Row::new(self.label("revert: worst of the next ten seconds, % of ticks"));
        let mut whole = Row::new(self.label("revert: until a memory snapshot is taken again"));
        for n in 0..runs {
            let (from, first) = self.revert(&base)?;
            back.add(first - from);
            // Long enough that the next revert goes back by some ticks.
            thread::sleep(Duration::from_secs(2));
            let gap = self.pulse.ticks().largest_gap(from, first + SETTLE);
            standstill.add(gap.context("it ticks")?.length);
            if n % 4 == 0 {
                thread::sleep(AFTER.saturating_sub(first.elapsed()));
                let ticks = self.pulse.ticks();
                let second = |n| first + Duration::from_secs(n);
                let counts = (0..AFTER.as_secs()).map(|n| ticks.count(second(n), second(n + 1)));
                let fewest = counts.min().unwrap_or(0);
                worst.taken.push(fewest as f64 * 100.0 / usual);
            } else if n % 4 == 1 {
                let again = Instant::now();
                let next = self.vm.snapshot(&self.world, "next", "disk-and-memory")?;
                whole.add(again.elapsed());
                self.vm.delete(&self.world, &next, "one")?;
            }
            Pool::settled(&self.world, &self.vm)?;
        }
        for row in [back, standstill, worst, whole] {
            row.print();
        }
        Ok(())
    }

    /// Goes back; answers when it was asked for, and when the guest that was taken ticked first.
    fn revert(&self, to: &Snapshot) -> Result<(Instant, Instant)> {
        let at = self.pulse.ticks().last_number().context("it ticks")?;
        let from = Instant::now();
        let path = format!("/v1/snapshots/{}/revert", to.id);
        self.world.post(&path, &Revert::default())?;
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(first) = self.pulse.ticks().first_below(at, from) {
                return Ok((from, first));
            }
            ensure!(Instant::now() < until, "the guest is not back");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
