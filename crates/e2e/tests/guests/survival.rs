//! Guests outlive us, and what we stopped runs again though nobody restarts us.

use anyhow::{Context, Result};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use tintype_e2e::{TestVm, World};
use tintype_wire::rest::{List, NewSnapshot, Operation, Revert};

/// The number of the first step of `word` whose label is `label`.
fn step_of(trace: &str, word: &str, label: &str) -> Result<u32> {
    let line = trace.lines().find_map(|line| {
        line.strip_prefix(word)?.trim_start().split_once(' ').filter(|(_, rest)| *rest == label)
    });
    Ok(line.with_context(|| format!("no step {label:?} of {word}:\n{trace}"))?.0.parse()?)
}

/// After `kill -9` of tintype guests run on, and the next start finds them.
#[test]
fn guests_run_on_and_are_found_again() -> Result<()> {
    let mut world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    vm.guest.set_nonce(7)?;
    let processes = vm.processes();
    world.kill();
    vm.guest.wait_for_tick_after(Instant::now(), Duration::from_secs(5))?;
    world.serve(&[])?;
    assert_eq!(vm.show(&world)?.state, "running");
    assert_eq!(vm.processes(), processes);
    let snapshot = vm.snapshot(&world, "after", "disk-and-memory")?;
    vm.guest.set_nonce(8)?;
    vm.revert(&world, &snapshot)?;
    assert_eq!(vm.guest.nonce()?, 7);
    Ok(())
}

/// A guest that was ended by somebody else is recorded as it is, and can be started again.
#[test]
fn a_guest_that_ended_by_itself_is_noticed() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    let process = rustix::process::Pid::from_raw(vm.processes()[0]).context("a process id")?;
    rustix::process::kill_process(process, rustix::process::Signal::KILL)?;
    let until = Instant::now() + Duration::from_secs(10);
    while vm.show(&world)?.state != "crashed" && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(vm.show(&world)?.state, "crashed");
    vm.start(&world)?;
    Ok(())
}

/// Kills tintype where the guest stands still, starts nothing, and sees it tick within 5 s.
fn ticks_resume_after_death(world: &mut World, vm: &TestVm, word: &str, label: &str) -> Result<()> {
    let trace = fs::read_to_string(world.data().join("trace"))?;
    let n = step_of(&trace, word, label)?;
    world.serve(&["--kill-at", &format!("{word}:{n}")])?;
    let accepted: Result<Operation, _> = if word == "take" {
        let new = NewSnapshot { kind: Some("disk-and-memory".into()), ..NewSnapshot::default() };
        world.wait(world.client().post(&vm.path("/snapshots"), &new))
    } else {
        let id = vm.named(world, "base")?.id;
        world.wait(world.client().post(&format!("/v1/snapshots/{id}/revert"), &Revert::default()))
    };
    drop(accepted);
    assert_eq!(world.wait_for_death(Duration::from_secs(30))?, Some(9), "{word}:{n} was not hit");
    let died = Instant::now();
    let tick = vm.guest.wait_for_tick_after(died, Duration::from_secs(5))?;
    // The ticks go on; it was no rest of what was said before.
    vm.guest.wait_for_tick_after(tick + Duration::from_millis(100), Duration::from_secs(2))?;
    world.serve(&[])?;
    let free = vm.wait_until_free(world)?;
    assert_eq!(free.state, "running");
    vm.wait_until_up()
}

/// A guest that was stopped when tintype died runs again within 5 s though nobody restarts it: the
/// watchdog is a process of its own.
#[test]
fn a_stopped_guest_runs_again_though_nobody_restarts_us() -> Result<()> {
    let mut world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    let trace = world.data().join("trace");
    world.serve(&["--trace-steps", &trace.display().to_string()])?;
    let base = vm.snapshot(&world, "base", "disk-and-memory")?;
    vm.revert(&world, &base)?;
    for (word, label) in [
        ("take", "after qmp stop"),
        ("take", "after qmp transaction"),
        ("take", "after qmp migrate"),
        ("take", "before qmp cont"),
        ("revert", "after process hold"),
        ("revert", "before qmp cont"),
        ("revert", "after qmp cont"),
    ] {
        let begun = Instant::now();
        ticks_resume_after_death(&mut world, &vm, word, label)
            .with_context(|| format!("{word} {label}"))?;
        println!("{word} {label}: {:?}", begun.elapsed());
    }
    let operations: List<Operation> = world.get("/v1/operations?limit=1000")?;
    assert!(operations.items.iter().all(Operation::has_ended));
    Ok(())
}

/// The processes that serve memory to the process that is this machine now.
fn page_servers(vm: &TestVm) -> Vec<i32> {
    let current = fs::read_link(vm.folder().join("run/current")).unwrap_or_default();
    let socket = vm.folder().join("run").join(current).join("incoming.sock");
    let socket = socket.display().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let serves = |id: &i32| {
        let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        command.contains("page-server") && command.contains(&socket)
    };
    ids.filter(serves).collect()
}

/// E28, R11: a machine that runs gets the rest of its memory, though tintype dies, who serves it
/// dies, and the snapshot is deleted meanwhile; then there is nothing left of it.
#[test]
fn memory_arrives_whoever_dies() -> Result<()> {
    let mut world = World::start()?;
    let vm = TestVm::create(&world, "web", 1536)?;
    vm.start(&world)?;
    let filled = vm.guest.fill(75)?;
    vm.guest.set_nonce(1)?;
    let base = vm.snapshot(&world, "base", "disk-and-memory")?;
    for round in ["who serves", "tintype", "both"] {
        vm.guest.set_nonce(2)?;
        vm.revert(&world, &base)?;
        let serving = page_servers(&vm);
        assert_eq!(serving.len(), 1, "{round}");
        assert_ne!(vm.served_from()?, [""; 0], "{round}: its memory is not there yet");
        if round != "who serves" {
            world.kill();
        }
        if round != "tintype" {
            let pid = rustix::process::Pid::from_raw(serving[0]).context("it has an id")?;
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        }
        if round != "who serves" {
            world.serve(&[])?;
        }
        if round == "both" {
            vm.delete(&world, &base, "one")?;
        }
        assert_eq!(vm.guest.nonce()?, 1, "{round}");
        let verified = vm.guest.verify()?;
        assert_eq!((verified.pages, verified.bad), (filled, 0), "{round}");
    }
    // It can be snapshotted again once all has come, and who served goes when it is in order.
    vm.snapshot(&world, "again", "disk-and-memory")?;
    let until = Instant::now() + Duration::from_secs(120);
    while !page_servers(&vm).is_empty() {
        assert!(Instant::now() < until, "nobody is served any more");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(vm.served_from()?, [""; 0]);
    Ok(())
}
