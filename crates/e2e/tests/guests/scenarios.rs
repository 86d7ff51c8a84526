//! The cases that other systems' tests and bug reports tell of, replayed on real guests.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tintype_e2e::{MEMORY_MIB, Pool, TestVm, World, new_vm};
use tintype_model::Moment;
use tintype_wire::client::ClientError;
use tintype_wire::rest::{Disk, List, NewSnapshot, Operation, Plan, Revert, Snapshot, Vm};

/// Sets what the guest remembers, in RAM and on its disks.
fn remember(vm: &TestVm, number: u64) -> Result<()> {
    vm.guest.set_nonce(number)?;
    vm.guest.set_epoch(number)?;
    Ok(())
}

fn remembers(vm: &TestVm, number: u64) -> Result<bool> {
    let epochs = vm.guest.epochs()?.disks;
    Ok(vm.guest.nonce()? == number && epochs.iter().all(|&epoch| epoch == number))
}

fn cut_power(world: &World, vm: &TestVm) -> Result<()> {
    world.post(&vm.path("/stop"), &json!({ "force": true })).map(drop)
}

/// Brings the machine to a state.
fn bring_to(world: &World, vm: &TestVm, state: &str) -> Result<()> {
    match (vm.show(world)?.state.as_str(), state) {
        ("running", "stopped") => cut_power(world, vm),
        ("stopped", "running") => vm.start(world),
        _ => Ok(()),
    }
}

fn code<T>(answer: Result<T, ClientError>) -> Result<String> {
    match answer {
        Err(ClientError::Problem(problem)) => Ok(problem.code),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("it is not refused"),
    }
}

/// A6, C28, E6, E7, E23, E31, R15, C22, P1, P3, P6, P8, P11, P26: memory on and off, running and
/// stopped: three can be, one is refused; an outsider's first steps: create, list, delete, the
/// list is empty.
#[test]
fn created_in_every_state_and_deleted() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::create(&world, "web", MEMORY_MIB)?;
    for state in ["stopped", "running"] {
        bring_to(&world, &vm, state)?;
        for kind in ["disk", "disk-and-memory"] {
            let new = NewSnapshot { kind: Some(kind.to_owned()), ..NewSnapshot::default() };
            if (state, kind) == ("stopped", "disk-and-memory") {
                let no = world.refused(&vm.path("/snapshots"), &new)?;
                assert_eq!(no.code, "memory-needs-running-vm");
                continue;
            }
            let before = Pool::of(&vm)?.bytes;
            let taken = vm.snapshot(&world, &format!("{state} {kind}"), kind)?;
            let grown = Pool::of(&vm)?.bytes - before;
            assert!(
                kind != "disk" || grown < 2 << 20,
                "what did not change is not copied: {grown}"
            );
            assert_eq!((taken.state.as_str(), taken.created_by.as_str()), ("ready", "admin"));
            assert_eq!(taken.consistency, if state == "stopped" { "clean" } else { "crash" });
        }
    }
    assert_eq!(vm.snapshots(&world)?.len(), 3);
    world.delete(&vm.path("/snapshots"))?;
    assert!(vm.snapshots(&world)?.is_empty());
    assert_eq!(vm.show(&world)?.state, "running");
    Pool::assert_agrees(&world, &vm)?;
    Ok(())
}

