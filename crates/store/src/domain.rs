//! Domains: a tree that accounts hang in.

use crate::codec::{id, maybe_id, text};
use crate::sql::{Row, sql};
use crate::{Page, StoreError, Unit};
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

impl Unit {
    /// Adds a domain.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub fn add_domain(&mut self, domain: &Domain) -> Result<(), StoreError> {
        let lineage: String = domain.lineage.iter().map(|id| format!("{id}/")).collect();
        self.run(
            sql("INSERT INTO domain (id, name, parent, lineage, created_at)
             VALUES ($1, $2, $3, $4, $5)")
            .bind(domain.id.to_string())
            .bind(&domain.name)
            .bind(domain.parent.map(|id| id.to_string()))
            .bind(lineage)
            .bind(domain.created_at.0),
        )
    }

    /// The domain with this id.
    ///
    /// # Errors
    /// When the database fails.
    pub fn domain(&mut self, id: DomainId) -> Result<Option<Domain>, StoreError> {
        self.one(sql("SELECT * FROM domain WHERE id = $1").bind(id.to_string()), domain)
    }

    /// The domain that all others are beneath.
    ///
    /// # Errors
    /// When the database fails.
    pub fn root_domain(&mut self) -> Result<Domain, StoreError> {
        let root = self.one(sql("SELECT * FROM domain WHERE parent IS NULL"), domain)?;
        root.ok_or_else(|| StoreError::Damaged("the root domain".to_owned()))
    }

    /// The domains with this name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn domains_named(&mut self, name: &str) -> Result<Vec<Domain>, StoreError> {
        self.all(sql("SELECT * FROM domain WHERE name = $1").bind(name), domain)
    }

    /// A page of domains that a caller sees; `own` is the caller's.
    ///
    /// # Errors
    /// When the database fails.
    pub fn domains(
        &mut self,
        reach: Reach,
        own: DomainId,
        page: &Page,
    ) -> Result<Vec<Domain>, StoreError> {
        let mut query = sql("SELECT domain.* FROM domain WHERE TRUE");
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
        self.all(&query, domain)
    }

    /// Removes a domain; says whether it was empty.
    ///
    /// # Errors
    /// When the database fails.
    pub fn remove_domain(&mut self, id: DomainId) -> Result<bool, StoreError> {
        let removed = self.change(
            sql("DELETE FROM domain WHERE id = $1
             AND NOT EXISTS (SELECT 1 FROM account WHERE domain = $1)
             AND NOT EXISTS (SELECT 1 FROM domain AS child WHERE child.parent = $1)")
            .bind(id.to_string()),
        )?;
        Ok(removed > 0)
    }
}

fn domain(row: &Row<'_>) -> Result<Domain, StoreError> {
    Ok(Domain {
        id: id(row, "id")?,
        name: row.get("name")?,
        parent: maybe_id(row, "parent")?,
        lineage: lineage(row, "lineage")?,
        created_at: Moment(row.get("created_at")?),
    })
}

/// The ids in a lineage.
pub(crate) fn lineage(row: &Row<'_>, column: &str) -> Result<Vec<DomainId>, StoreError> {
    let ids = text(row, column)?.split_terminator('/').map(str::parse).collect::<Result<_, _>>();
    ids.map_err(|_| StoreError::Damaged(format!("column {column}")))
}
