//! Numbered steps: every journal write, QMP command and file change of an effect, before and after.
//!
//! A step is where a process can die. The e2e suite kills tintype at each of them (`tintype serve
//! --kill-at WORD:N`), and lists them with `--trace-steps FILE`. An effect runs on one thread, so
//! its counter is kept there; background threads have none and pass through.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

/// What to do at which step, for the whole process.
#[derive(Debug, Default)]
pub struct Plan {
    /// Dies at step N of the first effect with this word.
    pub kill_at: Option<(String, u32)>,
    /// Appends every step as a line `word number label` here.
    pub trace: Option<PathBuf>,
}

static PLAN: OnceLock<Plan> = OnceLock::new();

thread_local! {
    static ACT: RefCell<Option<Act>> = const { RefCell::new(None) };
}

struct Act {
    word: &'static str,
    number: u32,
    seen: Vec<String>,
}

/// Sets the plan of this process; the first call counts.
pub fn set_plan(plan: Plan) {
    let _ = PLAN.set(plan);
}

/// Counts the steps of an effect on this thread from now on, until the guard is dropped.
pub fn begin(word: &'static str) -> Guard {
    if PLAN.get().is_some() {
        ACT.set(Some(Act { word, number: 0, seen: Vec::new() }));
    }
    Guard
}

/// Ends the counting when dropped.
#[derive(Debug)]
pub struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        ACT.set(None);
    }
}

/// Passes a step before and after `act`. Steps that repeat (polling) count once.
pub fn around<T>(label: &str, act: impl FnOnce() -> T) -> T {
    before(label);
    let result = act();
    after(label);
    result
}

/// Passes the step before an act that ends elsewhere.
pub(crate) fn before(label: &str) {
    point(label, "before");
}

/// Passes the step after an act.
pub(crate) fn after(label: &str) {
    point(label, "after");
}

fn point(label: &str, side: &str) {
    let Some(plan) = PLAN.get() else { return };
    ACT.with_borrow_mut(|act| {
        let Some(act) = act else { return };
        let step = format!("{side} {label}");
        if label.starts_with("poll ") {
            if act.seen.contains(&step) {
                return;
            }
            act.seen.push(step.clone());
        }
        act.number += 1;
        if let Some(path) = &plan.trace
            && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
        {
            let _ = writeln!(file, "{} {} {step}", act.word, act.number);
        }
        if plan.kill_at.as_ref().is_some_and(|(word, n)| word == act.word && *n == act.number) {
            die();
        }
    });
}

/// As sudden as a power cut, for this process.
fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}