/// A1, A3, A4, A7, A10, C2, C3, E17, E21, E18, E32, E33, E34, R3, P2, P7, P14, P19, P27, P34:
/// a tree A → B, C of both kinds; to every node from running and from stopped; stopping keeps all
/// of it (E40).
#[test]
fn every_node_is_gone_back_to_from_every_state() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::create(&world, "web", MEMORY_MIB)?;
    let begun = Instant::now();
    vm.start(&world)?;
    let boots_in = begun.elapsed();
    remember(&vm, 1)?;
    let begun = Instant::now();
    let a = vm.snapshot(&world, "A", "disk-and-memory")?;
    assert!(begun.elapsed() < boots_in, "a snapshot takes less than a boot");
    remember(&vm, 2)?;
    let b = vm.snapshot(&world, "B", "disk")?;
    let begun = Instant::now();
    vm.revert(&world, &a)?;
    assert!(begun.elapsed() < boots_in, "a revert takes less than a boot");
    remember(&vm, 3)?;
    let c = vm.snapshot(&world, "C", "disk-and-memory")?;
    remember(&vm, 4)?;
    for from in ["running", "stopped"] {
        for (snapshot, number) in [(&b, 2), (&a, 1), (&c, 3)] {
            bring_to(&world, &vm, from)?;
            vm.revert(&world, snapshot)?;
            let now = vm.show(&world)?;
            let memory = snapshot.kind == "disk-and-memory";
            assert_eq!(now.state, if memory { "running" } else { "stopped" }, "from {from}");
            assert_eq!(now.current, Some(snapshot.id));
            if !memory {
                vm.start(&world)?;
                vm.guest.set_nonce(number)?;
            }
            assert!(remembers(&vm, number)?, "{} from {from}", snapshot.name);
        }
    }
    let tree = vm.tree(&world)?;
    let children: Vec<&str> =
        tree.roots[0].children.iter().map(|node| node.snapshot.name.as_str()).collect();
    assert_eq!((tree.roots.len(), children), (1, vec!["B", "C"]));
    Ok(())
}

/// E15, E35, R6, R8, P18, P23, P28: what a volume manager once lost: with s1, s2, s3 taken, a
/// revert to s2, s4, and s2 and s1 deleted, s3 has still all its layers; the current, any and all
/// can go.
#[test]
fn what_is_left_after_deleting_is_whole() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    let mut taken = Vec::new();
    for n in 1..=3 {
        remember(&vm, n)?;
        taken.push(vm.snapshot(&world, &format!("s{n}"), "disk-and-memory")?);
    }
    vm.revert(&world, &taken[1])?;
    remember(&vm, 4)?;
    let s4 = vm.snapshot(&world, "s4", "disk-and-memory")?;
    vm.delete(&world, &taken[1], "one")?;
    vm.delete(&world, &taken[0], "one")?;
    Pool::assert_agrees(&world, &vm)?;
    vm.revert(&world, &taken[2])?;
    assert!(remembers(&vm, 3)?);
    vm.revert(&world, &s4)?;
    assert!(remembers(&vm, 4)?);
    // The current goes, and with it what it alone holds.
    vm.delete(&world, &s4, "one")?;
    assert_eq!(vm.show(&world)?.current, None);
    assert_eq!(vm.named(&world, "s3")?.parent, None);
    vm.revert(&world, &taken[2])?;
    assert!(remembers(&vm, 3)?);
    world.delete(&vm.path("/snapshots"))?;
    assert!(remembers(&vm, 3)?);
    let pool = Pool::assert_agrees(&world, &vm)?;
    assert_eq!(pool.files.len(), 2);
    Ok(())
}

