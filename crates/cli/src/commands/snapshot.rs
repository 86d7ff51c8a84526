//! `tintype snapshot`

use super::escape;
use super::list::all;
use super::profile::yes;
use super::tree::draw;
use super::vm::address;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{ask_about, card, follow, print, table};
use crate::size;
use clap::{Args, Subcommand};
use tintype_model::effect::EXPORTS;
use tintype_model::operation::ExportSnapshot;
use tintype_model::{Moment, SnapshotId};
use tintype_wire::rest::{
    EditSnapshot, Export, List, NewSnapshot, Operation, Plan, Pool, Revert, Snapshot, Tree, Vm,
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
        /// Have the guest agent write everything and freeze filesystems, if it can; with =required
        /// there is no snapshot otherwise
        #[arg(long, value_name = "required", num_args = 0..=1, require_equals = true,
              default_missing_value = "try", value_parser = ["try", "required"])]
        quiesce: Option<String>,
        /// How memory is saved: background holds what is in memory now; precopy has a shorter pause
        /// at a later moment [default: background, unless the pause would pass the bound]
        #[arg(long, requires = "memory", value_parser = ["background", "precopy"])]
        road: Option<String>,
        /// What to remember about it
        #[arg(long)]
        description: Option<String>,
        /// When it shall go by itself, such as 2027-01-31T00:00:00Z
        #[arg(long)]
        expires: Option<String>,
        /// Nobody deletes it before the protection is taken away
        #[arg(long)]
        protect: bool,
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
    /// Change name, description, expiry or protection
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
        /// When it shall go by itself, or never
        #[arg(long)]
        expires: Option<String>,
        /// Nobody deletes it before the protection is taken away
        #[arg(long, conflicts_with = "unprotect")]
        protect: bool,
        /// Take the protection away
        #[arg(long)]
        unprotect: bool,
    },
    /// Prove that a snapshot is whole: its memory is loaded beside the virtual machine
    Verify {
        /// Name or id of the virtual machine
        vm: String,
        /// Name or id of the snapshot
        snapshot: String,
    },
    /// Write a snapshot to a folder of the pool: disks, memory and a script for plain QEMU
    Export {
        /// Name or id of the virtual machine
        vm: String,
        /// Name or id of the snapshot
        snapshot: String,
        /// What to call the folder [default: VM and the beginning of the snapshot's id]
        #[arg(long)]
        name: Option<String>,
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
    /// Only of this account
    #[arg(long)]
    account: Option<String>,
    /// Only of this domain and those beneath
    #[arg(long)]
    domain: Option<String>,
    /// disk or disk-and-memory
    #[arg(long)]
    kind: Option<String>,
    /// Only with this in name or description; may be given several times
    #[arg(long)]
    keyword: Vec<String>,
    /// Created at this moment or later, such as 2026-11-20T00:00:00Z
    #[arg(long)]
    created_after: Option<String>,
    /// Created before this moment
    #[arg(long)]
    created_before: Option<String>,
    /// created, -created, name or -name
    #[arg(long, allow_hyphen_values = true)]
    sort: Option<String>,
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
    /// Take a snapshot of now first, to have a way back
    #[arg(long)]
    safety: bool,
    /// Say what would be lost, and do nothing
    #[arg(long)]
    dry_run: bool,
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
        SnapshotVerb::Create { vm, name, memory, quiesce, road, description, expires, protect } => {
            let kind = memory.then(|| "disk-and-memory".to_owned());
            let (expires_at, protected) = (expires, protect);
            let new = NewSnapshot { name, description, kind, quiesce, road, expires_at, protected };
            create(context, &vm, new).await
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
        SnapshotVerb::Edit { vm, snapshot, name, description, expires, protect, unprotect } => {
            let id = find(context, &vm, &snapshot).await?.id;
            let protected = (protect || unprotect).then_some(protect);
            let edit = EditSnapshot { name, description, expires_at: expires, protected };
            let edited: Snapshot =
                context.client.patch(&format!("/v1/snapshots/{id}"), &edit).await?;
            print(context, &edited, show);
            Ok(())
        }
        SnapshotVerb::Verify { vm, snapshot } => {
            let id = find(context, &vm, &snapshot).await?.id;
            let path = context.acting(&format!("/v1/snapshots/{id}/verify"));
            let operation = context.client.post(&path, &serde_json::json!({})).await?;
            follow(context, operation, |_| format!("{snapshot} of {vm} is whole")).await?;
            Ok(())
        }
        SnapshotVerb::Export { vm, snapshot, name } => export(context, &vm, &snapshot, name).await,
        SnapshotVerb::Revert(args) => revert(context, args).await,
        SnapshotVerb::Delete(args) => delete(context, args).await,
    }
}

