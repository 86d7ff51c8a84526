//! Serves a snapshot's memory to a machine that runs already: what it touches first, the rest
//! behind.
//!
//! It is a process of its own, so that the machine gets its memory whoever dies. It ends when all
//! is served, or the machine is gone.

use super::direct::Direct;
use super::folder::served_directly;
use super::huge_pages::{Haste, join};
use super::mapped_ram::{FormatError, Layout, MAIN};
use super::postcopy::{
    BITMAP_END, Part, Said, closing, opening, order_to_resume, order_to_run, question, understand,
};
use super::process::{Process, spawn_apart};
use super::qmp::connect;
use super::stream::PAGE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::mem;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long QEMU may take to open its socket.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is sent at once, behind, in pages: a page that is waited for waits for this first.
const STRIDE: u64 = 16;
/// The same of what is placed directly, which takes less time.
const LEAP: u64 = 32;
/// How many pages follow one that was waited for: what is touched next is near.
const AHEAD: u64 = 8;
/// What may be on its way in the socket: a page that is waited for is behind it.
const ON_THE_WAY: usize = 64 << 10;
/// For so long after a machine began to run, only what it waits for is sent.
const QUIET: Duration = Duration::from_millis(300);
/// The same if pages can be placed directly.
const BRIEF: Duration = Duration::from_millis(60);
/// For so long after a machine began to run, it is remembered what it waited for.
const REMEMBERED: Duration = Duration::from_millis(600);
/// How many pages are remembered as touched first.
const TOUCHED_MOST: usize = 8192;
/// How many of them are sent before the machine runs, which waits for these; the others are the
/// first behind.
const FORESEEN_MOST: usize = 2048;
/// How long to rest between two strides, so that the machine has time for itself.
const REST: Duration = Duration::from_micros(30);

/// What to serve to whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// Where QEMU waits for memory.
    pub socket: PathBuf,
    /// The memory file.
    pub memory: PathBuf,
    /// Where it is kept which of it was touched first. None if the machine runs already, and was
    /// served by somebody who died.
    pub touched: Option<PathBuf>,
    /// Which process the machine is, as it was recorded.
    pub process: PathBuf,
    /// Where its memory begins in the process, if that was found out.
    pub memory_at: PathBuf,
}

impl Job {
    /// The way into the machine's memory, if it waits for pages and we may.
    fn direct(&self) -> Option<Direct> {
        let (process, at) = self.memory()?;
        Direct::into(process, at)
    }

    /// The process that the machine is, and where its memory begins there.
    fn memory(&self) -> Option<(Process, u64)> {
        let process = serde_json::from_slice(&fs::read(&self.process).ok()?).ok()?;
        Some((process, fs::read_to_string(&self.memory_at).ok()?.parse().ok()?))
    }
}

/// How page servers are started.
#[derive(Clone, Debug)]
pub enum PageServers {
    /// As processes: this program, which has to call [`run`] with its last argument.
    Processes(PathBuf, Vec<String>),
    /// As threads, for tests.
    Threads,
}

impl PageServers {
    pub(super) fn start(&self, job: &Job) -> io::Result<()> {
        let text = serde_json::to_string(job)?;
        match self {
            Self::Threads => {
                let work = move || {
                    if let Err(error) = run(&text) {
                        tracing::warn!(%error, "serving memory");
                    }
                };
                drop(thread::Builder::new().name("page server".to_owned()).spawn(work)?);
            }
            Self::Processes(program, args) => {
                let mut command = Command::new(program);
                command.args(args).arg(text).stdin(Stdio::null()).stdout(Stdio::null());
                spawn_apart(&mut command)?;
            }
        }
        Ok(())
    }
}