/// C17, E8, E9, E36, E37, R5, P4, P9, P10, P22, P29, P30: with snapshots no disk comes, goes or
/// changes its size; hardware changes with snapshots of disks, and with memory snapshots when
/// these may lose their memory; a revert restores the hardware.
#[test]
fn hardware_and_disks_change_as_the_snapshots_allow() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    let client = world.client();
    remember(&vm, 1)?;
    vm.snapshot(&world, "disks", "disk")?;
    let memory = vm.snapshot(&world, "memory", "disk-and-memory")?;
    cut_power(&world, &vm)?;
    let disks = vm.path("/disks");
    let vdb = vm.path("/disks/vdb");
    assert_eq!(world.refused(&disks, &json!({ "size_bytes": 1 << 20 }))?.code, "vm-has-snapshots");
    let answer = world.wait(client.patch::<Value>(&vdb, &json!({ "size_bytes": 64 << 20 })));
    assert_eq!(code(answer)?, "vm-has-snapshots");
    assert_eq!(code(world.wait(client.delete::<Value>(&vdb)))?, "vm-has-snapshots");
    let edit = json!({ "vcpus": 2, "networks": ["user"] });
    let answer = world.wait(client.patch::<Value>(&vm.path(""), &edit));
    assert_eq!(code(answer)?, "vm-has-memory-snapshots");
    assert_eq!(vm.show(&world)?.vcpus, 1, "a refusal changes nothing");
    let discard = json!({ "vcpus": 2, "networks": ["user"], "discard_memory": true });
    let plan: Plan = world.wait(client.patch(&vm.path("?dry_run=true"), &discard))?;
    assert_eq!(plan.memory_lost, [memory.id]);
    let done: Operation = world.wait(client.patch(&vm.path("?wait=30s"), &discard))?;
    assert_eq!((done.kind.as_str(), done.state.as_str()), ("set-vm", "succeeded"));
    let kept = vm.named(&world, "memory")?;
    assert_eq!((kept.kind.as_str(), kept.memory_bytes), ("disk", 0));
    Pool::assert_agrees(&world, &vm)?;
    vm.start(&world)?;
    let now = vm.show(&world)?;
    assert_eq!((now.vcpus, now.nics.len()), (2, 1));
    assert!(smp(&vm)?.contains("2"), "the guest has them");
    // With snapshots of disks only, hardware changes at once; a revert brings the old one back.
    vm.revert(&world, &kept)?;
    let back = vm.show(&world)?;
    assert_eq!((back.vcpus, back.nics.len(), back.state.as_str()), (1, 0, "stopped"));
    let more: Vm = world.wait(client.patch(&vm.path(""), &json!({ "memory_bytes": 256 << 20 })))?;
    assert_eq!(more.memory_bytes, 256 << 20);
    let running = json!({ "name": "renamed" });
    let renamed: Vm = world.wait(client.patch(&vm.path(""), &running))?;
    assert_eq!(renamed.name, "renamed");

    world.delete(&vm.path("/snapshots"))?;
    world.post(&disks, &json!({ "size_bytes": 48 << 20 }))?;
    let _: Operation =
        world.wait(client.patch(&format!("{vdb}?wait=30s"), &json!({ "size_bytes": 40 << 20 })))?;
    vm.start(&world)?;
    assert_eq!(vm.guest.epochs()?.disks.len(), 3, "the guest has another disk");
    remember(&vm, 7)?;
    let three = vm.snapshot(&world, "three", "disk")?;
    remember(&vm, 8)?;
    cut_power(&world, &vm)?;
    vm.revert(&world, &three)?;
    vm.start(&world)?;
    assert_eq!(vm.guest.epochs()?.disks, [7, 7, 7]);
    world.delete(&vm.path("/snapshots"))?;
    let grown = json!({ "size_bytes": 96 << 20 });
    let _: Operation = world.wait(client.patch(&vm.path("/disks/vdc?wait=30s"), &grown))?;
    let smaller = json!({ "size_bytes": 1 << 20 });
    let answer = world.wait(client.patch::<Value>(&vdb, &smaller));
    assert_eq!(code(answer)?, "vm-not-stopped");
    let all: List<Disk> = world.get(&disks)?;
    let sizes: Vec<u64> = all.items.iter().map(|disk| disk.size_bytes >> 20).collect();
    assert_eq!(sizes, [32, 40, 96]);
    cut_power(&world, &vm)?;
    world.delete(&vdb)?;
    vm.start(&world)?;
    assert_eq!(vm.guest.epochs()?.disks.len(), 2);
    Pool::assert_agrees(&world, &vm)?;
    Ok(())
}

