//! A tick every few milliseconds: what an observer outside measures standstills by.

use crate::console::Console;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two ticks.
const PERIOD: Duration = Duration::from_millis(4);

pub(crate) struct Ticks {
    largest_gap_us: Arc<AtomicU64>,
}

impl Ticks {
    pub(crate) fn start(console: Arc<Console>) -> Self {
        let largest_gap_us = Arc::new(AtomicU64::new(0));
        let largest = Arc::clone(&largest_gap_us);
        thread::spawn(move || {
            let mut due = Instant::now();
            let mut last = due;
            for n in 0_u64.. {
                due += PERIOD;
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
        Self { largest_gap_us }
    }

    /// The longest time between two ticks since the last call, in microseconds of guest time.
    pub(crate) fn largest_gap_us(&self) -> u64 {
        self.largest_gap_us.swap(0, Ordering::Relaxed)
    }
}
