//! `tintype vm`

use super::escape;
use super::list::all;
use super::profile::{SettingArgs, yes};
use super::snapshot::find;
use crate::context::Context;
use crate::failure::Failure;
use crate::limit::{self, Number};
use crate::output::{ask_about, card, follow, print, table};
use crate::size;
use clap::{Args, Subcommand, ValueEnum};
use std::io::Write;
use std::path::{Path, PathBuf};
use tintype_wire::client::Done;
use tintype_wire::rest::{CloneVm, EditVm, Limit, List, NewDisk, NewVm, Operation, Plan, Stop, Vm};

#[derive(Debug, Subcommand)]
pub(crate) enum VmVerb {
    /// Create a virtual machine
    Create(Create),
    /// List virtual machines
    #[command(visible_alias = "ls")]
    List(ListArgs),
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
    /// Shut a virtual machine down; with --force cut the power, and cancel what runs first
    Stop {
        /// Name or id
        vm: String,
    },
    /// Change hardware, name or snapshot settings
    Set(Set),
    /// Make another virtual machine of its disks
    Clone {
        /// Name or id
        vm: String,
        /// The clone's name
        new: String,
        /// The disks as this snapshot holds them, instead of as they are now
        #[arg(long)]
        snapshot: Option<String>,
        /// Share what is there, instead of copying it
        #[arg(long)]
        linked: bool,
    },
    /// Delete a virtual machine with its snapshots
    #[command(alias = "rm")]
    Delete {
        /// Name or id
        vm: String,
        /// Say what would be lost, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Follow the serial console
    Console {
        /// Name or id
        vm: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only of this account
    #[arg(long)]
    account: Option<String>,
    /// Only of this domain and those beneath
    #[arg(long)]
    domain: Option<String>,
    /// Only in this state
    #[arg(long)]
    state: Option<String>,
    /// Only with this in the name
    #[arg(long)]
    keyword: Option<String>,
    /// created, -created, name or -name
    #[arg(long, allow_hyphen_values = true)]
    sort: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Name or id
    vm: String,
    /// Another name
    #[arg(long)]
    name: Option<String>,
    /// Another size of its memory, such as 1GiB
    #[arg(long, value_parser = size::parse)]
    memory: Option<u64>,
    /// Another number of virtual processors
    #[arg(long)]
    vcpus: Option<u32>,
    /// The network cards it shall have: user, or tap:INTERFACE; may be given several times
    #[arg(long)]
    network: Vec<String>,
    /// Let snapshots lose their memory for other hardware
    #[arg(long)]
    discard_memory: bool,
    #[command(flatten)]
    settings: SettingArgs,
    /// Say what would be lost, and do nothing
    #[arg(long)]
    dry_run: bool,
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
    /// The profile whose settings it gets
    #[arg(long)]
    profile: Option<String>,
    /// The account that shall have it
    #[arg(long)]
    account: Option<String>,
    /// How many snapshots it may have: a number, or unlimited
    #[arg(long, value_parser = limit::number)]
    snapshot_limit: Option<Number>,
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
            disks: self.disk.iter().map(|disk| absolute_or_size(disk)).collect::<Result<_, _>>()?,
            kernel: self.kernel.as_deref().map(absolute).transpose()?,
            initrd: self.initrd.as_deref().map(absolute).transpose()?,
            append: self.append,
            firmware: Some(match self.firmware {
                Firmware::Bios => "bios".to_owned(),
                Firmware::Uefi => "uefi".to_owned(),
            }),
            networks: self.network,
            account: self.account,
            profile: self.profile,
            snapshot_limit: self.snapshot_limit.map(Limit::from),
        })
    }
}

