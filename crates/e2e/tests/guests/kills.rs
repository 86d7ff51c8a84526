//! Kills tintype (-9) at every step of create, revert, delete and reclaim on a real guest, before
//! and after every journal write, QMP command and file change, as the executor numbers them.
//!
//! After the restart each operation is finished or undone, the guest runs, no snapshot that was
//! ready is lost, and the pool's files and the database agree both ways. Nothing is done after one
//! act and before the next, so that it is died at one of these two steps only, once; `cargo xtask
//! kills` runs the full matrix (`TINTYPE_KILLS=full`): every step, several rounds.

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};
use tintype_e2e::{Pool, TestVm, World};
use tintype_wire::rest::{Host, HostCheck, List, NewSnapshot, Operation, Revert, Vm};

/// The disk of a host that loses its power.
const DISK_MIB: u64 = 3 << 10;
/// At about how many steps of an effect power is lost, in a short run.
const LOSSES: usize = 4;

/// One kind of effect, and how to bring it about.
struct Case {
    /// The effect's word.
    word: &'static str,
    /// Brings the machine to where the effect can be brought about.
    prepare: fn(&World, &TestVm) -> Result<()>,
    /// Brings it about; the server may die meanwhile.
    act: fn(&World, &TestVm) -> Result<()>,
}

const TAKE_MEMORY: Case = Case {
    word: "take",
    prepare: |_, _| Ok(()),
    act: |world, vm| snapshot(world, vm, "new", "disk-and-memory"),
};

const TAKE_BY_PRECOPY: Case = Case {
    word: "take",
    prepare: |_, _| Ok(()),
    act: |world, vm| {
        let [kind, road, name] = ["disk-and-memory", "precopy", "new"].map(|s| Some(s.to_owned()));
        let new = NewSnapshot { name, kind, road, ..NewSnapshot::default() };
        world.post(&vm.path("/snapshots"), &new).map(drop)
    },
};

/// The guest writes to memory faster than it is saved.
const TAKE_THAT_TURNS: Case = Case {
    word: "take",
    prepare: |world, vm| {
        let later = json!({ "pause_bound_ms": 0 });
        let _: Vm = world.wait(world.client().patch(&vm.path(""), &later))?;
        vm.guest.fill(60)?;
        vm.guest.dirty(1_000_000)
    },
    act: |world, vm| {
        snapshot(world, vm, "new", "disk-and-memory")?;
        let road = vm.named(world, "new")?.road;
        ensure!(road.as_deref() == Some("background"), "it did not turn: {road:?}");
        Ok(())
    },
};

const TAKE_DISKS: Case = Case {
    word: "take",
    prepare: |_, _| Ok(()),
    act: |world, vm| snapshot(world, vm, "new", "disk"),
};

const REVERT: Case = Case {
    word: "revert",
    prepare: |_, _| Ok(()),
    act: |world, vm| revert(world, vm, "base", None),
};

const REVERT_TO_OFF: Case = Case {
    word: "revert",
    prepare: |_, _| Ok(()),
    act: |world, vm| revert(world, vm, "base", Some("stopped")),
};

const DELETE: Case = Case {
    word: "remove-memory",
    prepare: |world, vm| snapshot(world, vm, "new", "disk-and-memory"),
    act: |world, vm| delete(world, vm, "new"),
};

/// The first work after this deletion is a merge of the active layer.
const MERGE: Case = Case {
    word: "reclaim",
    prepare: |world, vm| snapshot(world, vm, "new", "disk"),
    act: |world, vm| delete(world, vm, "new"),
};

/// The first work after this revert is the removal of a layer.
const REMOVE: Case = Case {
    word: "reclaim",
    prepare: |_, _| Ok(()),
    act: |world, vm| revert(world, vm, "base", None),
};

/// The first work after the last of these snapshots is a fold.
const FOLD: Case = Case {
    word: "reclaim",
    prepare: |world, vm| (0..5).try_for_each(|n| snapshot(world, vm, &format!("s{n}"), "disk")),
    act: |world, vm| snapshot(world, vm, "s5", "disk"),
};

const CLONE: Case =
    Case { word: "clone", prepare: |_, _| Ok(()), act: |world, vm| clone(world, vm, false) };

const LINKED_CLONE: Case =
    Case { word: "clone", prepare: |_, _| Ok(()), act: |world, vm| clone(world, vm, true) };

