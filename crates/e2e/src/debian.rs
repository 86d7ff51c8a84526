//! The ordinary guest: a Debian on a disk of its own (GRUB, systemd, UEFI, two processors) with a
//! guest agent and a database that is written to all the time.

use crate::pool::active_layer;
use crate::{Pool, TestVm, World};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};
use tintype_wire::rest::{NewDisk, NewVm};

/// The machine that emulates it may be busy with much else.
const PATIENCE: Duration = Duration::from_secs(240);

/// A machine with the ordinary guest.
pub struct Debian {
    /// The machine.
    pub vm: TestVm,
}

impl Debian {
    /// Creates and boots it.
    ///
    /// # Errors
    /// When that fails, or its image is not built; so for all of these.
    pub fn boot(world: &World) -> Result<Self> {
        Self::boot_on(world, "user")
    }

    /// Creates and boots it with a network card on this network.
    ///
    /// # Errors
    /// When that fails, or its image is not built.
    pub fn boot_on(world: &World, network: &str) -> Result<Self> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest/debian.qcow2");
        let file = file.canonicalize().context("it is not built: scripts/ordinary-guest")?;
        let new = NewVm {
            name: "debian".into(),
            memory_bytes: 512 << 20,
            vcpus: 2,
            disks: vec![NewDisk { size_bytes: None, file: Some(file.display().to_string()) }],
            firmware: Some("uefi".into()),
            networks: vec![network.into()],
            ..NewVm::default()
        };
        let vm = TestVm::from(world, &new)?;
        vm.start(world)?;
        Ok(Self { vm })
    }

    /// How many rows the database has, each with its number: none is missing or there twice.
    ///
    /// # Errors
    /// When rows are missing.
    pub fn rows(&self) -> Result<u64> {
        let answer = self.vm.guest.ask("rows")?;
        let (count, last) = answer.split_once('|').context("count and last")?;
        ensure!(count == last, "rows are missing: {answer}");
        Ok(count.parse()?)
    }

    /// Waits until the database has so many rows more.
    ///
    /// # Errors
    /// When it is not written to.
    pub fn wait_for_rows(&self, more: u64) -> Result<u64> {
        let wanted = self.rows()? + more;
        let until = Instant::now() + PATIENCE;
        loop {
            let now = self.rows()?;
            if now >= wanted {
                return Ok(now);
            }
            ensure!(Instant::now() < until, "the database is not written to");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until somebody in the guest listens to what is said to its agent.
    ///
    /// # Errors
    /// When nobody does.
    pub fn wait_for_agent(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.vm.guest.ask("agent")? != "active" {
            ensure!(Instant::now() < until, "the guest agent does not start");
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// The database's own check.
    ///
    /// # Errors
    /// When it finds something.
    pub fn check_database(&self) -> Result<()> {
        let said = self.vm.guest.ask("check")?;
        ensure!(said == "ok", "the database's check found {said}");
        Ok(())
    }

    /// Shuts the machine down with everything written. Where others take the processors its power
    /// is cut before it is through; then it is started and shut down once more.
    ///
    /// # Errors
    /// When it is never through.
    pub fn shut_down(&self, world: &World) -> Result<()> {
        let nothing = serde_json::json!({});
        for _ in 0..3 {
            world.post(&self.vm.path("/stop"), &nothing)?;
            if self.is_all_written(world)? {
                return Ok(());
            }
            world.post(&self.vm.path("/start"), &nothing)?;
            self.vm.wait_until_up()?;
        }
        bail!("it does not shut down in time")
    }

    /// The filesystem's own check of the root partition, while the machine is off.
    ///
    /// # Errors
    /// When it finds something.
    pub fn check_filesystem(&self, world: &World) -> Result<()> {
        let root = self.root_partition(world)?;
        self.run(Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(root)).map(drop)
    }

    /// Whether the root filesystem has all that was written in its place, so that its journal need
    /// not be replayed; while the machine is off.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn is_all_written(&self, world: &World) -> Result<bool> {
        let root = self.root_partition(world)?;
        let output = self.run(Command::new("/sbin/dumpe2fs").arg("-h").arg(root))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let features = text.lines().find(|line| line.starts_with("Filesystem features:"));
        Ok(!features.context("a filesystem has features")?.contains("needs_recovery"))
    }

    /// A copy of the root partition as the machine would find it.
    fn root_partition(&self, world: &World) -> Result<PathBuf> {
        Pool::assert_agrees(world, &self.vm)?;
        let active = &active_layer(world, &self.vm)?;
        let convert = ["convert", "-q", "-O", "raw", active, "whole.img"];
        self.run(Command::new("qemu-img").args(convert))?;
        // Where scripts/ordinary-guest puts the root partition, in sectors.
        let part = ["if=whole.img", "of=root.img", "bs=512", "skip=67584", "count=2867200"];
        self.run(Command::new("dd").args(part).args(["conv=sparse", "status=none"]))?;
        Ok(self.vm.folder().join("root.img"))
    }

    fn run(&self, command: &mut Command) -> Result<Output> {
        let output = command.current_dir(self.vm.folder()).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{command:?}: {said}");
        Ok(output)
    }
}
