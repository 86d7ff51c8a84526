//! Disks that are read and written past the host's page cache.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use tintype_e2e::{Pool, TestVm, World, as_root};

/// Blocks that the guest writes to each disk, a second.
const WRITTEN: u64 = 200;

/// The layers that a machine has open, and whether past the page cache, as the kernel says.
fn layers_open(vm: &TestVm) -> Result<BTreeMap<String, bool>> {
    let mut layers = BTreeMap::new();
    for process in vm.processes() {
        for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
            let entry = entry?;
            let Ok(file) = fs::read_link(entry.path()) else { continue };
            if file.extension().is_some_and(|end| end == "qcow2") {
                let fd =
                    entry.file_name().into_string().ok().context("a descriptor is a number")?;
                let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{fd}"))?;
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
                let flags = i32::from_str_radix(flags.context("it has flags")?.trim(), 8)?;
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                layers.insert(name, flags & libc::O_DIRECT != 0);
            }
        }
    }
    ensure!(!layers.is_empty(), "no layer is open");
    Ok(layers)
}

fn is_whole(vm: &TestVm) -> Result<()> {
    let blocks = vm.guest.blocks()?;
    ensure!(blocks.iter().all(|disk| disk.damaged == 0 && disk.torn == 0), "{blocks:?}");
    Ok(())
}

#[test]
fn disks_pass_the_page_cache_by_whatever_is_done_to_them() -> Result<()> {
    let mut world = World::start()?;
    world.serve(&["--direct-io"])?;
    let vm = TestVm::boot(&world, "web")?;
    vm.guest.write(WRITTEN)?;
    let memory = vm.snapshot(&world, "memory", "disk-and-memory")?;
    let middle = vm.snapshot(&world, "middle", "disk")?;
    vm.snapshot(&world, "last", "disk")?;
    let all_direct = |what: &str| -> Result<()> {
        let layers = layers_open(&vm)?;
        ensure!(layers.values().all(|direct| *direct), "{what}: {layers:?}");
        is_whole(&vm)
    };
    all_direct("after snapshots")?;
    vm.delete(&world, &middle, "one")?;
    Pool::settled(&world, &vm)?;
    all_direct("after a merge")?;
    vm.revert(&world, &memory)?;
    all_direct("after a revert")?;

    // A server with another mind has new layers opened its way, over those that are open.
    world.serve(&[])?;
    let next = vm.snapshot(&world, "next", "disk")?;
    vm.snapshot(&world, "after", "disk")?;
    let layers = layers_open(&vm)?;
    ensure!(layers.values().any(|direct| *direct), "{layers:?}");
    ensure!(layers.values().any(|direct| !*direct), "{layers:?}");
    vm.delete(&world, &next, "one")?;
    Pool::settled(&world, &vm)?;
    is_whole(&vm)?;
    vm.revert(&world, &memory)?;
    ensure!(layers_open(&vm)?.values().all(|direct| !*direct), "{:?}", layers_open(&vm)?);
    is_whole(&vm)
}

#[test]
fn a_pool_that_has_no_direct_io_is_refused_at_the_start() -> Result<()> {
    let mut world = World::start()?;
    world.kill();
    let pool = world.pool();
    let done = as_root("mount").args(["-t", "ramfs", "none"]).arg(&pool).status()?;
    ensure!(done.success(), "mount: {done}");
    let served = world.serve(&["--direct-io"]);
    let done = as_root("umount").arg(&pool).status()?;
    ensure!(done.success(), "umount: {done}");
    let Err(refused) = served else { bail!("it serves") };
    let said = refused.to_string();
    ensure!(said.contains("this filesystem has no direct I/O"), "{said}");
    ensure!(said.contains("--direct-io"), "what to do is not said: {said}");
    // Without it, all is as it was.
    world.serve(&[])
}
