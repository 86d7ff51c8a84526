//! Benchmarks, and their tables in `docs/benchmarks.md`.

use crate::guest::run;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const DOCUMENT: &str = "docs/benchmarks.md";

/// Lists and creates with 20,000 machines and a million snapshots, or as many as are said.
pub(crate) fn lists(root: &Path, machines: u32, each: u32) -> Result<()> {
    run(cargo(root).args(["build", "--release", "--package", "tintype"]))?;
    let bench = ["bench", "--package", "tintype-server", "--bench", "lists", "--"];
    measure(root, "lists", cargo(root).args(bench).args([machines.to_string(), each.to_string()]))
}

/// How long guests of these sizes stand still for snapshots and reverts.
pub(crate) fn shutter(root: &Path, memory: &str, runs: u32) -> Result<()> {
    run(&mut Command::new(root.join("scripts/libvirt")))?;
    let program = with_guests(root, "shutter")?;
    let runs = runs.to_string();
    let pictures = root.join("docs/benchmarks");
    fs::create_dir_all(&pictures)?;
    let mut command = Command::new(program);
    command.args(["--memory", memory, "--runs", &runs]).arg("--pictures").arg(pictures);
    measure(root, "shutter", &mut command)
}

/// Many clients at once, and many guests.
pub(crate) fn soak(root: &Path, seconds: u64) -> Result<()> {
    let program = with_guests(root, "soak")?;
    measure(root, "soak", Command::new(program).args(["--seconds", &seconds.to_string()]))
}

/// What snapshots of disks cost, by their number and the disks' size.
pub(crate) fn disks(root: &Path) -> Result<()> {
    let program = with_guests(root, "disks")?;
    measure(root, "disks", &mut Command::new(program))
}

/// A benchmark that has guests, built with all that it needs.
fn with_guests(root: &Path, name: &str) -> Result<PathBuf> {
    crate::guest::build(root)?;
    let packages = ["--package", "tintype", "--package", "tintype-e2e"];
    run(cargo(root).args(["build", "--release"]).args(packages))?;
    Ok(root.join("target/release").join(name))
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Runs a benchmark that prints tables, and puts them into the document.
fn measure(root: &Path, name: &str, command: &mut Command) -> Result<()> {
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("the benchmark failed");
    }
    let table = String::from_utf8(output.stdout)?;
    print!("{table}");
    write(root, name, &format!("{}\n\n{}", machine()?, table.trim()))
}

/// What the numbers were measured on.
fn machine() -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown", |(_, model)| model);
    let cores = std::thread::available_parallelism()?;
    Ok(format!("Measured on {cores} cores of {model}, shared with others, release build."))
}

/// Puts a table between its marks.
fn write(root: &Path, name: &str, table: &str) -> Result<()> {
    let path = root.join(DOCUMENT);
    let text = fs::read_to_string(&path)?;
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let (before, rest) = text.split_once(&begin).with_context(|| format!("no {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no {end}"))?;
    fs::write(&path, format!("{before}{begin}\n{table}\n{end}{after}"))?;
    println!("wrote {DOCUMENT}");
    Ok(())
}
