//! A pool that is full, on a real filesystem: guests go on as soon as there is space, and what
//! could not be taken can be deleted.

use crate::{PATIENCE, wait_until};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use tintype_e2e::{TestVm, World};
use tintype_wire::rest::{Event, List, NewSnapshot, Operation, Pool};

/// How many layers lie in a machine's folder.
fn layers(vm: &TestVm) -> Result<usize> {
    let names = fs::read_dir(vm.folder())?.flatten();
    Ok(names.filter(|file| file.path().extension().is_some_and(|e| e == "qcow2")).count())
}

/// A guest that QEMU stopped because the pool was full goes on by itself once there is space.
fn a_guest_is_not_left_paused(world: &World, vm: &TestVm) -> Result<()> {
    let pool = world.small_pool()?;
    vm.snapshot(world, "before", "disk")?;
    pool.fill(0)?;
    vm.guest.write(100)?;
    wait_until("the guest is paused", || Ok(vm.show(world)?.state == "paused"))?;
    let relieved = Instant::now();
    pool.relieve()?;
    vm.guest.wait_for_tick_after(relieved + Duration::from_secs(1), PATIENCE)?;
    wait_until("the guest runs", || Ok(vm.show(world)?.state == "running"))?;
    vm.guest.write(0)?;
    ensure!(vm.guest.blocks()?.iter().all(|disk| disk.damaged == 0), "{:?}", vm.guest.blocks()?);
    Ok(())
}

/// C38, C39, R10: memory that finds no room makes the snapshot unavailable, with its reason; the
/// guest runs on, and deleting needs no space.
fn a_save_that_finds_no_room(world: &World, vm: &TestVm) -> Result<()> {
    let pool = world.small_pool()?;
    vm.guest.fill(75)?;
    let memories = || -> Result<usize> {
        let names = fs::read_dir(vm.folder())?.flatten();
        Ok(names.filter(|f| f.file_name().to_string_lossy().contains("memory")).count())
    };
    let before = memories()?;
    let new = NewSnapshot {
        name: Some("no room".to_owned()),
        kind: Some("disk-and-memory".to_owned()),
        ..NewSnapshot::default()
    };
    let accepted: Operation = world.wait(world.client().post(&vm.path("/snapshots"), &new))?;
    let begun = Instant::now();
    while memories()? == before && begun.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    pool.fill(1 << 20)?;
    vm.wait_until_free(world)?;
    let ended: Operation = world.get(&format!("/v1/operations/{}", accepted.id))?;
    ensure!(ended.state == "failed", "{ended:?}");
    let snapshot = vm.named(world, "no room")?;
    ensure!(snapshot.state == "unavailable", "{snapshot:?}");
    let reason = snapshot.reason.clone().context("it says why")?;
    ensure!(!reason.detail.is_empty(), "{reason:?}");
    ensure!(vm.show(world)?.state == "running");
    vm.wait_until_up()?;
    vm.delete(world, &snapshot, "one")?;
    ensure!(vm.named(world, "no room").is_err(), "it is still there");
    pool.relieve()
}

/// Layers that cannot be merged for want of space are merged when there is some.
fn a_merge_that_finds_no_room(world: &World, vm: &TestVm) -> Result<()> {
    let pool = world.small_pool()?;
    vm.guest.write(100)?;
    thread::sleep(Duration::from_secs(2));
    vm.guest.write(0)?;
    let after = vm.snapshot(world, "after", "disk")?;
    pool.fill(0)?;
    vm.delete(world, &after, "one")?;
    vm.delete(world, &vm.named(world, "before")?, "one")?;
    thread::sleep(Duration::from_secs(2));
    pool.relieve()?;
    wait_until("each disk is one file", || Ok(layers(vm)? == 2))?;
    ensure!(vm.guest.blocks()?.iter().all(|disk| disk.damaged == 0), "{:?}", vm.guest.blocks()?);
    Ok(())
}

/// A pool that passes a level is told of, as an event and where it is shown, and when it is
/// relieved.
fn a_pool_tells_how_full_it_is(world: &World, vm: &TestVm) -> Result<()> {
    let show = || world.get::<Pool>("/v1/pools/default");
    let told = |kind: &str| -> Result<usize> {
        let events: List<Event> = world.get("/v1/events?limit=1000")?;
        Ok(events.items.iter().filter(|event| event.kind == kind).count())
    };
    let out = world.tintype(&["pool", "set", "default", "--warn-at", "97"])?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let disks: u64 = vm.show(world)?.disks.iter().map(|disk| disk.size_bytes).sum();
    let growth = show()?.growth_bytes;
    ensure!((1..=disks).contains(&growth), "{growth} of {disks} bytes");
    let before = told("pool-filling")?;
    world.small_pool()?.fill(0)?;
    wait_until("a full pool is told", || Ok(told("pool-filling")? > before))?;
    let warning = show()?.warning.context("it is full")?;
    ensure!(warning.contains("above 97 %"), "{warning}");
    let before = told("pool-relieved")?;
    world.small_pool()?.relieve()?;
    wait_until("a relieved pool is told", || Ok(told("pool-relieved")? > before))
}

#[test]
fn a_full_pool_is_survived() -> Result<()> {
    let world = World::start_on_small_pool(640)?;
    let vm = TestVm::boot(&world, "web")?;
    a_guest_is_not_left_paused(&world, &vm)?;
    a_save_that_finds_no_room(&world, &vm)?;
    a_merge_that_finds_no_room(&world, &vm)?;
    a_pool_tells_how_full_it_is(&world, &vm)
}
