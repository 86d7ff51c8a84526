//! What the pool holds, compared with what the database says, both ways.

use crate::{TestVm, World};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use tintype_model::config::Role;
use tintype_model::timeline::Timeline;
use tintype_model::{VmId, reclaim};
use tintype_store::Store;

/// The files of one machine.
#[derive(Debug)]
pub struct Pool {
    /// Layers and memory files, by name.
    pub files: BTreeSet<String>,
    /// What they take on disk.
    pub bytes: u64,
}

impl Pool {
    /// Looks at a machine's folder.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(vm: &TestVm) -> Result<Self> {
        let mut pool = Self { files: BTreeSet::new(), bytes: 0 };
        for entry in fs::read_dir(vm.folder())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if [".qcow2", ".raw", ".memory"].iter().any(|end| name.ends_with(end)) {
                pool.bytes += entry.metadata()?.blocks() * 512;
                pool.files.insert(name);
            }
        }
        Ok(pool)
    }

    /// Waits until nothing is left to give back, and answers what there is.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn settled(world: &World, vm: &TestVm) -> Result<Self> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let timeline = timeline(world, vm)?;
            let work = reclaim::next(&timeline);
            if work.is_none() && timeline.vm.reclaim.is_none() && timeline.vm.operation.is_none() {
                return Self::of(vm);
            }
            if Instant::now() > until {
                bail!("space is not given back: {work:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until nothing is left to give back, and compares files and database both ways.
    ///
    /// # Errors
    /// When they differ.
    pub fn assert_agrees(world: &World, vm: &TestVm) -> Result<Self> {
        let pool = Self::settled(world, vm)?;
        let timeline = timeline(world, vm)?;
        if let Some(flaw) = timeline.flaw() {
            bail!("the database is flawed: {flaw}");
        }
        let layers = timeline.layers.values().map(|layer| layer.file().name());
        let memories = timeline.snapshots.values().filter(|snapshot| snapshot.memory_bytes > 0);
        let memories = memories.map(|snapshot| format!("{}.memory", snapshot.id));
        let recorded: BTreeSet<String> = layers.chain(memories).collect();
        if recorded != pool.files {
            let lost: Vec<_> = recorded.difference(&pool.files).collect();
            let stray: Vec<_> = pool.files.difference(&recorded).collect();
            bail!("files and database differ: lost {lost:?}, stray {stray:?}");
        }
        Ok(pool)
    }
}

/// The file that a machine's first disk is written to.
///
/// # Errors
/// When it has none.
pub(crate) fn active_layer(world: &World, vm: &TestVm) -> Result<String> {
    let timeline = timeline(world, vm)?;
    let mut disks = timeline.vm.config.disks.iter().filter(|disk| disk.role == Role::Data);
    let disk = disks.next().context("it has a disk")?;
    Ok(timeline.layers[&timeline.active[&disk.id]].file().name())
}

/// What the database says of a machine.
fn timeline(world: &World, vm: &TestVm) -> Result<Timeline> {
    world.wait(async {
        let store = Store::open(&world.data().join("tintype.db"))?;
        let timeline = store.read().await?.timeline(VmId(vm.id))?;
        store.close().await;
        timeline.ok_or_else(|| anyhow::anyhow!("the machine is gone"))
    })
}
