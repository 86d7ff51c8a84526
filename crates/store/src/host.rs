//! Hosts and their pools.

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
    /// When the database fails.
    pub async fn local_host(&mut self, first: &Host) -> Result<Host, StoreError> {
        let row = sqlx::query("SELECT * FROM host").fetch_optional(&mut *self.tx).await?;
        if let Some(row) = row {
            let name = row.try_get("name")?;
            return Ok(Host { id: id(&row, "id")?, name, pool: id(&row, "pool")? });
        }
        sqlx::query("INSERT INTO host (id, name, pool) VALUES ($1, $2, $3)")
            .bind(first.id.to_string())
            .bind(&first.name)
            .bind(first.pool.to_string())
            .execute(&mut *self.tx)
            .await?;
        Ok(first.clone())
    }
}
