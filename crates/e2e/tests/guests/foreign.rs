//! Foreign hands on the host: found, told with what is affected, never made worse, and repaired
//! when an administrator says so (E12, E39, R12).

use crate::wait_until;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tintype_e2e::{Pool, TestVm, World};
use tintype_wire::rest::{Adopted, Finding, Host, HostCheck, List, Repaired, Revert, Snapshot};
use uuid::Uuid;

/// Asks something of the host.
fn ask<T: DeserializeOwned>(world: &World, what: &str) -> Result<T> {
    let host = world.get::<List<Host>>("/v1/hosts")?.items.remove(0);
    Ok(world.wait(world.client().post(&format!("/v1/hosts/{}/{what}", host.id), &json!({})))?)
}

fn check(world: &World) -> Result<HostCheck> {
    ask(world, "check")
}

fn repair(world: &World) -> Result<Vec<Repaired>> {
    Ok(ask::<List<Repaired>>(world, "repair")?.items)
}

/// What is found, of which there has to be one.
fn only(world: &World) -> Result<Finding> {
    let check = check(world)?;
    let [finding] = check.findings.as_slice() else {
        anyhow::bail!("not one finding: {:?}", check.findings);
    };
    Ok(finding.clone())
}

fn nothing_found(world: &World) -> Result<()> {
    let check = check(world)?;
    ensure!(check.findings.is_empty() && check.strangers.is_empty(), "found: {check:?}");
    Ok(())
}

/// The files of a machine's layers.
fn layers(vm: &TestVm) -> Result<BTreeSet<PathBuf>> {
    let files = fs::read_dir(vm.folder())?.map(|entry| Ok(entry?.path()));
    let files = files.collect::<Result<BTreeSet<PathBuf>>>()?;
    let is_layer = |path: &PathBuf| path.extension().is_some_and(|end| end == "qcow2");
    Ok(files.into_iter().filter(is_layer).collect())
}

fn show(world: &World, id: Uuid) -> Result<Snapshot> {
    world.get(&format!("/v1/snapshots/{id}"))
}

/// Files of a machine that runs: written to, moved away and back, opened, put there by somebody
/// (E12, E39, R12).
#[test]
fn what_foreign_hands_do_to_files_is_found_and_told() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    let layer = layers(&vm)?.pop_first().context("it has disks")?;
    let one = vm.snapshot(&world, "one", "disk-and-memory")?;
    let two = vm.snapshot(&world, "two", "disk")?;
    nothing_found(&world)?;

    // Moved away: told with what is affected; what would build on it is refused.
    let memory = vm.folder().join(format!("{}.memory", one.id));
    let aside = world.data().join("moved");
    fs::rename(&memory, &aside)?;
    let found = only(&world)?;
    assert_eq!((found.kind.as_str(), &found.affects), ("memory-missing", &vec![one.id]));
    assert_eq!(vm.show(&world)?.findings, [found]);
    let path = format!("/v1/snapshots/{}/revert", one.id);
    let problem = world.refused(&path, &Revert::default())?;
    assert_eq!((problem.code.as_str(), problem.blocking), ("files-in-doubt", vec![one.id]));
    // Its disks are as they were.
    world.post(&path, &Revert { power: Some("stopped".into()), ..Revert::default() })?;
    vm.revert(&world, &two)?;
    // Moved back: nothing is wrong any more.
    fs::rename(&aside, &memory)?;
    nothing_found(&world)?;

    // Put there by somebody: nobody is in its way, and it is moved out of the way when wanted.
    let strange = vm.folder().join("notes.txt");
    fs::write(&strange, "mine")?;
    let found = only(&world)?;
    assert_eq!((found.kind.as_str(), found.affects.len()), ("unknown-file", 0));
    vm.snapshot(&world, "three", "disk")?;
    let repaired = repair(&world)?;
    let result = repaired[0].result.as_ref().context("it was repaired")?;
    let there = result.strip_prefix("now ").context("it tells where it is")?;
    assert_eq!(fs::read_to_string(there)?, "mine");
    nothing_found(&world)?;

    // Written to, though it was frozen: no snapshot on it is trusted until somebody decides.
    let file = fs::OpenOptions::new().write(true).open(&layer)?;
    let end = file.metadata()?.len();
    file.write_at(&[0; 512], end)?;
    drop(file);
    let found = only(&world)?;
    assert_eq!(found.kind, "layer-changed");
    assert!(found.affects.contains(&one.id) && found.affects.contains(&two.id));
    let problem = world.refused(&path, &Revert::default())?;
    assert_eq!(problem.code, "files-in-doubt");
    // It is sound in itself, and taken as it is.
    let repaired = repair(&world)?;
    assert_eq!(repaired[0].problem, None);
    nothing_found(&world)?;
    assert_eq!(show(&world, one.id)?.state, "ready");

    // Opened by another process.
    let mut other =
        Command::new("sleep").arg("60").stdin(Stdio::from(fs::File::open(&layer)?)).spawn()?;
    thread::sleep(Duration::from_secs(3));
    let found = only(&world)?;
    other.kill()?;
    other.wait()?;
    assert_eq!((found.kind.as_str(), found.repair), ("open-elsewhere", None));
    assert!(found.detail.contains("sleep"), "{}", found.detail);
    thread::sleep(Duration::from_secs(3));
    nothing_found(&world)
}

