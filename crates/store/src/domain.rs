//! Domains: a tree that accounts hang in.

use crate::codec::{id, maybe_id};
use crate::{Page, StoreError, Unit};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use tintype_model::access::Reach;
use tintype_model::{DomainId, Moment};

/// A domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Domain {
    /// Its id.
    pub id: DomainId,
    /// Its name, unique among those with the same parent.
    pub name: String,
    /// The domain above; none for the root.
    pub parent: Option<DomainId>,
    /// The domains above and itself, the root first.
    pub lineage: Vec<DomainId>,
    /// When it was created.
    pub created_at: Moment,
}

impl Unit<'_> {
    /// Adds a domain.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub async fn add_domain(&mut self, domain: &Domain) -> Result<(), StoreError> {
        let lineage: String = domain.lineage.iter().map(|id| format!("{id}/")).collect();
        sqlx::query(
            "INSERT INTO domain (id, name, parent, lineage, created_at)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(domain.id.to_string())
        .bind(&domain.name)
        .bind(domain.parent.map(|id| id.to_string()))
        .bind(lineage)
        .bind(domain.created_at.0)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// The domain with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn domain(&mut self, id: DomainId) -> Result<Option<Domain>, StoreError> {
        let row = sqlx::query("SELECT * FROM domain WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(self.connection())
            .await?;
        row.as_ref().map(domain).transpose()
    }

    /// The domains with this name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn domains_named(&mut self, name: &str) -> Result<Vec<Domain>, StoreError> {
        let rows = sqlx::query("SELECT * FROM domain WHERE name = $1")
            .bind(name)
            .fetch_all(self.connection())
            .await?;
        rows.iter().map(domain).collect()
    }

    /// A page of domains that a caller sees; `own` is the caller's.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn domains(
        &mut self,
        reach: Reach,
        own: DomainId,
        page: &Page,
    ) -> Result<Vec<Domain>, StoreError> {
        let mut query: QueryBuilder<Sqlite> =
            QueryBuilder::new("SELECT domain.* FROM domain WHERE TRUE");
        match reach {
            Reach::All => {}
            Reach::Account(_) => {
                query.push(" AND domain.id = ").push_bind(own.to_string());
            }
            Reach::Domain(top) => {
                query.push(
                    " AND EXISTS (SELECT 1 FROM domain AS top
                      WHERE substr(domain.lineage, 1, length(top.lineage)) = top.lineage
                      AND top.id = ",
                );
                query.push_bind(top.to_string()).push(")");
            }
        }
        page.push_start(&mut query, "domain");
        page.push_order(&mut query, "domain");
        let rows = query.build().fetch_all(self.connection()).await?;
        rows.iter().map(domain).collect()
    }

    /// Removes a domain; says whether it was empty.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_domain(&mut self, id: DomainId) -> Result<bool, StoreError> {
        let removed = sqlx::query(
            "DELETE FROM domain WHERE id = $1
             AND NOT EXISTS (SELECT 1 FROM account WHERE domain = $1)
             AND NOT EXISTS (SELECT 1 FROM domain AS child WHERE child.parent = $1)",
        )
        .bind(id.to_string())
        .execute(self.connection())
        .await?;
        Ok(removed.rows_affected() > 0)
    }
}

fn domain(row: &SqliteRow) -> Result<Domain, StoreError> {
    Ok(Domain {
        id: id(row, "id")?,
        name: row.try_get("name")?,
        parent: maybe_id(row, "parent")?,
        lineage: lineage(row, "lineage")?,
        created_at: Moment(row.try_get("created_at")?),
    })
}

/// The ids in a lineage.
pub(crate) fn lineage(row: &SqliteRow, column: &str) -> Result<Vec<DomainId>, StoreError> {
    let text: &str = row.try_get(column)?;
    let ids = text.split_terminator('/').map(str::parse).collect::<Result<_, _>>();
    ids.map_err(|_| StoreError::Damaged(format!("column {column}")))
}
