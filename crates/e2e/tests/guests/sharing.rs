//! Memory that is as in the snapshot before takes space once, on a real filesystem that can share.

use anyhow::{Result, ensure};
use std::thread;
use std::time::Duration;
use tintype_e2e::{Filesystem, TestVm, World};

/// How many pages a guest writes to that counts as idle, a second.
const IDLE: u64 = 500;
/// The most that a further memory file may take of the first one's space, in per cent.
const MOST: u64 = 10;

/// A guest that is taken back is as it was then, to the last page.
fn is_as_then(world: &World, vm: &TestVm, snapshot: &str, nonce: u64) -> Result<()> {
    vm.revert(world, &vm.named(world, snapshot)?)?;
    vm.wait_until_up()?;
    ensure!(vm.guest.nonce()? == nonce, "it is not as it was for {snapshot}");
    let pages = vm.guest.verify()?;
    ensure!(pages.bad == 0 && pages.pages > 0, "{snapshot}: {pages:?}");
    Ok(())
}

#[test]
fn a_further_memory_of_an_idle_guest_takes_little_space() -> Result<()> {
    let world = World::start_on(2048, Filesystem::Xfs)?;
    let vm = TestVm::boot(&world, "web")?;
    vm.guest.fill(75)?;
    vm.guest.dirty(IDLE)?;
    let mut taken = Vec::new();
    for (name, nonce) in [("first", 1), ("second", 2), ("third", 3)] {
        vm.guest.set_nonce(nonce)?;
        let before = world.small_pool()?.used()?;
        vm.snapshot(&world, name, "disk-and-memory")?;
        taken.push(world.small_pool()?.used()?.saturating_sub(before));
        thread::sleep(Duration::from_secs(2));
    }
    println!("space that each took: {taken:?}");
    ensure!(taken[0] > 100 << 20, "the first is whole: {taken:?}");
    ensure!(taken[1..].iter().all(|&bytes| bytes <= taken[0] * MOST / 100), "{taken:?}");
    is_as_then(&world, &vm, "first", 1)?;
    is_as_then(&world, &vm, "third", 3)?;
    // What is shared stays with whoever is left.
    vm.delete(&world, &vm.named(&world, "first")?, "one")?;
    vm.delete(&world, &vm.named(&world, "third")?, "one")?;
    is_as_then(&world, &vm, "second", 2)
}
