//! `tintype disk`

use super::vm::address;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{print, table};
use crate::size;
use clap::Subcommand;
use tintype_wire::rest::{Disk, List};

#[derive(Debug, Subcommand)]
pub(crate) enum DiskVerb {
    /// List the disks of a virtual machine
    #[command(visible_alias = "ls")]
    List {
        /// Name or id of the virtual machine
        vm: String,
    },
}

pub(crate) async fn run(context: &Context, verb: DiskVerb) -> Result<(), Failure> {
    let DiskVerb::List { vm } = verb;
    let disks: List<Disk> = context.client.get(&address(&vm, "/disks")).await?;
    print(context, &disks, |disks| {
        let row =
            |disk: &Disk| vec![disk.name.clone(), size::show(disk.size_bytes), disk.id.to_string()];
        let rows: Vec<Vec<String>> = disks.items.iter().map(row).collect();
        table(&["NAME", "SIZE", "ID"], &rows)
    });
    Ok(())
}
