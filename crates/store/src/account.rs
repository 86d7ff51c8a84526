//! Accounts: what has machines, with its quota and what is used of it.

use crate::codec::{count, from_json, id, json, number};
use crate::{Page, StoreError, Unit, domain, reach};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
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

impl Unit<'_> {
    /// Adds an account.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub async fn add_account(&mut self, account: &Account) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO account (id, domain, name, quota, snapshots, bytes, created_at)
             VALUES ($1, $2, $3, $4, 0, 0, $5)",
        )
        .bind(account.id.to_string())
        .bind(account.domain.to_string())
        .bind(&account.name)
        .bind(json(&account.quota))
        .bind(account.created_at.0)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// The account with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn account(&mut self, id: AccountId) -> Result<Option<Account>, StoreError> {
        let row = QueryBuilder::<Sqlite>::new(SELECT)
            .push(" AND account.id = ")
            .push_bind(id.to_string())
            .build()
            .fetch_optional(self.connection())
            .await?;
        row.as_ref().map(account).transpose()
    }

    /// The account with this name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn account_named(&mut self, name: &str) -> Result<Option<Account>, StoreError> {
        let row = QueryBuilder::<Sqlite>::new(SELECT)
            .push(" AND account.name = ")
            .push_bind(name.to_owned())
            .build()
            .fetch_optional(self.connection())
            .await?;
        row.as_ref().map(account).transpose()
    }

    /// A page of accounts that a caller sees.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn accounts(
        &mut self,
        reach: Reach,
        page: &Page,
    ) -> Result<Vec<Account>, StoreError> {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new(SELECT);
        reach::push(&mut query, "account.id", reach);
        page.push_start(&mut query, "account");
        page.push_order(&mut query, "account");
        let rows = query.build().fetch_all(self.connection()).await?;
        rows.iter().map(account).collect()
    }

    /// Gives an account another quota.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_quota(&mut self, id: AccountId, quota: &Quota) -> Result<(), StoreError> {
        sqlx::query("UPDATE account SET quota = $1 WHERE id = $2")
            .bind(json(quota))
            .bind(id.to_string())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Adds to what an account has.
    pub(crate) async fn add_usage(
        &mut self,
        id: AccountId,
        before: Usage,
        after: Usage,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE account SET snapshots = snapshots + $1, bytes = bytes + $2 WHERE id = $3",
        )
        .bind(number(after.snapshots) - number(before.snapshots))
        .bind(number(after.bytes) - number(before.bytes))
        .bind(id.to_string())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Removes an account with its users; says whether it had no machines.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_account(&mut self, id: AccountId) -> Result<bool, StoreError> {
        let machines = sqlx::query("SELECT 1 FROM vm WHERE account = $1 LIMIT 1")
            .bind(id.to_string())
            .fetch_optional(self.connection())
            .await?;
        if machines.is_some() {
            return Ok(false);
        }
        for statement in [
            "DELETE FROM token WHERE \"user\" IN (SELECT id FROM \"user\" WHERE account = $1)",
            "DELETE FROM \"user\" WHERE account = $1",
            "DELETE FROM account WHERE id = $1",
        ] {
            sqlx::query(statement).bind(id.to_string()).execute(self.connection()).await?;
        }
        Ok(true)
    }
}

fn account(row: &SqliteRow) -> Result<Account, StoreError> {
    Ok(Account {
        id: id(row, "id")?,
        name: row.try_get("name")?,
        domain: id(row, "domain")?,
        lineage: domain::lineage(row, "lineage")?,
        quota: from_json(row, "quota")?,
        usage: Usage { snapshots: count(row, "snapshots")?, bytes: count(row, "bytes")? },
        created_at: Moment(row.try_get("created_at")?),
    })
}
