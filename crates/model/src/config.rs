//! The hardware of a virtual machine, as a snapshot carries it (E2, R5).

use crate::id::DiskId;
use serde::{Deserialize, Serialize};

/// The hardware.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Number of virtual processors.
    pub vcpus: u32,
    /// Size of the memory.
    pub memory_bytes: u64,
    /// What starts the guest.
    pub firmware: Firmware,
    /// A kernel started directly, instead of a boot loader from disk.
    pub kernel: Option<Kernel>,
    /// Network cards.
    pub nics: Vec<Nic>,
    /// Disks, in the order the guest sees them.
    pub disks: Vec<Disk>,
    /// The machine as the hypervisor knows it; recorded, because memory loads on the same only.
    pub platform: Platform,
}

impl Config {
    /// A machine with one processor, a megabyte and nothing else in it.
    pub fn bare(platform: Platform) -> Self {
        Self {
            vcpus: 1,
            memory_bytes: 1 << 20,
            firmware: Firmware::Bios,
            kernel: None,
            nics: Vec::new(),
            disks: Vec::new(),
            platform,
        }
    }
}

/// What of the hypervisor has to be the same for a snapshot's memory to load.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Platform {
    /// Versioned machine type, such as `pc-q35-10.0`.
    pub machine: String,
    /// Processor model.
    pub cpu: String,
    /// Accelerator.
    pub accel: Accel,
}

/// How guest instructions are run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// By the processor itself.
    Kvm,
    /// By emulation.
    Tcg,
}

/// What starts the guest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF, with a variable store that belongs to every snapshot.
    Uefi,
}

/// A kernel started directly; its files are kept in the virtual machine's folder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kernel {
    /// Whether there is an initrd beside it.
    pub initrd: bool,
    /// The kernel's command line.
    pub append: String,
}

/// A network card.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Nic {
    /// Its hardware address.
    pub mac: String,
    /// What it is connected to.
    pub network: Network,
}

/// What a network card is connected to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// User-mode networking: outgoing connections only.
    User,
    /// A tap interface of the host, by name.
    Tap(String),
}

/// A disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Disk {
    /// Its id.
    pub id: DiskId,
    /// Its size as the guest sees it.
    pub size_bytes: u64,
    /// What it is for.
    pub role: Role,
}

/// What a disk is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A disk the guest sees.
    Data,
    /// The UEFI variable store: not shown as a disk, but part of every snapshot.
    Firmware,
}
