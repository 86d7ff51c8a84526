//! Which pages are sent to the machine, and when.

use super::touched::{Page, Touched};
use super::{Job, PATIENCE, ServeError};
use crate::qemu::direct::Direct;
use crate::qemu::folder::served_directly;
use crate::qemu::mapped_ram::{Layout, MAIN};
use crate::qemu::postcopy::{
    BITMAP_END, Part, Said, closing, opening, order_to_resume, order_to_run, question, understand,
};
use crate::qemu::stream::PAGE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is sent at once, behind, in pages: a page that is waited for waits for this first.
const STRIDE: u64 = 16;
/// The same of what is placed directly, which takes less time.
const LEAP: u64 = 32;
/// How many pages follow one that was waited for: what is touched next is near.
const AHEAD: u64 = 8;
/// For so long after a machine began to run, only what it waits for is sent.
const QUIET: Duration = Duration::from_millis(300);
/// For so long after a machine began to run, it is remembered what it waited for.
const REMEMBERED: Duration = Duration::from_millis(600);
/// How long to rest between two strides: a page that is waited for waits for what is in the stream.
/// What is placed directly is in nobody's way.
const REST: Duration = Duration::from_micros(30);

/// Pages of one block, one after the other.
#[derive(Clone, Copy, Debug)]
struct Run {
    block: usize,
    first: u64,
    count: u64,
}

/// The pages of a memory file, and which of them are under way.
pub(super) struct Pages<'a> {
    job: &'a Job,
    file: &'a File,
    layout: &'a Layout,
    stream: UnixStream,
    /// The way around the stream, into the machine's RAM.
    direct: Option<Direct>,
    /// What was heard and not understood yet.
    heard: Vec<u8>,
    /// The block that was named last.
    named: usize,
    /// Of each block, whether a page has content.
    filled: Vec<Bits>,
    sent: Vec<Bits>,
    content: Vec<u8>,
    /// Since when the machine runs: since it was told to, until it shows that it does.
    runs_at: Instant,
    /// Whether it has waited for a page.
    has_waited: bool,
    touched: Touched,
}

impl<'a> Pages<'a> {
    pub(super) fn new(
        job: &'a Job,
        file: &'a File,
        layout: &'a Layout,
        stream: UnixStream,
    ) -> io::Result<Self> {
        let mut filled = Vec::new();
        for block in &layout.blocks {
            let mut bytes = vec![0; (block.length / PAGE).div_ceil(64) as usize * 8];
            file.read_exact_at(&mut bytes, block.bitmap_at)?;
            filled.push(Bits(bytes));
        }
        let sent = filled.iter().map(|bits| Bits(vec![0; bits.0.len()])).collect();
        Ok(Self {
            job,
            file,
            layout,
            stream,
            direct: None,
            heard: Vec::new(),
            named: 0,
            filled,
            sent,
            content: vec![0; (LEAP * PAGE) as usize],
            runs_at: Instant::now(),
            has_waited: false,
            touched: Touched::default(),
        })
    }

    /// Has the machine run, which touched some pages `before` first, and serves it.
    pub(super) fn serve_from_the_beginning(
        &mut self,
        before: Touched,
        touched: &Path,
    ) -> Result<(), ServeError> {
        let devices = self.layout.devices(self.file)?;
        let begun = Instant::now();
        self.stream.write_all(&opening(self.layout))?;
        let (first, second) = before.foreseen();
        self.send_foreseen(first)?;
        self.stream.write_all(&order_to_run(&devices))?;
        self.runs_at = Instant::now();
        let served = self.send_all(second);
        let (foreseen, waited_for) = (before.0.len(), self.touched.0.len());
        tracing::debug!(foreseen, waited_for, all = ?begun.elapsed(), "memory served");
        before.and(&self.touched).write(touched);
        served?;
        self.serve_until_loaded()
    }

    /// Answers the machine until its devices are loaded. Told that it has everything it would not
    /// read on, but load on, and may touch pages of zeros that nobody has sent.
    fn serve_until_loaded(&mut self) -> Result<(), ServeError> {
        while !self.job.loaded.exists() {
            self.answer(Duration::from_millis(1))?;
        }
        Ok(())
    }

    /// Serves a machine that runs already what it has not got yet.
    pub(super) fn go_on(&mut self) -> Result<(), ServeError> {
        if served_directly(&self.job.memory).exists() {
            // Pages that QEMU does not know of must not be sent to it once more.
            self.direct = Some(self.job.direct().ok_or(ServeError::NoWay)?);
        }
        self.stream.write_all(&question(self.layout))?;
        for _ in 0..self.layout.blocks.len() {
            self.hear_of_a_block()?;
        }
        self.stream.write_all(&order_to_resume())?;
        self.hear_until(|said| matches!(said, Said::Resumed))?;
        self.send_all(&[])
    }

