//! Users: people and programs that sign in.

use crate::codec::{from_word, id, word};
use crate::sql::{Row, sql};
use crate::{Page, StoreError, Unit, domain, reach};
use tintype_model::access::{Home, Reach, Role};
use tintype_model::{AccountId, DomainId, Moment, UserId};
use uuid::Uuid;

/// The administrator that is there from the beginning.
pub const FIRST_USER: UserId = UserId(Uuid::from_u128(3));

/// A user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// The account it belongs to.
    pub account: AccountId,
    /// The domains above that account, the root first.
    pub lineage: Vec<DomainId>,
    /// Its name, unique.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its password as argon2 leaves it; without one it signs in by token only.
    pub password: Option<String>,
    /// When it was created.
    pub created_at: Moment,
}

impl User {
    /// Where it belongs.
    pub fn home(&self) -> Home {
        Home { account: Some(self.account), lineage: self.lineage.clone() }
    }
}

const SELECT: &str = "SELECT \"user\".*, domain.lineage AS lineage FROM \"user\"
    JOIN account ON account.id = \"user\".account
    JOIN domain ON domain.id = account.domain WHERE TRUE";

impl Unit {
    /// Adds a user.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub fn add_user(&mut self, user: &User) -> Result<(), StoreError> {
        self.run(
            sql("INSERT INTO \"user\" (id, account, name, role, password, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(user.id.to_string())
            .bind(user.account.to_string())
            .bind(&user.name)
            .bind(word(&user.role))
            .bind(user.password.as_deref())
            .bind(user.created_at.0),
        )
    }

    /// The user with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub fn user(&mut self, id: UserId) -> Result<Option<User>, StoreError> {
        self.one(sql(SELECT).push(" AND \"user\".id = ").push_bind(id.to_string()), user)
    }

    /// The user with this name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn user_named(&mut self, name: &str) -> Result<Option<User>, StoreError> {
        self.one(sql(SELECT).push(" AND \"user\".name = ").push_bind(name.to_owned()), user)
    }

    /// A page of users that a caller sees.
    ///
    /// # Errors
    /// When the database fails.
    pub fn users(&mut self, reach: Reach, page: &Page) -> Result<Vec<User>, StoreError> {
        let mut query = sql(SELECT);
        reach::push(&mut query, "\"user\".account", reach);
        page.push_start(&mut query, "\"user\"");
        page.push_order(&mut query, "\"user\"");
        self.all(&query, user)
    }

    /// Changes what a user is, and its password.
    ///
    /// # Errors
    /// When the database fails.
    pub fn change_user(&mut self, user: &User) -> Result<(), StoreError> {
        self.run(
            sql("UPDATE \"user\" SET role = $1, password = $2 WHERE id = $3")
                .bind(word(&user.role))
                .bind(user.password.as_deref())
                .bind(user.id.to_string()),
        )
    }

    /// Removes a user with its tokens.
    ///
    /// # Errors
    /// When the database fails.
    pub fn remove_user(&mut self, id: UserId) -> Result<(), StoreError> {
        for statement in
            ["DELETE FROM token WHERE \"user\" = $1", "DELETE FROM \"user\" WHERE id = $1"]
        {
            self.run(sql(statement).bind(id.to_string()))?;
        }
        Ok(())
    }
}

pub(crate) fn user(row: &Row<'_>) -> Result<User, StoreError> {
    Ok(User {
        id: id(row, "id")?,
        account: id(row, "account")?,
        lineage: domain::lineage(row, "lineage")?,
        name: row.get("name")?,
        role: from_word(row, "role")?,
        password: row.get("password")?,
        created_at: Moment(row.get("created_at")?),
    })
}
