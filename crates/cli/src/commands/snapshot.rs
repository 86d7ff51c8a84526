//! `tintype snapshot`

use super::escape;
use super::tree::draw;
use super::vm::address;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{card, confirm, follow, print, table};
use crate::size;
use clap::{Args, Subcommand};
use tintype_wire::rest::{
    DeletePlan, EditSnapshot, List, NewSnapshot, Operation, Revert, Snapshot, Tree, Vm,
};

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotVerb {
    /// Take a snapshot. It is no backup: it lies beside the disk it was taken of
    Create {
        /// Name or id of the virtual machine
        vm: String,
        /// The snapshot's name; date and time if not given
        name: Option<String>,
        /// Hold the memory too: a revert goes on from there
        #[arg(long)]
        memory: bool,
        /// What to remember about it
        #[arg(long)]
        description: Option<String>,
    },
    /// List snapshots, of all virtual machines or one
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Draw the snapshots of a virtual machine as a tree, with NOW in it
    Tree {
        /// Name or id of the virtual machine
        vm: String,
    },
    /// Show a snapshot
    Show {
        /// Name or id of the virtual machine
        vm: String,
        /// Name or id of the snapshot
        snapshot: String,
    },
    /// Change name or description
    Edit {
        /// Name or id of the virtual machine
        vm: String,
        /// Name or id of the snapshot
        snapshot: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Another description
        #[arg(long)]
        description: Option<String>,
    },
    /// Go back to a snapshot; without one, to the current
    #[command(aliases = ["rollback", "restore", "apply"])]
    Revert(RevertArgs),
    /// Delete a snapshot; its children stay
    #[command(alias = "rm")]
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only of this virtual machine
    #[arg(long)]
    vm: Option<String>,
    /// Only in this state
    #[arg(long)]
    state: Option<String>,
    /// Only with this in name or description
    #[arg(long)]
    keyword: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RevertArgs {
    /// Name or id of the virtual machine
    vm: String,
    /// Name or id of the snapshot
    snapshot: Option<String>,
    /// Start it afterwards, also from a snapshot without memory
    #[arg(long, conflicts_with = "stopped")]
    start: bool,
    /// Leave it off: the disks of that instant, without the memory
    #[arg(long)]
    stopped: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Name or id of the virtual machine
    vm: String,
    /// Name or id of the snapshot
    #[arg(required_unless_present = "all")]
    snapshot: Option<String>,
    /// Delete what descends from it too
    #[arg(long, conflicts_with_all = ["children_only", "all"])]
    subtree: bool,
    /// Delete what descends from it, but not it
    #[arg(long, conflicts_with = "all")]
    children_only: bool,
    /// Delete every snapshot of the virtual machine
    #[arg(long, conflicts_with = "snapshot")]
    all: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(context: &Context, verb: SnapshotVerb) -> Result<(), Failure> {
    match verb {
        SnapshotVerb::Create { vm, name, memory, description } => {
            let kind = memory.then(|| "disk-and-memory".to_owned());
            create(context, &vm, NewSnapshot { name, description, kind }).await
        }
        SnapshotVerb::List(args) => list(context, args).await,
        SnapshotVerb::Tree { vm } => {
            let tree: Tree = context.client.get(&address(&vm, "/tree")).await?;
            print(context, &tree, draw);
            Ok(())
        }
        SnapshotVerb::Show { vm, snapshot } => {
            let snapshot = find(context, &vm, &snapshot).await?;
            print(context, &snapshot, show);
            Ok(())
        }
        SnapshotVerb::Edit { vm, snapshot, name, description } => {
            let id = find(context, &vm, &snapshot).await?.id;
            let edit = EditSnapshot { name, description };
            let edited: Snapshot =
                context.client.patch(&format!("/v1/snapshots/{id}"), &edit).await?;
            print(context, &edited, show);
            Ok(())
        }
        SnapshotVerb::Revert(args) => revert(context, args).await,
        SnapshotVerb::Delete(args) => delete(context, args).await,
    }
}

async fn create(context: &Context, vm: &str, new: NewSnapshot) -> Result<(), Failure> {
    let operation: Operation = context.client.post(&address(vm, "/snapshots"), &new).await?;
    let id = operation.snapshot;
    let ended = follow(context, operation, |_| format!("took a snapshot of {vm}")).await?;
    if let Some(id) =
        id.filter(|_| ended.has_ended() && context.output == crate::context::Output::Table)
    {
        let snapshot: Snapshot = context.client.get(&format!("/v1/snapshots/{id}")).await?;
        crate::output::line(&show(&snapshot));
    }
    Ok(())
}

async fn pages(context: &Context, path: &str) -> Result<List<Snapshot>, Failure> {
    let mut all = List { items: Vec::new(), next: None };
    let mut after = String::new();
    loop {
        let page: List<Snapshot> = context.client.get(&format!("{path}{after}")).await?;
        all.items.extend(page.items);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(all),
        }
    }
}

async fn list(context: &Context, args: ListArgs) -> Result<(), Failure> {
    let mut path = "/v1/snapshots?limit=500".to_owned();
    for (name, value) in [("vm", args.vm), ("state", args.state), ("keyword", args.keyword)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", escape(&value)));
        }
    }
    let snapshots = pages(context, &path).await?;
    let vms: List<Vm> = context.client.get("/v1/vms?limit=1000").await?;
    let vm_name = |id: uuid::Uuid| {
        vms.items.iter().find(|vm| vm.id == id).map_or_else(|| id.to_string(), |vm| vm.name.clone())
    };
    print(context, &snapshots, |snapshots| {
        if snapshots.items.is_empty() {
            return "no snapshots".to_owned();
        }
        let row = |snapshot: &Snapshot| {
            vec![
                vm_name(snapshot.vm),
                snapshot.name.clone(),
                snapshot.kind.clone(),
                snapshot.state.clone(),
                size::show(snapshot.size_bytes),
                if snapshot.current { "yes".to_owned() } else { String::new() },
                snapshot.created_at.clone(),
            ]
        };
        let rows: Vec<Vec<String>> = snapshots.items.iter().map(row).collect();
        table(&["VM", "NAME", "KIND", "STATE", "FREES", "CURRENT", "CREATED"], &rows)
    });
    Ok(())
}

