//! `docs/coverage.md`: which test proves which line of the requirements, made from the doc
//! comments of the tests.

use anyhow::{Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The lines there are: letter and how many.
const LINES: [(char, u32); 7] =
    [('A', 38), ('B', 19), ('C', 39), ('D', 14), ('E', 45), ('R', 20), ('P', 43)];

type Line = (char, u32);

/// Lines that are decided otherwise: by which decision, and how.
const DECIDED: &[(char, &[u32], u32, &str)] = &[
    ('A', &[2, 30, 31, 32], 18, "layers beside the disk, of which users see nothing"),
    ('A', &[5], 20, "said where a snapshot is taken, and on old ones"),
    ('A', &[37], 2, "`unlimited` is a value; the default is 3"),
    ('C', &[6, 7, 8], 20, "said where a snapshot is taken, and on old ones"),
    ('C', &[9], 18, "layers beside the disk, of which users see nothing"),
    ('C', &[17], 5, "hardware and names change as far as snapshots allow"),
    ('C', &[37], 3, "down for the switch only"),
];

/// Lines that come later, with what.
const LATER: &[(char, &[u32], &str)] = &[
    ('A', &[14, 16], "pages; the API is there"),
    ('A', &[17, 18, 19, 33, 34, 35, 36], "dialects"),
    ('A', &[22, 23, 24, 25, 26, 27, 28, 29], "Hyper-V"),
    ('C', &[4, 5, 10, 13, 14, 15, 16], "other storage and migration; files are there"),
    ('C', &[26, 30, 35], "pages"),
    ('E', &[1, 41, 42, 43, 44, 45], "Hyper-V"),
    ('E', &[14], "backups: schedules come with them"),
    ('E', &[24], "pages"),
    ('E', &[38], "images: volume snapshots come with them"),
    ('P', &[5, 20, 31], "images: volume snapshots come with them"),
    ('P', &[13, 15, 16, 17], "other storage, and graphics cards"),
    ('P', &[37, 42, 43], "dialects and backups"),
];

/// The document.
pub(crate) fn document(root: &Path, sources: &[PathBuf]) -> Result<String> {
    let mut proofs: BTreeMap<Line, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let text = fs::read_to_string(source)?;
        let file = source.strip_prefix(root)?.display().to_string();
        let contract = file.contains("/tests/") && text.contains("contract! {");
        for (test, lines) in tests(&text, contract) {
            for line in lines {
                proofs.entry(line).or_default().insert(format!("`{file}` {test}"));
            }
        }
    }
    let mut out = String::from(
        "# Which test proves which requirement\n\n\
         Made by `cargo xtask tidy --write` from the tests' doc comments; CI compares it. The\n\
         lines are those of the requirements checklist: A CloudCIX snapshots, B OpenStack\n\
         snapshot images, C VMmanager snapshots, D CloudCIX backups, E CloudStack VM\n\
         snapshots, R decisions, P cases that other systems' tests and bug reports tell of,\n\
         replayed.\n\n\
         | line | | |\n|---|---|---|\n",
    );
    let join = |tests: &BTreeSet<String>| {
        tests.iter().map(String::as_str).collect::<Vec<_>>().join("<br>")
    };
    let mut open = Vec::new();
    for (letter, count) in LINES {
        for line in (1..=count).map(|n| (letter, n)) {
            let name = format!("{letter}{}", line.1);
            if let Some((decision, how)) = decided(line) {
                let tests = proofs.get(&('R', decision)).map(join).unwrap_or_default();
                ensure!(!tests.is_empty(), "{name} is decided by R{decision}, which no test names");
                writeln!(out, "| {name} | decided otherwise: R{decision} | {how}<br>{tests} |")?;
            } else if let Some(tests) = proofs.get(&line) {
                let note = later(line).map(|what| format!("; {what} later")).unwrap_or_default();
                writeln!(out, "| {name} | proved{note} | {} |", join(tests))?;
            } else if let Some(what) = later(line) {
                writeln!(out, "| {name} | later | {what} |")?;
            } else {
                open.push(name);
            }
        }
    }
    let missed: Vec<&String> =
        open.iter().filter(|name| name.starts_with(['A', 'C', 'E', 'P'])).collect();
    ensure!(missed.is_empty(), "neither proved, decided otherwise nor later: {missed:?}");
    writeln!(out, "\n## Not named by a test yet\n\n{}", open.join(" "))?;
    Ok(out)
}

/// The decision that a line is settled by otherwise, and how.
fn decided(line: Line) -> Option<(u32, &'static str)> {
    let found = DECIDED.iter().find(|(letter, of, ..)| *letter == line.0 && of.contains(&line.1));
    found.map(|&(.., decision, how)| (decision, how))
}

/// What a line comes with, later.
fn later(line: Line) -> Option<&'static str> {
    let found = LATER.iter().find(|(letter, of, _)| *letter == line.0 && of.contains(&line.1));
    found.map(|&(.., what)| what)
}

/// Every test with the requirement lines that its doc comment names. In a contract suite every
/// function with a doc comment is a case.
fn tests(text: &str, contract: bool) -> Vec<(String, BTreeSet<Line>)> {
    let mut found = Vec::new();
    let mut lines = BTreeSet::new();
    let mut is_test = contract;
    for line in text.lines().map(str::trim) {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(comment) = line.strip_prefix("///") {
            lines.extend(named(comment));
        } else if line == "#[test]" || line == "#[tokio::test]" {
            is_test = true;
        } else if let Some(rest) = function {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            if is_test && !lines.is_empty() {
                found.push((name.to_owned(), lines.clone()));
            }
            lines.clear();
            is_test = contract;
        } else if !line.starts_with("#[") {
            lines.clear();
        }
    }
    found
}

/// The requirement lines in a comment, such as `C25, E18` or `E33–E35`.
fn named(comment: &str) -> Vec<Line> {
    let words = comment.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter_map(|word| {
            let letter = word.chars().next()?;
            let number = word.get(1..)?.parse().ok()?;
            LINES
                .iter()
                .any(|&(l, most)| l == letter && (1..=most).contains(&number))
                .then_some((letter, number))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::tests;

    #[test]
    fn lines_are_found_in_doc_comments_of_tests() {
        let text = "/// C25, R3: a rule.\n#[test]\nfn holds() {}\n/// E1\nfn helper() {}\n";
        let found = tests(text, false);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "holds");
        assert_eq!(found[0].1.iter().copied().collect::<Vec<_>>(), [('C', 25), ('R', 3)]);
    }
}