/// A layer that is lost takes the snapshots that need it, no others; those can be deleted then
/// (E39, R10).
#[test]
fn what_is_lost_is_given_up_and_can_be_deleted() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    let first = layers(&vm)?;
    let base = vm.snapshot(&world, "base", "disk")?;
    // What the branch froze, and nobody else needs.
    let later = layers(&vm)?;
    let lost = later.difference(&first).next().context("a snapshot makes layers")?;
    let branch = vm.snapshot(&world, "branch", "disk")?;
    vm.revert(&world, &base)?;
    vm.start(&world)?;
    nothing_found(&world)?;
    fs::remove_file(lost)?;
    let found = only(&world)?;
    assert_eq!((found.kind.as_str(), &found.affects), ("layer-missing", &vec![branch.id]));
    assert!(!found.affects_now);
    let repaired = repair(&world)?;
    assert_eq!(repaired[0].problem, None);
    assert_eq!(show(&world, branch.id)?.state, "unavailable");
    assert_eq!(show(&world, base.id)?.state, "ready");
    world.delete(&format!("/v1/snapshots/{}", branch.id))?;
    vm.revert(&world, &base)?;
    nothing_found(&world)
}

/// A guest that somebody stopped is told of, and goes on when that is wanted.
#[test]
fn a_guest_that_somebody_holds_goes_on_when_asked() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    let process = Pid::from_raw(vm.processes()[0]).context("a process id")?;
    kill_process(process, Signal::STOP)?;
    // Each of its threads has to see the signal.
    wait_until("the process is held", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()))?;
        Ok(stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T ")))
    })?;
    let found = only(&world)?;
    assert_eq!((found.kind.as_str(), found.affects_now), ("guest-held", true));
    repair(&world)?;
    vm.guest.wait_for_tick_after(Instant::now(), Duration::from_secs(10))?;
    nothing_found(&world)
}

/// The database is lost: what lies beside the layers makes it again, while a guest runs.
#[test]
fn a_lost_database_is_made_again_from_what_the_host_has() -> Result<()> {
    let mut world = World::start()?;
    let (runs, off) = (TestVm::boot(&world, "runs")?, TestVm::create(&world, "off", 256)?);
    let base = runs.snapshot(&world, "base", "disk-and-memory")?;
    runs.guest.set_nonce(5)?;
    let five = runs.snapshot(&world, "five", "disk-and-memory")?;
    runs.revert(&world, &base)?;
    runs.snapshot(&world, "branch", "disk")?;
    off.snapshot(&world, "clean", "disk")?;
    let edit = json!({ "name": "first", "description": "before all" });
    let edited: Snapshot =
        world.wait(world.client().patch(&format!("/v1/snapshots/{}", base.id), &edit))?;
    Pool::settled(&world, &runs)?;
    // What is no effect is written down within a second or two.
    thread::sleep(Duration::from_secs(3));
    let (trees, vms) =
        ([runs.tree(&world)?, off.tree(&world)?], [runs.show(&world)?, off.show(&world)?]);
    world.kill();
    for file in ["tintype.db", "tintype.db-wal", "tintype.db-shm"] {
        let _ = fs::remove_file(world.data().join(file));
    }
    world.serve(&[])?;
    assert!(world.get::<List<tintype_wire::rest::Vm>>("/v1/vms")?.items.is_empty());
    assert_eq!(check(&world)?.strangers.len(), 2);
    let adopted: List<Adopted> = ask(&world, "adopt")?;
    assert_eq!(adopted.items.len(), 2);
    assert!(adopted.items.iter().all(|vm| vm.problem.is_none()), "{:?}", adopted.items);
    nothing_found(&world)?;
    assert_eq!([runs.tree(&world)?, off.tree(&world)?], trees);
    assert_eq!([runs.show(&world)?, off.show(&world)?], vms);
    assert_eq!(show(&world, base.id)?, edited);
    // It is as good as ever.
    runs.revert(&world, &five)?;
    assert_eq!(runs.guest.nonce()?, 5);
    runs.snapshot(&world, "after", "disk-and-memory")?;
    off.start(&world)?;
    let again: List<Adopted> = ask(&world, "adopt")?;
    assert!(again.items.is_empty());
    Ok(())
}

/// A database is saved while it is used; put back later, it knows less than the host: nothing is
/// done to what has changed until that is taken up.
#[test]
fn a_saved_database_is_put_back_and_brought_up() -> Result<()> {
    let mut world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    let base = vm.snapshot(&world, "base", "disk-and-memory")?;
    let copy = world.data().join("saved.db");
    let file = copy.to_string_lossy().into_owned();
    let saved = world.tintype(&["database", "save", &file])?;
    ensure!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    let again = world.tintype(&["database", "save", &file])?;
    ensure!(!again.status.success(), "what is there is not overwritten");
    let later = vm.snapshot(&world, "later", "disk-and-memory")?;
    vm.revert(&world, &base)?;
    vm.snapshot(&world, "branch", "disk")?;
    Pool::settled(&world, &vm)?;
    let tree = vm.tree(&world)?;

    let data = world.data().to_string_lossy().into_owned();
    let restore = ["database", "restore", &file, "--data", &data];
    let served = world.tintype(&restore)?;
    ensure!(!served.status.success(), "nothing is put below a server that runs");
    world.kill();
    let restored = world.tintype(&restore)?;
    ensure!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    world.serve(&[])?;
    ensure!(vm.named(&world, "later").is_err(), "the copy does not know it");
    assert!(check(&world)?.findings.iter().any(|finding| finding.kind == "outdated"));
    let problem = world.refused(&vm.path("/snapshots"), &json!({ "name": "new" }))?;
    assert_eq!(problem.code, "files-in-doubt");
    let adopted: List<Adopted> = ask(&world, "adopt")?;
    assert!(adopted.items[0].known);
    nothing_found(&world)?;
    assert_eq!(vm.tree(&world)?, tree);
    vm.revert(&world, &later)?;
    vm.snapshot(&world, "new", "disk")?;
    Ok(())
}