/// The processors that QEMU was started with.
fn smp(vm: &TestVm) -> Result<String> {
    let process = *vm.processes().first().context("it runs")?;
    let text = std::fs::read_to_string(format!("/proc/{process}/cmdline"))?;
    let mut words = text.split('\0').skip_while(|word| *word != "-smp");
    Ok(words.nth(1).unwrap_or_default().to_owned())
}

/// A clone of a test machine, as one.
fn adopt(world: &World, name: &str) -> Result<TestVm> {
    TestVm::known(world, name)
}

/// C18, R9: full and linked clones, of now and of a snapshot: no snapshots, an id, addresses and a
/// generation id of their own; they live on when snapshot and machine are gone, and nobody sees
/// what the other writes.
#[test]
fn clones_live_by_themselves() -> Result<()> {
    let world = World::start()?;
    let new = tintype_wire::rest::NewVm {
        networks: vec!["user".into()],
        ..new_vm("web", MEMORY_MIB, 2)?
    };
    let vm = TestVm::from(&world, &new)?;
    vm.start(&world)?;
    remember(&vm, 1)?;
    let one = vm.snapshot(&world, "one", "disk-and-memory")?;
    remember(&vm, 2)?;
    let clone = |name: &str, snapshot: Option<&Snapshot>, linked: bool| -> Result<TestVm> {
        let body = json!({ "name": name, "snapshot": snapshot.map(|s| s.id), "linked": linked });
        world.post(&vm.path("/clone"), &body)?;
        adopt(&world, name)
    };
    let clones = [
        (clone("full-now", None, false)?, 2),
        (clone("linked-now", None, true)?, 2),
        (clone("full-one", Some(&one), false)?, 1),
        (clone("linked-one", Some(&one), true)?, 1),
    ];
    assert!(remembers(&vm, 2)?, "the source runs on");
    let source = vm.show(&world)?;
    for (clone, _) in &clones {
        let made = clone.show(&world)?;
        assert_eq!((made.snapshots, made.current, made.state.as_str()), (0, None, "stopped"));
        assert_ne!((made.id, made.generation), (source.id, source.generation));
        assert_ne!(made.nics[0].mac, source.nics[0].mac);
        Pool::assert_agrees(&world, clone)?;
    }
    // The source writes on, loses the snapshot, merges, and goes.
    remember(&vm, 3)?;
    vm.delete(&world, &one, "one")?;
    Pool::assert_agrees(&world, &vm)?;
    assert!(remembers(&vm, 3)?);
    for (clone, number) in &clones[1..2] {
        clone.start(&world)?;
        assert_eq!(clone.guest.epochs()?.disks, [*number, *number], "{}", clone.name);
        cut_power(&world, clone)?;
    }
    world.delete(&format!("{}?queue=true", vm.path("")))?;
    for (n, (clone, number)) in (10..).zip(&clones) {
        clone.start(&world)?;
        assert_eq!(clone.guest.epochs()?.disks, [*number, *number], "{}", clone.name);
        remember(clone, n)?;
        let taken = clone.snapshot(&world, "of the clone", "disk-and-memory")?;
        remember(clone, 99)?;
        clone.revert(&world, &taken)?;
        assert!(remembers(clone, n)?, "{}", clone.name);
        clone.delete(&world, &taken, "one")?;
        Pool::assert_agrees(&world, clone)?;
        assert!(remembers(clone, n)?, "{}", clone.name);
        cut_power(&world, clone)?;
    }
    // Once nobody else has its layers, a linked clone is pruned to one layer for each disk.
    for (clone, _) in &clones {
        let pool = Pool::assert_agrees(&world, clone)?;
        let lone = ["full-now", "full-one"].contains(&clone.name.as_str());
        assert!(!lone || pool.files.len() == 2, "{}: {pool:?}", clone.name);
    }
    world.delete(&clones[3].0.path(""))?;
    let pool = Pool::assert_agrees(&world, &clones[1].0)?;
    assert_eq!(pool.files.len(), 2, "what was shared is merged: {pool:?}");
    Ok(())
}

