//! Real QEMU with the test guest.

use super::{Host, Remembered};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tintype_drivers::qemu::{Folder, PageServers, Qemu, Watch, probe, run_watchdog};
use tintype_drivers::{Hypervisor, Premises, Volume};
use tintype_model::snapshot::memory_name;
use tintype_model::{SnapshotId, VmId};
use tintype_witness::Guest;

pub struct QemuHost {
    pub qemu: Qemu,
    root: TempDir,
    guests: Mutex<BTreeMap<VmId, Arc<Guest>>>,
}

impl QemuHost {
    pub fn new() -> Self {
        let root = TempDir::new().unwrap();
        let capabilities = probe(root.path(), None).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || run_watchdog(theirs));
        let watch = Arc::new(Watch::over(ours).unwrap());
        let qemu = Qemu::new(root.path().to_owned(), capabilities, watch, PageServers::Threads);
        Self { qemu, root, guests: Mutex::default() }
    }

    pub fn folder(&self, vm: VmId) -> Folder {
        Folder::new(self.root.path().join(vm.to_string()), None)
    }

    pub fn guest(&self, vm: VmId) -> Arc<Guest> {
        let link = self.folder(vm).console_link();
        let mut guests = self.guests.lock().unwrap();
        Arc::clone(guests.entry(vm).or_insert_with(|| Arc::new(Guest::follow(link))))
    }
}

fn guest_file(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest").join(name);
    assert!(file.exists(), "the test guest is not built: cargo xtask guest");
    file
}

impl tintype_drivers::Host for QemuHost {
    fn hypervisor(&self) -> &dyn Hypervisor {
        &self.qemu
    }

    fn volume(&self) -> &dyn Volume {
        self.qemu.volume()
    }

    fn premises(&self) -> &dyn Premises {
        &self.qemu
    }
}

impl Host for QemuHost {
    fn make_boot_files(&self, vm: VmId) {
        self.qemu.volume().copy_in(vm, &guest_file("vmlinuz"), "kernel").unwrap();
        self.qemu.volume().copy_in(vm, &guest_file("initrd.gz"), "initrd").unwrap();
    }

    fn wait_until_up(&self, vm: VmId) {
        let guest = self.guest(vm);
        guest.wait_for_tick_after(Instant::now(), Duration::from_secs(120)).unwrap();
    }

    fn write(&self, vm: VmId, number: u64) {
        let guest = self.guest(vm);
        guest.set_nonce(number).unwrap();
        guest.set_epoch(number).unwrap();
    }

    fn read(&self, vm: VmId) -> Remembered {
        let guest = self.guest(vm);
        Remembered { ram: guest.nonce().unwrap(), disks: guest.epochs().unwrap().disks }
    }

    fn chains(&self, vm: VmId) -> Vec<Vec<String>> {
        self.qemu.instance(vm).unwrap().chains().unwrap()
    }

    /// Cuts the file short: its end holds the state of the devices.
    fn damage_memory(&self, vm: VmId, snapshot: SnapshotId) {
        let path = self.folder(vm).path().join(memory_name(snapshot));
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 100_000).unwrap();
    }
}
