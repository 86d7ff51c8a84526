//! What the guest's program answers, taken apart.

use crate::Guest;
use anyhow::{Context, Result};

/// The epoch in RAM and on each disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epochs {
    /// In RAM.
    pub ram: u64,
    /// On each disk.
    pub disks: Vec<u64>,
}

/// The ring of numbered blocks of one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// The last write whose completion the guest has seen.
    pub ram: u64,
    /// The highest number on the disk.
    pub disk: u64,
    /// Blocks that do not hold what they should.
    pub damaged: u64,
    /// Writes that found another moment on the disk than RAM remembers.
    pub torn: u64,
}

/// Pages of filled RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// How many.
    pub pages: u64,
    /// How many did not hold what was written.
    pub bad: u64,
}

/// What is done to blocks of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    /// They are read.
    Read,
    /// They are written.
    Write,
}

impl Blocks {
    /// Whether RAM and this disk are of one moment: a write that was done and whose completion
    /// was not seen yet is allowed.
    pub fn is_whole(&self) -> bool {
        self.damaged == 0 && self.torn == 0 && (self.disk == self.ram || self.disk == self.ram + 1)
    }
}

impl Guest {
    /// Puts a number into RAM.
    ///
    /// # Errors
    /// When the guest does not answer; so for all of these.
    pub fn set_nonce(&self, nonce: u64) -> Result<()> {
        self.ask(&format!("nonce {nonce}")).map(drop)
    }

    /// The number in RAM.
    pub fn nonce(&self) -> Result<u64> {
        Ok(self.ask("nonce")?.parse()?)
    }

    /// Sets the epoch in RAM and on every disk.
    pub fn set_epoch(&self, epoch: u64) -> Result<Epochs> {
        parse_epochs(&self.ask(&format!("epoch {epoch}"))?)
    }

    /// The epochs.
    pub fn epochs(&self) -> Result<Epochs> {
        parse_epochs(&self.ask("epoch")?)
    }

    /// Fills a share of the free RAM with random pages.
    pub fn fill(&self, percent: u64) -> Result<u64> {
        Ok(self.ask(&format!("fill {percent} random"))?.parse()?)
    }

    /// Looks at every filled page.
    pub fn verify(&self) -> Result<Verified> {
        let answer = self.ask("verify")?;
        Ok(Verified { pages: field(&answer, "pages")?, bad: field(&answer, "bad")? })
    }

    /// Writes numbered blocks to every disk, so many a second; 0 stops.
    pub fn write(&self, rate: u64) -> Result<()> {
        self.ask(&format!("write {rate}")).map(drop)
    }

    /// Rewrites filled pages, so many a second.
    pub fn dirty(&self, rate: u64) -> Result<()> {
        self.ask(&format!("dirty {rate}")).map(drop)
    }

    /// Ticks at the console every so many milliseconds: what is said there costs the host most.
    pub fn pace(&self, ms: u64) -> Result<()> {
        self.ask(&format!("pace {ms}")).map(drop)
    }

    /// Ticks also at the agent's port, where a [`Pulse`](crate::Pulse) hears them, every so many
    /// microseconds; 0 stops.
    pub fn tick(&self, period_us: u64) -> Result<()> {
        self.ask(&format!("tick {period_us}")).map(drop)
    }

    /// Writes so many blocks of the first disk, behind the numbered ones, in a row.
    pub fn lay(&self, blocks: u64) -> Result<()> {
        self.ask(&format!("lay {blocks}")).map(drop)
    }

    /// How often one of these blocks is read or written at random in so many milliseconds.
    pub fn io(&self, act: Io, blocks: u64, ms: u64) -> Result<u64> {
        let act = match act {
            Io::Read => "read",
            Io::Write => "write",
        };
        Ok(self.ask(&format!("io {act} {blocks} {ms}"))?.parse()?)
    }

    /// The rings of numbered blocks.
    pub fn blocks(&self) -> Result<Vec<Blocks>> {
        self.ask("blocks")?
            .split_whitespace()
            .map(|disk| {
                Ok(Blocks {
                    ram: field(disk, "ram")?,
                    disk: field(disk, "disk")?,
                    damaged: field(disk, "damaged")?,
                    torn: field(disk, "torn")?,
                })
            })
            .collect()
    }
}

fn parse_epochs(answer: &str) -> Result<Epochs> {
    let (ram, disks) = answer.split_once(" disks=").context("no epochs in the answer")?;
    let disks = disks.split(',').filter(|n| !n.is_empty()).map(str::parse).collect();
    Ok(Epochs {
        ram: field(ram, "ram")?,
        disks: Result::<_, _>::map_err(disks, anyhow::Error::from)?,
    })
}

/// The number behind `name=`.
fn field(text: &str, name: &str) -> Result<u64> {
    let words = text.split([' ', ',']);
    let value = words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name);
    Ok(value.with_context(|| format!("no {name} in {text:?}"))?.1.parse()?)
}
