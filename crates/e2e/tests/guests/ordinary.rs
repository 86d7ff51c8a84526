//! An ordinary guest with a database that is written to all the time: disk and memory snapshots,
//! revert, branch, delete; then the filesystem's check and the database's own find nothing.

use anyhow::{Result, ensure};
use std::process::Command;
use tintype_e2e::{Debian, Pool, World};
use tintype_wire::rest::Revert;

/// A tap interface of the host for as long as it is held.
struct Tap(String);

impl Tap {
    fn new() -> Result<Self> {
        let tap = Self(format!("tt{}", std::process::id()));
        tap.ip("add")?;
        Ok(tap)
    }

    fn network(&self) -> String {
        format!("tap:{}", self.0)
    }

    fn ip(&self, what: &str) -> Result<()> {
        let kind = ["mode", "tap", "multi_queue", "vnet_hdr"];
        let made = Command::new("ip").args(["tuntap", what, "dev", &self.0]).args(kind).status()?;
        ensure!(made.success(), "ip tuntap {what} failed");
        Ok(())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.ip("del");
    }
}

/// C2, E2, E5, E31–E35.
#[test]
fn a_debian_with_a_database_keeps_both_whole() -> Result<()> {
    let world = World::start()?;
    let tap = Tap::new()?;
    let debian = Debian::boot_on(&world, &tap.network())?;
    let vm = &debian.vm;
    vm.guest.set_nonce(1)?;
    debian.wait_for_rows(30)?;
    let memory = vm.snapshot(&world, "memory", "disk-and-memory")?;
    vm.guest.set_nonce(2)?;
    let at_disk = debian.wait_for_rows(30)?;
    let disk = vm.snapshot(&world, "disk", "disk")?;
    world.post(&format!("/v1/snapshots/{}/verify", memory.id), &serde_json::json!({}))?;

    vm.revert(&world, &memory)?;
    assert_eq!(vm.guest.nonce()?, 1);
    assert!(debian.rows()? < at_disk, "the database is of that moment too");
    debian.check_database()?;
    debian.wait_for_rows(10)?;
    let branch = vm.snapshot(&world, "branch", "disk-and-memory")?;

    vm.delete(&world, &memory, "one")?;
    Pool::assert_agrees(&world, vm)?;
    debian.check_database()?;

    let start = Revert { power: Some("start".into()), ..Revert::default() };
    world.post(&format!("/v1/snapshots/{}/revert", disk.id), &start)?;
    vm.wait_until_up()?;
    assert!(debian.rows()? >= at_disk, "what was committed before the snapshot is there");
    debian.check_database()?;

    vm.revert(&world, &branch)?;
    assert_eq!(vm.guest.nonce()?, 1);
    debian.check_database()?;
    debian.wait_for_rows(10)?;

    world.delete(&vm.path("/snapshots"))?;
    Pool::assert_agrees(&world, vm)?;
    debian.check_database()?;
    debian.shut_down(&world)?;
    debian.check_filesystem(&world)
}
