//! The host and its pool, as they are shown.

use super::{Answer, App, stored};
use crate::view;
use tintype_model::capability::Support;
use tintype_wire::rest;

impl App {
    /// The host we run on.
    pub async fn show_host(&self) -> rest::Host {
        let facts = self.agent.host().await;
        let capabilities = facts.capabilities;
        rest::Host {
            id: self.host.id,
            name: self.host.name.clone(),
            hypervisor: capabilities.hypervisor,
            platform: view::platform(&capabilities.platform),
            accels: capabilities.accels.iter().map(|&a| view::accel(a).to_owned()).collect(),
            memory_snapshots_refused: refused(capabilities.background_snapshots),
            uefi_refused: refused(capabilities.uefi),
            memory_free_bytes: facts.memory_free_bytes,
            memory_total_bytes: facts.memory_total_bytes,
        }
    }

    /// Its pool.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn show_pool(&self) -> Answer<rest::Pool> {
        let facts = self.agent.host().await;
        let mut unit = self.store.read().await.map_err(stored)?;
        Ok(rest::Pool {
            id: self.host.pool,
            name: "default".to_owned(),
            host: self.host.id,
            path: facts.pool_path,
            free_bytes: facts.pool_free_bytes,
            total_bytes: facts.pool_total_bytes,
            reclaiming: unit.reclaims().await.map_err(stored)?,
        })
    }
}

fn refused(support: Support) -> Option<String> {
    match support {
        Support::Yes => None,
        Support::No(why) => Some(why),
    }
}
