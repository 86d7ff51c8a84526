//! Feeds what parses outside bytes, under libFuzzer: builds every target, lets each run for a
//! while, and keeps of what they have found the little that leads everywhere.

use crate::guest::run;
use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

/// Where the crate is that has the targets and their corpora.
const CRATE: &str = "crates/fuzz";
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// How many files of a corpus are kept, the smallest.
const KEPT_MOST: usize = 100;
/// The largest file that is kept, and that is tried, in bytes.
const LENGTH_MOST: u64 = 4096;
/// What one input may take, in seconds, and all of a target, in MiB.
const LIMITS: [&str; 2] = ["-timeout=20", "-rss_limit_mb=3000"];

/// Runs these targets, or all, each for so many seconds.
pub(crate) fn fuzz(root: &Path, seconds: u64, only: &[String]) -> Result<()> {
    let targets = targets(root)?;
    if let Some(unknown) = only.iter().find(|name| !targets.contains(name)) {
        bail!("there is no {unknown}: {}", targets.join(", "));
    }
    build(root)?;
    let chosen = targets.into_iter().filter(|name| only.is_empty() || only.contains(name));
    let left: Mutex<VecDeque<String>> = Mutex::new(chosen.collect());
    let failed: Mutex<Vec<String>> = Mutex::default();
    let at_once = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(name) = next(&left) {
                    if let Err(error) = feed(root, &name, seconds) {
                        failed.lock().expect("no holder panics").push(format!("{error:#}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no holder panics");
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("\n")) }
}

fn next(left: &Mutex<VecDeque<String>>) -> Option<String> {
    left.lock().expect("no holder panics").pop_front()
}

/// The targets, by the files that are theirs.
fn targets(root: &Path) -> Result<Vec<String>> {
    let files = fs::read_dir(root.join(CRATE).join("targets"))?;
    let names = files.map(|file| {
        let path = file?.path();
        let name =
            path.file_stem().and_then(|name| name.to_str()).context("a target has a name")?;
        Ok(name.to_owned())
    });
    let mut names: Vec<String> = names.collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

fn build(root: &Path) -> Result<()> {
    let mut version = Command::new("rustup");
    version.args(["run", "nightly", "cargo", "fuzz", "--version"]);
    let has = version.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        bail!("the fuzzer is missing: rustup toolchain install nightly; cargo install cargo-fuzz");
    }
    let cargo = ["run", "nightly", "cargo", "fuzz", "build", "--fuzz-dir", CRATE];
    let mut build = Command::new("rustup");
    build.args(cargo).args(["--features", "libfuzzer"]).current_dir(root);
    // Each target would be optimised across all crates for minutes.
    let quickly =
        [("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")];
    run(build.envs(quickly))
}

/// Lets one run, and keeps what it found.
fn feed(root: &Path, name: &str, seconds: u64) -> Result<()> {
    let kept = root.join(CRATE).join("corpus").join(name);
    let work = root.join("target/fuzz").join(name);
    let (found, crashes) = (work.join("found"), work.join("crashes"));
    for folder in [&kept, &found, &crashes] {
        fs::create_dir_all(folder)?;
    }
    let log = fs::File::create(work.join("log"))?;
    let status = fuzzer(root, name)
        .args(LIMITS)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LENGTH_MOST}"))
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .args([&found, &kept])
        .stderr(log)
        .status()?;
    let said = fs::read_to_string(work.join("log"))?;
    if !status.success() {
        bail!("{name} has found a flaw, see {}", work.join("log").display());
    }
    keep(root, name, &work, &kept)?;
    let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units: "));
    let cover = said.lines().rev().find_map(|line| line.split_once("cov: ")?.1.split(' ').next());
    println!(
        "{name}: {seconds} s, {} inputs, {} edges, no flaw",
        runs.unwrap_or("?"),
        cover.unwrap_or("?")
    );
    Ok(())
}

/// The corpus becomes what leads as far with the fewest files, the smallest of these.
fn keep(root: &Path, name: &str, work: &Path, kept: &Path) -> Result<()> {
    let least = work.join("least");
    let _ = fs::remove_dir_all(&least);
    fs::create_dir_all(&least)?;
    let quiet = fs::File::create(work.join("merge.log"))?;
    let merge = fuzzer(root, name)
        .args(LIMITS)
        .args(["-merge=1"])
        .args([&least, &kept.to_owned(), &work.join("found")])
        .stderr(quiet)
        .status()?;
    if !merge.success() {
        bail!("{name}: what was found could not be merged");
    }
    let mut files = files(&least)?;
    files.sort_by_key(|(length, path)| (*length, path.clone()));
    for (_, path) in self::files(kept)? {
        fs::remove_file(path)?;
    }
    for (_, path) in files.into_iter().take(KEPT_MOST) {
        let file = path.file_name().context("a file has a name")?;
        fs::copy(&path, kept.join(file))?;
    }
    Ok(())
}

fn fuzzer(root: &Path, name: &str) -> Command {
    let mut command = Command::new(root.join("target").join(PLATFORM).join("release").join(name));
    command.current_dir(root).stdout(Stdio::null());
    // SQLite has two tables of one name, as it is bundled.
    command.env("ASAN_OPTIONS", "detect_odr_violation=0");
    command
}

fn files(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = fs::read_dir(folder)?;
    entries
        .map(|entry| entry.and_then(|e| Ok((e.metadata()?.len(), e.path()))).map_err(Into::into))
        .collect()
}
