//! Virtual machines.

use super::{Answer, App, now, stored};
use crate::view;
use std::sync::Arc;
use tintype_model::change::Change;
use tintype_model::config::{Config, Disk, Firmware, Kernel, Network, Nic, Platform, Role};
use tintype_model::effect::{NewDisk, Source};
use tintype_model::layer::{Format, Layer, LayerFile};
use tintype_model::operation::{Command, CreateVm, Operation, StopVm};
use tintype_model::refusal::Code;
use tintype_model::timeline::Timeline;
use tintype_model::vm::{Vm, VmState};
use tintype_model::{DiskId, LayerId, Refusal, VmId, name};
use tintype_store::Page;
use tintype_wire::agent::HostFacts;
use tintype_wire::rest;
use uuid::Uuid;

const MIB: u64 = 1 << 20;
/// Most processors of one machine.
const VCPUS_MOST: u32 = 256;
/// Most disks of one machine: virtio cards that fit on one bus beside the rest.
const DISKS_MOST: usize = 16;
/// Least memory a guest boots with.
const MEMORY_LEAST: u64 = 16 * MIB;
/// Largest new disk.
const DISK_MOST: u64 = 1 << 46;
/// What a new disk takes before it is written to, and room for the pool's own needs.
const ROOM: u64 = 16 * MIB;

impl App {
    /// A machine.
    ///
    /// # Errors
    /// When there is none; so for all of these.
    pub async fn vm(&self, vm: &str) -> Answer<rest::Vm> {
        let mut unit = self.store.read().await.map_err(stored)?;
        let timeline = self.load(&mut unit, vm).await?;
        let holder = match timeline.vm.operation {
            Some(id) => unit.operation(id).await.map_err(stored)?,
            None => None,
        };
        Ok(view::vm(&timeline, holder.as_ref(), self.agent.console_address(timeline.vm.id)))
    }

    /// The id of a machine.
    ///
    /// # Errors
    /// When there is none.
    pub async fn vm_id(&self, vm: &str) -> Answer<VmId> {
        let mut unit = self.store.read().await.map_err(stored)?;
        self.find_vm(&mut unit, vm).await
    }