    /// Hears which pages of a block are there.
    fn hear_of_a_block(&mut self) -> Result<(), ServeError> {
        let said = self.hear_until(|said| matches!(said, Said::Received(_)))?;
        let Said::Received(name) = said else { return Err(ServeError::Gone) };
        let block = self.block_named(&name)?;
        let size = self.hear_bytes(8)?;
        let size = u64::from_be_bytes(size.try_into().map_err(|_| ServeError::Gone)?);
        if size > (self.layout.blocks[block].length / PAGE).div_ceil(64) * 8 {
            return Err(io::Error::other("a bitmap is too large").into());
        }
        let received = Bits(self.hear_bytes(size as usize)?);
        if self.hear_bytes(8)? != BITMAP_END.to_be_bytes() {
            return Err(io::Error::other("a bitmap has no end").into());
        }
        self.sent[block] = received;
        Ok(())
    }

    fn block_named(&self, name: &str) -> io::Result<usize> {
        let known = self.layout.blocks.iter().position(|block| block.name == name);
        known.ok_or_else(|| io::Error::other("an unknown block of RAM"))
    }

    /// Waits until something is said.
    fn hear_until(&mut self, wanted: impl Fn(&Said) -> bool) -> Result<Said, ServeError> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match self.hear(Duration::from_millis(100))? {
                Some(said) if wanted(&said) => return Ok(said),
                _ => {}
            }
        }
        Err(ServeError::Gone)
    }

    /// Waits for so many bytes that are no message.
    fn hear_bytes(&mut self, count: usize) -> Result<Vec<u8>, ServeError> {
        while self.heard.len() < count {
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes)? {
                0 => return Err(ServeError::Gone),
                read => self.heard.extend_from_slice(&bytes[..read]),
            }
        }
        Ok(self.heard.drain(..count).collect())
    }

    /// Sends what was touched first the last time, before the machine runs.
    fn send_foreseen(&mut self, touched: &[Page]) -> Result<(), ServeError> {
        let ahead: BTreeSet<_> = touched.iter().collect();
        let mut part = Part::new(self.layout.section);
        for (n, &&(block, page)) in ahead.iter().enumerate() {
            self.add(&mut part, Run { block, first: page, count: 1 }, false)?;
            if n % STRIDE as usize == 0 {
                let full = mem::replace(&mut part, Part::new(self.layout.section));
                self.stream.write_all(&full.finish())?;
            }
        }
        Ok(self.stream.write_all(&part.finish())?)
    }

    /// Sends every page that has content, those that are waited for first, and for a while only
    /// those; then what is `likely`, then all others: the sooner they are there, the fewer are
    /// waited for. Pages of zeros are sent only to who waits: memory that was never filled is zero.
    fn send_all(&mut self, likely: &[Page]) -> Result<(), ServeError> {
        while self.runs_at.elapsed() < QUIET {
            self.answer(Duration::from_millis(1))?;
        }
        for &(block, page) in likely {
            self.answer(Duration::ZERO)?;
            self.send(Run { block, first: page, count: 1 }, false)?;
        }
        for block in 0..self.layout.blocks.len() {
            let pages = self.layout.blocks[block].length / PAGE;
            let mut first = 0;
            while first < pages {
                let direct = self.goes_directly(block);
                let (rest, count) = if direct { (Duration::ZERO, LEAP) } else { (REST, STRIDE) };
                self.answer(rest)?;
                self.send(Run { block, first, count }, false)?;
                first += count;
            }
        }
        Ok(())
    }

    /// The machine waits for a page. Not before is its memory registered with the descriptor that
    /// pages come through: QEMU opens others as it sets out, to try what the kernel can, and a page
    /// placed through one of them wakes nobody.
    fn is_waited_for(&mut self) {
        if !mem::replace(&mut self.has_waited, true) {
            self.runs_at = Instant::now();
        }
        if self.direct.is_none() && self.runs_at.elapsed() < QUIET {
            self.look_for_direct();
        }
    }

    /// Looks for the way around the stream; that it was taken has to be known to who goes on.
    fn look_for_direct(&mut self) {
        self.direct = self.job.direct().filter(|_| {
            let mark = served_directly(&self.job.memory);
            File::create(mark).inspect_err(|error| tracing::warn!(%error, "marking")).is_ok()
        });
    }

    /// Whether pages of a block need not go through the stream.
    fn goes_directly(&self, block: usize) -> bool {
        self.direct.is_some() && self.layout.blocks[block].name == MAIN
    }

    /// Puts pages of a block where the machine looks for them, if there is a way. Where it fails
    /// nobody knows which of them are there: the stream is no way out, whoever goes on may look.
    fn place(&self, block: usize, at: u64, count: u64) -> Result<bool, ServeError> {
        let Some(direct) = self.direct.as_ref().filter(|_| self.goes_directly(block)) else {
            return Ok(false);
        };
        match &self.content[..(count * PAGE) as usize] {
            [] => direct.place_zeros(at * PAGE)?,
            content => direct.place(at * PAGE, content)?,
        }
        Ok(true)
    }

    /// Answers who waits now or within a while.
    fn answer(&mut self, rest: Duration) -> Result<(), ServeError> {
        while let Some(said) = self.hear(rest)? {
            let Said::Wanted { block, start, length } = said else { continue };
            self.is_waited_for();
            if let Some(name) = block {
                self.named = self.block_named(&name)?;
            }
            let (block, first, count) = (self.named, start / PAGE, length.div_ceil(PAGE));
            if self.runs_at.elapsed() < REMEMBERED {
                self.touched.add(block, first);
            }
            self.send(Run { block, first, count }, true)?;
            self.send(Run { block, first: first + count, count: AHEAD }, false)?;
        }
        Ok(())
    }

    /// What is said now or within a while.
    fn hear(&mut self, patience: Duration) -> Result<Option<Said>, ServeError> {
        loop {
            if let Some((said, length)) = understand(&self.heard)? {
                self.heard.drain(..length);
                return Ok(Some(said));
            }
            let patience = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
            let mut wait = [PollFd::new(&self.stream, PollFlags::IN)];
            if poll(&mut wait, Some(&patience)).map_err(io::Error::from)? == 0 {
                return Ok(None);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes)? {
                0 => return Err(ServeError::Gone),
                read => self.heard.extend_from_slice(&bytes[..read]),
            }
        }
    }

    /// Says that this was everything, and waits until the machine says that it has it, or not.
    pub(super) fn close(&mut self) -> Result<u32, ServeError> {
        self.stream.write_all(&closing(self.layout.section))?;
        match self.hear_until(|said| matches!(said, Said::Over(_)))? {
            Said::Over(status) => Ok(status),
            _ => Err(ServeError::Gone),
        }
    }

    /// Sends what of a run was not sent yet.
    fn send(&mut self, run: Run, zeros: bool) -> Result<(), ServeError> {
        let mut part = Part::new(self.layout.section);
        self.add(&mut part, run, zeros)?;
        if !part.is_empty() {
            self.stream.write_all(&part.finish())?;
        }
        Ok(())
    }

    /// Adds what of a run was not sent yet.
    fn add(&mut self, part: &mut Part, run: Run, zeros: bool) -> Result<(), ServeError> {
        let block = &self.layout.blocks[run.block];
        let end = (run.first + run.count).min(block.length / PAGE);
        let mut at = run.first;
        while at < end {
            let filled = self.filled[run.block].has(at);
            if self.sent[run.block].has(at) || !(filled || zeros) {
                at += 1;
                continue;
            }
            if !filled {
                self.sent[run.block].set(at);
                if !self.place(run.block, at, 0)? {
                    part.page(run.block, &block.name, at * PAGE, None);
                }
                at += 1;
                continue;
            }
            let wanted =
                |page: &u64| self.filled[run.block].has(*page) && !self.sent[run.block].has(*page);
            let together = (at..end.min(at + LEAP)).take_while(wanted).count() as u64;
            let content = &mut self.content[..(together * PAGE) as usize];
            self.file.read_exact_at(content, block.pages_at + at * PAGE)?;
            if self.place(run.block, at, together)? {
                (at..at + together).for_each(|page| self.sent[run.block].set(page));
                at += together;
                continue;
            }
            let content = &self.content[..(together * PAGE) as usize];
            for page in content.chunks_exact(PAGE as usize) {
                self.sent[run.block].set(at);
                part.page(run.block, &block.name, at * PAGE, Some(page));
                at += 1;
            }
        }
        Ok(())
    }
}

