//! `tintype host` and `tintype pool`

use super::escape;
use super::profile::yes;
use crate::context::Context;
use crate::failure::Failure;
use crate::limit;
use crate::output::{card, print, table};
use crate::size;
use clap::{ArgAction, Subcommand};
use tintype_wire::rest::{EditHost, EditHypervisor, Host, Hypervisor, List, Pool};

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
                    vec![pool.name.clone(), free, total, pool.path.clone()]
                };
                let rows: Vec<Vec<String>> = pools.items.iter().map(row).collect();
                table(&["NAME", "FREE", "SIZE", "PATH"], &rows)
            });
        }
        PoolVerb::Show { pool } => {
            let pool: Pool = context.client.get(&format!("/v1/pools/{}", escape(&pool))).await?;
            print(context, &pool, |pool| {
                card(&[
                    ("name", pool.name.clone()),
                    ("id", pool.id.to_string()),
                    ("path", pool.path.clone()),
                    ("free", size::show(pool.free_bytes)),
                    ("size", size::show(pool.total_bytes)),
                    ("giving space back", pool.reclaiming.to_string()),
                ])
            });
        }
    }
    Ok(())
}
