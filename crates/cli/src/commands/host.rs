//! `tintype host` and `tintype pool`

use super::escape;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{card, print, table};
use crate::size;
use clap::Subcommand;
use tintype_wire::rest::{Host, List, Pool};

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
    }
    Ok(())
}

fn show_host(host: &Host) -> String {
    let yes = |refused: &Option<String>| {
        refused.as_ref().map_or("yes".into(), |why| format!("no: {why}"))
    };
    let platform = &host.platform;
    card(&[
        ("name", host.name.clone()),
        ("id", host.id.to_string()),
        ("hypervisor", host.hypervisor.clone()),
        ("platform", format!("{} {} {}", platform.machine, platform.cpu, platform.accel)),
        ("accelerators", host.accels.join(", ")),
        ("memory snapshots", yes(&host.memory_snapshots_refused)),
        ("uefi", yes(&host.uefi_refused)),
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
