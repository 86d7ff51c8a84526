//! A tick every few milliseconds: what an observer outside measures standstills by.

use crate::console::Console;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two ticks at first, in milliseconds.
const PERIOD_MS: u64 = 4;

/// Nobody has asked for ticks at the port yet.
const NEVER: u64 = u64::MAX;

pub(crate) struct Ticks {
    period_ms: Arc<AtomicU64>,
    /// Time between two ticks at the agent's port.
    port_period_us: Arc<AtomicU64>,
    largest_gap_us: Arc<AtomicU64>,
}

impl Ticks {
    pub(crate) fn start(console: Arc<Console>) -> Self {
        let largest_gap_us = Arc::new(AtomicU64::new(0));
        let largest = Arc::clone(&largest_gap_us);
        let period_ms = Arc::new(AtomicU64::new(PERIOD_MS));
        let period = Arc::clone(&period_ms);
        thread::spawn(move || {
            let mut due = Instant::now();
            let mut last = due;
            for n in 0_u64.. {
                due += Duration::from_millis(period.load(Ordering::Relaxed));
                let now = Instant::now();
                match due.checked_duration_since(now) {
                    Some(wait) => thread::sleep(wait),
                    None => due = now,
                }
                let now = Instant::now();
                largest.fetch_max((now - last).as_micros() as u64, Ordering::Relaxed);
                last = now;
                console.line(&format!("T {n}"));
            }
        });
        let port_period_us = Arc::new(AtomicU64::new(NEVER));
        Self { period_ms, port_period_us, largest_gap_us }
    }

    /// Ticks every so many milliseconds from now on: a guest that says less costs its host less.
    pub(crate) fn pace(&self, ms: u64) {
        self.period_ms.store(ms.max(1), Ordering::Relaxed);
    }

    /// Ticks also at the agent's port, which is faster than the console: every `period_us`, a line
    /// with a number; 0 stops.
    pub(crate) fn tick_at_port(&self, period_us: u64) -> Result<(), String> {
        if self.port_period_us.load(Ordering::Relaxed) == NEVER {
            let port = open_port().map_err(|error| error.to_string())?;
            let period_us = Arc::clone(&self.port_period_us);
            thread::spawn(move || tick_steadily(port, &period_us));
        }
        self.port_period_us.store(period_us, Ordering::Relaxed);
        Ok(())
    }

    /// The longest time between two ticks since the last call, in microseconds of guest time.
    pub(crate) fn largest_gap_us(&self) -> u64 {
        self.largest_gap_us.swap(0, Ordering::Relaxed)
    }
}

fn tick_steadily(mut port: File, period_us: &AtomicU64) {
    let (mut due, mut number) = (Instant::now(), 0_u64);
    loop {
        let period = period_us.load(Ordering::Relaxed);
        if period == 0 || period == NEVER {
            thread::sleep(Duration::from_millis(5));
            due = Instant::now();
            continue;
        }
        due += Duration::from_micros(period.max(100));
        match due.checked_duration_since(Instant::now()) {
            Some(wait) => thread::sleep(wait),
            None => due = Instant::now(),
        }
        // Nobody listens now and then; a tick that is not heard is lost.
        let _ = port.write_all(format!("{number}\n").as_bytes());
        number += 1;
    }
}

/// The only virtio-serial port that a machine has.
fn open_port() -> io::Result<File> {
    let mut ports = fs::read_dir("/sys/class/virtio-ports")?;
    let port = ports.next().ok_or_else(|| io::Error::other("there is no port"))??;
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NONBLOCK);
    options.open(Path::new("/dev").join(port.file_name()))
}
