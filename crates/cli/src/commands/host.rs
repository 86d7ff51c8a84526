//! `tintype host` and `tintype pool`

use super::profile::yes;
use super::{check, escape};
use crate::context::Context;
use crate::failure::Failure;
use crate::limit;
use crate::output::{card, print, table};
use crate::size;
use clap::{ArgAction, Subcommand};
use tintype_wire::rest::{EditHost, EditHypervisor, EditPool, Host, Hypervisor, List, Pool};

#[derive(Debug, Subcommand)]
pub(crate) enum HostVerb {
    /// List hosts
    #[command(visible_alias = "ls")]
    List,
    /// Show a host and what its hypervisor can do
    Show {
        /// Name or id
        host: String,
    },
    /// Compare what a host has with what is recorded: files that were moved, replaced, written to
    /// or opened by others, files and virtual machines that nobody knows
    Check {
        /// Name or id; the only one there is if not given
        host: Option<String>,
        /// Do what can be done about it: take as it is what is sound, say of what is lost that it
        /// is unavailable, move out of the way what nobody knows; nothing is deleted
        #[arg(long)]
        repair: bool,
        /// Say what a repair would do
        #[arg(long, requires = "repair")]
        dry_run: bool,
    },
    /// Take up virtual machines that a host has and the database does not know, by the manifests
    /// beside their layers
    Adopt {
        /// Name or id; the only one there is if not given
        host: Option<String>,
        /// Say what would be taken up
        #[arg(long)]
        dry_run: bool,
    },
    /// Switch snapshots on or off for a host; what exists can be used in any case
    Set {
        /// Name or id
        host: String,
        /// Whether snapshots are taken on this host
        #[arg(long, action = ArgAction::Set)]
        snapshots_enabled: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum HypervisorVerb {
    /// List kinds of hypervisors
    #[command(visible_alias = "ls")]
    List,
    /// Switch snapshots on or off for a kind
    Set {
        /// Such as qemu
        kind: String,
        /// Whether snapshots are taken on hosts of this kind
        #[arg(long, action = ArgAction::Set)]
        snapshots_enabled: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolVerb {
    /// List pools
    #[command(visible_alias = "ls")]
    List,
    /// Show a pool
    Show {
        /// Name or id
        pool: String,
    },
    /// Set when it is told how full a pool is
    Set {
        /// Name or id
        pool: String,
        /// At which parts in use, in percent, such as 80,90,95
        #[arg(long, value_delimiter = ',')]
        warn_at: Vec<u8>,
    },
}

pub(crate) async fn hosts(context: &Context, verb: HostVerb) -> Result<(), Failure> {
    match verb {
        HostVerb::List => {
            let hosts: List<Host> = context.client.get("/v1/hosts").await?;
            print(context, &hosts, |hosts| {
                let row = |host: &Host| {
                    let memory = size::show(host.memory_free_bytes);
                    vec![host.name.clone(), host.hypervisor.clone(), memory]
                };
                let rows: Vec<Vec<String>> = hosts.items.iter().map(row).collect();
                table(&["NAME", "HYPERVISOR", "FREE MEMORY"], &rows)
            });
        }
        HostVerb::Show { host } => {
            let host: Host = context.client.get(&format!("/v1/hosts/{}", escape(&host))).await?;
            print(context, &host, show_host);
        }
        HostVerb::Check { host, repair: false, .. } => check::check(context, host).await?,
        HostVerb::Check { host, repair: true, dry_run } => {
            check::repair(context, host, dry_run).await?
        }
        HostVerb::Adopt { host, dry_run } => check::adopt(context, host, dry_run).await?,
        HostVerb::Set { host, snapshots_enabled } => {
            let path = format!("/v1/hosts/{}", escape(&host));
            let host: Host = context.client.patch(&path, &EditHost { snapshots_enabled }).await?;
            print(context, &host, show_host);
        }
    }
    Ok(())
}

pub(crate) async fn hypervisors(context: &Context, verb: HypervisorVerb) -> Result<(), Failure> {
    let kinds: List<Hypervisor> = match verb {
        HypervisorVerb::List => context.client.get("/v1/hypervisors").await?,
        HypervisorVerb::Set { kind, snapshots_enabled } => {
            let path = format!("/v1/hypervisors/{}", escape(&kind));
            let edited = context.client.patch(&path, &EditHypervisor { snapshots_enabled }).await?;
            List { items: vec![edited], next: None }
        }
    };
    print(context, &kinds, |kinds| {
        let row = |kind: &Hypervisor| {
            let cap = limit::show(kind.snapshot_cap);
            vec![kind.kind.clone(), yes(kind.snapshots_enabled), cap]
        };
        let rows: Vec<Vec<String>> = kinds.items.iter().map(row).collect();
        table(&["KIND", "SNAPSHOTS ENABLED", "CAP"], &rows)
    });
    Ok(())
}

fn show_host(host: &Host) -> String {
    let works = |refused: &Option<String>| {
        refused.as_ref().map_or("yes".into(), |why| format!("no: {why}"))
    };
    let platform = &host.platform;
    card(&[
        ("name", host.name.clone()),
        ("id", host.id.to_string()),
        ("hypervisor", host.hypervisor.clone()),
        ("platform", format!("{} {} {}", platform.machine, platform.cpu, platform.accel)),
        ("accelerators", host.accels.join(", ")),
        ("snapshots enabled", yes(host.snapshots_enabled)),
        ("memory snapshots", works(&host.memory_snapshots_refused)),
        ("memory on demand", works(&host.memory_on_demand_refused)),
        ("quiesce", works(&host.quiesce_refused)),
        ("uefi", works(&host.uefi_refused)),
        ("memory free", size::show(host.memory_free_bytes)),
        ("memory", size::show(host.memory_total_bytes)),
    ])
}

pub(crate) async fn pools(context: &Context, verb: PoolVerb) -> Result<(), Failure> {
    match verb {
        PoolVerb::List => {
            let pools: List<Pool> = context.client.get("/v1/pools").await?;
            print(context, &pools, |pools| {
                let row = |pool: &Pool| {
                    let (free, total) = (size::show(pool.free_bytes), size::show(pool.total_bytes));
                    let warning = pool.warning.clone().unwrap_or("-".to_owned());
                    vec![pool.name.clone(), free, total, pool.path.clone(), warning]
                };
                let rows: Vec<Vec<String>> = pools.items.iter().map(row).collect();
                table(&["NAME", "FREE", "SIZE", "PATH", "WARNING"], &rows)
            });
        }
        PoolVerb::Show { pool } => {
            let pool: Pool = context.client.get(&format!("/v1/pools/{}", escape(&pool))).await?;
            print(context, &pool, show_pool);
        }
        PoolVerb::Set { pool, warn_at } => {
            let path = format!("/v1/pools/{}", escape(&pool));
            let pool: Pool = context.client.patch(&path, &EditPool { warn_at }).await?;
            print(context, &pool, show_pool);
        }
    }
    Ok(())
}

fn show_pool(pool: &Pool) -> String {
    let levels = pool.warn_at.iter().map(|level| format!("{level} %"));
    card(&[
        ("name", pool.name.clone()),
        ("id", pool.id.to_string()),
        ("path", pool.path.clone()),
        ("free", size::show(pool.free_bytes)),
        ("size", size::show(pool.total_bytes)),
        ("in use", format!("{} %", pool.used_percent)),
        ("guests may still write", size::show(pool.growth_bytes)),
        ("warns at", levels.collect::<Vec<_>>().join(", ")),
        ("warning", pool.warning.clone().unwrap_or("-".to_owned())),
        ("giving space back", pool.reclaiming.to_string()),
    ])
}
