//! `cargo xtask bench shutter`: how long a guest stands still for a snapshot, and how soon it is
//! back after a revert, as seen from outside: by ticks that are 1 ms apart.

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use rustix::fs::{Advice, OFlags, fadvise};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;
use std::thread;
use std::time::{Duration, Instant};
use tintype_e2e::{Libvirt, Pool, TestVm, World, dots, new_vm, rank};
use tintype_wire::rest::{NewSnapshot, Operation, Revert, Snapshot};
use tintype_witness::{Gap, Guest, Pulse, Steal, Ticks};

/// Time between two ticks, in microseconds.
const TICK_US: u64 = 1000;
/// How long the guest is watched after each act.
const AFTER: Duration = Duration::from_secs(10);
/// How long it is watched after an act that is done when it is answered.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a machine that is virtual itself takes to give memory that was freed back to its host,
/// for each GiB: it does so every two seconds, and stands still for tenths of them.
const GIVEN_BACK: Duration = Duration::from_secs(2);
/// Pages that the guest rewrites, a second.
const DIRTIED: u64 = 13_000;
/// Blocks that the guest writes to each of two disks, a second.
const WRITTEN: u64 = 500;
/// A guest is booted anew once for so many of the other runs.
const FRESH: usize = 2;
/// How much of its memory a guest has filled, in per cent.
const FILLED: u64 = 75;
/// What is written at once to see how fast the disk is, in bytes.
const WRITTEN_AT_ONCE: usize = 4 << 20;
/// Where what goes to a disk past the page cache may lie in memory: at multiples of so many bytes.
const ALIGNED: usize = 4096;
/// The kind of snapshot that holds memory.
const MEMORY: &str = "disk-and-memory";

#[derive(Parser)]
#[command(about = "Measures how long a guest stands still, as seen from outside")]
struct Args {
    /// Sizes of the guest's memory, in MiB
    #[arg(long, value_delimiter = ',', default_value = "1024")]
    memory: Vec<u64>,
    /// How often each thing is done
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// What is measured [default: all at the first size, precopy and revert at the others]
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// A folder to draw pictures in, one for each size
    #[arg(long)]
    pictures: Option<PathBuf>,
    /// How often libvirt does it, on the same guest; 0 leaves it out
    #[arg(long, default_value_t = 5)]
    libvirt_runs: usize,
    /// Fails if ours is not so many times shorter than libvirt's, in everything compared
    #[arg(long)]
    at_least: Option<f64>,
}

/// A part of what there is to measure.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The first snapshot with memory of a guest that has touched hardly any of it
    First,
    /// A snapshot with memory, saved behind the guest's back
    Background,
    /// A snapshot with memory, saved while the guest runs
    Precopy,
    /// A snapshot of the disks
    Disk,
    /// Deleting one, and the merge that follows
    Delete,
    /// Going back to one with memory
    Revert,
}

/// What is measured at the first size; of guests that are larger it is what grows with memory.
const ALL: &[Part] =
    &[Part::First, Part::Background, Part::Precopy, Part::Disk, Part::Delete, Part::Revert];
const LARGER: &[Part] = &[Part::Precopy, Part::Revert];

/// What was measured of one thing, run after run.
struct Row {
    what: String,
    memory: u64,
    taken: Vec<f64>,
    /// Of standstills, what they would have been without what the host took.
    own: Vec<f64>,
}

impl Row {
    fn new(what: impl Into<String>, memory: u64) -> Self {
        Self { what: what.into(), memory, taken: Vec::new(), own: Vec::new() }
    }

    fn add(&mut self, took: Duration) {
        self.taken.push(took.as_secs_f64() * 1000.0);
    }

    fn add_seen(&mut self, seen: Standstill) {
        self.add(seen.gap.length);
        self.own.push(seen.own.as_secs_f64() * 1000.0);
    }

    fn at(&self, percent: usize) -> f64 {
        rank(&self.taken, percent)
    }