/// The snapshot of a machine with this name or id.
async fn find(context: &Context, vm: &str, snapshot: &str) -> Result<Snapshot, Failure> {
    let all = pages(context, &address(vm, "/snapshots?limit=500")).await?;
    let wanted = |found: &&Snapshot| found.name == snapshot || found.id.to_string() == snapshot;
    all.items.iter().find(wanted).cloned().ok_or_else(|| {
        Failure::missing("unknown-snapshot", "there is no such snapshot", snapshot)
            .hint(format!("tintype snapshot tree {vm} shows those there are"))
    })
}

async fn revert(context: &Context, args: RevertArgs) -> Result<(), Failure> {
    let vm = &args.vm;
    let target = match &args.snapshot {
        Some(snapshot) => find(context, vm, snapshot).await?,
        None => current(context, vm).await?,
    };
    confirm(
        context,
        &format!(
            "What {vm} did since its current snapshot is lost; it goes back to {:?}.",
            target.name
        ),
    )?;
    let power = match (args.start, args.stopped) {
        (true, _) => Some("start".to_owned()),
        (_, true) => Some("stopped".to_owned()),
        _ => None,
    };
    let path = format!("/v1/snapshots/{}/revert", target.id);
    let operation: Operation = context.client.post(&path, &Revert { power }).await?;
    follow(context, operation, |_| format!("{vm} is back at {:?}", target.name)).await?;
    Ok(())
}

async fn current(context: &Context, vm: &str) -> Result<Snapshot, Failure> {
    let found: Vm = context.client.get(&address(vm, "")).await?;
    let Some(id) = found.current else {
        return Err(Failure::plain(format!("{vm} has no current snapshot"), "")
            .hint(format!("tintype snapshot tree {vm} shows those there are")));
    };
    Ok(context.client.get(&format!("/v1/snapshots/{id}")).await?)
}

async fn delete(context: &Context, args: DeleteArgs) -> Result<(), Failure> {
    let vm = &args.vm;
    let (path, scope) = match &args.snapshot {
        Some(snapshot) => {
            let id = find(context, vm, snapshot).await?.id;
            let scope = match (args.subtree, args.children_only) {
                (true, _) => "subtree",
                (_, true) => "children",
                _ => "one",
            };
            (format!("/v1/snapshots/{id}"), format!("scope={scope}&"))
        }
        None => (address(vm, "/snapshots"), String::new()),
    };
    let plan: DeletePlan = context.client.delete(&format!("{path}?{scope}dry_run=true")).await?;
    if args.dry_run {
        print(context, &plan, show_plan);
        return Ok(());
    }
    confirm(context, &show_plan(&plan))?;
    let operation: Operation = context.client.delete(&format!("{path}?{scope}")).await?;
    follow(context, operation, |_| format!("deleted {} snapshots", plan.snapshots.len())).await?;
    Ok(())
}

fn show_plan(plan: &DeletePlan) -> String {
    let mut text = String::new();
    for snapshot in &plan.snapshots {
        text.push_str(&format!("deletes  {:?} of {}\n", snapshot.name, snapshot.created_at));
    }
    text.push_str(&format!("moves up  {} snapshots\n", plan.moved.len()));
    text.push_str(&format!("frees  {}", size::show(plan.freed_bytes)));
    if plan.merged_bytes > 0 {
        text.push_str(&format!(", and what overlaps of {}", size::show(plan.merged_bytes)));
    }
    if plan.kept_bytes > 0 {
        text.push_str(&format!("; {} stay, for a branch", size::show(plan.kept_bytes)));
    }
    text.push('\n');
    text
}

fn show(snapshot: &Snapshot) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    card(&[
        ("name", snapshot.name.clone()),
        ("id", snapshot.id.to_string()),
        ("description", snapshot.description.clone()),
        ("kind", snapshot.kind.clone()),
        ("disks", format!("{}-consistent", snapshot.consistency)),
        ("state", snapshot.state.clone()),
        ("reason", or_dash(snapshot.reason.as_ref().map(ToString::to_string))),
        ("parent", or_dash(snapshot.parent.map(|id| id.to_string()))),
        ("current", if snapshot.current { "yes" } else { "no" }.to_owned()),
        ("created", snapshot.created_at.clone()),
        ("ready", or_dash(snapshot.ready_at.clone())),
        ("guest paused", or_dash(snapshot.pause_ms.map(|ms| format!("{ms} ms")))),
        ("memory", size::show(snapshot.memory_bytes)),
        ("frees", size::show(snapshot.size_bytes)),
    ])
}
