//! An ordinary guest: a Debian on a disk of its own (GRUB, systemd, UEFI, two processors) with a
//! database that is written to all the time. Disk and memory snapshots, revert, branch, delete;
//! then the filesystem's check and the database's own find nothing.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tintype_e2e::{Pool, TestVm, World};
use tintype_wire::rest::{NewDisk, NewVm, Revert};

fn image() -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest/debian.qcow2");
    let file = file.canonicalize().context("it is not built: scripts/ordinary-guest")?;
    Ok(file.display().to_string())
}

/// How many rows the database has, each with its number: none is missing or there twice.
fn rows(vm: &TestVm) -> Result<u64> {
    let answer = vm.guest.ask("rows")?;
    let (count, last) = answer.split_once('|').context("count and last")?;
    ensure!(count == last, "rows are missing: {answer}");
    Ok(count.parse()?)
}

fn wait_for_rows(vm: &TestVm, more: u64) -> Result<u64> {
    let wanted = rows(vm)? + more;
    // The machine that emulates it may be busy with much else.
    let until = Instant::now() + Duration::from_secs(240);
    loop {
        let now = rows(vm)?;
        if now >= wanted {
            return Ok(now);
        }
        ensure!(Instant::now() < until, "the database is not written to");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn check_database(vm: &TestVm) -> Result<()> {
    let said = vm.guest.ask("check")?;
    ensure!(said == "ok", "the database's check found {said}");
    Ok(())
}

/// The filesystem's own check of the root partition, on a copy made while the machine is off.
fn check_filesystem(world: &World, vm: &TestVm) -> Result<()> {
    let layers = Pool::assert_agrees(world, vm)?.files;
    let run = |command: &mut Command| -> Result<()> {
        let output = command.current_dir(vm.folder()).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{command:?}: {said}");
        Ok(())
    };
    let disk = layers
        .iter()
        .max_by_key(|name| fs::metadata(vm.folder().join(name)).map_or(0, |meta| meta.len()))
        .context("the machine has a disk")?;
    run(Command::new("qemu-img").args(["check", "-q", disk]))?;
    run(Command::new("qemu-img").args(["convert", "-q", "-O", "raw", disk, "whole.img"]))?;
    // Where scripts/ordinary-guest puts the root partition, in sectors.
    let part = ["if=whole.img", "of=root.img", "bs=512", "skip=67584", "count=2867200"];
    run(Command::new("dd").args(part).args(["conv=sparse", "status=none"]))?;
    run(Command::new("/sbin/e2fsck").args(["-f", "-n", "root.img"]))
}

/// C2, E2, E5, E31–E35.
#[test]
fn a_debian_with_a_database_keeps_both_whole() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::from(
        &world,
        &NewVm {
            name: "debian".into(),
            memory_bytes: 512 << 20,
            vcpus: 2,
            disks: vec![NewDisk { size_bytes: None, file: Some(image()?) }],
            firmware: Some("uefi".into()),
            networks: vec!["user".into()],
            ..NewVm::default()
        },
    )?;
    vm.start(&world)?;
    vm.guest.set_nonce(1)?;
    wait_for_rows(&vm, 30)?;
    let memory = vm.snapshot(&world, "memory", "disk-and-memory")?;
    vm.guest.set_nonce(2)?;
    let at_disk = wait_for_rows(&vm, 30)?;
    let disk = vm.snapshot(&world, "disk", "disk")?;

    vm.revert(&world, &memory)?;
    assert_eq!(vm.guest.nonce()?, 1);
    assert!(rows(&vm)? < at_disk, "the database is of that moment too");
    check_database(&vm)?;
    wait_for_rows(&vm, 10)?;
    let branch = vm.snapshot(&world, "branch", "disk-and-memory")?;

    vm.delete(&world, &memory, "one")?;
    Pool::assert_agrees(&world, &vm)?;
    check_database(&vm)?;

    let start = Revert { power: Some("start".into()), ..Revert::default() };
    world.post(&format!("/v1/snapshots/{}/revert", disk.id), &start)?;
    vm.wait_until_up()?;
    assert!(rows(&vm)? >= at_disk, "what was committed before the snapshot is there");
    check_database(&vm)?;

    vm.revert(&world, &branch)?;
    assert_eq!(vm.guest.nonce()?, 1);
    check_database(&vm)?;
    wait_for_rows(&vm, 10)?;

    world.delete(&vm.path("/snapshots"))?;
    Pool::assert_agrees(&world, &vm)?;
    check_database(&vm)?;
    world.post(&vm.path("/stop"), &serde_json::json!({}))?;
    check_filesystem(&world, &vm)
}
