//! Answers to requests that carried an Idempotency-Key.

use crate::{StoreError, Unit};
use sqlx::Row;
use tintype_model::{Moment, TokenId};

/// How long an answer is remembered, in milliseconds: a day.
const KEPT_MS: i64 = 24 * 3600 * 1000;

/// A request and what was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remembered {
    /// SHA-256 of method, address and body of the request.
    pub request: String,
    /// HTTP status.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

impl Unit<'_> {
    /// What was answered to a request with this key.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub async fn remembered(
        &mut self,
        token: TokenId,
        key: &str,
    ) -> Result<Option<Remembered>, StoreError> {
        let row = sqlx::query("SELECT * FROM idempotency WHERE token = $1 AND key = $2")
            .bind(token.to_string())
            .bind(key)
            .fetch_optional(self.connection())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let status: i64 = row.try_get("status")?;
        Ok(Some(Remembered {
            request: row.try_get("request")?,
            status: u16::try_from(status).unwrap_or(500),
            location: row.try_get("location")?,
            body: row.try_get("body")?,
        }))
    }

    /// Remembers what was answered, and forgets what was answered long ago.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remember(
        &mut self,
        token: TokenId,
        key: &str,
        answer: &Remembered,
        at: Moment,
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM idempotency WHERE created_at < $1")
            .bind(at.0 - KEPT_MS)
            .execute(self.connection())
            .await?;
        sqlx::query(
            "INSERT INTO idempotency (token, key, request, status, location, body, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (token, key) DO NOTHING",
        )
        .bind(token.to_string())
        .bind(key)
        .bind(&answer.request)
        .bind(i64::from(answer.status))
        .bind(&answer.location)
        .bind(&answer.body)
        .bind(at.0)
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