/// Why memory could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The job is not one.
    #[error("{0}")]
    Job(#[from] serde_json::Error),
    /// The file or the socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is not a memory file.
    #[error("{0}")]
    Format(#[from] FormatError),
    /// The machine went before it had everything.
    #[error("the machine is gone")]
    Gone,
    /// Pages were placed directly before, and cannot be now.
    #[error("there is no way into the machine's memory")]
    NoWay,
    /// It says that it could not take it.
    #[error("the machine did not take its memory: {0}")]
    Refused(u32),
}

impl ServeError {
    /// Whether the machine went, and nobody needs its memory any more.
    fn is_gone(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self {
            Self::Gone => true,
            Self::Io(error) => matches!(error.kind(), BrokenPipe | ConnectionReset),
            Self::Job(_) | Self::Format(_) | Self::NoWay | Self::Refused(_) => false,
        }
    }
}

/// Serves a job, as [`PageServers`] passes it, until the machine has everything or is gone.
///
/// # Errors
/// When the machine does not get everything.
pub fn run(job: &str) -> Result<(), ServeError> {
    match serve(&serde_json::from_str(job)?) {
        Err(error) if error.is_gone() => Ok(()),
        other => other,
    }
}

fn serve(job: &Job) -> Result<(), ServeError> {
    let file = File::open(&job.memory)?;
    let layout = Layout::read(&file)?;
    let stream = reach(job)?;
    rustix::net::sockopt::set_socket_send_buffer_size(&stream, ON_THE_WAY)
        .map_err(io::Error::from)?;
    let mut pages = Pages::new(job, &file, &layout, stream)?;
    match &job.touched {
        Some(touched) => pages.serve_from_the_beginning(touched)?,
        None => pages.go_on()?,
    }
    pages.stream.write_all(&closing(layout.section))?;
    match pages.hear_the_end()? {
        0 => {
            let _ = fs::remove_file(served_directly(&job.memory));
            fs::remove_file(&job.memory)?;
            // It came in pieces; the machine runs better without, and is sooner protected.
            if let (Some((process, at)), Some(main)) = (job.memory(), layout.main()) {
                join(process, at, main.length, Haste::Idle, |_| process.is_alive());
            }
            Ok(())
        }
        status => Err(ServeError::Refused(status)),
    }
}

/// Connects to the machine, unless somebody gives it up before it has opened its socket.
fn reach(job: &Job) -> Result<UnixStream, ServeError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match connect(&job.socket) {
            Err(_) if !job.memory.exists() => return Err(ServeError::Gone),
            Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(1)),
            other => return Ok(other?),
        }
    }
}

/// Pages of one block, one after the other.
#[derive(Clone, Copy, Debug)]
struct Run {
    block: usize,
    first: u64,
    count: u64,
}

/// The pages of a memory file, and which of them are under way.
struct Pages<'a> {
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
    /// Since when the machine runs.
    runs_at: Instant,
    touched: Touched,
}

