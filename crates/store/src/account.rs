//! Accounts: what has machines, with its quota and what is used of it.

use crate::codec::{count, from_json, id, json, number};
use crate::sql::{Row, sql};
use crate::{Page, StoreError, Unit, domain, reach};
use tintype_model::access::{Home, Reach};
use tintype_model::quota::{Quota, Usage};
use tintype_model::{AccountId, DomainId, Moment};

/// An account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// Its name, unique.
    pub name: String,
    /// The domain it is in.
    pub domain: DomainId,
    /// That domain and those above, the root first.
    pub lineage: Vec<DomainId>,
    /// What it may have in snapshots.
    pub quota: Quota,
    /// What it has.
    pub usage: Usage,
    /// When it was created.
    pub created_at: Moment,
}

impl Account {
    /// Where what the account has belongs.
    pub fn home(&self) -> Home {
        Home { account: Some(self.id), lineage: self.lineage.clone() }
    }
}

const SELECT: &str = "SELECT account.*, domain.lineage AS lineage FROM account
    JOIN domain ON domain.id = account.domain WHERE TRUE";

impl Unit {
    /// Adds an account.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub fn add_account(&mut self, account: &Account) -> Result<(), StoreError> {
        self.run(
            sql("INSERT INTO account (id, domain, name, quota, snapshots, bytes, created_at)
             VALUES ($1, $2, $3, $4, 0, 0, $5)")
            .bind(account.id.to_string())
            .bind(account.domain.to_string())
            .bind(&account.name)
            .bind(json(&account.quota))
            .bind(account.created_at.0),
        )
    }

    /// The account with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub fn account(&mut self, id: AccountId) -> Result<Option<Account>, StoreError> {
        self.one(sql(SELECT).push(" AND account.id = ").push_bind(id.to_string()), account)
    }

    /// The account with this name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn account_named(&mut self, name: &str) -> Result<Option<Account>, StoreError> {
        self.one(sql(SELECT).push(" AND account.name = ").push_bind(name.to_owned()), account)
    }

    /// A page of accounts that a caller sees.
    ///
    /// # Errors
    /// When the database fails.
    pub fn accounts(&mut self, reach: Reach, page: &Page) -> Result<Vec<Account>, StoreError> {
        let mut query = sql(SELECT);
        reach::push(&mut query, "account.id", reach);
        page.push_start(&mut query, "account");
        page.push_order(&mut query, "account");
        self.all(&query, account)
    }

    /// Gives an account another quota.
    ///
    /// # Errors
    /// When the database fails.
    pub fn set_quota(&mut self, id: AccountId, quota: &Quota) -> Result<(), StoreError> {
        self.run(
            sql("UPDATE account SET quota = $1 WHERE id = $2")
                .bind(json(quota))
                .bind(id.to_string()),
        )
    }

    /// Adds to what an account has.
    pub(crate) fn add_usage(
        &mut self,
        id: AccountId,
        before: Usage,
        after: Usage,
    ) -> Result<(), StoreError> {
        self.run(
            sql("UPDATE account SET snapshots = snapshots + $1, bytes = bytes + $2 WHERE id = $3")
                .bind(number(after.snapshots) - number(before.snapshots))
                .bind(number(after.bytes) - number(before.bytes))
                .bind(id.to_string()),
        )
    }

    /// Removes an account with its users; says whether it had no machines.
    ///
    /// # Errors
    /// When the database fails.
    pub fn remove_account(&mut self, id: AccountId) -> Result<bool, StoreError> {
        let machines = sql("SELECT 1 FROM vm WHERE account = $1 LIMIT 1").bind(id.to_string());
        if self.one(machines, |_| Ok(()))?.is_some() {
            return Ok(false);
        }
        for statement in [
            "DELETE FROM token WHERE \"user\" IN (SELECT id FROM \"user\" WHERE account = $1)",
            "DELETE FROM \"user\" WHERE account = $1",
            "DELETE FROM account WHERE id = $1",
        ] {
            self.run(sql(statement).bind(id.to_string()))?;
        }
        Ok(true)
    }
}

fn account(row: &Row<'_>) -> Result<Account, StoreError> {
    Ok(Account {
        id: id(row, "id")?,
        name: row.get("name")?,
        domain: id(row, "domain")?,
        lineage: domain::lineage(row, "lineage")?,
        quota: from_json(row, "quota")?,
        usage: Usage { snapshots: count(row, "snapshots")?, bytes: count(row, "bytes")? },
        created_at: Moment(row.get("created_at")?),
    })
}