    /// A page of machines.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn vms(&self, page: Page) -> Answer<rest::List<rest::Vm>> {
        let mut unit = self.store.read().await.map_err(stored)?;
        let found = unit.vms(page).await.map_err(stored)?;
        drop(unit);
        let last = found.last().map(|vm| (vm.created_at, vm.id.0));
        let next = view::next(page, found.len(), last);
        let mut items = Vec::new();
        for vm in found {
            // One that is deleted meanwhile is left out.
            if let Ok(vm) = self.vm(&vm.id.to_string()).await {
                items.push(vm);
            }
        }
        Ok(rest::List { items, next })
    }

    /// Creates a machine.
    ///
    /// # Errors
    /// When it cannot be.
    pub async fn create_vm(self: &Arc<Self>, new: rest::NewVm) -> Answer<rest::Operation> {
        name::check_vm_name(&new.name)?;
        let host = self.agent.host().await;
        let (config, disks) = self.design(&new, &host).await?;
        let vm = Vm {
            id: VmId(Uuid::new_v4()),
            name: new.name.clone(),
            state: VmState::Stopped,
            config,
            generation: Uuid::new_v4(),
            current: None,
            operation: None,
            reclaim: None,
            created_at: now(),
        };
        let mut unit = self.store.write().await.map_err(stored)?;
        if let Some(other) = unit.vm_named(&new.name).await.map_err(stored)? {
            return Err(Refusal::new(Code::NameTaken)
                .detail(format!("there is a virtual machine named {}", new.name))
                .hint("choose another name")
                .blocked_by([other.0]));
        }
        unit.add_vm(&vm).await.map_err(stored)?;
        unit.record(vm.id, &first_layers(&disks)).await.map_err(stored)?;
        let create = CreateVm { disks, kernel: new.kernel, initrd: new.initrd };
        let timeline = Timeline::of(vm);
        let operation = self.admit(&mut unit, &timeline, Command::CreateVm(create), None).await?;
        unit.commit().await.map_err(stored)?;
        self.accepted(operation).await
    }

    /// Boots a machine.
    ///
    /// # Errors
    /// When it cannot be.
    pub async fn start_vm(self: &Arc<Self>, vm: &str) -> Answer<rest::Operation> {
        let mut unit = self.store.write().await.map_err(stored)?;
        let timeline = self.load(&mut unit, vm).await?;
        let needs = timeline.vm.config.memory_bytes;
        refuse_without_memory(&self.agent.host().await, needs)?;
        let operation = self.admit(&mut unit, &timeline, Command::StartVm, None).await?;
        unit.commit().await.map_err(stored)?;
        self.accepted(operation).await
    }

    /// Stops a machine.
    ///
    /// # Errors
    /// When it cannot be.
    pub async fn stop_vm(self: &Arc<Self>, vm: &str, force: bool) -> Answer<rest::Operation> {
        self.command(vm, Command::StopVm(StopVm { force })).await
    }

    /// Deletes a machine with its snapshots.
    ///
    /// # Errors
    /// When it cannot be.
    pub async fn delete_vm(self: &Arc<Self>, vm: &str) -> Answer<rest::Operation> {
        self.command(vm, Command::DeleteVm).await
    }

    async fn command(self: &Arc<Self>, vm: &str, command: Command) -> Answer<rest::Operation> {
        let mut unit = self.store.write().await.map_err(stored)?;
        let timeline = self.load(&mut unit, vm).await?;
        let operation = self.admit(&mut unit, &timeline, command, None).await?;
        unit.commit().await.map_err(stored)?;
        self.accepted(operation).await
    }

    /// Begins an operation that was recorded, and shows it.
    pub(super) async fn accepted(
        self: &Arc<Self>,
        operation: Operation,
    ) -> Answer<rest::Operation> {
        self.begin(operation.id).await;
        self.operation(operation.id, std::time::Duration::ZERO).await
    }

    /// The hardware and disks of a new machine.
    async fn design(&self, new: &rest::NewVm, host: &HostFacts) -> Answer<(Config, Vec<NewDisk>)> {
        check_size(new)?;
        let firmware = firmware(new.firmware.as_deref(), host)?;
        let mut room = ROOM;
        let mut disks = Vec::new();
        for disk in &new.disks {
            let (disk, bytes) = self.design_disk(disk).await?;
            disks.push((Role::Data, disk));
            room += bytes;
        }
        if firmware == Firmware::Uefi {
            disks.push((Role::Firmware, new_disk(0, Format::Qcow2, Source::FirmwareTemplate)));
        }
        if host.pool_free_bytes < room {
            return Err(pool_full(host.pool_free_bytes, room));
        }
        let config = Config {
            vcpus: new.vcpus,
            memory_bytes: new.memory_bytes,
            firmware,
            kernel: self.kernel(new).await?,
            nics: new.networks.iter().map(|network| nic(network)).collect::<Answer<_>>()?,
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
    async fn design_disk(&self, disk: &rest::NewDisk) -> Answer<(NewDisk, u64)> {
        match (&disk.file, disk.size_bytes) {
            (Some(file), None) => {
                let found = self.agent.inspect(file.clone()).await?;
                let source = Source::File(file.clone());
                let disk = new_disk(found.size_bytes, found.format, source);
                Ok((disk, found.allocated_bytes))
            }
            (None, Some(size)) if (MIB..=DISK_MOST).contains(&size) && size % 512 == 0 => {
                Ok((new_disk(size, Format::Qcow2, Source::Empty), MIB))
            }
            (None, Some(size)) => Err(Refusal::new(Code::InvalidRequest)
                .detail(format!("a disk of {size} bytes was asked for"))
                .hint("1 MiB to 64 TiB, in whole sectors of 512 bytes")),
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

fn check_size(new: &rest::NewVm) -> Answer<()> {
    let no = |detail: String, hint: &str| {
        Err(Refusal::new(Code::InvalidRequest).detail(detail).hint(hint))
    };
    if !(1..=VCPUS_MOST).contains(&new.vcpus) {
        return no(format!("{} processors were asked for", new.vcpus), "1 to 256");
    }
    if new.memory_bytes < MEMORY_LEAST || !new.memory_bytes.is_multiple_of(MIB) {
        let detail = format!("{} bytes of memory were asked for", new.memory_bytes);
        return no(detail, "a multiple of 1 MiB, 16 MiB at least");
    }
    if new.disks.len() > DISKS_MOST {
        return no(format!("{} disks were asked for", new.disks.len()), "16 at most");
    }
    Ok(())
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

fn nic(network: &str) -> Answer<Nic> {
    let network = match network.split_once(':') {
        None if network == "user" => Network::User,
        Some(("tap", name)) if is_interface(name) => Network::Tap(name.to_owned()),
        _ => {
            return Err(Refusal::new(Code::InvalidRequest)
                .detail(format!("network {network:?}"))
                .hint("user, or tap:INTERFACE"));
        }
    };
    Ok(Nic { mac: new_mac(), network })
}

fn is_interface(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && name.len() <= 15 && name.chars().all(plain)
}

/// A random hardware address in the range that QEMU uses.
fn new_mac() -> String {
    let random = Uuid::new_v4().into_bytes();
    format!("52:54:00:{:02x}:{:02x}:{:02x}", random[0], random[1], random[2])
}

fn new_disk(size_bytes: u64, format: Format, source: Source) -> NewDisk {
    let layer = LayerFile { id: LayerId(Uuid::new_v4()), format };
    NewDisk { disk: DiskId(Uuid::new_v4()), layer, size_bytes, source }
}

fn first_layers(disks: &[NewDisk]) -> Vec<Change> {
    let changes = disks.iter().flat_map(|disk| {
        let layer = Layer {
            id: disk.layer.id,
            disk: disk.disk,
            parent: None,
            format: disk.layer.format,
            rank: 0,
            size_bytes: 0,
        };
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
