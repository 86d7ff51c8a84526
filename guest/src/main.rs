//! The only program of the test guest. It answers commands on the serial console and emits ticks
//! there, so that an observer outside sees what the guest lost and what it still remembers.
//!
//! One command a line, one answer a line (`ok …` or `error …`); ticks are lines `T <number>`.
//!
//! | command | answer |
//! |---|---|
//! | `nonce [N]` | the nonce held in RAM, after setting it |
//! | `fill PERCENT random\|address` | pages filled |
//! | `verify` | pages verified and bad |
//! | `dirty RATE` | rewrites RATE random filled pages a second |
//! | `epoch [N]` | the epoch in RAM and on each disk, after setting all |
//! | `write RATE` | numbered blocks to each disk, RATE a second (0 stops) |
//! | `lay BLOCKS` | so many blocks of the first disk, behind the numbered ones, written in a row |
//! | `io read\|write BLOCKS MS` | how often one of these was read or written at random meanwhile |
//! | `blocks` | per disk: last number in RAM, on disk, damaged, torn |
//! | `tick US` | ticks also at the agent's port, as plain numbers, US microseconds apart; 0 stops |
//! | `pace MS` | ticks here every MS milliseconds, 4 at first |
//! | `gap` | longest time between two ticks by the guest's own clock, then reset |

mod blocks;
mod console;
mod memory;
mod power;
mod ticks;

use blocks::{Act, Disks};
use console::Console;
use memory::Memory;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

struct Guest {
    nonce: AtomicU64,
    epoch: AtomicU64,
    memory: Memory,
    disks: Disks,
    ticks: ticks::Ticks,
}

fn main() {
    let console = Arc::new(Console::open("/dev/ttyS0").expect("the serial console opens"));
    power::watch_button();
    let guest = Guest {
        nonce: AtomicU64::new(0),
        epoch: AtomicU64::new(0),
        memory: Memory::default(),
        disks: Disks::find(),
        ticks: ticks::Ticks::start(Arc::clone(&console)),
    };
    console.line(&format!("READY disks={}", guest.disks.count()));
    loop {
        let Some(line) = console.read_line() else {
            continue;
        };
        let answer = match guest.answer(line.trim()) {
            Ok(answer) => format!("ok {answer}"),
            Err(reason) => format!("error {reason}"),
        };
        console.line(&answer);
    }
}

impl Guest {
    fn answer(&self, line: &str) -> Result<String, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["nonce"] => Ok(self.nonce.load(Ordering::SeqCst).to_string()),
            ["nonce", n] => {
                self.nonce.store(number(n)?, Ordering::SeqCst);
                Ok((*n).to_owned())
            }
            ["fill", percent, "random"] => {
                self.memory.fill(number(percent)?, memory::Content::Random)
            }
            ["fill", percent, "address"] => {
                self.memory.fill(number(percent)?, memory::Content::Address)
            }
            ["verify"] => Ok(self.memory.verify()),
            ["dirty", rate] => {
                self.memory.dirty(number(rate)?);
                Ok((*rate).to_owned())
            }
            ["epoch"] => self.epochs(),
            ["epoch", n] => {
                let epoch = number(n)?;
                self.epoch.store(epoch, Ordering::SeqCst);
                self.disks.set_epoch(epoch)?;
                self.epochs()
            }
            ["write", rate] => {
                self.disks.write(number(rate)?);
                Ok((*rate).to_owned())
            }
            ["blocks"] => self.disks.report(),
            ["lay", blocks] => self.disks.lay(number(blocks)?),
            ["io", act @ ("read" | "write"), blocks, ms] => {
                let act = if *act == "read" { Act::Read } else { Act::Write };
                self.disks.at_random(act, number(blocks)?, Duration::from_millis(number(ms)?))
            }
            ["tick", period_us] => {
                self.ticks.tick_at_port(number(period_us)?)?;
                Ok((*period_us).to_owned())
            }
            ["pace", ms] => {
                self.ticks.pace(number(ms)?);
                Ok((*ms).to_owned())
            }
            ["gap"] => Ok(self.ticks.largest_gap_us().to_string()),
            _ => Err(format!("unknown command {line:?}")),
        }
    }

    fn epochs(&self) -> Result<String, String> {
        let disks: Vec<String> = self.disks.epochs()?.iter().map(u64::to_string).collect();
        Ok(format!("ram={} disks={}", self.epoch.load(Ordering::SeqCst), disks.join(",")))
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("not a number: {word:?}"))
}
