//! Profiles: settings for new machines (C23).

use crate::codec::{from_json, id, json};
use crate::{Page, StoreError, Unit};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use tintype_model::settings::Settings;
use tintype_model::{Moment, ProfileId};
use uuid::Uuid;

/// The profile of a machine that names none.
pub const DEFAULT_PROFILE: ProfileId = ProfileId(Uuid::from_u128(4));

/// A profile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Its id.
    pub id: ProfileId,
    /// Its name, unique.
    pub name: String,
    /// What new machines get.
    pub settings: Settings,
    /// When it was created.
    pub created_at: Moment,
}

impl Unit<'_> {
    /// Adds a profile.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub async fn add_profile(&mut self, profile: &Profile) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO profile (id, name, settings, created_at) VALUES ($1, $2, $3, $4)")
            .bind(profile.id.to_string())
            .bind(&profile.name)
            .bind(json(&profile.settings))
            .bind(profile.created_at.0)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// The profile with this name or id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn profile(&mut self, name_or_id: &str) -> Result<Option<Profile>, StoreError> {
        let row = sqlx::query("SELECT * FROM profile WHERE name = $1 OR id = $1")
            .bind(name_or_id)
            .fetch_optional(self.connection())
            .await?;
        row.as_ref().map(profile).transpose()
    }

    /// A page of profiles.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn profiles(&mut self, page: &Page) -> Result<Vec<Profile>, StoreError> {
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new("SELECT * FROM profile WHERE TRUE");
        page.push_start(&mut query, "profile");
        page.push_order(&mut query, "profile");
        let rows = query.build().fetch_all(self.connection()).await?;
        rows.iter().map(profile).collect()
    }

    /// Changes a profile.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn change_profile(&mut self, profile: &Profile) -> Result<(), StoreError> {
        sqlx::query("UPDATE profile SET name = $1, settings = $2 WHERE id = $3")
            .bind(&profile.name)
            .bind(json(&profile.settings))
            .bind(profile.id.to_string())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Removes a profile.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_profile(&mut self, id: ProfileId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM profile WHERE id = $1")
            .bind(id.to_string())
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

fn profile(row: &SqliteRow) -> Result<Profile, StoreError> {
    Ok(Profile {
        id: id(row, "id")?,
        name: row.try_get("name")?,
        settings: from_json(row, "settings")?,
        created_at: Moment(row.try_get("created_at")?),
    })
}
