//! `make demo`: a real guest is snapshotted with its memory, changed, reverted, branched and
//! pruned. Each fact is checked; the program ends with 1 if one is not as said. Times are printed
//! beside their goals and fail nothing.

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tintype_e2e::{Pool, TestVm, World};
use tintype_wire::rest::Snapshot;
use tintype_witness::Blocks;

/// Memory of the demo's guest, in MiB.
const MEMORY_MIB: u64 = 512;
/// No standstill but a revert's shall be longer.
const STANDSTILL_GOAL: Duration = Duration::from_millis(100);
/// A revert shall be back within this.
const REVERT_GOAL: Duration = Duration::from_secs(1);

#[derive(Parser)]
#[command(about = "Shows what Tintype does, on a real guest")]
struct Args {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// One step of the demo.
#[derive(Debug, Serialize)]
struct Step {
    what: String,
    /// How long the guest stood still, as its ticks show.
    #[serde(skip_serializing_if = "Option::is_none")]
    standstill_ms: Option<u128>,
    /// What the standstill shall be at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    standstill_goal_ms: Option<u128>,
    /// How long the caller waited.
    waited_ms: u128,
    /// From the request to the first tick of the reverted guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    back_ms: Option<u128>,
    /// What that shall be at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    back_goal_ms: Option<u128>,
    facts: Vec<String>,
}

struct Demo {
    world: World,
    vm: TestVm,
    output: Output,
    steps: Vec<Step>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args.output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(output: Output) -> Result<()> {
    let begun = Instant::now();
    let world = World::start()?;
    let vm = TestVm::create(&world, "demo", MEMORY_MIB)?;
    let mut demo = Demo { world, vm, output, steps: Vec::new() };
    demo.say("A guest with two disks boots (QEMU, software emulation where there is no KVM).");
    demo.vm.start(&demo.world)?;
    let filled = demo.vm.guest.fill(75)?;
    demo.set(1)?;
    demo.vm.guest.write(100)?;
    let facts = vec![format!("{} MiB of random pages in RAM", filled >> 8)];
    demo.tell("boot", begun.elapsed(), None, facts);
    let before = Pool::of(&demo.vm)?.bytes;

    let first = demo.snapshot("first")?;
    demo.set(2)?;
    demo.revert(&first, 1)?;
    demo.set(3)?;
    let branch = demo.snapshot("branch")?;
    demo.set(4)?;
    let twig = demo.snapshot("twig")?;
    demo.revert(&first, 1)?;
    demo.set(5)?;
    let other = demo.snapshot("other branch")?;
    demo.draw()?;

    demo.delete(&first, "one", "the first, its children stay")?;
    demo.revert(&demo.fresh(&twig)?, 4)?;
    demo.revert(&demo.fresh(&other)?, 5)?;
    demo.delete(&branch, "subtree", "a branch with all that descends from it")?;
    demo.draw()?;
    demo.space(before)?;
    demo.finish(begun.elapsed())
}

impl Demo {
    fn say(&self, text: &str) {
        if self.output == Output::Table {
            println!("{text}");
        }
    }

    /// Prints a step and keeps it.
    fn tell(
        &mut self,
        what: &str,
        waited: Duration,
        standstill: Option<Duration>,
        facts: Vec<String>,
    ) {
        let step = Step {
            what: what.to_owned(),
            standstill_ms: standstill.map(|gap| gap.as_millis()),
            standstill_goal_ms: standstill.map(|_| STANDSTILL_GOAL.as_millis()),
            waited_ms: waited.as_millis(),
            back_ms: None,
            back_goal_ms: None,
            facts,
        };
        self.keep(step);
    }

    fn keep(&mut self, step: Step) {
        let mut line = format!("  {:<34} waited {:>5} ms", step.what, step.waited_ms);
        if let (Some(ms), Some(goal)) = (step.standstill_ms, step.standstill_goal_ms) {
            line.push_str(&format!("   guest stood still {ms:>4} ms (goal {goal})"));
        } else if let Some(ms) = step.standstill_ms {
            line.push_str(&format!("   guest stood still {ms:>4} ms"));
        }
        if let (Some(ms), Some(goal)) = (step.back_ms, step.back_goal_ms) {
            line.push_str(&format!("   back after {ms:>4} ms (goal {goal})"));
        }
        self.say(&line);
        for fact in &step.facts {
            self.say(&format!("      ✓ {fact}"));
        }
        self.steps.push(step);
    }

    /// Gives the guest a number to remember, in RAM and on both disks.
    fn set(&self, number: u64) -> Result<()> {
        self.vm.guest.set_nonce(number)?;
        self.vm.guest.set_epoch(number)?;
        Ok(())
    }

    fn fresh(&self, snapshot: &Snapshot) -> Result<Snapshot> {
        self.world.get(&format!("/v1/snapshots/{}", snapshot.id))
    }

    /// The longest standstill since a moment, as the ticks show.
    fn standstill(&self, from: Instant) -> Result<Duration> {
        std::thread::sleep(Duration::from_millis(60));
        let gap = self.vm.guest.ticks().largest_gap(from, Instant::now());
        Ok(gap.context("the guest does not tick")?.length)
    }

