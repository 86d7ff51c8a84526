//! Profiles, and the settings they hold for new virtual machines.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A number that is not to be passed, or `unlimited`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Limit {
    /// So many at most.
    Most(u64),
    /// As many as there is room for.
    Unlimited(Unlimited),
}

/// The word for no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unlimited {
    /// As many as there is room for.
    Unlimited,
}

/// Settings for new virtual machines.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Profile {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique.
    pub name: String,
    /// Whether users may work with snapshots.
    pub snapshots_allowed: bool,
    /// Whether users may save memory.
    pub memory_allowed: bool,
    /// How many snapshots a virtual machine may have.
    pub snapshot_limit: Limit,
    /// Whether a virtual machine cannot be deleted while it has snapshots.
    pub protect_snapshots: bool,
    /// How long a guest may stand still, in milliseconds, so that its memory is of the moment that
    /// was asked for; beyond that a snapshot is of a later moment, with a shorter pause.
    pub pause_bound_ms: Limit,
    /// When it was created.
    pub created_at: String,
}

/// A profile to be created; what is not given is as in the profile `default` of a new installation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProfile {
    /// Its name.
    pub name: String,
    /// Whether users may work with snapshots.
    #[serde(default, alias = "snapshots-allowed")]
    pub snapshots_allowed: Option<bool>,
    /// Whether users may save memory.
    #[serde(default, alias = "memory-allowed")]
    pub memory_allowed: Option<bool>,
    /// How many snapshots a virtual machine may have.
    #[serde(default, alias = "snapshot-limit")]
    pub snapshot_limit: Option<Limit>,
    /// Whether a virtual machine cannot be deleted while it has snapshots.
    #[serde(default, alias = "protect-snapshots")]
    pub protect_snapshots: Option<bool>,
    /// How long a guest may stand still, in milliseconds, so that its memory is of the moment that
    /// was asked for; beyond that a snapshot is of a later moment, with a shorter pause.
    #[serde(default, alias = "pause-bound-ms")]
    pub pause_bound_ms: Option<Limit>,
}

/// What to change about a profile; virtual machines that exist keep what they have.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditProfile {
    /// Another name.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether users may work with snapshots.
    #[serde(default, alias = "snapshots-allowed")]
    pub snapshots_allowed: Option<bool>,
    /// Whether users may save memory.
    #[serde(default, alias = "memory-allowed")]
    pub memory_allowed: Option<bool>,
    /// How many snapshots a virtual machine may have.
    #[serde(default, alias = "snapshot-limit")]
    pub snapshot_limit: Option<Limit>,
    /// Whether a virtual machine cannot be deleted while it has snapshots.
    #[serde(default, alias = "protect-snapshots")]
    pub protect_snapshots: Option<bool>,
    /// How long a guest may stand still, in milliseconds, so that its memory is of the moment that
    /// was asked for; beyond that a snapshot is of a later moment, with a shorter pause.
    #[serde(default, alias = "pause-bound-ms")]
    pub pause_bound_ms: Option<Limit>,
}