    fn print(&self) {
        if !self.taken.is_empty() {
            let (what, memory) = (&self.what, self.memory as f64 / 1024.0);
            let (least, p50, p99) = (self.at(0), self.at(50), self.at(99));
            let runs = self.taken.len();
            print!("| {what}, {memory} GiB | {runs} | {least:.1} | {p50:.1} | {p99:.1} |");
            let own = (!self.own.is_empty()).then(|| rank(&self.own, 99));
            println!(" {} |", own.map(|own| format!("{own:.1}")).unwrap_or_default());
        }
    }
}

/// The longest time that a guest stood still.
#[derive(Clone, Copy)]
struct Standstill {
    gap: Gap,
    /// The longest there would have been without what the host took.
    own: Duration,
}

impl Standstill {
    /// Tells whoever watches the bench.
    fn tell(&self, what: &str, from: Instant) {
        let (length, at) = (self.gap.length, self.gap.from.saturating_duration_since(from));
        eprintln!("{what}: stood still for {length:?}, {at:?} after it was asked for");
    }
}

/// What is seen of a guest from outside, and of the machine that it runs on.
struct Watch {
    pulse: Pulse,
    steal: Steal,
}

impl Watch {
    fn follow(folder: &Path) -> Self {
        Self { pulse: Pulse::follow(folder.to_owned()), steal: Steal::watch() }
    }

    fn ticks(&self) -> MutexGuard<'_, Ticks> {
        self.pulse.ticks()
    }

    fn standstill(&self, from: Instant, to: Instant) -> Result<Standstill> {
        let ticks = self.ticks();
        let gap = ticks.largest_gap(from, to).context("it ticks")?;
        let own = |gap: Gap| {
            gap.length.saturating_sub(self.steal.within(gap.from, gap.from + gap.length))
        };
        let own = ticks.gaps(from, to).map(own).max().unwrap_or_default();
        Ok(Standstill { gap, own })
    }
}

const CREATE: &str = "create disk-and-memory, background: standstill";
const PRECOPY: &str = "create disk-and-memory, precopy: standstill";
const FIRST: &str = "create disk-and-memory, first of a fresh guest: standstill";
const REVERT: &str = "revert: request to first tick";
const COLD: &str = "revert, cold: request to first tick";
/// The next snapshot after a revert, once memory is in, by the road that is taken if nobody says
/// which, and by one.
const AGAIN: [(&str, Option<&str>); 2] = [
    ("revert: the next memory snapshot, standstill", None),
    ("revert: the next memory snapshot, precopy, standstill", Some("precopy")),
];
/// The one after that, when the host has what the revert freed, as it has before a create.
const LATER: &str = "revert: a later memory snapshot, precopy, standstill";
const WORST: &str = "revert: worst of the next ten seconds, % of ticks";
/// What is told of a row with this is no time.
const SHARE: char = '%';
const INTERNAL: &str = "libvirt, internal create: standstill";
const EXTERNAL: &str = "libvirt, external live create with memory: standstill";
const LIBVIRT_REVERT: &str = "libvirt, revert: request to first tick";

/// What is compared: ours, by the better road, and libvirt's.
const COMPARED: [(&[&str], &str); 3] =
    [(&[CREATE, PRECOPY], INTERNAL), (&[CREATE, PRECOPY], EXTERNAL), (&[REVERT], LIBVIRT_REVERT)];

fn main() -> Result<()> {
    let args = Args::parse();
    let mut rows = Vec::new();
    for (n, &memory) in args.memory.iter().enumerate() {
        let usual = if n == 0 { ALL } else { LARGER };
        let parts = if args.only.is_empty() { usual } else { &args.only };
        rows.extend(measure(memory, args.runs, parts)?);
        if args.libvirt_runs > 0 {
            rows.extend(Compared::boot(memory)?.measure(args.libvirt_runs)?);
        }
    }
    let ratios = ratios(&rows, &args.memory);
    print_ratios(&ratios);
    println!("| what | runs | least ms | p50 ms | p99 ms | p99 less steal |");
    println!("|---|---|---|---|---|---|");
    rows.iter().for_each(Row::print);
    let draw = |folder: PathBuf| args.memory.iter().try_for_each(|&m| draw(&folder, &rows, m));
    args.pictures.map_or(Ok(()), draw)?;
    let wanted = args.at_least.unwrap_or(0.0);
    let short = ratios.iter().find(|(_, times)| *times < wanted);
    ensure!(short.is_none(), "not {wanted} times shorter: {short:?}");
    Ok(())
}

