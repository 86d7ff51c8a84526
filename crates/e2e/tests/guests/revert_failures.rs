//! A revert that cannot load its target leaves the machine as it was, running if it ran.

use anyhow::{Context, Result};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use tintype_e2e::{MEMORY_MIB, Pool, TestVm, World};
use tintype_wire::rest::{Operation, Problem, Revert, Snapshot};

struct Scene {
    world: World,
    vm: TestVm,
    target: Snapshot,
}

/// A guest that goes on after its snapshot, with numbers that tell the two moments apart.
fn scene() -> Result<Scene> {
    let world = World::start_unwatched()?;
    let vm = TestVm::boot(&world, "web")?;
    vm.guest.set_nonce(1)?;
    let target = vm.snapshot(&world, "target", "disk-and-memory")?;
    vm.guest.set_nonce(2)?;
    vm.guest.set_epoch(2)?;
    Pool::settled(&world, &vm)?;
    Ok(Scene { world, vm, target })
}

impl Scene {
    fn revert(&self) -> Result<Operation> {
        let path = format!("/v1/snapshots/{}/revert", self.target.id);
        self.world.post(&path, &Revert::default())
    }

    fn memory_file(&self) -> std::path::PathBuf {
        self.vm.folder().join(format!("{}.memory", self.target.id))
    }

    /// The guest is the one it was, and nothing was lost or left behind.
    fn assert_as_it_was(&self) -> Result<()> {
        self.vm.wait_until_up()?;
        let now = self.vm.show(&self.world)?;
        assert_eq!((now.state.as_str(), now.current), ("running", Some(self.target.id)));
        assert_eq!((self.vm.guest.nonce()?, self.vm.guest.epochs()?.disks), (2, vec![2, 2]));
        assert_eq!(self.vm.named(&self.world, "target")?.state, "ready");
        assert_eq!(self.vm.processes().len(), 1);
        Pool::assert_agrees(&self.world, &self.vm)?;
        Ok(())
    }
}

fn code(error: &anyhow::Error) -> &str {
    error.downcast_ref::<Problem>().map_or("no problem", |problem| problem.code.as_str())
}

#[test]
fn damaged_memory_changes_nothing() -> Result<()> {
    let scene = scene()?;
    let file = OpenOptions::new().read(true).write(true).open(scene.memory_file())?;
    let length = file.metadata()?.len();
    // Cut short: the end holds the state of the devices.
    file.set_len(length - 200_000)?;
    let error = scene.revert().err().context("it was reverted")?;
    assert_eq!(code(&error), "load-failed");
    scene.assert_as_it_was()?;
    // Not what it should be from the first byte on.
    file.set_len(length)?;
    file.write_all_at(b"nonsense", 0)?;
    let error = scene.revert().err().context("it was reverted")?;
    assert_eq!(code(&error), "load-failed");
    scene.assert_as_it_was()
}

#[test]
fn qemu_killed_while_it_loads_changes_nothing() -> Result<()> {
    let scene = scene()?;
    let old = scene.vm.processes();
    let accepted: Operation = scene.world.wait(
        scene
            .world
            .client()
            .post(&format!("/v1/snapshots/{}/revert", scene.target.id), &Revert::default()),
    )?;
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let new = loop {
        let now = scene.vm.processes();
        if let Some(&new) = now.iter().find(|process| !old.contains(process)) {
            break new;
        }
        assert!(std::time::Instant::now() < until, "no new process");
    };
    let process = rustix::process::Pid::from_raw(new).context("a process id")?;
    rustix::process::kill_process(process, rustix::process::Signal::KILL)?;
    let ended = scene.world.wait(scene.world.client().follow(accepted.id, |_| {}))?;
    assert_eq!(ended.state, "failed");
    scene.assert_as_it_was()
}

/// E2: what a snapshot's memory needs is known before anything is stopped.
#[test]
fn memory_of_another_size_is_found_before_anything_is_started() -> Result<()> {
    let scene = scene()?;
    let other = TestVm::create(&scene.world, "other", MEMORY_MIB * 2)?;
    other.start(&scene.world)?;
    let foreign = other.snapshot(&scene.world, "foreign", "disk-and-memory")?;
    let from = other.folder().join(format!("{}.memory", foreign.id));
    std::fs::copy(from, scene.memory_file())?;
    let error = scene.revert().err().context("it was reverted")?;
    assert_eq!(code(&error), "load-failed");
    assert!(error.to_string().contains("another size"), "{error}");
    scene.assert_as_it_was()
}
