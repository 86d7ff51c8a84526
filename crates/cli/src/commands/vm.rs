//! `tintype vm`

use super::escape;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{card, confirm, follow, print, table};
use crate::size;
use clap::{Args, Subcommand, ValueEnum};
use std::io::Write;
use std::path::{Path, PathBuf};
use tintype_wire::rest::{List, NewDisk, NewVm, Operation, Stop, Vm};

#[derive(Debug, Subcommand)]
pub(crate) enum VmVerb {
    /// Create a virtual machine
    Create(Create),
    /// List virtual machines
    #[command(visible_alias = "ls")]
    List,
    /// Show a virtual machine
    Show {
        /// Name or id
        vm: String,
    },
    /// Boot a virtual machine
    Start {
        /// Name or id
        vm: String,
    },
    /// Shut a virtual machine down
    Stop {
        /// Name or id
        vm: String,
        /// Cut the power at once
        #[arg(long)]
        force: bool,
    },
    /// Delete a virtual machine with its snapshots
    #[command(alias = "rm")]
    Delete {
        /// Name or id
        vm: String,
    },
    /// Follow the serial console
    Console {
        /// Name or id
        vm: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its name
    name: String,
    /// Size of its memory, such as 512MiB
    #[arg(long, value_parser = size::parse)]
    memory: u64,
    /// Number of virtual processors
    #[arg(long, default_value_t = 1)]
    vcpus: u32,
    /// A disk: a size such as 10GiB for a new one, or a file to copy; may be given several times
    #[arg(long)]
    disk: Vec<String>,
    /// A kernel to start directly
    #[arg(long)]
    kernel: Option<PathBuf>,
    /// The initrd beside it
    #[arg(long, requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, requires = "kernel")]
    append: Option<String>,
    /// What starts the guest
    #[arg(long, value_enum, default_value = "bios")]
    firmware: Firmware,
    /// A network card: user, or tap:INTERFACE; may be given several times
    #[arg(long)]
    network: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Firmware {
    Bios,
    Uefi,
}

impl Create {
    fn request(self) -> Result<NewVm, Failure> {
        Ok(NewVm {
            name: self.name,
            memory_bytes: self.memory,
            vcpus: self.vcpus,
            disks: self.disk.iter().map(|disk| new_disk(disk)).collect::<Result<_, _>>()?,
            kernel: self.kernel.as_deref().map(absolute).transpose()?,
            initrd: self.initrd.as_deref().map(absolute).transpose()?,
            append: self.append,
            firmware: Some(match self.firmware {
                Firmware::Bios => "bios".to_owned(),
                Firmware::Uefi => "uefi".to_owned(),
            }),
            networks: self.network,
        })
    }
}

/// A size if it reads like one and no such file is there, else a file.
fn new_disk(text: &str) -> Result<NewDisk, Failure> {
    let path = Path::new(text);
    match size::parse(text) {
        Ok(bytes) if !path.exists() => Ok(NewDisk { size_bytes: Some(bytes), file: None }),
        _ => Ok(NewDisk { size_bytes: None, file: Some(absolute(path)?) }),
    }
}

fn absolute(path: &Path) -> Result<String, Failure> {
    Ok(std::path::absolute(path)?.display().to_string())
}

pub(crate) async fn run(context: &Context, verb: VmVerb) -> Result<(), Failure> {
    let client = &context.client;
    match verb {
        VmVerb::Create(create) => {
            let new = create.request()?;
            let operation = client.post("/v1/vms", &new).await?;
            follow(context, operation, |_| format!("created {}", new.name)).await?;
        }
        VmVerb::List => list(context).await?,
        VmVerb::Show { vm } => {
            let vm: Vm = client.get(&address(&vm, "")).await?;
            print(context, &vm, show);
        }
        VmVerb::Start { vm } => {
            let operation = client.post(&address(&vm, "/start"), &serde_json::json!({})).await?;
            follow(context, operation, |_| format!("started {vm}")).await?;
        }
        VmVerb::Stop { vm, force } => {
            let operation = client.post(&address(&vm, "/stop"), &Stop { force }).await?;
            follow(context, operation, |_| format!("stopped {vm}")).await?;
        }
        VmVerb::Delete { vm } => {
            let found: Vm = client.get(&address(&vm, "")).await?;
            let snapshots = found.snapshots;
            confirm(
                context,
                &format!("{vm} goes for good, with its disks and {snapshots} snapshots."),
            )?;
            let operation: Operation = client.delete(&address(&vm, "")).await?;
            follow(context, operation, |_| format!("deleted {vm}")).await?;
        }
        VmVerb::Console { vm } => {
            let write = |bytes: &[u8]| {
                let mut out = std::io::stdout().lock();
                let _ = out.write_all(bytes).and_then(|()| out.flush());
            };
            client.stream(&address(&vm, "/console"), write).await?;
        }
    }
    Ok(())
}

/// The address of a virtual machine, or of something under it.
pub(crate) fn address(vm: &str, under: &str) -> String {
    format!("/v1/vms/{}{under}", escape(vm))
}

async fn list(context: &Context) -> Result<(), Failure> {
    let mut all = List { items: Vec::new(), next: None };
    let mut after = String::new();
    loop {
        let page: List<Vm> = context.client.get(&format!("/v1/vms?limit=500{after}")).await?;
        all.items.extend(page.items);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    print(context, &all, |all| {
        if all.items.is_empty() {
            return "no virtual machines".to_owned();
        }
        let rows: Vec<Vec<String>> = all.items.iter().map(row).collect();
        table(&["NAME", "STATE", "VCPUS", "MEMORY", "DISKS", "SNAPSHOTS", "OPERATION"], &rows)
    });
    Ok(())
}

fn row(vm: &Vm) -> Vec<String> {
    vec![
        vm.name.clone(),
        vm.state.clone(),
        vm.vcpus.to_string(),
        size::show(vm.memory_bytes),
        vm.disks.len().to_string(),
        vm.snapshots.to_string(),
        vm.operation.as_ref().map_or_else(|| "-".to_owned(), |held| held.kind.clone()),
    ]
}

fn show(vm: &Vm) -> String {
    let disks =
        vm.disks.iter().map(|disk| format!("{} {}", disk.name, size::show(disk.size_bytes)));
    let nics = vm.nics.iter().map(|nic| format!("{} {}", nic.network, nic.mac));
    let platform = &vm.platform;
    card(&[
        ("name", vm.name.clone()),
        ("id", vm.id.to_string()),
        ("state", vm.state.clone()),
        ("operation", vm.operation.as_ref().map_or("-".into(), |o| format!("{} {}", o.kind, o.id))),
        ("processors", vm.vcpus.to_string()),
        ("memory", size::show(vm.memory_bytes)),
        ("firmware", vm.firmware.clone()),
        ("platform", format!("{} {} {}", platform.machine, platform.cpu, platform.accel)),
        ("disks", disks.collect::<Vec<_>>().join(", ")),
        ("networks", nics.collect::<Vec<_>>().join(", ")),
        ("snapshots", vm.snapshots.to_string()),
        ("current", vm.current.map_or("-".to_owned(), |id| id.to_string())),
        ("console", vm.console.clone()),
        ("created", vm.created_at.clone()),
    ])
}
