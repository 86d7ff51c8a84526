//! Answers for people: tables, progress, questions.

use crate::context::{Context, Output};
use crate::failure::Failure;
use crate::size;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tintype_wire::rest::{Operation, Plan};

/// Prints what the server said, as JSON, or as `table` makes it.
pub(crate) fn print<T: Serialize>(context: &Context, value: &T, table: impl FnOnce(&T) -> String) {
    let text = match context.output {
        Output::Json => serde_json::to_string_pretty(value).unwrap_or_default(),
        Output::Table => table(value),
    };
    line(&text);
}

/// Prints a line; a reader that is gone does not matter.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

/// Columns with a heading, as wide as they need to be.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(rows) {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Names and values, one on a line.
pub(crate) fn card(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    fields.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// Sees an operation through, with a bar on a terminal, unless the caller does not want to wait.
pub(crate) async fn follow(
    context: &Context,
    operation: Operation,
    done: impl FnOnce(&Operation) -> String,
) -> Result<Operation, Failure> {
    if !context.wait {
        print(context, &operation, |operation| format!("{} {}", operation.kind, operation.id));
        return Ok(operation);
    }
    let bar = bar(context, &operation);
    let ended = context
        .client
        .follow(operation.id, |operation| {
            bar.set_position((operation.progress * 100.0) as u64);
            bar.set_message(operation.step.clone());
        })
        .await;
    bar.finish_and_clear();
    let ended = ended?;
    match (&ended.error, ended.state.as_str()) {
        (Some(problem), _) => Err(Failure::failed(problem.clone())),
        (None, "cancelled") => Err(Failure::plain("the operation was cancelled", "")),
        (None, _) => {
            print(context, &ended, done);
            Ok(ended)
        }
    }
}

fn bar(context: &Context, operation: &Operation) -> ProgressBar {
    if context.output == Output::Json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3}% {elapsed} {msg}");
    let bar = ProgressBar::new(100).with_prefix(operation.kind.clone());
    bar.enable_steady_tick(Duration::from_millis(100));
    style.map_or(bar.clone(), |style| bar.with_style(style.progress_chars("=> ")))
}

/// On a terminal, says what is lost and asks.
pub(crate) fn confirm(context: &Context, lost: &str) -> Result<(), Failure> {
    if context.yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    eprint!("{}\nGo on? [y/N] ", lost.trim_end());
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::plain("nothing was done", ""))
}

/// Shows what would be lost, if anything, and asks; says whether to go on. A dry run only shows.
pub(crate) fn ask_about(context: &Context, plan: &Plan, dry_run: bool) -> Result<bool, Failure> {
    if dry_run {
        print(context, plan, show_plan);
        return Ok(false);
    }
    let nothing = plan.snapshots.is_empty()
        && plan.memory_lost.is_empty()
        && plan.disks.is_empty()
        && plan.lost.is_empty();
    if !nothing {
        confirm(context, &show_plan(plan))?;
    }
    Ok(true)
}

fn show_plan(plan: &Plan) -> String {
    let mut text = String::new();
    if !plan.lost.is_empty() {
        text.push_str(&format!("loses    {}\n", plan.lost));
    }
    for snapshot in &plan.snapshots {
        text.push_str(&format!("deletes  {:?} of {}\n", snapshot.name, snapshot.created_at));
    }
    for id in &plan.memory_lost {
        text.push_str(&format!("loses    the memory of snapshot {id}\n"));
    }
    for disk in &plan.disks {
        let size = size::show(disk.size_bytes);
        text.push_str(&format!("deletes  disk {} of {size}\n", disk.name));
    }
    if !plan.moved.is_empty() {
        text.push_str(&format!("moves up {} snapshots\n", plan.moved.len()));
    }
    text.push_str(&format!("frees    {}", size::show(plan.freed_bytes)));
    if plan.merged_bytes > 0 {
        text.push_str(&format!(", and what overlaps of {}", size::show(plan.merged_bytes)));
    }
    if plan.kept_bytes > 0 {
        text.push_str(&format!("; {} stay, for others", size::show(plan.kept_bytes)));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            vec![vec!["a".to_owned(), "running".to_owned()], vec!["longer".into(), "x".into()]];
        insta::assert_snapshot!(table(&["NAME", "STATE"], &rows), @r"
        NAME    STATE
        a       running
        longer  x
        ");
    }
}
