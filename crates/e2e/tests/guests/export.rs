//! What is exported needs nothing of ours: plain QEMU goes on from it, as often as somebody wants.

use anyhow::{Result, ensure};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tintype_e2e::{TestVm, World};
use tintype_witness::Guest;

/// Plain QEMU, started by an export's script, and the guest in it.
struct Plain {
    process: Child,
    guest: Guest,
}

impl Plain {
    fn start(folder: &Path) -> Result<Self> {
        let socket = folder.join("console");
        let _ = fs::remove_file(&socket);
        let console = format!("socket,path={},server=on,wait=off", socket.display());
        let process = Command::new(folder.join("start"))
            .env("CONSOLE", console)
            .stdin(Stdio::null())
            .spawn()?;
        let plain = Self { process, guest: Guest::follow(socket) };
        plain.guest.wait_until_up(Duration::from_secs(120))?;
        Ok(plain)
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A snapshot leaves the pool whole, and nothing of the machine is touched.
#[test]
fn an_export_goes_on_in_plain_qemu() -> Result<()> {
    let world = World::start()?;
    let vm = TestVm::boot(&world, "web")?;
    vm.guest.set_nonce(7)?;
    vm.guest.set_epoch(7)?;
    world.run(&["snapshot", "create", "web", "one", "--memory"])?;
    vm.guest.set_epoch(8)?;
    world.run(&["snapshot", "create", "web", "two"])?;
    vm.guest.set_nonce(9)?;
    vm.guest.set_epoch(9)?;
    let told = world.run(&["snapshot", "export", "web", "one", "--name", "along"])?;
    let folder = world.pool().join(".exports/along");
    ensure!(told.contains(&folder.display().to_string()), "{told}");
    // It refers to nothing outside, wherever it is.
    let elsewhere = tempfile::tempdir()?;
    let taken = elsewhere.path().join("taken along");
    let moved = Command::new("mv").arg(&folder).arg(&taken).status()?;
    ensure!(moved.success(), "it is not moved");
    for _ in 0..2 {
        let plain = Plain::start(&taken)?;
        let (nonce, epochs) = (plain.guest.nonce()?, plain.guest.epochs()?);
        assert_eq!((nonce, epochs.ram, epochs.disks), (7, 7, vec![7, 7]));
        plain.guest.set_nonce(1)?;
        plain.guest.set_epoch(1)?;
    }
    world.run(&["snapshot", "export", "web", "two", "--name", "disks"])?;
    let plain = Plain::start(&world.pool().join(".exports/disks"))?;
    assert_eq!(plain.guest.epochs()?.disks, [8, 8], "it boots from its disks");
    let taken = world.tintype(&["snapshot", "export", "web", "one", "--name", "disks"])?;
    let said = String::from_utf8_lossy(&taken.stderr);
    ensure!(said.contains("is there already") && said.contains("choose another name"), "{said}");
    assert_eq!((vm.guest.nonce()?, vm.guest.epochs()?.disks), (9, vec![9, 9]));
    tintype_e2e::Pool::assert_agrees(&world, &vm)?;
    Ok(())
}
