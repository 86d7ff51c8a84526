//! Tokens: kept as hashes, shown once.

use crate::codec::{from_word, id, word};
use crate::sql::{Query, Row, sql};
use crate::{Page, StoreError, Unit, User};
use tintype_model::access::Scope;
use tintype_model::{Moment, TokenId, UserId};

/// A token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Whose it is.
    pub user: UserId,
    /// What it is for, in its owner's words.
    pub name: String,
    /// What it may be used for.
    pub scope: Scope,
    /// When it was made.
    pub created_at: Moment,
    /// When it ends.
    pub expires_at: Option<Moment>,
}

impl Unit {
    /// Adds a token.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub fn add_token(&mut self, token: &Token, hash: &str) -> Result<(), StoreError> {
        self.run(
            sql("INSERT INTO token (id, \"user\", name, scope, hash, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)")
            .bind(token.id.to_string())
            .bind(token.user.to_string())
            .bind(&token.name)
            .bind(word(&token.scope))
            .bind(hash)
            .bind(token.created_at.0)
            .bind(token.expires_at.map(|at| at.0)),
        )
    }

    /// The token with this hash that has not ended, and whose it is.
    ///
    /// # Errors
    /// When the database fails.
    pub fn token_by_hash(
        &mut self,
        hash: &str,
        at: Moment,
    ) -> Result<Option<(Token, User)>, StoreError> {
        let query =
            sql("SELECT * FROM token WHERE hash = $1 AND (expires_at IS NULL OR expires_at > $2)");
        self.with_user(query.bind(hash).bind(at.0))
    }

    /// The token with this id if it has not ended, and whose it is.
    ///
    /// # Errors
    /// When the database fails.
    pub fn good_token(
        &mut self,
        id: TokenId,
        at: Moment,
    ) -> Result<Option<(Token, User)>, StoreError> {
        let query =
            sql("SELECT * FROM token WHERE id = $1 AND (expires_at IS NULL OR expires_at > $2)");
        self.with_user(query.bind(id.to_string()).bind(at.0))
    }

    fn with_user(&mut self, query: Query) -> Result<Option<(Token, User)>, StoreError> {
        let Some(token) = self.one(query, token)? else { return Ok(None) };
        let user = self.user(token.user)?;
        Ok(user.map(|user| (token, user)))
    }

    /// A page of a user's tokens.
    ///
    /// # Errors
    /// When the database fails.
    pub fn tokens(&mut self, user: UserId, page: &Page) -> Result<Vec<Token>, StoreError> {
        let mut query = sql("SELECT * FROM token WHERE \"user\" = ");
        query.push_bind(user.to_string());
        page.push_start(&mut query, "token");
        page.push_order(&mut query, "token");
        self.all(&query, token)
    }

    /// The token with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub fn token(&mut self, id: TokenId) -> Result<Option<Token>, StoreError> {
        self.one(sql("SELECT * FROM token WHERE id = $1").bind(id.to_string()), token)
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// When the database fails.
    pub fn remove_token(&mut self, id: TokenId) -> Result<(), StoreError> {
        self.run(sql("DELETE FROM token WHERE id = $1").bind(id.to_string()))
    }

    /// Revokes all tokens of a user but one.
    ///
    /// # Errors
    /// When the database fails.
    pub fn remove_tokens_of(&mut self, user: UserId, but: TokenId) -> Result<(), StoreError> {
        self.run(
            sql("DELETE FROM token WHERE \"user\" = $1 AND id <> $2")
                .bind(user.to_string())
                .bind(but.to_string()),
        )
    }
}

fn token(row: &Row<'_>) -> Result<Token, StoreError> {
    let expires_at: Option<i64> = row.get("expires_at")?;
    Ok(Token {
        id: id(row, "id")?,
        user: id(row, "user")?,
        name: row.get("name")?,
        scope: from_word(row, "scope")?,
        created_at: Moment(row.get("created_at")?),
        expires_at: expires_at.map(Moment),
    })
}
