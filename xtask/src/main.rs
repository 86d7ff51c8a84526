//! The project's own tools, run as `cargo xtask NAME`.

mod coverage;
mod guest;
mod openapi;
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
    /// Kill tintype at every step of every kind of effect, several rounds
    Kills,
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent");
    match Args::parse().task {
        Task::Guest => guest::build(root),
        Task::Tidy { write } => tidy::tidy(root, write),
        Task::Openapi => openapi::write(root),
        Task::Kills => kills(root),
    }
}

fn kills(root: &Path) -> Result<()> {
    guest::build(root)?;
    let cargo = || {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(root);
        command
    };
    guest::run(cargo().arg("build"))?;
    let tests = ["test", "--package", "tintype-e2e", "--test", "kills", "--"];
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