const CREATE_VM: Case = Case {
    word: "create-vm",
    prepare: |_, _| Ok(()),
    act: |world, _| TestVm::create(world, "clone", 64).map(drop),
};

/// With snapshots, of layers that another machine shares.
const DELETE_VM: Case = Case {
    word: "delete-vm",
    prepare: |world, vm| {
        clone(world, vm, true)?;
        snapshot(world, &TestVm::known(world, "clone")?, "of-clone", "disk")
    },
    act: |world, _| {
        let clone = TestVm::known(world, "clone")?;
        world.delete(&clone.path("")).map(drop)
    },
};

const VERIFY: Case = Case {
    word: "verify",
    prepare: |_, _| Ok(()),
    act: |world, vm| {
        let id = vm.named(world, "base")?.id;
        world.post(&format!("/v1/snapshots/{id}/verify"), &json!({})).map(drop)
    },
};

const EXPORT: Case = Case {
    word: "export",
    prepare: |world, _| {
        let _ = fs::remove_dir_all(world.pool().join(".exports"));
        Ok(())
    },
    act: |world, vm| {
        let id = vm.named(world, "base")?.id;
        let export = json!({ "name": "taken-along" });
        world.post(&format!("/v1/snapshots/{id}/export"), &export).map(drop)
    },
};

/// The first of three effects: a snapshot of now, before the revert.
const SAFE_REVERT: Case = Case {
    word: "take",
    prepare: |_, _| Ok(()),
    act: |world, vm| {
        let id = vm.named(world, "base")?.id;
        let revert = Revert { safety: true, ..Revert::default() };
        world.post(&format!("/v1/snapshots/{id}/revert"), &revert).map(drop)
    },
};

fn clone(world: &World, vm: &TestVm, linked: bool) -> Result<()> {
    let snapshot = vm.named(world, "base")?.id;
    let clone = json!({ "name": "clone", "snapshot": snapshot, "linked": linked });
    world.post(&vm.path("/clone"), &clone).map(drop)
}

fn snapshot(world: &World, vm: &TestVm, name: &str, kind: &str) -> Result<()> {
    let (name, kind) = (Some(name.to_owned()), Some(kind.to_owned()));
    let new = NewSnapshot { name, kind, ..NewSnapshot::default() };
    world.post(&vm.path("/snapshots"), &new).map(drop)
}

fn revert(world: &World, vm: &TestVm, name: &str, power: Option<&str>) -> Result<()> {
    let id = vm.named(world, name)?.id;
    let revert = Revert { power: power.map(str::to_owned), ..Revert::default() };
    world.post(&format!("/v1/snapshots/{id}/revert"), &revert).map(drop)
}

fn delete(world: &World, vm: &TestVm, name: &str) -> Result<()> {
    let found = vm.named(world, name)?;
    vm.delete(world, &found, "one").map(drop)
}

/// What dies at a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    /// Tintype; guests run on.
    Tintype,
    /// The host: guests as well, and what was not synced.
    Host,
}

struct Scene {
    world: World,
    vm: TestVm,
    victim: Victim,
}

impl Scene {
    /// A guest that is booted once; all cases go back to its snapshot `base`.
    fn new(victim: Victim) -> Result<Self> {
        let world = match victim {
            Victim::Tintype => World::start()?,
            Victim::Host => World::start_on_own_disk(DISK_MIB)?,
        };
        let vm = TestVm::boot(&world, "web")?;
        vm.guest.set_nonce(1)?;
        vm.guest.set_epoch(1)?;
        snapshot(&world, &vm, "base", "disk-and-memory")?;
        vm.guest.set_nonce(2)?;
        vm.guest.set_epoch(2)?;
        Ok(Self { world, vm, victim })
    }