async fn export(
    context: &Context,
    vm: &str,
    snapshot: &str,
    name: Option<String>,
) -> Result<(), Failure> {
    let found = find(context, vm, snapshot).await?;
    let default = || ExportSnapshot::default_name(&found.vm_name, SnapshotId(found.id));
    let name = name.unwrap_or_else(default);
    let path = context.acting(&format!("/v1/snapshots/{}/export", found.id));
    let body = Export { name: Some(name.clone()) };
    let operation = context.client.post(&path, &body).await?;
    let pools: List<Pool> = context.client.get("/v1/pools").await?;
    let pool = pools.items.first().map_or("the pool", |pool| pool.path.as_str());
    follow(context, operation, |_| {
        format!("exported {snapshot} of {vm} to {pool}/{EXPORTS}/{name}: start it by ./start there")
    })
    .await?;
    Ok(())
}

async fn create(context: &Context, vm: &str, new: NewSnapshot) -> Result<(), Failure> {
    let mut path = address(vm, "/snapshots");
    if context.force {
        path.push_str("?force=true");
    }
    let operation: Operation = context.client.post(&context.acting(&path), &new).await?;
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

async fn list(context: &Context, args: ListArgs) -> Result<(), Failure> {
    let mut path = "/v1/snapshots?limit=500".to_owned();
    let given = [
        ("vm", args.vm),
        ("account", args.account),
        ("domain", args.domain),
        ("state", args.state),
        ("kind", args.kind),
        ("created-after", args.created_after),
        ("created-before", args.created_before),
        ("sort", args.sort),
    ];
    let given = given.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let keywords = args.keyword.into_iter().map(|keyword| ("keyword", keyword));
    for (name, value) in given.chain(keywords) {
        path.push_str(&format!("&{name}={}", escape(&value)));
    }
    let snapshots: List<Snapshot> = all(context, &path).await?;
    print(context, &snapshots, |snapshots| {
        if snapshots.items.is_empty() {
            return "no snapshots".to_owned();
        }
        let row = |snapshot: &Snapshot| {
            vec![
                snapshot.vm_name.clone(),
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
pub(crate) async fn find(context: &Context, vm: &str, snapshot: &str) -> Result<Snapshot, Failure> {
    let found: List<Snapshot> = all(context, &address(vm, "/snapshots?limit=500")).await?;
    let wanted = |found: &&Snapshot| found.name == snapshot || found.id.to_string() == snapshot;
    found.items.iter().find(wanted).cloned().ok_or_else(|| {
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
    let path = format!("/v1/snapshots/{}/revert", target.id);
    let power = match (args.start, args.stopped) {
        (true, _) => Some("start".to_owned()),
        (_, true) => Some("stopped".to_owned()),
        _ => None,
    };
    let revert = Revert { power, safety: args.safety };
    // With a way back nothing is lost.
    if args.dry_run || !args.safety {
        let plan: Plan = context.client.post(&format!("{path}?dry_run=true"), &revert).await?;
        if !ask_about(context, &plan, args.dry_run)? {
            return Ok(());
        }
    }
    let operation: Operation = context.client.post(&context.acting(&path), &revert).await?;
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
    let plan: Plan = context.client.delete(&format!("{path}?{scope}dry_run=true")).await?;
    if !ask_about(context, &plan, args.dry_run)? {
        return Ok(());
    }
    let path = context.acting(&format!("{path}?{}", scope.trim_end_matches('&')));
    let operation: Operation = context.client.delete(&path).await?;
    follow(context, operation, |_| format!("deleted {} snapshots", plan.snapshots.len())).await?;
    Ok(())
}

/// How long a snapshot may be kept without being told that it is no backup: a week.
const FRESH_MS: i64 = 7 * 24 * 3600 * 1000;

/// What is said on a snapshot that is older than a week (R20).
fn no_backup(snapshot: &Snapshot, now: Moment) -> &'static str {
    let old = Moment::from_rfc3339(&snapshot.created_at)
        .is_ok_and(|created| now.0 - created.0 > FRESH_MS);
    if old { "older than a week: it is no backup, it lies beside the disk" } else { "" }
}

fn now() -> Moment {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Moment(since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
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
        ("current", yes(snapshot.current)),
        ("created", format!("{} by {}", snapshot.created_at, snapshot.created_by)),
        ("expires", or_dash(snapshot.expires_at.clone())),
        ("protected", yes(snapshot.protected)),
        ("safety", yes(snapshot.safety)),
        ("verified", or_dash(snapshot.verified_at.clone())),
        ("note", no_backup(snapshot, now()).to_owned()),
        ("ready", or_dash(snapshot.ready_at.clone())),
        ("guest paused", paused(snapshot)),
        ("memory", size::show(snapshot.memory_bytes)),
        ("frees", size::show(snapshot.size_bytes)),
    ])
}

/// How long the guest stood still, and what was expected of the road that was taken.
fn paused(snapshot: &Snapshot) -> String {
    let measured = snapshot.pause_ms.map_or("-".to_owned(), |ms| format!("{ms} ms"));
    match (&snapshot.road, snapshot.predicted_pause_ms) {
        (Some(road), Some(ms)) => format!("{measured} ({ms} ms expected, {road})"),
        _ => measured,
    }
}

#[cfg(test)]
mod tests {
    use super::{FRESH_MS, SnapshotVerb, no_backup};
    use clap::{CommandFactory, Parser};
    use tintype_model::Moment;
    use tintype_wire::rest::Snapshot;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        _verb: SnapshotVerb,
    }

    /// R20: where a snapshot is taken, and on those that are older than a week.
    #[test]
    fn it_is_said_that_a_snapshot_is_no_backup() {
        let mut line = Line::command();
        let help = line.find_subcommand_mut("create").unwrap().render_help().to_string();
        assert!(help.contains("It is no backup"), "{help}");
        let snapshot = |created: i64| -> Snapshot {
            let created = Moment(created).to_rfc3339();
            serde_json::from_value(serde_json::json!({
                "id": uuid::Uuid::nil(), "vm": uuid::Uuid::nil(), "vm_name": "web", "name": "one",
                "description": "", "kind": "disk", "consistency": "crash", "state": "ready",
                "reason": null, "parent": null, "current": false, "created_at": created,
                "ready_at": null, "pause_ms": null, "size_bytes": 0, "memory_bytes": 0,
                "config": { "vcpus": 1, "memory_bytes": 1, "firmware": "bios",
                    "platform": { "machine": "m", "cpu": "c", "accel": "tcg" } },
                "created_by": "admin", "expires_at": null, "protected": false, "safety": false,
                "verified_at": null,
            }))
            .unwrap()
        };
        assert_eq!(no_backup(&snapshot(0), Moment(FRESH_MS)), "");
        assert!(no_backup(&snapshot(0), Moment(FRESH_MS + 1)).contains("no backup"));
    }
}
