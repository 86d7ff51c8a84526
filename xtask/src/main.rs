//! The project's own tools, run as `cargo xtask NAME`.

mod guest;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::Path;

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
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask has a parent");
    match Args::parse().task {
        Task::Guest => guest::build(root),
    }
}