/// Draws all that was measured in milliseconds of a guest with so much memory.
fn draw(folder: &Path, rows: &[Row], memory: u64) -> Result<()> {
    let of_this = rows.iter().filter(|row| row.memory == memory && !row.what.contains(SHARE));
    let drawn: Vec<_> = of_this.map(|row| (row.what.clone(), row.taken.clone())).collect();
    let gib = memory as f64 / 1024.0;
    let picture = folder.join(format!("shutter-{gib}gib.svg"));
    dots(&picture, &format!("A guest of {gib} GiB, seen from outside; a dot is a run"), &drawn)
}

/// By how much ours is shorter than what, median by median.
fn ratios(rows: &[Row], memory: &[u64]) -> Vec<(String, f64)> {
    let mut ratios = Vec::new();
    for &memory in memory {
        let row = |what: &str| rows.iter().find(|row| row.what == what && row.memory == memory);
        for (ours, theirs) in COMPARED {
            let ours = ours.iter().filter_map(|&what| row(what)).map(|row| row.at(50));
            if let (Some(ours), Some(theirs)) = (ours.min_by(f64::total_cmp), row(theirs)) {
                let gib = memory as f64 / 1024.0;
                ratios.push((format!("{}, {gib} GiB", theirs.what), theirs.at(50) / ours));
            }
        }
    }
    ratios
}

fn print_ratios(ratios: &[(String, f64)]) {
    if ratios.is_empty() {
        return;
    }
    println!("| ours is shorter than | median by median |\n|---|---|");
    ratios.iter().for_each(|(what, times)| println!("| {what} | {times:.1} × |"));
    println!();
}

/// Has the guest fill its memory, rewrite some of it, write to its disks, and tick fast.
fn make_busy(guest: &Guest) -> Result<()> {
    guest.fill(FILLED)?;
    guest.dirty(DIRTIED)?;
    guest.write(WRITTEN)?;
    guest.tick(TICK_US)?;
    thread::sleep(Duration::from_secs(3));
    Ok(())
}

