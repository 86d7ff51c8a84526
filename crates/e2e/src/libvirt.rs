//! The test guest as libvirt has it, to compare with: its driver inside `virsh`, without a daemon.

use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tintype_witness::Guest;

use crate::vms::guest_file;

/// Nothing is confined, changed or kept for others: what is needed to run as whoever runs this.
const CONFIG: &str = "stdio_handler = \"file\"\nuser = \"root\"\ngroup = \"root\"\n\
                      dynamic_ownership = 0\nnamespaces = []\ncgroup_controllers = []\n\
                      security_driver = \"none\"\n";
const DISK_BYTES: u64 = 32 << 20;
/// The name of the machine.
const NAME: &str = "compared";

/// A machine with the test guest and two disks under libvirt; it ends with this.
pub struct Libvirt {
    shell: Child,
    asked: ChildStdin,
    said: BufReader<ChildStdout>,
    marks: u32,
    folder: TempDir,
    /// Its guest.
    pub guest: Guest,
}

impl Libvirt {
    /// Boots a machine with so much memory.
    ///
    /// # Errors
    /// When libvirt is not installed, or the guest does not come up.
    pub fn boot(memory_mib: u64) -> Result<Self> {
        let folder = TempDir::new()?;
        let at = folder.path();
        fs::create_dir_all(at.join("root/etc"))?;
        fs::create_dir_all(at.join("run/1"))?;
        fs::write(at.join("root/etc/qemu.conf"), CONFIG)?;
        for disk in ["vda", "vdb"] {
            let image = at.join(format!("{disk}.qcow2"));
            let mut create = Command::new("qemu-img");
            create.args(["create", "-q", "-f", "qcow2"]).arg(&image).arg(DISK_BYTES.to_string());
            ensure!(create.status()?.success(), "no image is made");
        }
        let xml = at.join("machine.xml");
        fs::write(&xml, machine(at, memory_mib)?)?;
        let uri = format!("qemu:///embed?root={}", at.join("root").display());
        let mut shell = Command::new("virsh")
            .args(["--quiet", "--connect", &uri])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(at.join("errors"))?)
            .spawn()
            .context("virsh is not installed: scripts/libvirt")?;
        let asked = shell.stdin.take().context("it is piped")?;
        let said = BufReader::new(shell.stdout.take().context("it is piped")?);
        let guest = Guest::follow(at.join("console.sock"));
        let mut libvirt = Self { shell, asked, said, marks: 0, folder, guest };
        libvirt.run(&format!("define {}", xml.display()))?;
        libvirt.run(&format!("start {NAME}"))?;
        libvirt.guest.wait_for_tick_after(Instant::now(), Duration::from_secs(120))?;
        Ok(libvirt)
    }

    /// The folder in whose `run` the guest's port is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Executes a command of `virsh`.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn run(&mut self, command: &str) -> Result<()> {
        self.marks += 1;
        let mark = format!("done-{}", self.marks);
        let errors = self.folder.path().join("errors");
        let before = fs::metadata(&errors)?.len() as usize;
        writeln!(self.asked, "{command}\necho {mark}\n")?;
        self.asked.flush()?;
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(self.said.read_line(&mut line)? > 0, "virsh has ended: {command}");
            // The next prompt stands on the same line.
            if line.starts_with(&mark) {
                break;
            }
        }
        let said = fs::read_to_string(&errors)?.split_off(before);
        match said.lines().find(|line| line.starts_with("error:")) {
            Some(error) => bail!("{command}: {error}"),
            None => Ok(()),
        }
    }

    /// Takes a snapshot as libvirt does by itself: memory and disks inside the images.
    ///
    /// # Errors
    /// When it fails; so for all of these.
    pub fn internal(&mut self, name: &str) -> Result<()> {
        self.run(&format!("snapshot-create-as {NAME} {name}"))
    }

    /// Takes a snapshot into files beside, memory while the guest runs.
    ///
    /// # Errors
    /// As for [`Libvirt::internal`].
    pub fn external(&mut self, name: &str) -> Result<()> {
        let at = self.folder.path().display().to_string();
        let mut command = format!(
            "snapshot-create-as {NAME} {name} --live --memspec {at}/{name}.memory,snapshot=external"
        );
        for disk in ["vda", "vdb"] {
            let _ = write!(
                command,
                " --diskspec {disk},snapshot=external,file={at}/{disk}-{name}.qcow2"
            );
        }
        self.run(&command)?;
        fs::remove_file(format!("{at}/{name}.memory"))?;
        Ok(())
    }

    /// Goes back to a snapshot.
    ///
    /// # Errors
    /// As for [`Libvirt::internal`].
    pub fn revert(&mut self, name: &str) -> Result<()> {
        self.run(&format!("snapshot-revert {NAME} {name}"))
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// As for [`Libvirt::internal`].
    pub fn delete(&mut self, name: &str) -> Result<()> {
        self.run(&format!("snapshot-delete {NAME} {name}"))
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let _ = self.run(&format!("destroy {NAME}"));
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// The machine, as libvirt wants it described: as near to ours as it can be said.
fn machine(at: &Path, memory_mib: u64) -> Result<String> {
    let at = at.display();
    let (kernel, initrd) = (guest_file("vmlinuz")?, guest_file("initrd.gz")?);
    let mut disks = String::new();
    for disk in ["vda", "vdb"] {
        let _ = write!(
            disks,
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
             <source file='{at}/{disk}.qcow2'/><target dev='{disk}' bus='virtio'/></disk>"
        );
    }
    Ok(format!(
        "<domain type='qemu'><name>{NAME}</name><memory unit='MiB'>{memory_mib}</memory>\
         <vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel>\
         <initrd>{initrd}</initrd><cmdline>console=ttyS0 quiet</cmdline></os>\
         <features><acpi/></features><cpu mode='maximum'/><devices>\
         <emulator>/usr/bin/qemu-system-x86_64</emulator>{disks}\
         <serial type='unix'><source mode='bind' path='{at}/console.sock'/></serial>\
         <channel type='unix'><source mode='bind' path='{at}/run/1/agent.sock'/>\
         <target type='virtio' name='org.tintype.ticks'/></channel>\
         <memballoon model='none'/></devices></domain>"
    ))
}
