//! Disks of machines.

use super::design::{check_disk_size, pool_full};
use super::order::Order;
use super::{Answer, App, How, stored};
use crate::view;
use std::sync::Arc;
use tintype_model::access::{Action, Caller};
use tintype_model::config::{Disk, Role};
use tintype_model::operation::{AttachDisk, Command, DetachDisk, ResizeDisk};
use tintype_model::refusal::Code;
use tintype_model::timeline::Timeline;
use tintype_model::{DiskId, Refusal};
use tintype_wire::rest;

/// The size that a disk shall have, in bytes.
pub type DiskSize = u64;

impl App {
    /// The disks of a machine.
    ///
    /// # Errors
    /// When the machine is unknown; so for all of these.
    pub async fn disks(&self, caller: &Caller, vm: &str) -> Answer<Vec<rest::Disk>> {
        Ok(self.vm(caller, vm).await?.disks)
    }

    /// Gives a machine another disk.
    ///
    /// # Errors
    /// When it cannot have it.
    pub async fn attach_disk(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        vm: &str,
        disk: rest::NewDisk,
    ) -> Answer<rest::Operation> {
        let mut unit = self.store.read().await.map_err(stored)?;
        self.find_vm(&mut unit, caller, Action::ConfigureVm, vm)?;
        drop(unit);
        if disk.file.is_some() {
            caller.may_ever(Action::UseHost)?;
        }
        let (disk, needed) = self.design_disk(&disk).await?;
        let host = self.agent.host().await;
        if host.pool_free_bytes < needed {
            return Err(pool_full(host.pool_free_bytes, needed));
        }
        let (unit, timeline) = self.write_about(caller, Action::ConfigureVm, vm).await?;
        let command = Command::AttachDisk(AttachDisk { disk });
        self.give(unit, timeline, caller, how, Order::new(command)).await
    }

    /// What taking a disk away would do.
    ///
    /// # Errors
    /// When the disk is unknown.
    pub async fn plan_detach_disk(
        &self,
        caller: &Caller,
        vm: &str,
        disk: &str,
    ) -> Answer<rest::Plan> {
        let timeline = self.read_about(caller, Action::ConfigureVm, vm).await?;
        let disk = find(&timeline, disk)?;
        Ok(view::plan_detach(&timeline, disk.id))
    }

    /// Takes a disk away, with what is on it.
    ///
    /// # Errors
    /// When it cannot be taken.
    pub async fn detach_disk(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        vm: &str,
        disk: &str,
    ) -> Answer<rest::Operation> {
        let (unit, timeline) = self.write_about(caller, Action::ConfigureVm, vm).await?;
        let disk = find(&timeline, disk)?.id;
        let command = Command::DetachDisk(DetachDisk { disk });
        self.give(unit, timeline, caller, how, Order::new(command)).await
    }

    /// What another size would do to a disk.
    ///
    /// # Errors
    /// When the disk is unknown.
    pub async fn plan_resize_disk(
        &self,
        caller: &Caller,
        vm: &str,
        disk: &str,
        size_bytes: DiskSize,
    ) -> Answer<rest::Plan> {
        check_disk_size(size_bytes)?;
        let timeline = self.read_about(caller, Action::ConfigureVm, vm).await?;
        let before = find(&timeline, disk)?.size_bytes;
        Ok(view::plan_resize(&timeline, before, size_bytes))
    }

    /// Gives a disk another size.
    ///
    /// # Errors
    /// When it cannot have it.
    pub async fn resize_disk(
        self: &Arc<Self>,
        caller: &Caller,
        how: How,
        vm: &str,
        disk: &str,
        size_bytes: DiskSize,
    ) -> Answer<rest::Operation> {
        check_disk_size(size_bytes)?;
        let (unit, timeline) = self.write_about(caller, Action::ConfigureVm, vm).await?;
        let disk = find(&timeline, disk)?.id;
        let command = Command::ResizeDisk(ResizeDisk { disk, size_bytes });
        self.give(unit, timeline, caller, how, Order::new(command)).await
    }
}

/// The disk with this id, or the name that the guest gives it as a rule.
fn find<'a>(timeline: &'a Timeline, name_or_id: &str) -> Answer<&'a Disk> {
    let data = timeline.vm.config.disks.iter().filter(|disk| disk.role == Role::Data);
    let id: Option<DiskId> = name_or_id.parse().ok();
    let mut numbered = data.enumerate();
    let found = numbered.find(|(n, disk)| Some(disk.id) == id || view::disk_name(*n) == name_or_id);
    let unknown = || {
        Refusal::new(Code::UnknownDisk)
            .detail(format!("{} has no disk {name_or_id}", timeline.vm.name))
            .hint("tintype disk list VM shows those there are")
    };
    found.map(|(_, disk)| disk).ok_or_else(unknown)
}