/// A size if it reads like one and no such file is there, else a file.
pub(crate) fn absolute_or_size(text: &str) -> Result<NewDisk, Failure> {
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
        VmVerb::List(args) => list(context, args).await?,
        VmVerb::Show { vm } => {
            let vm: Vm = client.get(&address(&vm, "")).await?;
            print(context, &vm, show);
        }
        VmVerb::Start { vm } => {
            let path = context.acting(&address(&vm, "/start"));
            let operation = client.post(&path, &serde_json::json!({})).await?;
            follow(context, operation, |_| format!("started {vm}")).await?;
        }
        VmVerb::Stop { vm } => {
            let path = context.acting(&address(&vm, "/stop"));
            let operation = client.post(&path, &Stop { force: context.force }).await?;
            follow(context, operation, |_| format!("stopped {vm}")).await?;
        }
        VmVerb::Set(args) => set(context, args).await?,
        VmVerb::Clone { vm, new, snapshot, linked } => {
            let snapshot = match snapshot {
                Some(snapshot) => Some(find(context, &vm, &snapshot).await?.id),
                None => None,
            };
            let path = context.acting(&address(&vm, "/clone"));
            let clone = CloneVm { name: new.clone(), snapshot, linked };
            let operation = client.post(&path, &clone).await?;
            follow(context, operation, |_| format!("cloned {vm} as {new}")).await?;
        }
        VmVerb::Delete { vm, dry_run } => {
            let path = address(&vm, "");
            let plan: Plan = client.delete(&format!("{path}?dry_run=true")).await?;
            if ask_about(context, &plan, dry_run)? {
                let operation: Operation = client.delete(&context.acting(&path)).await?;
                follow(context, operation, |_| format!("deleted {vm}")).await?;
            }
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

async fn set(context: &Context, args: Set) -> Result<(), Failure> {
    let path = address(&args.vm, "");
    let settings = args.settings;
    let edit = EditVm {
        name: args.name,
        vcpus: args.vcpus,
        memory_bytes: args.memory,
        networks: (!args.network.is_empty()).then_some(args.network),
        discard_memory: args.discard_memory,
        snapshot_limit: settings.snapshot_limit.map(Limit::from),
        snapshots_allowed: settings.snapshots_allowed,
        memory_allowed: settings.memory_allowed,
        protect_snapshots: settings.protect_snapshots,
        pause_bound_ms: settings.pause_bound.map(Limit::from),
    };
    if edit.discard_memory || args.dry_run {
        let plan: Plan = context.client.patch(&format!("{path}?dry_run=true"), &edit).await?;
        if !ask_about(context, &plan, args.dry_run)? {
            return Ok(());
        }
    }
    match context.client.patch_or_accept(&context.acting(&path), &edit).await? {
        Done::AtOnce(vm) => {
            let vm: Vm = serde_json::from_value(vm)
                .map_err(|error| Failure::plain("the answer is strange", error.to_string()))?;
            print(context, &vm, show);
        }
        Done::Accepted(operation) => {
            follow(context, *operation, |_| format!("changed {}", args.vm)).await?;
        }
    }
    Ok(())
}

async fn list(context: &Context, args: ListArgs) -> Result<(), Failure> {
    let mut path = "/v1/vms?limit=500".to_owned();
    for (name, value) in [
        ("account", args.account),
        ("domain", args.domain),
        ("state", args.state),
        ("keyword", args.keyword),
        ("sort", args.sort),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", escape(&value)));
        }
    }
    let all: List<Vm> = all(context, &path).await?;
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
    let found: Vec<&str> = vm.findings.iter().map(|finding| finding.detail.as_str()).collect();
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
        ("account", vm.account.clone()),
        ("snapshots", format!("{} of {}", vm.snapshots, limit::show(vm.snapshot_limit))),
        ("in snapshots", size::show(vm.snapshot_bytes)),
        ("users allowed", yes(vm.snapshots_allowed)),
        ("memory allowed", yes(vm.memory_allowed)),
        ("protect snapshots", yes(vm.protect_snapshots)),
        ("pause bound", limit::show_ms(vm.pause_bound_ms)),
        ("current", vm.current.map_or("-".to_owned(), |id| id.to_string())),
        ("console", vm.console.clone()),
        ("created", vm.created_at.clone()),
        ("not as recorded", if found.is_empty() { "-".to_owned() } else { found.join("; ") }),
    ])
}
