//! The project's own tools, run as `cargo xtask NAME`.

mod bench;
mod coverage;
mod fuzz;
mod guest;
mod openapi;
mod planted;
mod states;
mod tidy;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use std::path::Path;
use std::process::Command;

#[derive(Parser)]
#[command(name = "cargo xtask", about)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the test guest's kernel and initramfs in target/guest
    Guest,
    /// Check walls, sizes, and that what is generated is up to date
    Tidy {
        /// Write what is generated instead of comparing it
        #[arg(long)]
        write: bool,
    },
    /// Write openapi/tintype.json
    Openapi,
    /// Measure, and write the table in docs/benchmarks.md
    #[command(subcommand)]
    Bench(Bench),
    /// Kill tintype at every step of every kind of effect, several rounds
    Kills,
    /// Run simulated worlds, optimised and on every processor
    Sim {
        /// How many
        #[arg(long, default_value_t = 1_000_000)]
        seeds: u64,
        /// The first seed
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Feed whatever parses outside bytes with bytes that nobody would send, under libFuzzer
    Fuzz {
        /// How long each target runs
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Only these targets
        targets: Vec<String>,
    },
    /// Have many clients hammer one server, and snapshot many guests at once
    Soak {
        /// For how long
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// Plant bugs into a copy of the sources and see that the simulator finds them
    Planted {
        /// Look for seeds that find them, and write these down
        #[arg(long)]
        hunt: bool,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// What snapshots of disks cost, by their number and the disks' size
    Disks,
    /// Lists and creates with a database as large as a cloud's
    Lists {
        /// How many machines
        #[arg(long, default_value_t = 20_000)]
        machines: u32,
        /// How many snapshots each has
        #[arg(long, default_value_t = 50)]
        each: u32,
    },
    /// How long a guest stands still for snapshots and reverts, as seen from outside
    Shutter {
        /// Sizes of the guest's memory in MiB, with commas between
        #[arg(long, default_value = "1024,4096,8192")]
        memory: String,
        /// How often each thing is done
        #[arg(long, default_value_t = 20)]
        runs: u32,
    },
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent");
    match Args::parse().task {
        Task::Guest => guest::build(root),
        Task::Tidy { write } => tidy::tidy(root, write),
        Task::Openapi => openapi::write(root),
        Task::Bench(Bench::Disks) => bench::disks(root),
        Task::Bench(Bench::Lists { machines, each }) => bench::lists(root, machines, each),
        Task::Bench(Bench::Shutter { memory, runs }) => bench::shutter(root, &memory, runs),
        Task::Kills => kills(root),
        Task::Sim { seeds, from } => sim(root, seeds, from),
        Task::Fuzz { seconds, targets } => fuzz::fuzz(root, seconds, &targets),
        Task::Soak { seconds } => bench::soak(root, seconds),
        Task::Planted { hunt } => planted::planted(root, hunt),
    }
}

fn sim(root: &Path, seeds: u64, from: u64) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["run", "--quiet", "--release", "--package", "tintype-sim", "--"]);
    guest::run(cargo.args(["--seeds", &seeds.to_string(), "--from", &from.to_string()]))
}

fn kills(root: &Path) -> Result<()> {
    guest::build(root)?;
    let cargo = || {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(root);
        command
    };
    guest::run(cargo().arg("build"))?;
    let tests = ["test", "--package", "tintype-e2e", "--test", "guests", "--", "kills::"];
    let status = cargo()
        .args(tests)
        .args(["--nocapture", "--test-threads", "2"])
        .env("TINTYPE_KILLS", "full")
        .status()?;
    if !status.success() {
        bail!("a kill was not survived");
    }
    Ok(())
}
