//! Hosts and their pools, and whether snapshots are switched on for them and their kind (E30).

use crate::codec::{count, from_json, id, json};
use crate::sql::sql;
use crate::{StoreError, Unit};
use std::collections::BTreeSet;
use uuid::Uuid;

/// A host that guests run on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The id of its pool.
    pub pool: Uuid,
}

impl Unit {
    /// The only host; the first call records it under the ids given.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub fn local_host(&mut self, first: &Host) -> Result<Host, StoreError> {
        let host = self.one(sql("SELECT * FROM host"), |row| {
            Ok(Host { id: id(row, "id")?, name: row.get("name")?, pool: id(row, "pool")? })
        })?;
        if let Some(host) = host {
            return Ok(host);
        }
        self.run(
            sql("INSERT INTO host (id, name, pool) VALUES ($1, $2, $3)")
                .bind(first.id.to_string())
                .bind(&first.name)
                .bind(first.pool.to_string()),
        )?;
        Ok(first.clone())
    }

    /// Whether snapshots are switched on for a host and its kind.
    ///
    /// # Errors
    /// When the database fails.
    pub fn snapshots_enabled(&mut self, host: Uuid, kind: &str) -> Result<bool, StoreError> {
        Ok(self.host_snapshots_enabled(host)? && self.kind_snapshots_enabled(kind)?)
    }

    /// Whether snapshots are switched on for a host itself.
    ///
    /// # Errors
    /// When the database fails.
    pub fn host_snapshots_enabled(&mut self, host: Uuid) -> Result<bool, StoreError> {
        let query = sql("SELECT snapshots_enabled FROM host WHERE id = $1").bind(host.to_string());
        Ok(self.one(query, |row| row.get("snapshots_enabled"))?.unwrap_or(true))
    }

    /// Whether snapshots are switched on for a kind of hypervisor.
    ///
    /// # Errors
    /// When the database fails.
    pub fn kind_snapshots_enabled(&mut self, kind: &str) -> Result<bool, StoreError> {
        let query = sql("SELECT snapshots_enabled FROM hypervisor WHERE kind = $1").bind(kind);
        Ok(self.one(query, |row| row.get("snapshots_enabled"))?.unwrap_or(true))
    }

    /// Switches snapshots on or off for a host.
    ///
    /// # Errors
    /// When the database fails.
    pub fn enable_on_host(&mut self, host: Uuid, enabled: bool) -> Result<(), StoreError> {
        self.run(
            sql("UPDATE host SET snapshots_enabled = $1 WHERE id = $2")
                .bind(enabled)
                .bind(host.to_string()),
        )
    }

    /// Switches snapshots on or off for a kind of hypervisor.
    ///
    /// # Errors
    /// When the database fails.
    pub fn enable_on_kind(&mut self, kind: &str, enabled: bool) -> Result<(), StoreError> {
        self.run(
            sql("INSERT INTO hypervisor (kind, snapshots_enabled) VALUES ($1, $2)
             ON CONFLICT (kind) DO UPDATE SET snapshots_enabled = $2")
            .bind(kind)
            .bind(enabled),
        )
    }

    /// What all guests may still come to write.
    ///
    /// # Errors
    /// When the database fails.
    pub fn growth_bytes(&mut self) -> Result<u64, StoreError> {
        let query = sql("SELECT COALESCE(SUM(growth_bytes), 0) AS growth FROM vm");
        Ok(self.one(query, |row| count(row, "growth"))?.unwrap_or(0))
    }

    /// At which parts of a host's pool in use it is told of, in percent.
    ///
    /// # Errors
    /// When the database fails.
    pub fn warn_at(&mut self, host: Uuid) -> Result<BTreeSet<u8>, StoreError> {
        let query = sql("SELECT warn_at FROM host WHERE id = $1").bind(host.to_string());
        Ok(self.one(query, |row| from_json(row, "warn_at"))?.unwrap_or_default())
    }

    /// Sets at which parts of a host's pool in use it is told of.
    ///
    /// # Errors
    /// When the database fails.
    pub fn set_warn_at(&mut self, host: Uuid, levels: &BTreeSet<u8>) -> Result<(), StoreError> {
        let query = sql("UPDATE host SET warn_at = $1 WHERE id = $2");
        self.run(query.bind(json(levels)).bind(host.to_string()))
    }
}
