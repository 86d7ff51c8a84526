//! Events: what happened, and who did it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number, in the order of what happened.
    pub id: i64,
    /// When.
    pub at: String,
    /// Who did it; `tintype` for what was set up to happen by itself.
    pub user: String,
    /// What, such as `create-snapshot` with what it came to: `accepted`, `succeeded`, ….
    #[schema(example = "create-snapshot-succeeded")]
    pub kind: String,
    /// The account it is about.
    pub account: Option<Uuid>,
    /// The virtual machine it is about.
    pub vm: Option<Uuid>,
    /// The snapshot it is about.
    pub snapshot: Option<Uuid>,
    /// The operation it is about.
    pub operation: Option<Uuid>,
    /// What else is worth knowing.
    pub detail: String,
}