/// A linked clone takes next to nothing, and is there at once.
#[test]
fn a_linked_clone_shares_what_is_there() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::create(&world, "web", MEMORY_MIB)?;
    let one = vm.snapshot(&world, "one", "disk")?;
    let body = json!({ "name": "linked", "snapshot": one.id, "linked": true });
    world.post(&vm.path("/clone"), &body)?;
    let linked = adopt(&world, "linked")?;
    use std::os::unix::fs::MetadataExt;
    let shared = |vm: &TestVm| -> Result<usize> {
        let entries = std::fs::read_dir(vm.folder())?;
        let links = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.nlink()));
        Ok(links.filter(|&links| links == 2).count())
    };
    assert_eq!((shared(&linked)?, shared(&vm)?), (2, 2));
    Ok(())
}

/// C38, R9, R10: a create that runs is cancelled: it is gone, nothing is left, and the guest runs.
#[test]
fn a_running_create_is_cancelled_and_leaves_nothing() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::create(&world, "web", 768)?;
    vm.start(&world)?;
    vm.guest.fill(75)?;
    remember(&vm, 1)?;
    let mut in_time = 0;
    for n in 0..3 {
        let new = NewSnapshot { kind: Some("disk-and-memory".into()), ..NewSnapshot::default() };
        let client = world.client();
        let accepted: Operation = world.wait(client.post(&vm.path("/snapshots"), &new))?;
        std::thread::sleep(Duration::from_millis(60 * n));
        let path = format!("/v1/operations/{}/cancel?wait=60s", accepted.id);
        let cancelled = world.wait(client.post::<Operation>(&path, &json!({})));
        match cancelled {
            Ok(cancelled) => {
                assert_eq!(cancelled.state, "cancelled", "{:?}", cancelled.error);
                in_time += 1;
            }
            Err(ClientError::Problem(problem)) => assert_eq!(problem.code, "operation-ended"),
            Err(error) => return Err(error.into()),
        }
        let begun = Instant::now();
        vm.guest.wait_for_tick_after(begun, Duration::from_secs(10))?;
        world.delete(&vm.path("/snapshots"))?;
        Pool::assert_agrees(&world, &vm)?;
        assert!(remembers(&vm, 1)?);
    }
    assert!(in_time > 0, "none was in time");
    assert_eq!(vm.guest.verify()?.bad, 0);
    vm.snapshot(&world, "good", "disk-and-memory")?;
    Ok(())
}

/// R9: `stop --force` works while a snapshot is saved; what is in line gets its turn.
#[test]
fn power_is_cut_while_memory_is_saved() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::create(&world, "web", 768)?;
    vm.start(&world)?;
    vm.guest.fill(75)?;
    let new = NewSnapshot { kind: Some("disk-and-memory".into()), ..NewSnapshot::default() };
    let accepted: Operation = world.wait(world.client().post(&vm.path("/snapshots"), &new))?;
    cut_power(&world, &vm)?;
    assert_eq!(vm.show(&world)?.state, "stopped");
    let ended: Operation = world.get(&format!("/v1/operations/{}?wait=10s", accepted.id))?;
    assert!(["cancelled", "succeeded"].contains(&ended.state.as_str()), "{}", ended.state);
    Pool::assert_agrees(&world, &vm)?;
    assert!(vm.processes().is_empty());
    Ok(())
}

