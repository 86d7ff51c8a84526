//! Domains, accounts, users and their tokens.

use super::Limit;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A domain: accounts, and domains beneath it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Domain {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The domain above; null for the root.
    pub parent: Option<Uuid>,
    /// When it was created.
    pub created_at: String,
}

/// A domain to be created.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDomain {
    /// Its name.
    pub name: String,
    /// The domain above, by name or id; the caller's own if not given.
    #[serde(default)]
    pub parent: Option<String>,
}

/// An account: what has virtual machines.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Account {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique.
    pub name: String,
    /// The domain it is in.
    pub domain: Uuid,
    /// How many snapshots it may have.
    pub snapshot_quota: Limit,
    /// How many bytes it may have in snapshots.
    pub bytes_quota: Limit,
    /// How many snapshots it has, but for safety snapshots and unavailable ones.
    pub snapshots: u64,
    /// What it has in frozen layers and memory files, with what is reserved for those being taken.
    pub bytes: u64,
    /// When it was created.
    pub created_at: String,
}

/// An account to be created.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// Its name.
    pub name: String,
    /// The domain it shall be in, by name or id; the caller's own if not given.
    #[serde(default)]
    pub domain: Option<String>,
    /// How many snapshots it may have; unlimited if not given.
    #[serde(default, alias = "snapshot-quota")]
    pub snapshot_quota: Option<Limit>,
    /// How many bytes it may have in snapshots; unlimited if not given.
    #[serde(default, alias = "bytes-quota")]
    pub bytes_quota: Option<Limit>,
}

/// What to change about an account.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditAccount {
    /// How many snapshots it may have.
    #[serde(default, alias = "snapshot-quota")]
    pub snapshot_quota: Option<Limit>,
    /// How many bytes it may have in snapshots.
    #[serde(default, alias = "bytes-quota")]
    pub bytes_quota: Option<Limit>,
}

/// A user: a person or a program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique.
    pub name: String,
    /// The account it belongs to.
    pub account: Uuid,
    /// `viewer`, `user`, `operator` or `administrator`.
    pub role: String,
    /// Whether it can sign in by password.
    pub password: bool,
    /// When it was created.
    pub created_at: String,
}

/// A user to be created.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Its name.
    pub name: String,
    /// The account it shall belong to, by name or id; the caller's own if not given.
    #[serde(default)]
    pub account: Option<String>,
    /// `viewer`, `user` (if not given), `operator` or `administrator`.
    #[serde(default)]
    pub role: Option<String>,
    /// Its password; without one it is given tokens.
    #[serde(default)]
    pub password: Option<String>,
}

/// What to change about a user.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditUser {
    /// Another role; an administrator may change it.
    #[serde(default)]
    pub role: Option<String>,
    /// Another password; it ends every token of the user but the one that is used for this.
    #[serde(default)]
    pub password: Option<String>,
}

/// A token, without what it is shown by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub user: Uuid,
    /// What it is for.
    pub name: String,
    /// `all`, `snapshots` or `read`.
    pub scope: String,
    /// When it was made.
    pub created_at: String,
    /// When it ends; null if it does not.
    pub expires_at: Option<String>,
}

/// A token to be made.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for.
    #[serde(default)]
    pub name: Option<String>,
    /// `all` (if not given), `snapshots` or `read`.
    #[serde(default)]
    pub scope: Option<String>,
    /// When it shall end (RFC 3339); never if not given.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// Whose it shall be, by name or id; the caller's own if not given.
    #[serde(default)]
    pub user: Option<String>,
}

/// A token that was just made: what it is shown by is told now and never again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct MadeToken {
    /// The token.
    #[serde(flatten)]
    pub token: Token,
    /// What to send as `Authorization: Bearer`.
    pub secret: String,
}

/// Who signs in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: String,
}
