//! The house rules that a compiler does not know.

use crate::states::{self, STATES};
use crate::{coverage, openapi};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tintype_model::access::table;
use tintype_model::refusal::Code;

/// Longest file, tests apart, in lines.
const FILE_MOST: usize = 600;
/// Where the table role × action is.
const ACCESS: &str = "docs/access.md";
/// Longest line, in characters.
const LINE_MOST: usize = 100;

/// Who may import whom: a crate and the crates of ours it may depend on.
const WALLS: [(&str, &[&str]); 11] = [
    ("model", &[]),
    ("witness", &[]),
    ("wire", &["model"]),
    ("store", &["model"]),
    ("drivers", &["model"]),
    ("server", &["model", "store", "wire"]),
    ("agent", &["model", "drivers", "wire"]),
    ("cli", &["model", "agent", "drivers", "server", "store", "wire"]),
    ("sim", &["model", "agent", "drivers", "server", "store", "wire"]),
    ("fuzz", &["model", "agent", "drivers", "server", "store"]),
    ("e2e", &["model", "store", "wire", "witness"]),
];

/// What the pure core must not touch.
const IMPURE: [&str; 10] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "new_v4",
    "HashMap",
    "HashSet",
    "std::env",
];

pub(crate) fn tidy(root: &Path, write: bool) -> Result<()> {
    let sources = sources(root)?;
    let mut flaws = Vec::new();
    if write {
        openapi::write(root)?;
        fs::write(root.join("docs/coverage.md"), coverage::document(root, &sources)?)?;
        fs::write(root.join(ACCESS), access_document())?;
        fs::write(root.join(STATES), states::document())?;
    }
    flaws.extend(stale(root, ACCESS, &access_document()));
    flaws.extend(stale(root, STATES, &states::document()));
    flaws.extend(openapi::flaw(root));
    flaws.extend(stale_coverage(root, &sources)?);
    flaws.extend(wall_flaws(root)?);
    flaws.extend(error_page_flaws(root)?);
    for source in &sources {
        flaws.extend(source_flaws(root, source)?);
    }
    if flaws.is_empty() {
        println!("tidy: {} files, no flaw", sources.len());
        return Ok(());
    }
    for flaw in &flaws {
        eprintln!("tidy: {flaw}");
    }
    bail!("{} flaws", flaws.len())
}

/// The table role × action, from the model.
fn access_document() -> String {
    format!(
        "# Who may do what\n\n\
         Made by `cargo xtask tidy --write` from `crates/model/src/access.rs`; CI compares\n\
         it.\n\n\
         Users belong to an account, accounts to a domain, domains to a tree. A viewer\n\
         and a user see what their account has; an operator and an administrator what\n\
         their domain and those beneath it have. What somebody does not see is not there\n\
         (404); what is seen may still be forbidden (403). A token never does more than\n\
         its scope.\n\n{}\n\
         Per virtual machine, `snapshots-allowed` and `memory-allowed` bind the role user only.\n\
         Limits and quotas bind everybody, unless an administrator says `--force`.\n",
        table()
    )
}

fn stale(root: &Path, file: &str, document: &str) -> Option<String> {
    let stale = fs::read_to_string(root.join(file)).unwrap_or_default() != document;
    stale.then(|| format!("{file} is not what the model says: cargo xtask tidy --write"))
}

/// Every Rust file of ours.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = ["crates", "guest", "xtask"].map(|name| root.join(name)).to_vec();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn stale_coverage(root: &Path, sources: &[PathBuf]) -> Result<Option<String>> {
    let kept = fs::read_to_string(root.join("docs/coverage.md")).unwrap_or_default();
    let stale = kept != coverage::document(root, sources)?;
    Ok(stale.then(|| "docs/coverage.md is not what the tests say: cargo xtask tidy --write".into()))
}

/// Crates that import what they must not: development dependencies are free.
fn wall_flaws(root: &Path) -> Result<Vec<String>> {
    let mut flaws = Vec::new();
    for entry in fs::read_dir(root.join("crates"))? {
        let folder = entry?.path();
        let name = folder.file_name().and_then(|n| n.to_str()).context("a crate has a name")?;
        let allowed = WALLS.iter().find(|(room, _)| *room == name);
        let Some((_, allowed)) = allowed else {
            flaws.push(format!("crates/{name} has no place in the table of walls"));
            continue;
        };
        let manifest = fs::read_to_string(folder.join("Cargo.toml"))?;
        let section = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let section = section.split("\n[").next().unwrap_or_default();
        for line in section.lines() {
            let Some(ours) = line.strip_prefix("tintype-") else {
                continue;
            };
            let ours = ours.split(['.', ' ', '=']).next().unwrap_or_default();
            if !allowed.contains(&ours) {
                flaws.push(format!("crates/{name} imports {ours} through a wall"));
            }
        }
    }
    Ok(flaws)
}

/// Codes without a page, and pages without a code.
fn error_page_flaws(root: &Path) -> Result<Vec<String>> {
    let codes: BTreeSet<String> = Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    let mut pages = BTreeSet::new();
    for entry in fs::read_dir(root.join("docs/errors"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        pages.extend(name.strip_suffix(".md").map(str::to_owned));
    }
    let missing = codes.difference(&pages).map(|code| format!("docs/errors/{code}.md is missing"));
    let stray =
        pages.difference(&codes).map(|page| format!("docs/errors/{page}.md is for no code"));
    Ok(missing.chain(stray).collect())
}

fn source_flaws(root: &Path, source: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(source)?;
    let name = source.strip_prefix(root)?.display().to_string();
    let is_test = name.contains("/tests/");
    let mut flaws = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_MOST && !is_test {
        flaws.push(format!("{name} has {lines} lines, {FILE_MOST} are the most"));
    }
    for (n, line) in text.lines().enumerate() {
        if line.chars().count() > LINE_MOST {
            flaws.push(format!("{name}:{} has more than {LINE_MOST} characters", n + 1));
        }
    }
    if name.starts_with("crates/model/src") {
        for word in IMPURE.iter().filter(|word| text.contains(**word)) {
            flaws.push(format!("{name} touches {word}: the model is pure"));
        }
    }
    Ok(flaws)
}