/// A9, A15, C11, E16, R1, R4, R7, P33, P40, and what the command line makes of it: a safe revert,
/// a proof that a snapshot is whole, lines, plans, protection; on real guests.
#[test]
fn the_command_line_reverts_safely_and_verifies() -> Result<()> {
    let world = World::start_unwatched()?;
    let vm = TestVm::boot(&world, "web")?;
    remember(&vm, 1)?;
    let run = |args: &[&str]| world.run(args);
    let no = |args: &[&str]| -> Result<String> {
        let output = world.tintype(args)?;
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    run(&["snapshot", "create", "web", "one", "--memory", "--protect"])?;
    remember(&vm, 2)?;
    assert!(
        run(&["snapshot", "revert", "web", "one", "--dry-run"])?.contains("what web did since")
    );
    run(&["snapshot", "revert", "web", "one", "--safety"])?;
    vm.wait_until_up()?;
    assert!(remembers(&vm, 1)?);
    let safety = vm.snapshots(&world)?.into_iter().find(|snapshot| snapshot.safety);
    let safety = safety.context("there is a way back")?;
    run(&["snapshot", "verify", "web", &safety.name])?;
    assert!(vm.named(&world, &safety.name)?.verified_at.is_some());
    assert!(remembers(&vm, 1)?, "what is verified is not touched");
    assert_eq!(vm.processes().len(), 1);
    run(&["snapshot", "apply", "web", &safety.name])?;
    vm.wait_until_up()?;
    assert!(remembers(&vm, 2)?, "no revert is a one-way door");
    remember(&vm, 3)?;
    run(&["snapshot", "revert", "web"])?;
    vm.wait_until_up()?;
    assert!(remembers(&vm, 2)?, "without a target it is to the current one");
    assert!(no(&["snapshot", "delete", "web", "one"])?.contains("protected"));
    assert!(no(&["vm", "delete", "web"])?.contains("protected"));
    run(&["snapshot", "edit", "web", "one", "--unprotect"])?;
    assert!(run(&["vm", "delete", "web", "--dry-run"])?.contains("deletes  \"one\""));
    run(&["vm", "set", "web", "--protect-snapshots", "true"])?;
    assert!(no(&["vm", "delete", "web"])?.contains("protect-snapshots"));
    run(&["vm", "set", "web", "--protect-snapshots", "false", "--snapshot-limit", "1"])?;
    assert!(no(&["snapshot", "create", "web"])?.contains("the oldest: \"one\""));
    run(&["snapshot", "create", "web", "forced", "--force"])?;
    assert!(run(&["event", "list", "--vm", "web"])?.contains("with --force"));
    // Damage is found, and the way out works.
    let file = vm.folder().join(format!("{}.memory", vm.named(&world, "one")?.id));
    let length = std::fs::metadata(&file)?.len();
    std::fs::OpenOptions::new().write(true).open(&file)?.set_len(length / 3)?;
    let output = world.tintype(&["snapshot", "verify", "web", "one"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not whole"));
    run(&["snapshot", "revert", "web", "one", "--stopped"])?;
    // In line behind one another.
    run(&["vm", "start", "web", "--no-wait"])?;
    run(&["vm", "stop", "web", "--force", "--queue"])?;
    run(&["vm", "delete", "web", "--yes"])?;
    assert_eq!(std::fs::read_dir(world.pool())?.count(), 1, "nothing but our own notes is left");
    Ok(())
}

/// E10, E11, E26, R9, R19, P32: a second operation on a machine is refused while one runs,
/// whatever the two are; others run beside it.
#[test]
fn one_operation_at_a_time_for_each_machine() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::create(&world, "web", 512)?;
    vm.start(&world)?;
    vm.guest.fill(75)?;
    let other = TestVm::create(&world, "other", MEMORY_MIB)?;
    let new = NewSnapshot { kind: Some("disk-and-memory".into()), ..NewSnapshot::default() };
    let accepted: Operation = world.wait(world.client().post(&vm.path("/snapshots"), &new))?;
    let empty = json!({});
    let id = accepted.snapshot.context("it is named")?;
    let held = vm.show(&world)?.operation.context("the machine says what holds it")?;
    assert_eq!((held.id, held.kind.as_str()), (accepted.id, "create-snapshot"));
    for (path, body) in [
        (vm.path("/snapshots"), &empty),
        (vm.path("/stop"), &empty),
        (vm.path("/clone"), &json!({ "name": "clone" })),
    ] {
        let no = world.refused(&path, body)?;
        assert_eq!((no.code.as_str(), no.blocking.as_slice()), ("vm-busy", &[accepted.id][..]));
    }
    let revert = format!("/v1/snapshots/{id}/revert");
    let no = world.refused(&revert, &Revert::default())?;
    assert!(["vm-busy", "snapshot-unavailable"].contains(&no.code.as_str()));
    other.snapshot(&world, "beside it", "disk")?;
    vm.wait_until_free(&world)?;
    assert_eq!(vm.named(&world, &vm.snapshots(&world)?[0].name)?.state, "ready");
    Ok(())
}

/// E26: how far a snapshot is and when its memory will be saved is told while it is taken; it never
/// goes back, and it comes true.
#[test]
fn progress_is_told_and_never_goes_back() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::create(&world, "web", 768)?;
    vm.start(&world)?;
    vm.guest.fill(75)?;
    let new = NewSnapshot { kind: Some("disk-and-memory".into()), ..NewSnapshot::default() };
    let accepted: Operation = world.wait(world.client().post(&vm.path("/snapshots"), &new))?;
    let at = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Moment(since.map_or(0, |since| since.as_millis() as i64))
    };
    let mut told = Vec::new();
    let mut expected = Vec::new();
    let (mut begun, mut saved) = (None, Moment(0));
    loop {
        let now: Operation = world.get(&format!("/v1/operations/{}", accepted.id))?;
        if now.has_ended() {
            assert_eq!(now.state, "succeeded", "{:?}", now.error);
            break;
        }
        if now.step == "saving memory" {
            told.push(now.progress);
            saved = at();
            begun.get_or_insert(saved);
            expected.extend(now.eta);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(told.is_sorted(), "{told:?}");
    told.dedup();
    assert!(told.len() > 3 && told.iter().all(|n| (0.0..=1.0).contains(n)), "{told:?}");
    let begun = begun.context("memory was saved")?;
    let expected: Vec<i64> =
        expected.iter().map(|eta| Ok(Moment::from_rfc3339(eta)?.0)).collect::<Result<_>>()?;
    let off = |eta: &i64| (eta - saved.0).abs();
    // What was told in the second half of the time; the machine may be busy with much else.
    let late = &expected[expected.len() / 2..];
    let worst = late.iter().map(off).max().context("it was told when it would be there")?;
    assert!(worst <= (saved.0 - begun.0) / 2 + 500, "{worst} ms off: {late:?} {saved:?}");
    Ok(())
}

/// P35: a snapshot that somebody takes inside a layer's file by another tool is none of ours: it
/// is not shown, and harms nothing.
#[test]
fn a_foreign_snapshot_is_not_shown() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::create(&world, "web", MEMORY_MIB)?;
    for file in &Pool::of(&vm)?.files {
        let mut tool = std::process::Command::new("qemu-img");
        let tool = tool.current_dir(vm.folder()).args(["snapshot", "-c", "foreign", file]);
        anyhow::ensure!(tool.status()?.success(), "qemu-img snapshot {file}");
    }
    assert!(vm.snapshots(&world)?.is_empty());
    vm.start(&world)?;
    remember(&vm, 1)?;
    let ours = vm.snapshot(&world, "ours", "disk-and-memory")?;
    remember(&vm, 2)?;
    vm.revert(&world, &ours)?;
    assert!(remembers(&vm, 1)?);
    assert_eq!(vm.snapshots(&world)?.len(), 1);
    world.delete(&vm.path("/snapshots"))?;
    Pool::assert_agrees(&world, &vm)?;
    assert!(remembers(&vm, 1)?);
    Ok(())
}

/// P36: a merge that fails for one disk after it was done for the other leaves records that match
/// the files, a guest that runs, and is done as soon as it can be.
#[test]
fn half_a_merge_is_recorded_as_it_is() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    remember(&vm, 1)?;
    let before = files(&vm, "qcow2")?;
    let one = vm.snapshot(&world, "one", "disk")?;
    remember(&vm, 2)?;
    // The second disk's lower layer cannot be written to, by nobody.
    let locked = before.last().context("there are disks")?;
    chattr("+i", locked)?;
    vm.delete(&world, &one, "one")?;
    let until = Instant::now() + Duration::from_secs(60);
    while Pool::of(&vm)?.files.len() != 3 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    let halfway = Pool::of(&vm)?;
    assert_eq!(halfway.files.len(), 3, "one is merged, one is not: {halfway:?}");
    assert!(remembers(&vm, 2)?);
    cut_power(&world, &vm)?;
    vm.start(&world)?;
    assert_eq!(vm.guest.epochs()?.disks, [2, 2], "it starts from what the records say");
    chattr("-i", locked)?;
    let pool = Pool::assert_agrees(&world, &vm)?;
    assert_eq!(pool.files.len(), 2);
    Ok(())
}

