//! The serial console: a local client at QEMU's own socket, and any number of readers through the
//! server, at the same time.

use anyhow::{Result, ensure};
use std::fs;
use std::time::{Duration, Instant};
use tintype_e2e::{TestVm, World};

/// Reads a console through the server until something is said there.
fn read_until(world: &World, vm: &TestVm, wanted: &str) -> Result<String> {
    let text = fs::read_to_string(world.data().join("client.toml"))?;
    let access: toml::Table = text.parse()?;
    let key = |name: &str| access[name].as_str().unwrap_or_default().to_owned();
    let (url, token) = (key("url"), key("token"));
    world.wait(async {
        let http = reqwest::Client::new();
        let request = http.get(format!("{url}{}", vm.path("/console"))).bearer_auth(token);
        let mut response = request.send().await?;
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

fn type_in(world: &World, vm: &TestVm, text: &str) -> Result<u16> {
    let access: toml::Table = fs::read_to_string(world.data().join("client.toml"))?.parse()?;
    let key = |name: &str| access[name].as_str().unwrap_or_default().to_owned();
    let (url, token) = (key("url"), key("token"));
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
    world.post(&vm.path("/stop"), &serde_json::json!({ "force": true }))?;
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(type_in(&world, &vm, "nonce 44\n")?, 409);
    Ok(())
}
