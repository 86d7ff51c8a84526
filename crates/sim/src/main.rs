//! Runs worlds: `sim --seeds 2000`, or one, step by step: `sim --replay 77`.

use anyhow::{Result, bail};
use clap::Parser;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;
use tintype_sim::{Flaw, run};

/// A world allocates little things all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs simulated worlds and looks for flaws.
#[derive(Debug, Parser)]
struct Args {
    /// How many worlds.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs one seed and tells everything that happens.
    #[arg(long)]
    replay: Option<u64>,
    /// Stops at the first flaw.
    #[arg(long)]
    until_flaw: bool,
    /// How many threads; each world has one.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(seed) = args.replay {
        return replay(seed);
    }
    let threads = args.threads.or_else(|| thread::available_parallelism().ok().map(Into::into));
    many(&args, threads.unwrap_or(1))
}

fn replay(seed: u64) -> Result<()> {
    let (story, flaw) = match run(seed, true) {
        Ok(story) => (story, None),
        Err((flaw, story)) => (story, Some(flaw)),
    };
    for line in &story.lines {
        println!("{line}");
    }
    match flaw {
        Some(flaw) => bail!("{flaw}"),
        None => println!("{} events, {} deaths, no flaw", story.events, story.deaths),
    }
    Ok(())
}

fn many(args: &Args, threads: usize) -> Result<()> {
    let (from, seeds) = (args.from, args.seeds);
    let began = Instant::now();
    let (next, end) = (AtomicU64::new(from), from + seeds);
    let [events, deaths, losses, repaired]: [AtomicU64; 4] = Default::default();
    let flaws: Mutex<Vec<Flaw>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let story = run(seed, false).unwrap_or_else(|(flaw, story)| {
                        eprintln!("{flaw}");
                        flaws.lock().expect("no holder panics").push(flaw);
                        if args.until_flaw {
                            next.store(end, Ordering::Relaxed);
                        }
                        story
                    });
                    events.fetch_add(story.events, Ordering::Relaxed);
                    deaths.fetch_add(story.deaths, Ordering::Relaxed);
                    losses.fetch_add(story.losses, Ordering::Relaxed);
                    repaired.fetch_add(story.repaired, Ordering::Relaxed);
                }
            });
        }
    });
    let flaws = flaws.into_inner().expect("no holder panics");
    println!(
        "seeds {from} to {}: {} events, {} deaths, {} databases lost, {} hosts repaired, {} flaws, \
         {:.0} worlds a second",
        end - 1,
        events.into_inner(),
        deaths.into_inner(),
        losses.into_inner(),
        repaired.into_inner(),
        flaws.len(),
        seeds as f64 / began.elapsed().as_secs_f64()
    );
    if let Some(flaw) = flaws.first() {
        bail!("see it happen: --replay {}", flaw.seed);
    }
    Ok(())
}