/// One bit a page, the lowest first.
struct Bits(Vec<u8>);

impl Bits {
    fn has(&self, page: u64) -> bool {
        self.0.get(page as usize / 8).is_some_and(|byte| byte & (1 << (page % 8)) != 0)
    }

    fn set(&mut self, page: u64) {
        if let Some(byte) = self.0.get_mut(page as usize / 8) {
            *byte |= 1 << (page % 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Job, Layout, PAGE, Pages, Touched};
    use crate::qemu::mapped_ram::Block;
    use crate::qemu::process::Process;
    use crate::qemu::stream::{DESCRIPTION, END};
    use rustix::mm::{UserfaultfdFlags, userfaultfd};
    use std::fs::{self, File};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Duration;
    use tempfile::TempDir;

    /// `UFFD_USER_MODE_ONLY`, which anybody may open.
    const USER_MODE_ONLY: UserfaultfdFlags = UserfaultfdFlags::from_bits_retain(1);

    /// A memory file of four pages full of sevens, but for the third, which is zeros.
    fn memory() -> (TempDir, Job, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut memory = vec![0; PAGE as usize];
        memory[0] = 0b1011;
        memory.resize(5 * PAGE as usize, 7);
        memory.extend([END, DESCRIPTION, 0, 0, 0, 0]);
        fs::write(path("memory"), memory).unwrap();
        let block = Block { name: "pc.ram".into(), length: 4 * PAGE, bitmap_at: 0, pages_at: PAGE };
        let blocks = vec![block];
        let devices_at = 5 * PAGE;
        let layout = Layout { machine: "q35".into(), section: 2, blocks, devices_at };
        let job = Job {
            socket: path("socket"),
            memory: path("memory"),
            touched: Some(path("touched")),
            process: path("process"),
            memory_at: path("memory_at"),
            loaded: path("loaded"),
        };
        (folder, job, layout)
    }

    fn serve(job: &Job, layout: &Layout, stream: UnixStream) -> u32 {
        let file = File::open(&job.memory).unwrap();
        let mut pages = Pages::new(job, &file, layout, stream).unwrap();
        let touched = job.touched.as_ref().unwrap();
        pages.serve_from_the_beginning(Touched::default(), touched).unwrap();
        pages.close().unwrap()
    }

    /// The machine: hears until the sender has said what is waited for.
    fn hear(stream: &mut UnixStream, heard: &mut Vec<u8>, wanted: impl Fn(&[u8]) -> bool) {
        while !wanted(heard) {
            let mut bytes = [0; 4096];
            let read = stream.read(&mut bytes).unwrap();
            assert_ne!(read, 0, "it left too early");
            heard.extend_from_slice(&bytes[..read]);
        }
    }

    fn whole_pages(heard: &[u8]) -> usize {
        heard.windows(PAGE as usize).filter(|page| page.iter().all(|&byte| byte == 7)).count()
    }

    /// What ends the stream: its last section, of RAM, and the end.
    fn is_closed(heard: &[u8]) -> bool {
        heard.ends_with(&[0x7e, 0, 0, 0, 2, END])
    }

    const ALL_IS_WELL: [u8; 8] = [0, 1, 0, 4, 0, 0, 0, 0];

    #[test]
    fn no_way_around_the_stream_is_taken_while_the_machine_only_tries_what_it_can() {
        let (_folder, job, layout) = memory();
        // We are the machine, and have a descriptor as QEMU has some that it will not use.
        let us = Process::find(std::process::id()).unwrap();
        fs::write(&job.process, serde_json::to_vec(&us).unwrap()).unwrap();
        fs::write(&job.memory_at, PAGE.to_string()).unwrap();
        fs::write(&job.loaded, "").unwrap();
        // SAFETY: no memory is registered with it.
        let _tried = unsafe { userfaultfd(USER_MODE_ONLY) }.unwrap();
        assert!(job.direct().is_some(), "it is what is looked for");
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            let served = scope.spawn(|| serve(&job, &layout, ours));
            let mut heard = Vec::new();
            hear(&mut theirs, &mut heard, is_closed);
            assert_eq!(whole_pages(&heard), 3, "every page went through the stream");
            theirs.write_all(&ALL_IS_WELL).unwrap();
            assert_eq!(served.join().unwrap(), 0);
        });
    }