/// When a guest that was gone back to ticked first: its numbers are lower then.
fn first_tick(watch: &Watch, last: u64, from: Instant) -> Result<Instant> {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(first) = watch.ticks().first_below(last, from) {
            return Ok(first);
        }
        ensure!(Instant::now() < until, "the guest is not back");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Has the files in a folder read from the disk when they are read next.
fn evict(folder: &Path) -> Result<()> {
    for file in fs::read_dir(folder)? {
        let file = file?;
        if file.file_type()?.is_file() {
            let file = File::open(file.path())?;
            // Only what is on disk is forgotten.
            file.sync_data()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// The same guest under libvirt.
struct Compared {
    libvirt: Libvirt,
    watch: Watch,
    memory: u64,
}

impl Compared {
    fn boot(memory: u64) -> Result<Self> {
        let libvirt = Libvirt::boot(memory)?;
        make_busy(&libvirt.guest)?;
        let watch = Watch::follow(libvirt.folder());
        thread::sleep(Duration::from_secs(1));
        Ok(Self { libvirt, watch, memory })
    }

    fn measure(mut self, runs: usize) -> Result<Vec<Row>> {
        let mut internal = Row::new(INTERNAL, self.memory);
        for n in 0..runs {
            let name = format!("s{n}");
            internal.add_seen(self.standstill(|libvirt| libvirt.internal(&name))?);
            self.libvirt.delete(&name)?;
        }
        let mut back = Row::new(LIBVIRT_REVERT, self.memory);
        self.libvirt.internal("base")?;
        for _ in 0..runs {
            // Long enough that it goes back by some ticks.
            thread::sleep(Duration::from_secs(2));
            let last = self.watch.ticks().last_number().context("it ticks")?;
            let from = Instant::now();
            self.libvirt.revert("base")?;
            back.add(first_tick(&self.watch, last, from)? - from);
        }
        self.libvirt.delete("base")?;
        let mut external = Row::new(EXTERNAL, self.memory);
        for n in 0..runs {
            let name = format!("e{n}");
            external.add_seen(self.standstill(|libvirt| libvirt.external(&name))?);
        }
        Ok(vec![internal, external, back])
    }

    fn standstill(&mut self, act: impl FnOnce(&mut Libvirt) -> Result<()>) -> Result<Standstill> {
        let from = Instant::now();
        act(&mut self.libvirt)?;
        thread::sleep(SETTLE);
        self.watch.standstill(from, Instant::now())
    }
}

/// A snapshot of this kind, by this road.
fn new(kind: &str, road: Option<&str>) -> NewSnapshot {
    let [kind, road] = [Some(kind), road].map(|word| word.map(str::to_owned));
    NewSnapshot { kind, road, ..NewSnapshot::default() }
}

fn named(name: &str, new: &NewSnapshot) -> NewSnapshot {
    NewSnapshot { name: Some(name.to_owned()), ..new.clone() }
}

struct Bench {
    world: World,
    vm: TestVm,
    watch: Watch,
    memory: u64,
}

fn measure(memory: u64, runs: usize, parts: &[Part]) -> Result<Vec<Row>> {
    let world = World::start()?;
    let vm = TestVm::from(&world, &new_vm("shutter", memory, 2)?)?;
    let watch = Watch::follow(vm.folder());
    let bench = Bench { world, vm, watch, memory };
    let mut rows = Vec::new();
    if parts.contains(&Part::First) {
        rows.extend(bench.first_of_a_fresh_guest(runs.div_ceil(FRESH))?);
    }
    bench.vm.start(&bench.world)?;
    make_busy(&bench.vm.guest)?;
    thread::sleep(Duration::from_secs(1));
    bench.usual()?;
    for part in parts {
        rows.extend(match part {
            // Was measured before this guest was booted.
            Part::First => Vec::new(),
            Part::Background => bench.creates(&new(MEMORY, Some("background")), runs)?,
            Part::Precopy => bench.creates(&new(MEMORY, Some("precopy")), runs)?,
            Part::Disk => bench.creates(&new("disk", None), runs)?,
            Part::Delete => bench.deletes(runs)?,
            Part::Revert => bench.reverts(runs)?,
        });
    }
    Ok(rows)
}

impl Bench {
    /// Ticks that are seen in a second while nothing is done, and the longest time between two.
    fn usual(&self) -> Result<f64> {
        let from = Instant::now();
        thread::sleep(Duration::from_secs(3));
        let ticks = self.watch.ticks();
        let rate = ticks.count(from, Instant::now()) as f64 / 3.0;
        let gap = ticks.largest_gap(from, Instant::now()).context("it ticks")?.length;
        ensure!(rate > 50.0, "the guest ticks {rate:.0} times a second only");
        eprintln!("usual: {rate:.0} ticks a second, largest gap {gap:?}");
        Ok(rate)
    }

    /// The first snapshot with memory of a guest that was just booted, and only ticks.
    fn first_of_a_fresh_guest(&self, runs: usize) -> Result<Vec<Row>> {
        let mut standstill = Row::new(FIRST, self.memory);
        for _ in 0..runs {
            self.vm.start(&self.world)?;
            self.vm.guest.tick(TICK_US)?;
            thread::sleep(Duration::from_secs(1));
            let from = Instant::now();
            let first = self.vm.snapshot(&self.world, "first", MEMORY)?;
            thread::sleep(SETTLE);
            standstill.add_seen(self.watch.standstill(from, Instant::now())?);
            self.world.post(&self.vm.path("/stop"), &serde_json::json!({ "force": true }))?;
            self.vm.delete(&self.world, &first, "one")?;
            Pool::settled(&self.world, &self.vm)?;
        }
        Ok(vec![standstill])
    }

    fn creates(&self, new: &NewSnapshot, runs: usize) -> Result<Vec<Row>> {
        let what: Vec<&str> = new.kind.iter().chain(&new.road).map(String::as_str).collect();
        let what = what.join(", ");
        let row = |of: &str| Row::new(format!("create {what}: {of}"), self.memory);
        let [mut standstill, mut told] = [row("standstill"), row("told")];
        let mut speed = row("memory written, % of the disk's speed");
        let mut kept = row("ticks meanwhile, % of the usual");
        let usual = self.usual()?;
        let saves = new.kind.as_deref() == Some(MEMORY);
        let written = self.vm.folder().with_file_name(".speed");
        for n in 0..runs {
            let name = format!("s{n}");
            let disk = saves.then(|| self.disk_speed(&written)).transpose()?;
            let from = Instant::now();
            self.world.post(&self.vm.path("/snapshots"), &named(&name, new))?;
            let took = from.elapsed();
            let ticks = self.watch.ticks().count(from, from + took) as f64;
            thread::sleep(SETTLE);
            let snapshot = self.vm.named(&self.world, &name)?;
            let seen = self.watch.standstill(from, Instant::now())?;
            seen.tell(&format!("{what}, there after {took:?}"), from);
            standstill.add_seen(seen);
            told.add(Duration::from_millis(snapshot.pause_ms.unwrap_or_default()));
            if let Some(disk) = disk {
                let saved = snapshot.memory_bytes as f64 / took.as_secs_f64();
                speed.taken.push(saved * 100.0 / disk);
                kept.taken.push(ticks * 100.0 / (usual * took.as_secs_f64()));
            }
            self.vm.delete(&self.world, &snapshot, "one")?;
            Pool::settled(&self.world, &self.vm)?;
            if saves {
                self.give_back();
            }
        }
        Ok(vec![standstill, told, speed, kept])
    }

    /// What is written in a second beside the machine's files, in bytes: one block after the other,
    /// past the page cache, until as much is on disk as the guest has filled of its memory.
    fn disk_speed(&self, path: &Path) -> Result<f64> {
        let space: Vec<u8> = (0..WRITTEN_AT_ONCE + ALIGNED).map(|n| ((n * n) >> 7) as u8).collect();
        let block = &space[space.as_ptr().align_offset(ALIGNED)..][..WRITTEN_AT_ONCE];
        let direct = OFlags::DIRECT.bits() as i32;
        let mut file =
            OpenOptions::new().write(true).create(true).custom_flags(direct).open(path)?;
        let begun = Instant::now();
        let blocks = ((self.memory << 20) * FILLED / 100) as usize / WRITTEN_AT_ONCE;
        for _ in 0..blocks {
            file.write_all(block)?;
        }
        file.sync_data()?;
        let took = begun.elapsed();
        fs::remove_file(path)?;
        thread::sleep(SETTLE);
        Ok((WRITTEN_AT_ONCE * blocks) as f64 / took.as_secs_f64())
    }

    /// Deletes a snapshot; the guest is watched until its layer is merged.
    fn deletes(&self, runs: usize) -> Result<Vec<Row>> {
        let mut answered = Row::new("delete: until answered", self.memory);
        let mut standstill = Row::new("delete and merge: standstill", self.memory);
        for _ in 0..runs {
            let snapshot = self.vm.snapshot(&self.world, "gone", MEMORY)?;
            Pool::settled(&self.world, &self.vm)?;
            let from = Instant::now();
            let path = format!("/v1/snapshots/{}", snapshot.id);
            let _: Operation = self.world.wait(self.world.client().delete(&path))?;
            answered.add(from.elapsed());
            Pool::settled(&self.world, &self.vm)?;
            let seen = self.watch.standstill(from, Instant::now())?;
            seen.tell("delete and merge", from);
            standstill.add_seen(seen);
        }
        Ok(vec![answered, standstill])
    }

    fn reverts(&self, runs: usize) -> Result<Vec<Row>> {
        let base = self.vm.snapshot(&self.world, "base", MEMORY)?;
        let usual = self.usual()?;
        let row = |what: &str| Row::new(what, self.memory);
        let [mut back, mut standstill, mut worst] = [REVERT, "revert: standstill", WORST].map(row);
        let mut soon = row("revert again after two seconds: request to first tick");
        let mut whole = row("revert: first tick until memory is in");
        let mut again = AGAIN.map(|(what, road)| (row(what), named("next", &new(MEMORY, road))));
        let (mut later, precopy) = (row(LATER), named("next", &new(MEMORY, Some("precopy"))));
        for n in 0..runs {
            let (from, first) = self.revert(&base)?;
            back.add(first - from);
            if n % 2 == 1 {
                whole.add(self.memory_in()?.saturating_duration_since(first));
            }
            // Long enough that the next revert goes back by some ticks.
            thread::sleep(Duration::from_secs(2).saturating_sub(first.elapsed()));
            standstill.add_seen(self.watch.standstill(from, first + SETTLE)?);
            if n % 4 == 0 {
                thread::sleep(AFTER.saturating_sub(first.elapsed()));
                let ticks = self.watch.ticks();
                let second = |n| first + Duration::from_secs(n);
                let counts: Vec<_> =
                    (0..AFTER.as_secs()).map(|n| ticks.count(second(n), second(n + 1))).collect();
                eprintln!("ticks in each second after a revert: {counts:?}");
                let fewest = counts.into_iter().min().unwrap_or(0);
                worst.taken.push(fewest as f64 * 100.0 / usual);
            } else if n % 2 == 1 {
                let (seen, new) = &mut again[n / 2 % AGAIN.len()];
                seen.add_seen(self.next(new)?);
                Pool::settled(&self.world, &self.vm)?;
                self.give_back();
                later.add_seen(self.next(&precopy)?);
            } else {
                let (from, first) = self.revert(&base)?;
                soon.add(first - from);
            }
            // The next is of a machine that has its memory again.
            self.memory_in()?;
            Pool::settled(&self.world, &self.vm)?;
        }
        let [mut cold, mut cold_standstill] = [COLD, "revert, cold: standstill"].map(row);
        for _ in 0..runs.div_ceil(4) {
            evict(self.vm.folder())?;
            let (from, first) = self.revert(&base)?;
            cold.add(first - from);
            thread::sleep(SETTLE);
            cold_standstill.add_seen(self.watch.standstill(from, first + SETTLE)?);
            self.memory_in()?;
            thread::sleep(Duration::from_secs(2).saturating_sub(first.elapsed()));
            Pool::settled(&self.world, &self.vm)?;
        }
        let again = again.map(|(seen, _)| seen);
        let rows = [back, standstill, soon, worst, whole, cold, cold_standstill];
        Ok(rows.into_iter().chain(again).chain([later]).collect())
    }

    /// How long the guest stands still for the next snapshot, once memory is in.
    fn next(&self, new: &NewSnapshot) -> Result<Standstill> {
        let from = Instant::now();
        self.world.post(&self.vm.path("/snapshots"), new)?;
        let seen = self.watch.standstill(from, Instant::now())?;
        let next = self.vm.named(&self.world, "next")?;
        self.vm.delete(&self.world, &next, "one")?;
        Ok(seen)
    }

    /// Waits until as much as the guest has filled of its memory, and was freed just now, is the
    /// host's: a memory file had it of the page cache, or the machine before a revert.
    fn give_back(&self) {
        thread::sleep(GIVEN_BACK * (self.memory * FILLED / 100).div_ceil(1024) as u32);
    }

    /// When no memory is kept to be served any more.
    fn memory_in(&self) -> Result<Instant> {
        let until = Instant::now() + Duration::from_secs(120);
        while !self.vm.served_from()?.is_empty() {
            ensure!(Instant::now() < until, "memory is not in");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(Instant::now())
    }

    /// Goes back; answers when it was asked for, and when the guest that was taken ticked first.
    fn revert(&self, to: &Snapshot) -> Result<(Instant, Instant)> {
        let at = self.watch.ticks().last_number().context("it ticks")?;
        let from = Instant::now();
        let path = format!("/v1/snapshots/{}/revert", to.id);
        self.world.post(&path, &Revert::default())?;
        Ok((from, first_tick(&self.watch, at, from)?))
    }
}
