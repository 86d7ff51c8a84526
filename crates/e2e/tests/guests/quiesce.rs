//! Quiesced snapshots: the guest agent freezes the filesystems, the disks are switched, and
//! whatever happens the filesystems are thawed (P38, P39).

use crate::kills::points;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};
use tintype_e2e::{Debian, Pool, TestVm, World};
use tintype_wire::rest::{NewSnapshot, Operation, Revert, Snapshot};

fn wanted(name: &str, quiesce: &str) -> NewSnapshot {
    let (name, quiesce) = (Some(name.to_owned()), Some(quiesce.to_owned()));
    NewSnapshot { name, quiesce, ..NewSnapshot::default() }
}

fn take(world: &World, vm: &TestVm, name: &str, quiesce: &str) -> Result<Snapshot> {
    world.post(&vm.path("/snapshots"), &wanted(name, quiesce))?;
    vm.named(world, name)
}

/// Another QMP client of a machine's process.
struct Saboteur {
    reader: BufReader<UnixStream>,
}

impl Saboteur {
    fn of(vm: &TestVm) -> Result<Self> {
        let runs = fs::read_dir(vm.folder().join("run"))?;
        let numbers = runs.filter_map(|run| run.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let number = numbers.max().context("a process runs")?;
        let socket = vm.folder().join(format!("run/{number}/watch.sock"));
        let mut own = Self { reader: BufReader::new(UnixStream::connect(socket)?) };
        own.ask("qmp_capabilities", json!({}))?;
        Ok(own)
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.reader.get_mut(), "{line}")?;
        loop {
            let mut line = String::new();
            ensure!(self.reader.read_line(&mut line)? > 0, "QEMU is gone");
            let mut said: Value = serde_json::from_str(&line)?;
            if said.get("return").is_some() || said.get("error").is_some() {
                return Ok(said["return"].take());
            }
        }
    }

    fn layers(&mut self) -> Result<BTreeSet<String>> {
        let nodes = self.ask("query-named-block-nodes", json!({ "flat": true }))?;
        let names = nodes.as_array().into_iter().flatten();
        let names = names.filter_map(|node| Some(node["node-name"].as_str()?.to_owned()));
        Ok(names.filter(|name| name.starts_with('l')).collect())
    }

    /// Takes the first layer away that is opened from now on.
    fn remove_the_next_layer(mut self) -> Result<()> {
        let before = self.layers()?;
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(new) = self.layers()?.difference(&before).next() {
                self.ask("blockdev-del", json!({ "node-name": new }))?;
                return Ok(());
            }
            ensure!(Instant::now() < until, "no layer is opened");
        }
    }
}

/// B6, R15: what the guest's filesystems hold is on the disks of a quiesced snapshot, and not on
/// those of another.
fn a_quiesced_snapshot_has_everything_written(world: &World, debian: &Debian) -> Result<()> {
    let vm = &debian.vm;
    let crash = take(world, vm, "crash", "no")?;
    assert_eq!((crash.consistency.as_str(), crash.reason), ("crash", None));
    for (name, quiesce) in [("tried", "try"), ("required", "required")] {
        let quiesced = take(world, vm, name, quiesce)?;
        assert_eq!((quiesced.consistency.as_str(), &quiesced.reason), ("quiesced", &None));
        debian.wait_for_rows(3)?;
    }
    for (name, all_written) in [("required", true), ("crash", false)] {
        let id = vm.named(world, name)?.id;
        world.post(&format!("/v1/snapshots/{id}/revert"), &Revert::default())?;
        assert_eq!(debian.is_all_written(world)?, all_written, "{name}");
    }
    world.delete(&vm.path("/snapshots"))?;
    vm.start(world)?;
    debian.wait_for_agent()?;
    debian.wait_for_rows(3).map(drop)
}

/// Frozen, then it fails; the guest is thawed and nothing is left behind.
fn a_snapshot_that_fails_leaves_nothing_frozen(world: &World, debian: &Debian) -> Result<()> {
    let vm = &debian.vm;
    let saboteur = Saboteur::of(vm)?;
    let at_work = thread::spawn(move || saboteur.remove_the_next_layer());
    let error = take(world, vm, "sabotaged", "required").unwrap_err();
    at_work.join().expect("it does not panic")?;
    assert!(error.to_string().contains("the hypervisor reported an error"), "{error:#}");
    debian.wait_for_rows(3)?;
    let failed = vm.named(world, "sabotaged")?;
    assert_eq!(failed.state, "unavailable");
    vm.delete(world, &failed, "one")?;
    Pool::assert_agrees(world, vm).map(drop)
}

