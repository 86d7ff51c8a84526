//! Numbered, checksummed blocks on every disk: the torn-snapshot detector.
//!
//! Block 0 of a disk holds its epoch. The blocks behind it are a ring: write number `n` goes to
//! slot `n % slots`. Before each write the slot must hold `n - slots` and the slot before it
//! `n - 1`; a disk from a later moment than this RAM holds more, one from an earlier moment less,
//! and either is counted as torn. A write whose completion the guest had not seen when the
//! snapshot was taken may be on the disk already: that one is not torn.
//!
//! Behind the ring of the first disk lie blocks that mean nothing, to read and write at random.

use crate::memory::{SEED, next};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const MAGIC: u64 = 0x7469_6e74_7970_6531;
const MOST_SLOTS: u64 = 1024;
/// The first block behind every ring.
const BEHIND: u64 = MOST_SLOTS + 1;

/// What is done to a block at random.
#[derive(Clone, Copy)]
pub(crate) enum Act {
    Read,
    Write,
}

/// A block aligned as direct I/O wants it.
#[repr(align(4096))]
#[derive(Clone)]
struct Block([u8; BLOCK]);

pub(crate) struct Disks {
    rings: Vec<Arc<Mutex<Ring>>>,
    rate: Arc<AtomicU64>,
    writing: Once,
}

struct Ring {
    file: File,
    slots: u64,
    /// The last write whose completion was seen.
    last: u64,
    torn: u64,
}

impl Disks {
    /// Every virtio disk, in the order of its name.
    pub(crate) fn find() -> Self {
        let mut rings = Vec::new();
        for letter in 'a'..='z' {
            if let Ok(ring) = Ring::open(&format!("/dev/vd{letter}")) {
                rings.push(Arc::new(Mutex::new(ring)));
            }
        }
        Self { rings, rate: Arc::default(), writing: Once::new() }
    }

    pub(crate) fn count(&self) -> usize {
        self.rings.len()
    }

    pub(crate) fn set_epoch(&self, epoch: u64) -> Result<(), String> {
        self.each(|ring| ring.put(0, epoch)).map(drop)
    }

    pub(crate) fn epochs(&self) -> Result<Vec<u64>, String> {
        self.each(|ring| Ok(ring.get(0)?.unwrap_or(0)))
    }

    /// Writes `rate` blocks a second to each disk from now on.
    pub(crate) fn write(&self, rate: u64) {
        self.rate.store(rate, Ordering::SeqCst);
        self.writing.call_once(|| {
            for ring in &self.rings {
                let (ring, rate) = (Arc::clone(ring), Arc::clone(&self.rate));
                thread::spawn(move || write_steadily(&ring, &rate));
            }
        });
    }

    /// Writes so many blocks behind the ring of the first disk, one after the other.
    pub(crate) fn lay(&self, blocks: u64) -> Result<String, String> {
        let file = self.first()?;
        for block in 0..blocks {
            do_to(&file, Act::Write, block, &mut Block::numbered(block))?;
        }
        Ok(blocks.to_string())
    }

    /// Reads or writes these blocks at random for so long, and tells how many times.
    pub(crate) fn at_random(
        &self,
        act: Act,
        blocks: u64,
        time: Duration,
    ) -> Result<String, String> {
        let file = self.first()?;
        let (begun, mut content, mut random, mut times) =
            (Instant::now(), Block::numbered(0), SEED, 0_u64);
        while begun.elapsed() < time {
            random = next(random);
            do_to(&file, act, random % blocks.max(1), &mut content)?;
            times += 1;
        }
        Ok(times.to_string())
    }

    fn first(&self) -> Result<File, String> {
        let ring = self.rings.first().ok_or("there is no disk")?;
        let ring = ring.lock().expect("no holder panics");
        ring.file.try_clone().map_err(|e| e.to_string())
    }

    pub(crate) fn report(&self) -> Result<String, String> {
        Ok(self.each(Ring::report)?.join(" "))
    }

    fn each<T>(&self, mut f: impl FnMut(&mut Ring) -> Result<T, String>) -> Result<Vec<T>, String> {
        self.rings.iter().map(|ring| f(&mut ring.lock().expect("no holder panics"))).collect()
    }
}

/// Reads or writes a block, the first behind the ring being number 0.
fn do_to(file: &File, act: Act, block: u64, content: &mut Block) -> Result<(), String> {
    let at = (BEHIND + block) * BLOCK as u64;
    let done = match act {
        Act::Read => file.read_exact_at(&mut content.0, at),
        Act::Write => file.write_all_at(&content.0, at),
    };
    done.map_err(|e| e.to_string())
}

