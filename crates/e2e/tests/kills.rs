//! Kills tintype (-9) at every step of create, revert, delete and reclaim on a real guest, before
//! and after every journal write, QMP command and file change, as the executor numbers them.
//!
//! After the restart each operation is finished or undone, the guest runs, no snapshot that was
//! ready is lost, and the pool's files and the database agree both ways. Each step once here;
//! `cargo xtask kills` runs the full matrix (`TINTYPE_KILLS=full`): more kinds, several rounds.

use anyhow::{Context, Result, bail};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};
use tintype_e2e::{Pool, TestVm, World};
use tintype_wire::rest::{List, NewSnapshot, Operation, Revert, Vm};

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

const VERIFY: Case = Case {
    word: "verify",
    prepare: |_, _| Ok(()),
    act: |world, vm| {
        let id = vm.named(world, "base")?.id;
        world.post(&format!("/v1/snapshots/{id}/verify"), &json!({})).map(drop)
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

struct Scene {
    world: World,
    vm: TestVm,
}

impl Scene {
    /// A guest that is booted once; all cases go back to its snapshot `base`.
    fn new() -> Result<Self> {
        let world = World::start()?;
        let vm = TestVm::boot(&world, "web")?;
        vm.guest.set_nonce(1)?;
        vm.guest.set_epoch(1)?;
        snapshot(&world, &vm, "base", "disk-and-memory")?;
        vm.guest.set_nonce(2)?;
        vm.guest.set_epoch(2)?;
        Ok(Self { world, vm })
    }

    /// How many steps the effect has, by running it once.
    fn count(&mut self, case: &Case) -> Result<u32> {
        let trace = self.world.data().join("trace");
        let _ = fs::remove_file(&trace);
        (case.prepare)(&self.world, &self.vm)?;
        self.world.serve(&["--trace-steps", &trace.display().to_string()])?;
        Pool::settled(&self.world, &self.vm)?;
        let _ = fs::remove_file(&trace);
        (case.act)(&self.world, &self.vm)?;
        Pool::settled(&self.world, &self.vm)?;
        let text = fs::read_to_string(&trace)?;
        let mut last = 0;
        for line in text.lines() {
            let mut words = line.split(' ');
            if words.next() != Some(case.word) {
                continue;
            }
            let number: u32 = words.next().context("a step has a number")?.parse()?;
            if number <= last {
                break;
            }
            last = number;
        }
        self.back_to_base()?;
        if last < 4 {
            bail!("{} has only {last} steps:\n{text}", case.word);
        }
        Ok(last)
    }

    /// Dies at one step, starts again, and looks whether all is well.
    fn die_at(&mut self, case: &Case, step: u32) -> Result<()> {
        (case.prepare)(&self.world, &self.vm)?;
        Pool::settled(&self.world, &self.vm)?;
        let ready = self.ready()?;
        self.world.serve(&["--kill-at", &format!("{}:{step}", case.word)])?;
        // Its answer is lost with the server.
        let _ = (case.act)(&self.world, &self.vm);
        let signal = self.world.wait_for_death(Duration::from_secs(30))?;
        assert_eq!(signal, Some(9), "the step was not hit");
        self.world.serve(&[])?;
        self.assert_well(&ready)?;
        self.back_to_base()
    }

    fn ready(&self) -> Result<Vec<String>> {
        let all = self.vm.snapshots(&self.world)?;
        Ok(all.into_iter().filter(|s| s.state == "ready").map(|s| s.name).collect())
    }

    fn assert_well(&self, ready_before: &[String]) -> Result<()> {
        let vm = self.vm.wait_until_free(&self.world)?;
        let operations: List<Operation> = self.world.get("/v1/operations?state=running")?;
        assert!(operations.items.is_empty(), "{:?}", operations.items);
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
            assert_eq!(vm.state, "stopped");
            assert!(self.vm.processes().is_empty());
        }
        Pool::assert_agrees(&self.world, &self.vm)?;
        self.assert_machines_agree()?;
        let journal = fs::read_dir(self.world.data().join("host/journal"))?.count();
        assert_eq!(journal, 0, "an effect's journal is left");
        Ok(())
    }

    /// The pool has a folder for each machine, and for nothing else; a clone is whole or not there.
    fn assert_machines_agree(&self) -> Result<()> {
        let vms: List<Vm> = self.world.get("/v1/vms")?;
        let recorded: BTreeSet<String> = vms.items.iter().map(|vm| vm.id.to_string()).collect();
        let entries = fs::read_dir(self.world.pool())?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let there: BTreeSet<String> = names.filter(|name| !name.starts_with('.')).collect();
        assert_eq!(there, recorded);
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
    let rounds = if std::env::var("TINTYPE_KILLS").as_deref() == Ok("full") { 3 } else { 1 };
    let mut scene = Scene::new()?;
    let steps = scene.count(case)?;
    let begun = Instant::now();
    for _ in 0..rounds {
        for step in 1..=steps {
            let begun = Instant::now();
            scene.die_at(case, step).with_context(|| format!("{}:{step}", case.word)).inspect_err(
                |_| {
                    eprintln!(
                        "the server said:
{}",
                        scene.world.said()
                    )
                },
            )?;
            println!("{}:{step} {:?}", case.word, begun.elapsed());
        }
    }
    println!("{}: {steps} steps, {rounds} rounds, {:?}", case.word, begun.elapsed());
    Ok(())
}

#[test]
fn full_clone() -> Result<()> {
    kill_at_every_step(&CLONE)
}

#[test]
fn linked_clone() -> Result<()> {
    kill_at_every_step(&LINKED_CLONE)
}

#[test]
fn verification() -> Result<()> {
    kill_at_every_step(&VERIFY)
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

/// P25: so for reverts.
#[test]
fn revert_with_memory() -> Result<()> {
    kill_at_every_step(&REVERT)
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
