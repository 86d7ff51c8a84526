//! The design of new machines, disks and clones: what is asked for, checked, as the model has it.

use super::{Answer, App, Ground};
use tintype_model::access::{Action, Caller};
use tintype_model::change::Change;
use tintype_model::config::{Config, Disk, Firmware, Kernel, Network, Nic, Platform, Role};
use tintype_model::effect::{NewDisk, Source};
use tintype_model::layer::{Format, Layer, LayerFile};
use tintype_model::operation::refuse_disks;
use tintype_model::refusal::Code;
use tintype_model::{DiskId, LayerId, Refusal};
use tintype_wire::agent::HostFacts;
use tintype_wire::rest;

const MIB: u64 = 1 << 20;
/// Most processors of one machine.
const VCPUS_MOST: u32 = 256;
/// Least memory a guest boots with.
const MEMORY_LEAST: u64 = 16 * MIB;
/// Largest new disk.
const DISK_MOST: u64 = 1 << 46;
/// What a new disk takes before it is written to, and room for the pool's own needs.
const ROOM: u64 = 16 * MIB;

impl App {
    /// The hardware and disks of a new machine.
    pub(super) async fn design(
        &self,
        caller: &Caller,
        new: &rest::NewVm,
        host: &HostFacts,
    ) -> Answer<(Config, Vec<NewDisk>)> {
        check_vcpus(new.vcpus)?;
        check_memory(new.memory_bytes)?;
        refuse_disks(new.disks.len())?;
        let files = new.disks.iter().any(|disk| disk.file.is_some());
        if files || new.kernel.is_some() {
            caller.may_ever(Action::UseHost)?;
        }
        let firmware = firmware(new.firmware.as_deref(), host)?;
        let mut room = ROOM;
        let mut disks = Vec::new();
        for disk in &new.disks {
            let (disk, bytes) = self.design_disk(disk).await?;
            disks.push((Role::Data, disk));
            room += bytes;
        }
        if firmware == Firmware::Uefi {
            disks.push((
                Role::Firmware,
                new_disk(&*self.ground, 0, Format::Qcow2, Source::FirmwareTemplate),
            ));
        }
        if host.pool_free_bytes < room {
            return Err(pool_full(host.pool_free_bytes, room));
        }
        let config = Config {
            vcpus: new.vcpus,
            memory_bytes: new.memory_bytes,
            firmware,
            kernel: self.kernel(new).await?,
            nics: nics(&*self.ground, caller, &new.networks, &[])?,
            disks: disks
                .iter()
                .map(|(role, disk)| Disk {
                    id: disk.disk,
                    size_bytes: disk.size_bytes,
                    role: *role,
                })
                .collect(),
            platform: platform(host),
        };
        Ok((config, disks.into_iter().map(|(_, disk)| disk).collect()))
    }

    /// A disk, and what it takes on the pool at once.
    pub(super) async fn design_disk(&self, disk: &rest::NewDisk) -> Answer<(NewDisk, u64)> {
        match (&disk.file, disk.size_bytes) {
            (Some(file), None) => {
                let found = self.agent.inspect(file.clone()).await?;
                let source = Source::File(file.clone());
                let disk = new_disk(&*self.ground, found.size_bytes, found.format, source);
                Ok((disk, found.allocated_bytes))
            }
            (None, Some(size)) => {
                check_disk_size(size)?;
                Ok((new_disk(&*self.ground, size, Format::Qcow2, Source::Empty), MIB))
            }
            (Some(_), Some(_)) | (None, None) => Err(Refusal::new(Code::InvalidRequest)
                .detail("a disk has either a size or a file")
                .hint("give size_bytes for a new disk, or file for a copy")),
        }
    }

    async fn kernel(&self, new: &rest::NewVm) -> Answer<Option<Kernel>> {
        let Some(kernel) = &new.kernel else {
            if new.initrd.is_some() || new.append.is_some() {
                return Err(Refusal::new(Code::InvalidRequest)
                    .detail("an initrd or a command line was given without a kernel"));
            }
            return Ok(None);
        };
        self.agent.readable(kernel.clone()).await?;
        if let Some(initrd) = &new.initrd {
            self.agent.readable(initrd.clone()).await?;
        }
        let append = new.append.clone().unwrap_or_default();
        Ok(Some(Kernel { initrd: new.initrd.is_some(), append }))
    }
}

pub(super) fn check_vcpus(vcpus: u32) -> Answer<()> {
    if (1..=VCPUS_MOST).contains(&vcpus) {
        return Ok(());
    }
    Err(Refusal::new(Code::InvalidRequest)
        .detail(format!("{vcpus} processors were asked for"))
        .hint("1 to 256"))
}