fn write_steadily(ring: &Mutex<Ring>, rate: &AtomicU64) {
    let mut due = Instant::now();
    loop {
        let rate = rate.load(Ordering::SeqCst);
        if rate == 0 {
            thread::sleep(Duration::from_millis(5));
            due = Instant::now();
            continue;
        }
        due += Duration::from_nanos(1_000_000_000 / rate);
        match due.checked_duration_since(Instant::now()) {
            Some(wait) => thread::sleep(wait),
            None => due = Instant::now(),
        }
        let mut ring = ring.lock().expect("no holder panics");
        if ring.append().is_err() {
            ring.torn += 1;
        }
    }
}

impl Ring {
    fn open(path: &str) -> Result<Self, String> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(path)
            .map_err(|e| e.to_string())?;
        let bytes = std::fs::read_to_string(path.replace("/dev/", "/sys/block/") + "/size")
            .map_err(|e| e.to_string())?
            .trim()
            .parse::<u64>()
            .map_err(|e| e.to_string())?
            * 512;
        let slots = (bytes / BLOCK as u64).saturating_sub(1).min(MOST_SLOTS);
        let mut ring = Self { file, slots, last: 0, torn: 0 };
        ring.last = ring.scan()?.0;
        Ok(ring)
    }

    /// Writes the next block, after looking whether the ring is what this RAM remembers.
    fn append(&mut self) -> Result<(), String> {
        let number = self.last + 1;
        let here = self.get(1 + number % self.slots)?.unwrap_or(0);
        let before = self.get(1 + (number - 1) % self.slots)?.unwrap_or(0);
        if here != number.saturating_sub(self.slots) || before != number - 1 {
            self.torn += 1;
        }
        self.put(1 + number % self.slots, number)?;
        self.last = number;
        Ok(())
    }

    fn report(&mut self) -> Result<String, String> {
        let (on_disk, damaged) = self.scan()?;
        Ok(format!("ram={},disk={on_disk},damaged={damaged},torn={}", self.last, self.torn))
    }

    /// The highest number on the disk, and how many slots do not hold what that number implies.
    fn scan(&self) -> Result<(u64, u64), String> {
        let mut found = Vec::new();
        for slot in 0..self.slots {
            found.push(self.get(1 + slot).unwrap_or(Some(u64::MAX)).unwrap_or(0));
        }
        let highest = found.iter().copied().filter(|&n| n != u64::MAX).max().unwrap_or(0);
        // The highest number not above `highest` that falls into the slot.
        let expected = |slot| highest.saturating_sub((highest + self.slots - slot) % self.slots);
        let damaged = (0..self.slots).filter(|&s| found[s as usize] != expected(s)).count();
        Ok((highest, damaged as u64))
    }

    fn put(&mut self, at: u64, number: u64) -> Result<(), String> {
        self.file
            .write_all_at(&Block::numbered(number).0, at * BLOCK as u64)
            .map_err(|e| e.to_string())
    }

    /// The number in a block; `None` where nothing of ours was ever written.
    fn get(&self, at: u64) -> Result<Option<u64>, String> {
        let mut block = Block([0; BLOCK]);
        self.file.read_exact_at(&mut block.0, at * BLOCK as u64).map_err(|e| e.to_string())?;
        block.number()
    }
}

impl Block {
    fn numbered(number: u64) -> Self {
        let mut block = Self([0; BLOCK]);
        let mut value = number | 1 << 63;
        for word in block.0.chunks_exact_mut(8) {
            value = value.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            word.copy_from_slice(&value.to_le_bytes());
        }
        block.0[..8].copy_from_slice(&MAGIC.to_le_bytes());
        block.0[8..16].copy_from_slice(&number.to_le_bytes());
        let sum = checksum(&block.0[..BLOCK - 8]);
        block.0[BLOCK - 8..].copy_from_slice(&sum.to_le_bytes());
        block
    }

    fn number(&self) -> Result<Option<u64>, String> {
        if self.0.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let word = |at: usize| u64::from_le_bytes(self.0[at..at + 8].try_into().expect("8 bytes"));
        if word(0) != MAGIC || word(BLOCK - 8) != checksum(&self.0[..BLOCK - 8]) {
            return Err("a block is damaged".to_owned());
        }
        Ok(Some(word(8)))
    }
}

/// FNV-1a over words.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |sum, word| {
        let mut eight = [0; 8];
        eight[..word.len()].copy_from_slice(word);
        (sum ^ u64::from_le_bytes(eight)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