impl<'a> Pages<'a> {
    fn new(
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
            touched: Touched::default(),
        })
    }

    /// Has the machine run, and serves it.
    fn serve_from_the_beginning(&mut self, touched: &Path) -> Result<(), ServeError> {
        let devices = self.layout.devices(self.file)?;
        let before = Touched::read(touched, self.layout);
        let begun = Instant::now();
        self.stream.write_all(&opening(self.layout))?;
        let (first, second) = before.0.split_at(before.0.len().min(FORESEEN_MOST));
        self.send_foreseen(first)?;
        self.stream.write_all(&order_to_run(&devices))?;
        self.runs_at = Instant::now();
        let served = self.send_all(second);
        let (foreseen, waited_for) = (before.0.len(), self.touched.0.len());
        tracing::debug!(foreseen, waited_for, all = ?begun.elapsed(), "memory served");
        before.and(&self.touched).write(touched);
        served
    }

    /// Serves a machine that runs already what it has not got yet.
    fn go_on(&mut self) -> Result<(), ServeError> {
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
    fn send_foreseen(&mut self, touched: &[(usize, u64)]) -> Result<(), ServeError> {
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
    /// those; then what is `likely`. Pages of zeros are sent only to who waits: memory that was
    /// never filled is zero.
    fn send_all(&mut self, likely: &[(usize, u64)]) -> Result<(), ServeError> {
        let quiet = |direct: bool| if direct { BRIEF } else { QUIET };
        while self.runs_at.elapsed() < quiet(self.direct.is_some()) {
            if self.direct.is_none() {
                self.look_for_direct();
            }
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
                self.answer(REST)?;
                let count = if self.goes_directly(block) { LEAP } else { STRIDE };
                self.send(Run { block, first, count }, false)?;
                first += count;
            }
        }
        Ok(())
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

    /// Waits until the machine says that it has everything, or not.
    fn hear_the_end(&mut self) -> Result<u32, ServeError> {
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

/// The pages that were waited for, in this order.
#[derive(Default)]
struct Touched(Vec<(usize, u64)>);

impl Touched {
    /// What was written of a memory file earlier; nothing if there is no such thing.
    fn read(path: &Path, layout: &Layout) -> Self {
        let bytes = fs::read(path).unwrap_or_default();
        let pages = bytes.chunks_exact(8).take(TOUCHED_MOST).map(|record| {
            let number = |at: usize| record[at..at + 4].try_into().map_or(0, u32::from_be_bytes);
            (number(0) as usize, u64::from(number(4)))
        });
        let there = |&(block, page): &(usize, u64)| {
            layout.blocks.get(block).is_some_and(|block| page < block.length / PAGE)
        };
        Self(pages.filter(there).collect())
    }

    fn add(&mut self, block: usize, page: u64) {
        if self.0.len() < TOUCHED_MOST {
            self.0.push((block, page));
        }
    }

    /// These and others.
    fn and(mut self, others: &Self) -> Self {
        let room = TOUCHED_MOST - self.0.len();
        self.0.extend(others.0.iter().take(room));
        self
    }

    /// Keeps it for the next time; without it that one is slower.
    fn write(&self, path: &Path) {
        let record = |&(block, page): &(usize, u64)| {
            [(block as u32).to_be_bytes(), (page as u32).to_be_bytes()].concat()
        };
        let bytes: Vec<u8> = self.0.iter().flat_map(record).collect();
        let fresh = path.with_extension("new");
        if let Err(error) = fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path)) {
            tracing::warn!(%error, "keeping what was touched first");
        }
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
    use super::{Layout, PAGE, TOUCHED_MOST, Touched};
    use crate::qemu::mapped_ram::Block;
    use std::fs;

    fn layout() -> Layout {
        let (length, bitmap_at, pages_at) = (4 * PAGE, 0, 0);
        let block = Block { name: "pc.ram".into(), length, bitmap_at, pages_at };
        Layout { machine: "q35".into(), section: 2, blocks: vec![block], devices_at: 0 }
    }

    #[test]
    fn what_was_touched_first_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.touched");
        assert!(Touched::read(&path, &layout()).0.is_empty(), "nothing was");
        Touched(vec![(0, 3), (0, 1)]).and(&Touched(vec![(0, 2)])).write(&path);
        assert_eq!(Touched::read(&path, &layout()).0, [(0, 3), (0, 1), (0, 2)]);
    }

    #[test]
    fn pages_that_are_not_there_are_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.touched");
        Touched(vec![(0, 4), (1, 0), (0, 0)]).write(&path);
        assert_eq!(Touched::read(&path, &layout()).0, [(0, 0)]);
        fs::write(&path, [0xff; 8 * 3 + 5]).unwrap();
        assert!(Touched::read(&path, &layout()).0.is_empty());
        fs::write(&path, vec![0; 8 * (TOUCHED_MOST + 1)]).unwrap();
        assert_eq!(Touched::read(&path, &layout()).0.len(), TOUCHED_MOST);
    }
}