pub(super) fn check_memory(memory_bytes: u64) -> Answer<()> {
    if memory_bytes >= MEMORY_LEAST && memory_bytes.is_multiple_of(MIB) {
        return Ok(());
    }
    Err(Refusal::new(Code::InvalidRequest)
        .detail(format!("{memory_bytes} bytes of memory were asked for"))
        .hint("a multiple of 1 MiB, 16 MiB at least"))
}

/// Refuses what is no size of a disk.
pub(super) fn check_disk_size(size_bytes: u64) -> Answer<()> {
    if (MIB..=DISK_MOST).contains(&size_bytes) && size_bytes.is_multiple_of(512) {
        return Ok(());
    }
    Err(Refusal::new(Code::InvalidRequest)
        .detail(format!("a disk of {size_bytes} bytes was asked for"))
        .hint("1 MiB to 64 TiB, in whole sectors of 512 bytes"))
}

fn firmware(wanted: Option<&str>, host: &HostFacts) -> Answer<Firmware> {
    match wanted {
        None | Some("bios") => Ok(Firmware::Bios),
        Some("uefi") => match &host.capabilities.uefi {
            tintype_model::capability::Support::Yes => Ok(Firmware::Uefi),
            tintype_model::capability::Support::No(why) => {
                Err(Refusal::new(Code::HostUnsuitable).detail(why.clone()))
            }
        },
        Some(other) => Err(Refusal::new(Code::InvalidRequest)
            .detail(format!("firmware {other:?}"))
            .hint("bios or uefi")),
    }
}

fn platform(host: &HostFacts) -> Platform {
    host.capabilities.platform.clone()
}

/// Network cards; one in the same place as before keeps its address.
pub(super) fn nics(
    ground: &dyn Ground,
    caller: &Caller,
    networks: &[String],
    before: &[Nic],
) -> Answer<Vec<Nic>> {
    let nic = |(n, text): (usize, &String)| {
        let network = network(text)?;
        if matches!(network, Network::Tap(_)) {
            caller.may_ever(Action::UseHost)?;
        }
        let mac = before.get(n).map_or_else(|| new_mac(ground), |nic| nic.mac.clone());
        Ok(Nic { mac, network })
    };
    networks.iter().enumerate().map(nic).collect()
}

fn network(text: &str) -> Answer<Network> {
    match text.split_once(':') {
        None if text == "user" => Ok(Network::User),
        Some(("tap", name)) if is_interface(name) => Ok(Network::Tap(name.to_owned())),
        _ => Err(Refusal::new(Code::InvalidRequest)
            .detail(format!("network {text:?}"))
            .hint("user, or tap:INTERFACE")),
    }
}

fn is_interface(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && name.len() <= 15 && name.chars().all(plain)
}

/// A random hardware address in the range that QEMU uses.
pub(super) fn new_mac(ground: &dyn Ground) -> String {
    let random = ground.fresh().into_bytes();
    format!("52:54:00:{:02x}:{:02x}:{:02x}", random[0], random[1], random[2])
}

fn new_disk(ground: &dyn Ground, size_bytes: u64, format: Format, source: Source) -> NewDisk {
    let layer = LayerFile { id: LayerId(ground.fresh()), format };
    NewDisk { disk: DiskId(ground.fresh()), layer, size_bytes, source }
}

pub(super) fn first_layers(disks: &[NewDisk]) -> Vec<Change> {
    let changes = disks.iter().flat_map(|disk| {
        let layer = Layer::fresh(disk.layer, disk.disk, None);
        [Change::LayerAdded(layer), Change::DiskActive { disk: disk.disk, layer: disk.layer.id }]
    });
    changes.collect()
}

/// Refuses what would not fit into the host's memory.
pub(super) fn refuse_without_memory(host: &HostFacts, needed: u64) -> Answer<()> {
    if host.memory_free_bytes >= needed {
        return Ok(());
    }
    Err(Refusal::new(Code::HostMemoryShort)
        .detail(format!("{needed} bytes are needed, {} are free", host.memory_free_bytes))
        .hint("stop another virtual machine"))
}

/// The refusal of what would not fit into the pool.
pub(super) fn pool_full(free: u64, needed: u64) -> Refusal {
    Refusal::new(Code::PoolFull)
        .detail(format!("{needed} bytes are needed, {free} are free"))
        .hint("delete snapshots, or make the pool's filesystem larger")
}
