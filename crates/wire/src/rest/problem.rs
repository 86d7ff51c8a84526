//! The problem envelope (RFC 9457).

use serde::{Deserialize, Serialize};
use std::fmt;
use tintype_model::Refusal;
use tintype_model::refusal::{Class, Code};
use utoipa::ToSchema;
use uuid::Uuid;

/// Why something was not done, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What was refused or failed; each code has a page in the documentation.
    #[schema(example = "vm-busy")]
    pub code: String,
    /// One line.
    pub title: String,
    /// What exactly.
    pub detail: String,
    /// What to do.
    pub hint: String,
    /// Ids of what stands in the way.
    pub blocking: Vec<Uuid>,
}

/// The HTTP status for a kind of no.
fn status(class: Class) -> u16 {
    match class {
        Class::Invalid => 400,
        Class::Unauthorized => 401,
        Class::Forbidden => 403,
        Class::Missing => 404,
        Class::Method => 405,
        Class::Conflict => 409,
        Class::TooLarge => 413,
        Class::TooMany => 429,
        Class::Failed => 500,
    }
}

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        Self {
            status: status(refusal.code.class()),
            code: refusal.code.as_str().to_owned(),
            title: refusal.code.title().to_owned(),
            detail: refusal.detail.clone(),
            hint: refusal.hint.clone(),
            blocking: refusal.blocking.clone(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::from(&refusal)
    }
}

impl Problem {
    /// A problem that is ours, not the caller's.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::from(Refusal::new(Code::Internal).detail(detail))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
