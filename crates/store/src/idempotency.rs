//! Answers to requests that carried an Idempotency-Key.

use crate::sql::sql;
use crate::{StoreError, Unit};
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

impl Unit {
    /// What was answered to a request with this key.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub fn remembered(
        &mut self,
        token: TokenId,
        key: &str,
    ) -> Result<Option<Remembered>, StoreError> {
        let query = sql("SELECT * FROM idempotency WHERE token = $1 AND key = $2");
        self.one(query.bind(token.to_string()).bind(key), |row| {
            Ok(Remembered {
                request: row.get("request")?,
                status: row.get("status")?,
                location: row.get("location")?,
                body: row.get("body")?,
            })
        })
    }

    /// Remembers what was answered, and forgets what was answered long ago.
    ///
    /// # Errors
    /// When the database fails.
    pub fn remember(
        &mut self,
        token: TokenId,
        key: &str,
        answer: &Remembered,
        at: Moment,
    ) -> Result<(), StoreError> {
        self.run(sql("DELETE FROM idempotency WHERE created_at < $1").bind(at.0 - KEPT_MS))?;
        self.run(
            sql("INSERT INTO idempotency (token, key, request, status, location, body, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (token, key) DO NOTHING")
            .bind(token.to_string())
            .bind(key)
            .bind(&answer.request)
            .bind(i64::from(answer.status))
            .bind(answer.location.as_deref())
            .bind(&answer.body)
            .bind(at.0),
        )
    }
}
