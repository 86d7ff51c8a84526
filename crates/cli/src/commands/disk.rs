//! `tintype disk`

use super::vm::{absolute_or_size, address};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{ask_about, follow, print, table};
use crate::size;
use clap::Subcommand;
use tintype_wire::rest::{Disk, EditDisk, List, Operation, Plan};

#[derive(Debug, Subcommand)]
pub(crate) enum DiskVerb {
    /// List the disks of a virtual machine
    #[command(visible_alias = "ls")]
    List {
        /// Name or id of the virtual machine
        vm: String,
    },
    /// Give a virtual machine that is off another disk
    Attach {
        /// Name or id of the virtual machine
        vm: String,
        /// A size such as 10GiB for a new one, or a file to copy
        disk: String,
    },
    /// Take a disk away, with what is on it
    Detach {
        /// Name or id of the virtual machine
        vm: String,
        /// Name of the disk, such as vdb, or its id
        disk: String,
        /// Say what would be lost, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Make a disk larger, or smaller while the virtual machine is off
    Resize {
        /// Name or id of the virtual machine
        vm: String,
        /// Name of the disk, such as vdb, or its id
        disk: String,
        /// Its size, such as 20GiB
        #[arg(value_parser = size::parse)]
        size: u64,
        /// Say what would be lost, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

pub(crate) async fn run(context: &Context, verb: DiskVerb) -> Result<(), Failure> {
    let client = &context.client;
    match verb {
        DiskVerb::List { vm } => list(context, &vm).await,
        DiskVerb::Attach { vm, disk } => {
            let new = absolute_or_size(&disk)?;
            let path = context.acting(&address(&vm, "/disks"));
            let operation: Operation = client.post(&path, &new).await?;
            follow(context, operation, |_| format!("{vm} has another disk")).await?;
            Ok(())
        }
        DiskVerb::Detach { vm, disk, dry_run } => {
            let path = address(&vm, &format!("/disks/{}", super::escape(&disk)));
            let plan: Plan = client.delete(&format!("{path}?dry_run=true")).await?;
            if ask_about(context, &plan, dry_run)? {
                let operation: Operation = client.delete(&context.acting(&path)).await?;
                follow(context, operation, |_| format!("{vm} has lost {disk}")).await?;
            }
            Ok(())
        }
        DiskVerb::Resize { vm, disk, size, dry_run } => {
            let path = address(&vm, &format!("/disks/{}", super::escape(&disk)));
            let edit = EditDisk { size_bytes: size };
            let plan: Plan = client.patch(&format!("{path}?dry_run=true"), &edit).await?;
            if ask_about(context, &plan, dry_run)? {
                let operation: Operation = client.patch(&context.acting(&path), &edit).await?;
                let shown = size::show(size);
                follow(context, operation, |_| format!("{disk} of {vm} has {shown}")).await?;
            }
            Ok(())
        }
    }
}

async fn list(context: &Context, vm: &str) -> Result<(), Failure> {
    let disks: List<Disk> = context.client.get(&address(vm, "/disks")).await?;
    print(context, &disks, |disks| {
        let row =
            |disk: &Disk| vec![disk.name.clone(), size::show(disk.size_bytes), disk.id.to_string()];
        let rows: Vec<Vec<String>> = disks.items.iter().map(row).collect();
        table(&["NAME", "SIZE", "ID"], &rows)
    });
    Ok(())
}
