//! The real binary, real QEMU and real guests, from outside: one program, so that there are two
//! guests at a time until the last test.

mod console;
mod direct_io;
mod export;
mod foreign;
mod full_pool;
mod hostile;
mod kills;
mod ordinary;
mod people;
mod quiesce;
mod refusals;
mod revert_failures;
mod scenarios;
mod sharing;
mod snapshots;
mod survival;
mod terminal;

use anyhow::{Result, ensure};
use std::thread;
use std::time::{Duration, Instant};

/// How long something that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something holds.
fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < until, "{what} does not come true");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