    /// QEMU reads no further once it is told that this was everything, and loads its devices.
    #[test]
    fn a_machine_that_loads_gets_what_it_waits_for_though_all_was_sent() {
        let (_folder, job, layout) = memory();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            let served = scope.spawn(|| serve(&job, &layout, ours));
            let mut heard = Vec::new();
            hear(&mut theirs, &mut heard, |heard| whole_pages(heard) == 3);
            thread::sleep(Duration::from_millis(100));
            let mut waits = vec![0, 3, 0, 19];
            waits.extend((2 * PAGE).to_be_bytes());
            waits.extend((PAGE as u32).to_be_bytes());
            waits.extend(b"\x06pc.ram");
            theirs.write_all(&waits).unwrap();
            let zeros = [&((2 * PAGE) | 2).to_be_bytes()[..], b"\x06pc.ram\0"].concat();
            let has_it = |heard: &[u8]| heard.windows(zeros.len()).any(|said| said == zeros);
            hear(&mut theirs, &mut heard, |heard| has_it(heard) || is_closed(heard));
            assert!(!is_closed(&heard), "it may still wait for something");
            fs::write(&job.loaded, "").unwrap();
            hear(&mut theirs, &mut heard, is_closed);
            theirs.write_all(&ALL_IS_WELL).unwrap();
            assert_eq!(served.join().unwrap(), 0);
        });
    }
}
