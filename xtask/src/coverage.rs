//! `docs/coverage.md`: which test proves which line of the requirements, made from the doc
//! comments of the tests.

use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The lines there are: letter and how many.
const LINES: [(char, u32); 6] = [('A', 38), ('B', 19), ('C', 39), ('D', 14), ('E', 45), ('R', 20)];

type Line = (char, u32);

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
         snapshots, R decisions.\n\n\
         | line | proved by |\n|---|---|\n",
    );
    for (line, tests) in &proofs {
        let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
        writeln!(out, "| {}{} | {} |", line.0, line.1, tests.join("<br>"))?;
    }
    out.push_str("\n## Not named by a test yet\n\n");
    for (letter, count) in LINES {
        let open = (1..=count).filter(|n| !proofs.contains_key(&(letter, *n)));
        let open: Vec<String> = open.map(|n| format!("{letter}{n}")).collect();
        writeln!(out, "- {}", open.join(" "))?;
    }
    Ok(out)
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
