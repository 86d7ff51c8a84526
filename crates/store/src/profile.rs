//! Profiles: settings for new machines (C23).

use crate::codec::{from_json, id, json};
use crate::sql::{Row, sql};
use crate::{Page, StoreError, Unit};
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

impl Unit {
    /// Adds a profile.
    ///
    /// # Errors
    /// When the database fails; so for all of these.
    pub fn add_profile(&mut self, profile: &Profile) -> Result<(), StoreError> {
        self.run(
            sql("INSERT INTO profile (id, name, settings, created_at) VALUES ($1, $2, $3, $4)")
                .bind(profile.id.to_string())
                .bind(&profile.name)
                .bind(json(&profile.settings))
                .bind(profile.created_at.0),
        )
    }

    /// The profile with this name or id.
    ///
    /// # Errors
    /// When the database fails.
    pub fn profile(&mut self, name_or_id: &str) -> Result<Option<Profile>, StoreError> {
        self.one(sql("SELECT * FROM profile WHERE name = $1 OR id = $1").bind(name_or_id), profile)
    }

    /// A page of profiles.
    ///
    /// # Errors
    /// When the database fails.
    pub fn profiles(&mut self, page: &Page) -> Result<Vec<Profile>, StoreError> {
        let mut query = sql("SELECT * FROM profile WHERE TRUE");
        page.push_start(&mut query, "profile");
        page.push_order(&mut query, "profile");
        self.all(&query, profile)
    }

    /// Changes a profile.
    ///
    /// # Errors
    /// When the database fails.
    pub fn change_profile(&mut self, profile: &Profile) -> Result<(), StoreError> {
        self.run(
            sql("UPDATE profile SET name = $1, settings = $2 WHERE id = $3")
                .bind(&profile.name)
                .bind(json(&profile.settings))
                .bind(profile.id.to_string()),
        )
    }

    /// Removes a profile.
    ///
    /// # Errors
    /// When the database fails.
    pub fn remove_profile(&mut self, id: ProfileId) -> Result<(), StoreError> {
        self.run(sql("DELETE FROM profile WHERE id = $1").bind(id.to_string()))
    }
}

fn profile(row: &Row<'_>) -> Result<Profile, StoreError> {
    Ok(Profile {
        id: id(row, "id")?,
        name: row.get("name")?,
        settings: from_json(row, "settings")?,
        created_at: Moment(row.get("created_at")?),
    })
}