/// A guest that writes to memory faster than it is saved is saved behind its back.
#[test]
fn who_writes_faster_than_memory_is_saved_is_saved_all_the_same() -> Result<()> {
    let mut world = World::start()?;
    world.set("save_rate = 200_000_000")?;
    world.serve(&[])?;
    let vm = TestVm::boot(&world, "web")?;
    let at_once = json!({ "pause_bound_ms": 0 });
    let _: Vm = world.wait(world.client().patch(&vm.path(""), &at_once))?;
    vm.guest.fill(60)?;
    vm.guest.dirty(1_000_000)?;
    vm.guest.set_nonce(7)?;
    let one = vm.snapshot(&world, "one", "disk-and-memory")?;
    assert_eq!(one.road.as_deref(), Some("background"));
    vm.guest.set_nonce(8)?;
    vm.revert(&world, &one)?;
    assert_eq!(vm.guest.nonce()?, 7);
    vm.guest.dirty(0)?;
    assert_eq!(vm.guest.verify()?.bad, 0);
    Ok(())
}

/// R10: a layer that was merged and could not be removed is of the past all the same: what the
/// guest has written since lies in the other one.
#[test]
fn what_was_merged_and_not_removed_is_of_the_past() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    let before = files(&vm, "qcow2")?;
    let one = vm.snapshot(&world, "one", "disk")?;
    remember(&vm, 2)?;
    let merged: Vec<_> = files(&vm, "qcow2")?.difference(&before).cloned().collect();
    merged.iter().try_for_each(|layer| chattr("+i", layer))?;
    vm.delete(&world, &one, "one")?;
    let until = Instant::now() + Duration::from_secs(60);
    while files(&vm, "merged")?.len() != merged.len() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    remember(&vm, 3)?;
    cut_power(&world, &vm)?;
    vm.start(&world)?;
    assert_eq!(files(&vm, "qcow2")?.len(), 4, "nothing could be removed");
    assert_eq!(vm.guest.epochs()?.disks, [3, 3]);
    merged.iter().try_for_each(|layer| chattr("-i", layer))?;
    // After an operation it is looked at once whether there is work.
    cut_power(&world, &vm)?;
    Pool::assert_agrees(&world, &vm)?;
    assert_eq!(files(&vm, "qcow2")?, before);
    assert!(files(&vm, "merged")?.is_empty());
    Ok(())
}

/// The files in a machine's folder whose names end so.
fn files(vm: &TestVm, end: &str) -> Result<BTreeSet<PathBuf>> {
    let files = std::fs::read_dir(vm.folder())?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(files.filter(|path| path.extension().is_some_and(|found| found == end)).collect())
}

fn chattr(flag: &str, path: &std::path::Path) -> Result<()> {
    let status = std::process::Command::new("chattr").arg(flag).arg(path).status()?;
    anyhow::ensure!(status.success(), "chattr {flag} {}", path.display());
    Ok(())
}
