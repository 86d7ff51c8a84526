//! Machines with the test guest.

use crate::world::{World, vms_processes};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tintype_wire::rest::{
    Limit, List, NewDisk, NewSnapshot, NewVm, Operation, Revert, Snapshot, Tree, Unlimited, Vm,
};
use tintype_witness::Guest;
use uuid::Uuid;

/// Memory of a test guest, in MiB.
pub const MEMORY_MIB: u64 = 160;
const DISK_BYTES: u64 = 32 << 20;

/// A machine with the test guest, and what is seen of it.
pub struct TestVm {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its guest.
    pub guest: Guest,
    folder: PathBuf,
}

/// A file of the test guest.
pub(crate) fn guest_file(name: &str) -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest").join(name);
    let file = file.canonicalize().context("the test guest is not built: cargo xtask guest")?;
    Ok(file.display().to_string())
}

/// What a machine with the test guest is created from.
///
/// # Errors
/// When the test guest is not built.
pub fn new_vm(name: &str, memory_mib: u64, disks: usize) -> Result<NewVm> {
    let disk = NewDisk { size_bytes: Some(DISK_BYTES), file: None };
    Ok(NewVm {
        name: name.to_owned(),
        memory_bytes: memory_mib << 20,
        vcpus: 1,
        disks: vec![disk; disks],
        kernel: Some(guest_file("vmlinuz")?),
        initrd: Some(guest_file("initrd.gz")?),
        append: Some("console=ttyS0 quiet".to_owned()),
        snapshot_limit: Some(Limit::Unlimited(Unlimited::Unlimited)),
        ..NewVm::default()
    })
}

impl TestVm {
    /// Creates a machine with two disks, off.
    ///
    /// # Errors
    /// When it is refused or fails; so for all of these.
    pub fn create(world: &World, name: &str, memory_mib: u64) -> Result<Self> {
        Self::from(world, &new_vm(name, memory_mib, 2)?)
    }

    /// Creates a machine as wanted, off.
    ///
    /// # Errors
    /// As for [`TestVm::create`].
    pub fn from(world: &World, new: &NewVm) -> Result<Self> {
        world.post("/v1/vms", new)?;
        Self::known(world, &new.name)
    }

    /// A machine that is there already, off.
    ///
    /// # Errors
    /// As for [`TestVm::create`].
    pub fn known(world: &World, name: &str) -> Result<Self> {
        let vm: Vm = world.get(&format!("/v1/vms/{name}"))?;
        let folder = world.pool().join(vm.id.to_string()).canonicalize()?;
        let console = vm.console.strip_prefix("unix:").context("a console is a socket")?;
        let guest = Guest::follow(PathBuf::from(console));
        Ok(Self { id: vm.id, name: name.to_owned(), guest, folder })
    }

    /// Creates a machine and boots it.
    ///
    /// # Errors
    /// As for [`TestVm::create`].
    pub fn boot(world: &World, name: &str) -> Result<Self> {
        let vm = Self::create(world, name, MEMORY_MIB)?;
        vm.start(world)?;
        Ok(vm)
    }

    /// Boots it and waits until it ticks.
    ///
    /// # Errors
    /// As for [`TestVm::create`].
    pub fn start(&self, world: &World) -> Result<()> {
        world.post(&self.path("/start"), &serde_json::json!({}))?;
        self.wait_until_up()
    }

    /// Waits until it ticks.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_until_up(&self) -> Result<()> {
        self.guest.wait_for_tick_after(Instant::now(), Duration::from_secs(120)).map(drop)
    }

    /// The address of something under it.
    pub fn path(&self, under: &str) -> String {
        format!("/v1/vms/{}{under}", self.id)
    }

    /// Its folder in the pool.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The files that are kept beside its folder as long as it is served memory from them.
    ///
    /// # Errors
    /// When they cannot be looked at.
    pub fn served_from(&self) -> Result<Vec<String>> {
        let notes = self.folder.with_file_name(".instances").join(self.id.to_string());
        let names =
            fs::read_dir(notes)?.filter_map(|file| file.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name.ends_with(".memory") || name.ends_with(".direct")).collect())
    }

    /// The processes that run for it.
    pub fn processes(&self) -> Vec<i32> {
        vms_processes(&self.folder)
    }

    /// As the server shows it.
    ///
    /// # Errors
    /// When the server does not.
    pub fn show(&self, world: &World) -> Result<Vm> {
        world.get(&self.path(""))
    }

    /// Its tree.
    ///
    /// # Errors
    /// When the server does not show it.
    pub fn tree(&self, world: &World) -> Result<Tree> {
        world.get(&self.path("/tree"))
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// When it is refused or fails.
    pub fn snapshot(&self, world: &World, name: &str, kind: &str) -> Result<Snapshot> {
        let new = NewSnapshot {
            name: Some(name.to_owned()),
            kind: Some(kind.to_owned()),
            ..NewSnapshot::default()
        };
        let operation = world.post(&self.path("/snapshots"), &new)?;
        let id = operation.snapshot.context("the operation names the snapshot")?;
        world.get(&format!("/v1/snapshots/{id}"))
    }

    /// Its snapshots.
    ///
    /// # Errors
    /// When the server does not list them.
    pub fn snapshots(&self, world: &World) -> Result<Vec<Snapshot>> {
        let list: List<Snapshot> = world.get(&self.path("/snapshots?limit=1000"))?;
        Ok(list.items)
    }

    /// The snapshot of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(&self, world: &World, name: &str) -> Result<Snapshot> {
        let found = self.snapshots(world)?.into_iter().find(|snapshot| snapshot.name == name);
        found.with_context(|| format!("no snapshot {name}"))
    }

    /// Goes back to a snapshot; if the guest runs then, waits until it ticks.
    ///
    /// # Errors
    /// When it is refused or fails.
    pub fn revert(&self, world: &World, snapshot: &Snapshot) -> Result<Operation> {
        let path = format!("/v1/snapshots/{}/revert", snapshot.id);
        let operation = world.post(&path, &Revert::default())?;
        if self.show(world)?.state == "running" {
            self.wait_until_up()?;
        }
        Ok(operation)
    }

    /// Deletes a snapshot; `scope` is `one`, `subtree` or `children`.
    ///
    /// # Errors
    /// When it is refused or fails.
    pub fn delete(&self, world: &World, snapshot: &Snapshot, scope: &str) -> Result<Operation> {
        world.delete(&format!("/v1/snapshots/{}?scope={scope}", snapshot.id))
    }

    /// Waits until no operation holds it.
    ///
    /// # Errors
    /// When one does for too long.
    pub fn wait_until_free(&self, world: &World) -> Result<Vm> {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            let vm = self.show(world)?;
            if vm.operation.is_none() {
                return Ok(vm);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("an operation does not end")
    }
}
