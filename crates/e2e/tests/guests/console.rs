//! The serial console: a local client at QEMU's own socket, and any number of readers through the
//! server, at the same time.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tintype_e2e::{MEMORY_MIB, TestVm, World, new_vm};
use tintype_wire::rest::{Operation, Vm};

/// A guest that ticks says something far more often.
const SILENCE: Duration = Duration::from_millis(700);

/// Follows a console through the server.
async fn follow(world: &World, vm: &str) -> Result<reqwest::Response> {
    let (url, token) = world.access()?;
    let http = reqwest::Client::new();
    Ok(http.get(format!("{url}/v1/vms/{vm}/console")).bearer_auth(token).send().await?)
}

/// Reads a console through the server until something is said there.
fn read_until(world: &World, vm: &TestVm, wanted: &str) -> Result<String> {
    world.wait(async {
        let mut response = follow(world, &vm.name).await?;
        let mut said = String::new();
        let until = Instant::now() + Duration::from_secs(10);
        while let Some(chunk) = response.chunk().await? {
            said.push_str(&String::from_utf8_lossy(&chunk));
            if said.contains(wanted) {
                return Ok(said);
            }
            ensure!(Instant::now() < until, "{wanted:?} was not said");
        }
        anyhow::bail!("the console ended")
    })
}

/// Reads a console through the server until nothing is said any more.
fn read_until_silent(world: &World, vm: &str) -> Result<()> {
    world.wait(async {
        let mut response = follow(world, vm).await?;
        let until = Instant::now() + Duration::from_secs(30);
        while tokio::time::timeout(SILENCE, response.chunk()).await.is_ok() {
            ensure!(Instant::now() < until, "it goes on");
        }
        Ok(())
    })
}

fn type_in(world: &World, vm: &TestVm, text: &str) -> Result<u16> {
    let (url, token) = world.access()?;
    world.wait(async {
        let http = reqwest::Client::new();
        let request = http.post(format!("{url}{}", vm.path("/console"))).bearer_auth(token);
        Ok(request.body(text.to_owned()).send().await?.status().as_u16())
    })
}

#[test]
fn a_local_client_and_the_server_share_the_console() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    // The local client.
    vm.guest.set_nonce(41)?;
    // The server: what was said before comes first, what is typed is answered.
    let said = read_until(&world, &vm, "ok 41")?;
    assert!(said.contains("READY disks=2"), "what was said before is kept");
    assert_eq!(type_in(&world, &vm, "nonce 42\n")?, 204);
    read_until(&world, &vm, "ok 42")?;
    assert_eq!(vm.guest.nonce()?, 42);
    // It goes on through a revert, which is another process.
    let one = vm.snapshot(&world, "one", "disk-and-memory")?;
    vm.revert(&world, &one)?;
    let until = Instant::now() + Duration::from_secs(5);
    while type_in(&world, &vm, "nonce 43\n")? != 204 {
        ensure!(Instant::now() < until, "the console does not come back");
        std::thread::sleep(Duration::from_millis(20));
    }
    read_until(&world, &vm, "ok 43")?;
    world.post(&vm.path("/stop"), &json!({ "force": true }))?;
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(type_in(&world, &vm, "nonce 44\n")?, 409);
    Ok(())
}

/// A guest whose console is not read waits; when it is gone back to, nobody is there to be waited
/// for, and it speaks.
#[test]
fn a_console_that_was_blocked_is_free_after_a_revert() -> Result<()> {
    let world = World::start()?;
    let created: Operation = world.post("/v1/vms", &new_vm("web", MEMORY_MIB, 1)?)?;
    world.post(&format!("/v1/vms/{}/start", created.vm), &json!({}))?;
    let vm: Vm = world.get("/v1/vms/web")?;
    let console = vm.console.strip_prefix("unix:").context("a console is a socket")?;
    let mut reader = BufReader::new(UnixStream::connect(console)?);
    let mut line = String::new();
    while !line.starts_with("READY") {
        line.clear();
        reader.read_line(&mut line)?;
    }
    read_until_silent(&world, "web")?;
    let new = json!({ "name": "one", "kind": "disk-and-memory" });
    world.post(&format!("/v1/vms/{}/snapshots", vm.id), &new)?;
    drop(reader);
    let vm = TestVm::known(&world, "web")?;
    vm.wait_until_up()?;
    let one = vm.named(&world, "one")?;
    vm.revert(&world, &one)?;
    vm.wait_until_up()?;
    vm.guest.set_nonce(1)?;
    assert_eq!(type_in(&world, &vm, "nonce 2\n")?, 204);
    read_until(&world, &vm, "ok 2").map(drop)
}
