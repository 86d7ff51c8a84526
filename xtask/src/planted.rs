//! Plants bugs into a copy of the sources, one at a time, and looks whether the simulator finds
//! them.

use crate::guest::run;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the bugs are described.
const BUGS: &str = "crates/sim/planted.toml";
/// How many seeds are tried to find one that finds a bug.
const HUNT: u64 = 10_000;

#[derive(Debug, Deserialize)]
struct Bugs {
    bug: Vec<Bug>,
}

#[derive(Debug, Deserialize)]
struct Bug {
    name: String,
    /// The file it is planted into.
    file: PathBuf,
    /// What stands there, once.
    text: String,
    /// What is put in its place.
    with: String,
    /// The seed that finds it.
    seed: u64,
}

/// Plants every bug, and fails if its seed does not find it, or finds something without it.
pub(crate) fn planted(root: &Path, hunt: bool) -> Result<()> {
    let text = fs::read_to_string(root.join(BUGS))?;
    let Bugs { bug: bugs } = toml::from_str(&text)?;
    let simulator = build(root, &bugs)?;
    if hunt {
        return hunt_all(root, &text, &simulator, &bugs);
    }
    for bug in &bugs {
        let found = |planted| finds(&simulator, bug.seed, 1, planted);
        ensure!(found("nothing")?.is_none(), "seed {} is not sound by itself", bug.seed);
        let Some(flaw) = found(&bug.name)? else {
            bail!("seed {} does not find {}: look for another with --hunt", bug.seed, bug.name)
        };
        println!("{:50} {flaw}", bug.name);
    }
    println!("{} planted bugs, all found", bugs.len());
    Ok(())
}

/// Writes down the first seed that finds each bug.
fn hunt_all(root: &Path, text: &str, simulator: &Path, bugs: &[Bug]) -> Result<()> {
    let mut written = text.to_owned();
    for bug in bugs {
        let flaw = finds(simulator, 0, HUNT, &bug.name)?;
        let Some(flaw) = flaw else { bail!("{} is not found by {HUNT} seeds", bug.name) };
        println!("{:50} {flaw}", bug.name);
        let seed = flaw.split([' ', ',']).nth(1).context("a flaw names its seed")?;
        let at = written.find(&format!("name = \"{}\"", bug.name)).context("it is there")?;
        let line = at + written[at..].find("\nseed = ").context("it has a seed")? + 1;
        let end = line + written[line..].find('\n').unwrap_or(written.len() - line);
        written.replace_range(line..end, &format!("seed = {seed}"));
    }
    Ok(fs::write(root.join(BUGS), written)?)
}

/// The first flaw that the simulator finds with a bug planted.
fn finds(simulator: &Path, from: u64, seeds: u64, planted: &str) -> Result<Option<String>> {
    let output = Command::new(simulator)
        .args(["--until-flaw", "--from", &from.to_string(), "--seeds", &seeds.to_string()])
        .env("PLANTED", planted)
        .env("RUST_BACKTRACE", "0")
        .stderr(Stdio::piped())
        .output()?;
    if output.status.success() {
        return Ok(None);
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let flaw = told.lines().find(|line| line.starts_with("seed "));
    Ok(Some(flaw.with_context(|| format!("the simulator failed: {told}"))?.to_owned()))
}

/// Builds the simulator from a copy of the sources with every bug in it, asleep.
fn build(root: &Path, bugs: &[Bug]) -> Result<PathBuf> {
    let copy = root.join("target/planted");
    let _ = fs::remove_dir_all(&copy);
    for name in ["crates", "guest", "xtask"] {
        copy_folder(&root.join(name), &copy.join(name))?;
    }
    for name in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(root.join(name), copy.join(name))?;
    }
    for bug in bugs {
        let asleep = format!("std::env::var_os(\"PLANTED\").is_some_and(|p| p == {:?})", bug.name);
        replace(&copy.join(&bug.file), &bug.text, &bug.with.replace("PLANTED", &asleep))
            .with_context(|| bug.name.clone())?;
    }
    // Beside the real one, with what both depend on built once: a version of their own keeps our
    // crates apart from their copies, which cargo would take for each other.
    replace(&copy.join("Cargo.toml"), "version = \"0.1.0\"", "version = \"0.1.0-planted\"")?;
    replace(&copy.join("crates/sim/Cargo.toml"), "name = \"sim\"", "name = \"sim-planted\"")?;
    let target = root.join("target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(&copy).env("CARGO_TARGET_DIR", &target);
    run(command.args(["build", "--quiet", "--package", "tintype-sim"]))?;
    Ok(target.join("debug/sim-planted"))
}

/// Puts something in the place of a text that stands once in a file.
fn replace(file: &Path, text: &str, with: &str) -> Result<()> {
    let all = fs::read_to_string(file)?;
    let places = all.matches(text).count();
    ensure!(places == 1, "its text stands {places} times in {}", file.display());
    Ok(fs::write(file, all.replace(text, with))?)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