/// R11: dies at each step from before the freeze until after the thaw.
fn whoever_dies_nothing_stays_frozen(world: &mut World, debian: &Debian) -> Result<()> {
    let vm = &debian.vm;
    let trace = world.data().join("trace");
    world.serve(&["--trace-steps", &trace.display().to_string()])?;
    take(world, vm, "counted", "required")?;
    let text = fs::read_to_string(&trace)?;
    let steps: Vec<&str> = text.lines().filter(|line| line.starts_with("take ")).collect();
    let at = |label: &str| steps.iter().position(|step| step.ends_with(label));
    let first = at("before poll qmp query-chardev").context("it looks for an agent")?;
    let last = at("after guest agent thaw").context("it thaws")? + 5;
    vm.delete(world, &vm.named(world, "counted")?, "one")?;
    let before: Vec<bool> = steps.iter().map(|step| step.contains(" before ")).collect();
    let mut noted = false;
    let points = points(&before).into_iter().map(|point| point as usize - 1);
    for n in points.filter(|n| (first..last).contains(n)) {
        let step = steps[n];
        world.serve(&["--kill-at", &format!("take:{}", n + 1)])?;
        let path = vm.path("/snapshots");
        let died = world.wait(world.client().post::<Operation>(&path, &wanted("k", "required")));
        drop(died);
        let signal = world.wait_for_death(Duration::from_secs(60))?;
        assert_eq!(signal, Some(9), "{step} was not hit");
        // Nobody has started us again: the watchdog alone.
        debian.wait_for_rows(1).with_context(|| format!("after death at {step}"))?;
        world.serve(&[])?;
        vm.wait_until_free(world)?;
        let left = vm.named(world, "k")?;
        let sound = ["quiesced", "crash"].contains(&left.consistency.as_str())
            && (left.state == "unavailable") == (left.consistency == "crash");
        assert!(sound, "{step}: {left:?}");
        vm.delete(world, &left, "one")?;
        Pool::assert_agrees(world, vm)?;
        println!("{step}: {}", left.consistency);
        noted = left.consistency == "quiesced";
    }
    ensure!(noted, "once it is noted that it is quiesced, it is");
    Ok(())
}

/// P38: frozen for an instant, and thawed whatever fails or dies.
#[test]
fn filesystems_are_frozen_for_a_snapshot_and_never_longer() -> Result<()> {
    let mut world = World::start()?;
    let debian = Debian::boot(&world)?;
    debian.wait_for_agent()?;
    debian.wait_for_rows(3)?;
    a_quiesced_snapshot_has_everything_written(&world, &debian)?;
    a_snapshot_that_fails_leaves_nothing_frozen(&world, &debian)?;
    whoever_dies_nothing_stays_frozen(&mut world, &debian)?;
    debian.check_database()
}

/// P39: without an agent there is a clear error, or a snapshot that says what it is.
#[test]
fn without_an_agent_nothing_is_promised() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    let before = Pool::assert_agrees(&world, &vm)?.files;
    let error = take(&world, &vm, "required", "required").unwrap_err();
    assert!(error.to_string().contains("no guest agent runs in the guest"), "{error:#}");
    vm.wait_until_up()?;
    vm.delete(&world, &vm.named(&world, "required")?, "one")?;
    assert_eq!(Pool::assert_agrees(&world, &vm)?.files, before, "nothing is left behind");

    let tried = take(&world, &vm, "tried", "try")?;
    assert_eq!((tried.state.as_str(), tried.consistency.as_str()), ("ready", "crash"));
    let reason = tried.reason.context("it says why")?;
    assert_eq!(reason.code, "quiesce-failed");

    let both = NewSnapshot { kind: Some("disk-and-memory".into()), ..wanted("both", "required") };
    let refused = world.refused(&vm.path("/snapshots"), &both)?;
    assert_eq!(refused.code, "quiesce-with-memory");

    world.post(&vm.path("/stop"), &json!({ "force": true }))?;
    let off = take(&world, &vm, "off", "required")?;
    assert_eq!((off.consistency.as_str(), off.reason), ("clean", None));
    Ok(())
}
