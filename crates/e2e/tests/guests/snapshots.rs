//! Snapshots of real guests through the real server.

use anyhow::Result;
use std::time::{Duration, Instant};
use tintype_e2e::{Pool, TestVm, World, new_vm};
use tintype_wire::rest::{EditSnapshot, NewVm, Plan, Revert, Snapshot};

/// A8, A11, A12, C33, C34, C36, E4, E15, E33, E34, E35, P12: a tree grows, is drawn, pruned, and
/// leaves nothing behind.
#[test]
fn a_tree_grows_and_is_pruned_to_nothing() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    vm.guest.set_nonce(1)?;
    vm.guest.set_epoch(1)?;
    let a = vm.snapshot(&world, "A", "disk-and-memory")?;
    vm.guest.set_nonce(2)?;
    vm.guest.set_epoch(2)?;
    let b = vm.snapshot(&world, "B", "disk")?;
    vm.revert(&world, &a)?;
    assert_eq!((vm.guest.nonce()?, vm.guest.epochs()?.disks), (1, vec![1, 1]));
    vm.guest.set_epoch(3)?;
    let c = vm.snapshot(&world, "C", "disk-and-memory")?;

    let tree = vm.tree(&world)?;
    assert_eq!(tree.roots.len(), 1);
    let children: Vec<_> = tree.roots[0].children.iter().map(|n| n.snapshot.name.clone()).collect();
    assert_eq!(children, ["B", "C"]);
    assert_eq!(tree.now.parent, Some(c.id));
    assert_eq!(tree.now.state, "running");

    let path = format!("/v1/snapshots/{}?dry_run=true", a.id);
    let plan: Plan = world.wait(world.client().delete(&path))?;
    assert_eq!(plan.snapshots.len(), 1);
    assert_eq!(plan.moved.len(), 2);
    assert!(plan.freed_bytes >= a.memory_bytes);
    assert!(plan.kept_bytes > 0, "what a branch still needs is not counted as freed");
    assert_eq!(vm.snapshots(&world)?.len(), 3, "a dry run does nothing");

    vm.delete(&world, &a, "one")?;
    let c = vm.named(&world, "C")?;
    assert_eq!(c.parent, None);
    vm.revert(&world, &c)?;
    assert_eq!(vm.guest.epochs()?.disks, [3, 3]);
    vm.delete(&world, &b, "subtree")?;
    world.delete(&vm.path("/snapshots"))?;
    assert!(vm.snapshots(&world)?.is_empty());
    assert_eq!(vm.tree(&world)?.now.parent, None);

    let pool = Pool::assert_agrees(&world, &vm)?;
    assert_eq!(pool.files.len(), 2, "each disk is one file, and no memory is left: {pool:?}");
    assert_eq!(vm.guest.epochs()?.disks, [3, 3]);
    Ok(())
}

/// R3, E17, E18, E31, E32: what kind of snapshot, from running or stopped, decides the state after.
#[test]
fn the_target_decides_the_power_state() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    let memory = vm.snapshot(&world, "memory", "disk-and-memory")?;
    let disk = vm.snapshot(&world, "disk", "disk")?;
    let stop = serde_json::json!({ "force": true });
    for from in ["running", "stopped"] {
        for (snapshot, power, expected) in [
            (&memory, None, "running"),
            (&disk, None, "stopped"),
            (&disk, Some("start"), "running"),
            (&memory, Some("stopped"), "stopped"),
        ] {
            let now = vm.show(&world)?.state;
            if now != from && from == "running" {
                vm.start(&world)?;
            } else if now != from {
                world.post(&vm.path("/stop"), &stop)?;
            }
            let before = vm.show(&world)?.generation;
            let path = format!("/v1/snapshots/{}/revert", snapshot.id);
            world.post(&path, &Revert { power: power.map(str::to_owned), ..Revert::default() })?;
            let after = vm.show(&world)?;
            assert_eq!(after.state, expected, "{from} {} {power:?}", snapshot.name);
            assert_ne!(after.generation, before, "a revert gives a new generation id");
            assert_eq!(after.current, Some(snapshot.id));
            if expected == "running" {
                vm.wait_until_up()?;
            }
            assert_eq!(vm.processes().len(), usize::from(expected == "running"));
        }
    }
    Ok(())
}

