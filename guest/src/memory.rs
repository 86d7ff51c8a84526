//! A share of RAM filled with pages that can be told apart and verified.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;

#[derive(Clone, Copy)]
pub(crate) enum Content {
    /// Incompressible, seeded by the page's number.
    Random,
    /// Every word holds its own offset.
    Address,
}

#[derive(Default)]
pub(crate) struct Memory {
    filled: Arc<Mutex<Filled>>,
    dirty_rate: Arc<AtomicU64>,
    dirtying: OnceLock<()>,
}

#[derive(Default)]
struct Filled {
    words: Vec<u64>,
    content: Option<Content>,
}

impl Memory {
    /// Fills `percent` of the RAM that is free now; drops what was filled before.
    pub(crate) fn fill(&self, percent: u64, content: Content) -> Result<String, String> {
        if percent > 90 {
            return Err("more than 90 percent would leave no room to run".to_owned());
        }
        let mut filled = self.filled.lock().expect("no holder panics");
        *filled = Filled::default();
        let pages = (free_bytes() / 100 * percent) as usize / PAGE;
        filled.words = vec![0; pages * WORDS];
        filled.content = Some(content);
        for page in 0..pages {
            write_page(&mut filled.words[page * WORDS..][..WORDS], page as u64, content);
        }
        Ok(pages.to_string())
    }

    pub(crate) fn verify(&self) -> String {
        let filled = self.filled.lock().expect("no holder panics");
        let Some(content) = filled.content else {
            return "pages=0 bad=0".to_owned();
        };
        let mut expected = [0; WORDS];
        let mut bad = 0;
        for (page, words) in filled.words.chunks_exact(WORDS).enumerate() {
            write_page(&mut expected, page as u64, content);
            bad += u64::from(words != expected);
        }
        format!("pages={} bad={bad}", filled.words.len() / WORDS)
    }

    /// Rewrites the first word of `rate` random filled pages a second with what it already is.
    pub(crate) fn dirty(&self, rate: u64) {
        self.dirty_rate.store(rate, Ordering::Relaxed);
        let (filled, rate) = (Arc::clone(&self.filled), Arc::clone(&self.dirty_rate));
        self.dirtying.get_or_init(move || {
            thread::spawn(move || rewrite(&filled, &rate));
        });
    }
}

fn rewrite(filled: &Mutex<Filled>, rate: &AtomicU64) {
    const ROUND: Duration = Duration::from_millis(10);
    let mut random = SEED;
    loop {
        let pages_now = rate.load(Ordering::Relaxed) / 100;
        {
            let mut filled = filled.lock().expect("no holder panics");
            let pages = (filled.words.len() / WORDS) as u64;
            let content = filled.content;
            if let (Some(content), 1..) = (content, pages) {
                for _ in 0..pages_now {
                    random = next(random);
                    let page = random % pages;
                    let start = page as usize * WORDS;
                    write_page(&mut filled.words[start..=start], page, content);
                }
            }
        }
        thread::sleep(ROUND);
    }
}

fn write_page(words: &mut [u64], page: u64, content: Content) {
    match content {
        Content::Random => {
            let mut value = page.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
            for word in words {
                value = next(value);
                *word = value;
            }
        }
        Content::Address => {
            for (at, word) in words.iter_mut().enumerate() {
                *word = page * PAGE as u64 + at as u64 * 8;
            }
        }
    }
}

/// Where a row of random numbers begins.
pub(crate) const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Marsaglia's xorshift64.
pub(crate) fn next(mut x: u64) -> u64 {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    x
}

fn free_bytes() -> u64 {
    // SAFETY: sysinfo fills the plain struct it is given.
    let info = unsafe {
        let mut info: libc::sysinfo = std::mem::zeroed();
        libc::sysinfo(&mut info);
        info
    };
    info.freeram * u64::from(info.mem_unit)
}