    /// Which steps the effect has, by running it once: whether each is one before an act.
    fn steps(&mut self, case: &Case) -> Result<Vec<bool>> {
        let trace = self.world.data().join("trace");
        let _ = fs::remove_file(&trace);
        (case.prepare)(&self.world, &self.vm)?;
        self.world.serve(&["--trace-steps", &trace.display().to_string()])?;
        Pool::settled(&self.world, &self.vm)?;
        let _ = fs::remove_file(&trace);
        (case.act)(&self.world, &self.vm)?;
        Pool::settled(&self.world, &self.vm)?;
        let text = fs::read_to_string(&trace)?;
        let mut steps = Vec::new();
        for line in text.lines() {
            let mut words = line.split(' ');
            if words.next() != Some(case.word) {
                continue;
            }
            let number: usize = words.next().context("a step has a number")?.parse()?;
            if number != steps.len() + 1 {
                break;
            }
            steps.push(words.next() == Some("before"));
        }
        self.back_to_base()?;
        if steps.len() < 4 {
            bail!("{} has only {} steps:\n{text}", case.word, steps.len());
        }
        Ok(steps)
    }

    /// Dies at one step, starts again, and looks whether all is well. Says whether the step was
    /// there: an effect that had to do something twice has more of them.
    fn die_at(&mut self, case: &Case, step: u32) -> Result<bool> {
        (case.prepare)(&self.world, &self.vm)?;
        Pool::settled(&self.world, &self.vm)?;
        let ready = self.ready()?;
        self.world.serve(&["--kill-at", &format!("{}:{step}", case.word)])?;
        // As a rule its answer is lost with the server.
        let answered = (case.act)(&self.world, &self.vm).is_ok();
        let patience = Duration::from_secs(if answered { 5 } else { 30 });
        match self.world.wait_for_death(patience) {
            Ok(signal) => assert_eq!(signal, Some(9), "the step was not hit"),
            Err(_) if answered => {
                self.world.serve(&[])?;
                return self.back_to_base().map(|()| false);
            }
            Err(error) => return Err(error),
        }
        if self.victim == Victim::Host {
            self.world.lose_power()?;
        }
        self.world.serve(&[])?;
        self.assert_well(&ready)?;
        self.back_to_base().map(|()| true)
    }