/// C32, C29, R14: names and descriptions change, and only they.
#[test]
fn name_and_description_can_be_edited() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::create(&world, "web", 64)?;
    let first = vm.snapshot(&world, "first", "disk")?;
    assert_eq!(first.consistency, "clean");
    let second = vm.snapshot(&world, "second", "disk")?;
    let edit = |id, name: Option<&str>, description: Option<&str>| {
        let edit = EditSnapshot {
            name: name.map(str::to_owned),
            description: description.map(str::to_owned),
            ..EditSnapshot::default()
        };
        world.wait(world.client().patch::<Snapshot>(&format!("/v1/snapshots/{id}"), &edit))
    };
    let edited = edit(first.id, Some("before the upgrade"), Some("kernel 6.12"))?;
    assert_eq!(
        edited,
        Snapshot {
            name: "before the upgrade".into(),
            description: "kernel 6.12".into(),
            ..vm.named(&world, "before the upgrade")?
        }
    );
    assert!(edit(second.id, Some("before the upgrade"), None).is_err());
    assert!(edit(second.id, Some(""), None).is_err());
    assert_eq!(vm.named(&world, "second")?.id, second.id);
    let path = vm.path("/snapshots?keyword=KERNEL");
    let found: tintype_wire::rest::List<Snapshot> = world.get(&path)?;
    assert_eq!(found.items.len(), 1);
    Ok(())
}

/// A guest that is asked to shut down does so; it is started again with its disks.
#[test]
fn a_guest_is_shut_down_by_its_power_button() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    vm.guest.set_epoch(5)?;
    let asked = Instant::now();
    world.post(&vm.path("/stop"), &serde_json::json!({}))?;
    assert!(asked.elapsed() < Duration::from_secs(50), "the power was cut, not switched off");
    assert_eq!(vm.show(&world)?.state, "stopped");
    vm.start(&world)?;
    assert_eq!(vm.guest.epochs()?.disks, [5, 5]);
    let vm_id = vm.id;
    world.delete(&vm.path(""))?;
    assert!(world.get::<tintype_wire::rest::Vm>(&format!("/v1/vms/{vm_id}")).is_err());
    assert!(!vm.folder().exists());
    assert!(vm.processes().is_empty());
    Ok(())
}

/// E2: the UEFI variable store belongs to every snapshot, like a disk, though it is not shown as
/// one.
#[test]
fn firmware_variables_belong_to_the_snapshot() -> Result<()> {
    let world = World::start()?;
    let uefi = NewVm { firmware: Some("uefi".into()), ..new_vm("web", 256, 1)? };
    let vm = TestVm::from(&world, &uefi)?;
    vm.start(&world)?;
    assert_eq!(vm.show(&world)?.disks.len(), 1);
    assert_eq!(Pool::assert_agrees(&world, &vm)?.files.len(), 2, "a disk and the variables");
    vm.guest.set_nonce(1)?;
    let one = vm.snapshot(&world, "one", "disk-and-memory")?;
    assert_eq!(one.config.firmware, "uefi");
    assert_eq!(Pool::assert_agrees(&world, &vm)?.files.len(), 5, "two layers each, and memory");
    vm.guest.set_nonce(2)?;
    vm.revert(&world, &one)?;
    assert_eq!(vm.guest.nonce()?, 1);
    let two = vm.snapshot(&world, "two", "disk")?;
    let start = Revert { power: Some("start".into()), ..Revert::default() };
    world.post(&format!("/v1/snapshots/{}/revert", two.id), &start)?;
    vm.wait_until_up()?;
    assert_eq!(vm.guest.nonce()?, 0, "it booted through its firmware again");
    world.delete(&vm.path("/snapshots"))?;
    assert_eq!(Pool::assert_agrees(&world, &vm)?.files.len(), 2);
    Ok(())
}

/// Has a guest write its whole ring of blocks, on both disks.
fn fill_disks(vm: &TestVm) -> Result<()> {
    let wanted = vm.guest.blocks()?.iter().map(|disk| disk.ram).max().unwrap_or(0) + 1100;
    vm.guest.write(2000)?;
    while vm.guest.blocks()?.iter().any(|disk| disk.ram < wanted) {
        std::thread::sleep(Duration::from_millis(100));
    }
    vm.guest.write(0)
}

/// C36: after all snapshots are deleted the pool is within 5 % of that of a machine that never had
/// one and wrote the same.
#[test]
fn nothing_of_deleted_snapshots_is_left_on_disk() -> Result<()> {
    let world = World::start()?;
    let never = TestVm::boot(&world, "never")?;
    fill_disks(&never)?;
    let vm = TestVm::boot(&world, "web")?;
    fill_disks(&vm)?;
    for round in 0..4 {
        let kind = if round % 2 == 0 { "disk" } else { "disk-and-memory" };
        vm.snapshot(&world, &format!("s{round}"), kind)?;
        fill_disks(&vm)?;
    }
    vm.revert(&world, &vm.named(&world, "s1")?)?;
    fill_disks(&vm)?;
    let with = Pool::of(&vm)?.bytes;
    world.delete(&vm.path("/snapshots"))?;
    let after = Pool::assert_agrees(&world, &vm)?;
    let plain = Pool::assert_agrees(&world, &never)?.bytes;
    println!("{plain} bytes without snapshots ever, {with} with, {} after", after.bytes);
    assert_eq!(after.files.len(), 2);
    assert!(plain > 8 << 20, "the disks hold something: {plain}");
    assert!(after.bytes <= plain + plain / 20, "{} bytes, {plain} without", after.bytes);
    Ok(())
}