    fn snapshot(&mut self, name: &str) -> Result<Snapshot> {
        let asked = Instant::now();
        let snapshot = self.vm.snapshot(&self.world, name, "disk-and-memory")?;
        let waited = asked.elapsed();
        let gap = self.standstill(asked)?;
        ensure!(snapshot.state == "ready", "{name} is {}", snapshot.state);
        ensure!(snapshot.current, "{name} is not current");
        let pause = snapshot.pause_ms.context("a pause was recorded")?;
        let facts = vec![format!("ready, with memory; recorded pause {pause} ms")];
        self.tell(&format!("snapshot {name:?}"), waited, Some(gap), facts);
        Ok(snapshot)
    }

    /// Goes back, and checks that RAM and both disks are of that moment.
    fn revert(&mut self, snapshot: &Snapshot, number: u64) -> Result<()> {
        let asked = Instant::now();
        self.vm.revert(&self.world, snapshot)?;
        let waited = asked.elapsed();
        let gap = self.vm.guest.ticks().largest_gap(asked, Instant::now());
        let gap = gap.context("the guest does not tick")?;
        let back = gap.from + gap.length - asked;
        let nonce = self.vm.guest.nonce()?;
        ensure!(nonce == number, "RAM holds {nonce}, not {number}");
        let epochs = self.vm.guest.epochs()?;
        ensure!(epochs.disks == [number, number], "the disks hold {:?}", epochs.disks);
        let blocks = self.vm.guest.blocks()?;
        ensure!(blocks.iter().all(Blocks::is_whole), "RAM and disks differ: {blocks:?}");
        let verified = self.vm.guest.verify()?;
        ensure!(verified.bad == 0, "{} pages are not as they were", verified.bad);
        let from = Instant::now();
        self.vm.guest.wait_for_tick_after(from, Duration::from_secs(5))?;
        self.keep(Step {
            what: format!("revert to {:?}", snapshot.name),
            standstill_ms: Some(gap.length.as_millis()),
            standstill_goal_ms: None,
            waited_ms: waited.as_millis(),
            back_ms: Some(back.as_millis()),
            back_goal_ms: Some(REVERT_GOAL.as_millis()),
            facts: vec![format!(
                "RAM and both disks hold {number} again, {} pages verified, the guest goes on",
                verified.pages
            )],
        });
        Ok(())
    }

    fn delete(&mut self, snapshot: &Snapshot, scope: &str, what: &str) -> Result<()> {
        let plan_path = format!("/v1/snapshots/{}?scope={scope}&dry_run=true", snapshot.id);
        let plan: tintype_wire::rest::Plan =
            self.world.wait(self.world.client().delete(&plan_path))?;
        let asked = Instant::now();
        self.vm.delete(&self.world, snapshot, scope)?;
        let waited = asked.elapsed();
        Pool::assert_agrees(&self.world, &self.vm)?;
        let gap = self.standstill(asked)?;
        let left = self.vm.snapshots(&self.world)?;
        let gone = |id| left.iter().all(|snapshot| snapshot.id != id);
        ensure!(plan.snapshots.iter().all(|s| gone(s.id)), "a deleted snapshot is still there");
        ensure!(left.iter().all(|s| s.state == "ready"), "another snapshot was harmed: {left:?}");
        let facts = vec![format!(
            "{} gone, {} left and ready, {} MiB freed at once",
            plan.snapshots.len(),
            left.len(),
            plan.freed_bytes >> 20
        )];
        self.tell(&format!("delete {what}"), waited, Some(gap), facts);
        Ok(())
    }

    fn draw(&self) -> Result<()> {
        if self.output == Output::Table {
            let drawn = self.world.tintype(&["snapshot", "tree", "demo"])?;
            ensure!(drawn.status.success(), "the tree was not drawn");
            println!("\n{}", String::from_utf8_lossy(&drawn.stdout));
        }
        Ok(())
    }

    /// Deletes what is left and compares the space with what it was before any snapshot.
    fn space(&mut self, before: u64) -> Result<()> {
        let with = Pool::of(&self.vm)?.bytes;
        let asked = Instant::now();
        self.world.delete(&self.vm.path("/snapshots"))?;
        let waited = asked.elapsed();
        let after = Pool::assert_agrees(&self.world, &self.vm)?;
        let gap = self.standstill(asked)?;
        ensure!(after.files.len() == 2, "each disk is one file: {:?}", after.files);
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let facts = vec![
            format!(
                "space before {}, with snapshots {}, after {}",
                mib(before),
                mib(with),
                mib(after.bytes)
            ),
            "each disk is one file again, no memory file is left".to_owned(),
        ];
        self.tell("delete all", waited, Some(gap), facts);
        Ok(())
    }

    fn finish(&self, took: Duration) -> Result<()> {
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&self.steps)?),
            Output::Table => {
                println!("\nEvery fact above was checked. {:.1} s in all.", took.as_secs_f64())
            }
        }
        Ok(())
    }
}
