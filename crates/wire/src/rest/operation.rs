//! Operations.

use super::Problem;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// An operation.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Its id.
    pub id: Uuid,
    /// Such as `create-snapshot`.
    pub kind: String,
    /// `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// The virtual machine it holds.
    pub vm: Uuid,
    /// The snapshot it is about.
    pub snapshot: Option<Uuid>,
    /// From 0 to 1.
    pub progress: f64,
    /// What is being done.
    pub step: String,
    /// When it is expected to end.
    pub eta: Option<String>,
    /// Why it failed.
    pub error: Option<Fault>,
    /// Who asked for it.
    pub created_by: String,
    /// When it was accepted.
    pub created_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
}

/// Why an operation failed.
pub type Fault = Problem;

impl Operation {
    /// Whether it is over.
    pub fn has_ended(&self) -> bool {
        self.ended_at.is_some()
    }
}