    /// The machine once it is recorded as it is: a guest that is gone is noticed in a moment.
    fn as_it_is(&self) -> Result<Vm> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let vm = self.vm.wait_until_free(&self.world)?;
            if (vm.state == "running") != self.vm.processes().is_empty() {
                return Ok(vm);
            }
            anyhow::ensure!(Instant::now() < until, "{} is not so", vm.state);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until nothing is under way, for any machine.
    fn wait_until_idle(&self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let operations: List<Operation> = self.world.get("/v1/operations?state=running")?;
            if operations.items.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{:?} has no end", operations.items);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What was ready when the power was lost is whole, and nothing else is left.
    fn assert_whole(&self) -> Result<()> {
        let new = self.vm.named(&self.world, "new").ok();
        let new = new.filter(|s| s.state == "ready" && s.kind == "disk-and-memory");
        if let Some(new) = new {
            self.vm.revert(&self.world, &new)?;
            let nonce = self.vm.guest.nonce()?;
            assert_eq!((nonce, self.vm.guest.epochs()?.disks), (2, vec![2, 2]));
        }
        let host = &self.world.get::<List<Host>>("/v1/hosts")?.items[0];
        let path = format!("/v1/hosts/{}/check", host.id);
        let check: HostCheck = self.world.wait(self.world.client().post(&path, &json!({})))?;
        assert_eq!((check.findings, check.strangers), (Vec::new(), Vec::new()));
        Ok(())
    }

    fn ready(&self) -> Result<Vec<String>> {
        let all = self.vm.snapshots(&self.world)?;
        Ok(all.into_iter().filter(|s| s.state == "ready").map(|s| s.name).collect())
    }

    fn assert_well(&self, ready_before: &[String]) -> Result<()> {
        let vm = self.as_it_is()?;
        self.wait_until_idle()?;
        for snapshot in self.vm.snapshots(&self.world)? {
            assert!(["ready", "unavailable"].contains(&snapshot.state.as_str()), "{snapshot:?}");
        }
        let ready = self.ready()?;
        let lost = ready_before.iter().filter(|name| *name != "new" && !ready.contains(name));
        assert_eq!(lost.count(), 0, "{ready_before:?} {ready:?}");
        if vm.state == "running" {
            self.vm.wait_until_up()?;
            assert_eq!(self.vm.processes().len(), 1);
            let nonce = self.vm.guest.nonce()?;
            assert_eq!(
                self.vm.guest.epochs()?.disks,
                [nonce, nonce],
                "RAM and disks are of one moment"
            );
        } else {
            let off = if self.victim == Victim::Host { "crashed" } else { "stopped" };
            assert!(["stopped", off].contains(&vm.state.as_str()), "{}", vm.state);
        }
        if self.victim == Victim::Host {
            self.assert_whole()?;
        }
        Pool::assert_agrees(&self.world, &self.vm)?;
        self.assert_machines_agree()?;
        // It goes once the manifest beside the layers tells what it told.
        let until = Instant::now() + Duration::from_secs(10);
        while fs::read_dir(self.world.data().join("host/journal"))?.count() > 0 {
            anyhow::ensure!(Instant::now() < until, "an effect's journal is left");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The pool has a folder for each machine, and for nothing else; a clone or an export is whole
    /// or not there.
    fn assert_machines_agree(&self) -> Result<()> {
        let vms: List<Vm> = self.world.get("/v1/vms")?;
        let recorded: BTreeSet<String> = vms.items.iter().map(|vm| vm.id.to_string()).collect();
        let entries = fs::read_dir(self.world.pool())?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let there: BTreeSet<String> = names.filter(|name| !name.starts_with('.')).collect();
        assert_eq!(there, recorded);
        for export in fs::read_dir(self.world.pool().join(".exports")).into_iter().flatten() {
            let folder = export?.path();
            ensure!(folder.ends_with("taken-along"), "{} is left", folder.display());
            ensure!(folder.join("export.json").exists(), "{} is not whole", folder.display());
        }
        if vms.items.iter().any(|vm| vm.name == "clone") {
            let clone = TestVm::known(&self.world, "clone")?;
            assert_eq!(clone.show(&self.world)?.operation, None);
            Pool::assert_agrees(&self.world, &clone)?;
        }
        Ok(())
    }

    /// Deletes all but `base`, and goes back to it, which proves that it is whole.
    fn back_to_base(&mut self) -> Result<()> {
        let clones: List<Vm> = self.world.get("/v1/vms?keyword=clone")?;
        for clone in clones.items {
            self.world.delete(&format!("/v1/vms/{}", clone.id))?;
        }
        for snapshot in self.vm.snapshots(&self.world)? {
            if snapshot.name != "base" {
                self.vm.delete(&self.world, &snapshot, "one")?;
            }
        }
        self.vm.revert(&self.world, &self.vm.named(&self.world, "base")?)?;
        assert_eq!((self.vm.guest.nonce()?, self.vm.guest.epochs()?.disks), (1, vec![1, 1]));
        self.vm.guest.set_nonce(2)?;
        self.vm.guest.set_epoch(2)?;
        Pool::assert_agrees(&self.world, &self.vm)?;
        Ok(())
    }
}

fn kill_at_every_step(case: &Case) -> Result<()> {
    let rounds = if full() { 3 } else { 1 };
    let mut scene = Scene::new(Victim::Tintype)?;
    let steps = scene.steps(case)?;
    let points = points(&steps);
    for _ in 0..rounds {
        let died = points.iter().map(|&step| die(&mut scene, case, step));
        let died: Vec<bool> = died.collect::<Result<_>>()?;
        let died = died.into_iter().filter(|died| *died).count();
        println!("{}: died {died} times in {} steps", case.word, steps.len());
        ensure!(died * 4 >= points.len() * 3, "too few steps were there");
    }
    Ok(())
}

/// The steps at which to die, of those that are before an act and those that are after one.
pub(crate) fn points(before: &[bool]) -> Vec<u32> {
    let follows = |at: usize| before[at] && at.checked_sub(1).is_some_and(|last| !before[last]);
    let points = (0..before.len()).filter(|&at| full() || !follows(at));
    points.map(|at| at as u32 + 1).collect()
}

/// Loses power at some steps of an effect; at every one in the full matrix.
fn lose_power_at_steps(case: &Case) -> Result<()> {
    let mut scene = Scene::new(Victim::Host)?;
    let points = points(&scene.steps(case)?);
    let apart = if full() { 1 } else { points.len().div_ceil(LOSSES) };
    let tried: BTreeSet<u32> = points.iter().step_by(apart).chain(points.last()).copied().collect();
    tried.iter().try_for_each(|&step| die(&mut scene, case, step).map(drop))?;
    println!("{}: power lost at {} of {} steps", case.word, tried.len(), points.len());
    Ok(())
}

fn die(scene: &mut Scene, case: &Case, step: u32) -> Result<bool> {
    let begun = Instant::now();
    let died = scene.die_at(case, step).with_context(|| format!("{}:{step}", case.word));
    let died = died.inspect_err(|_| eprintln!("the server said:\n{}", scene.world.said()))?;
    // Memory has to be saved once more when QEMU's sweep has ended too soon, and only then.
    ensure!(died || case.word == "take", "{}:{step}: the step was not hit", case.word);
    println!("{}:{step} {:?}", case.word, begun.elapsed());
    Ok(died)
}

fn full() -> bool {
    std::env::var("TINTYPE_KILLS").as_deref() == Ok("full")
}

/// R11: power is lost while memory is saved; unsynced writes are gone with it.
#[test]
fn power_lost_in_a_create() -> Result<()> {
    lose_power_at_steps(&TAKE_MEMORY)
}

/// R11: so for reverts.
#[test]
fn power_lost_in_a_revert() -> Result<()> {
    lose_power_at_steps(&REVERT)
}

/// R11: and while layers are merged.
#[test]
fn power_lost_in_a_merge() -> Result<()> {
    lose_power_at_steps(&MERGE)
}

#[test]
fn full_clone() -> Result<()> {
    kill_at_every_step(&CLONE)
}

#[test]
fn linked_clone() -> Result<()> {
    kill_at_every_step(&LINKED_CLONE)
}

/// R11: and a machine that is made is whole, or not there.
#[test]
fn creation_of_a_machine() -> Result<()> {
    kill_at_every_step(&CREATE_VM)
}

/// R11: what is deleted is gone, with nothing left of it and nothing lost that others share.
#[test]
fn deletion_of_a_machine() -> Result<()> {
    kill_at_every_step(&DELETE_VM)
}

#[test]
fn verification() -> Result<()> {
    kill_at_every_step(&VERIFY)
}

#[test]
fn export_to_files() -> Result<()> {
    kill_at_every_step(&EXPORT)
}

/// R4: whatever dies while the way back is made, the revert is gone through with or undone.
#[test]
fn safe_revert() -> Result<()> {
    kill_at_every_step(&SAFE_REVERT)
}

/// E29, R11, P24: killed at every step, finished or undone by asking what is there.
#[test]
fn create_with_memory() -> Result<()> {
    kill_at_every_step(&TAKE_MEMORY)
}

/// R11: so on the other road, where QEMU stops the guest by itself.
#[test]
fn create_by_precopy() -> Result<()> {
    kill_at_every_step(&TAKE_BY_PRECOPY)
}

/// P25: so for reverts.
#[test]
fn revert_with_memory() -> Result<()> {
    kill_at_every_step(&REVERT)
}

/// R11: and between the two. Both are died on elsewhere: the short run dies in the middle only.
#[test]
fn create_that_turns() -> Result<()> {
    let mut scene = Scene::new(Victim::Tintype)?;
    scene.world.set("save_rate = 200_000_000")?;
    let steps = scene.steps(&TAKE_THAT_TURNS)?;
    let points = points(&steps);
    let fifth = points.len() / 5;
    let tried: Vec<u32> = match full() {
        true => points,
        false => points[2 * fifth..3 * fifth].iter().step_by(2).copied().collect(),
    };
    for &step in &tried {
        die(&mut scene, &TAKE_THAT_TURNS, step)?;
    }
    println!("take: died at {} of {} steps, some of them turning", tried.len(), steps.len());
    Ok(())
}

/// P25: and for deletes.
#[test]
fn delete_with_memory() -> Result<()> {
    kill_at_every_step(&DELETE)
}

#[test]
fn merge_of_a_layer() -> Result<()> {
    kill_at_every_step(&MERGE)
}

#[test]
fn removal_of_a_layer() -> Result<()> {
    kill_at_every_step(&REMOVE)
}

/// P24: without memory.
#[test]
fn create_of_disks() -> Result<()> {
    kill_at_every_step(&TAKE_DISKS)
}

#[test]
fn revert_to_off() -> Result<()> {
    kill_at_every_step(&REVERT_TO_OFF)
}

#[test]
fn fold_of_layers() -> Result<()> {
    kill_at_every_step(&FOLD)
}
