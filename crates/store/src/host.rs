//! Hosts and their pools, and whether snapshots are switched on for them and their kind (E30).

use crate::codec::id;
use crate::{StoreError, Unit};
use sqlx::Row;
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

impl Unit<'_> {
    /// The only host; the first call records it under the ids given.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub async fn local_host(&mut self, first: &Host) -> Result<Host, StoreError> {
        let row = sqlx::query("SELECT * FROM host").fetch_optional(self.connection()).await?;
        if let Some(row) = row {
            let name = row.try_get("name")?;
            return Ok(Host { id: id(&row, "id")?, name, pool: id(&row, "pool")? });
        }
        sqlx::query("INSERT INTO host (id, name, pool) VALUES ($1, $2, $3)")
            .bind(first.id.to_string())
            .bind(&first.name)
            .bind(first.pool.to_string())
            .execute(self.connection())
            .await?;
        Ok(first.clone())
    }

    /// Whether snapshots are switched on for a host and its kind.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn snapshots_enabled(&mut self, host: Uuid, kind: &str) -> Result<bool, StoreError> {
        let row = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM host WHERE id = $1 AND NOT snapshots_enabled)
             OR EXISTS (SELECT 1 FROM hypervisor WHERE kind = $2 AND NOT snapshots_enabled) AS off",
        )
        .bind(host.to_string())
        .bind(kind)
        .fetch_one(self.connection())
        .await?;
        let off: bool = row.try_get("off")?;
        Ok(!off)
    }

    /// Whether snapshots are switched on for a host itself.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn host_snapshots_enabled(&mut self, host: Uuid) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT snapshots_enabled FROM host WHERE id = $1")
            .bind(host.to_string())
            .fetch_optional(self.connection())
            .await?;
        row.map_or(Ok(true), |row| Ok(row.try_get("snapshots_enabled")?))
    }

    /// Whether snapshots are switched on for a kind of hypervisor.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn kind_snapshots_enabled(&mut self, kind: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT snapshots_enabled FROM hypervisor WHERE kind = $1")
            .bind(kind)
            .fetch_optional(self.connection())
            .await?;
        row.map_or(Ok(true), |row| Ok(row.try_get("snapshots_enabled")?))
    }

    /// Switches snapshots on or off for a host.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn enable_on_host(&mut self, host: Uuid, enabled: bool) -> Result<(), StoreError> {
        sqlx::query("UPDATE host SET snapshots_enabled = $1 WHERE id = $2")
            .bind(enabled)
            .bind(host.to_string())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Switches snapshots on or off for a kind of hypervisor.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn enable_on_kind(&mut self, kind: &str, enabled: bool) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO hypervisor (kind, snapshots_enabled) VALUES ($1, $2)
             ON CONFLICT (kind) DO UPDATE SET snapshots_enabled = $2",
        )
        .bind(kind)
        .bind(enabled)
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
