//! Keyset pages: a page begins after the last row of the one before, whatever was added since.

use std::str::FromStr;

/// The longest page.
const MOST: u32 = 1000;

/// Where a page begins and how long it is at most.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// After this row.
    pub after: Cursor,
    /// So many rows.
    pub limit: u32,
}

/// The place of a row in the order of creation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// When the row was created.
    pub created_at: i64,
    /// Its id.
    pub id: uuid::Uuid,
}

impl Page {
    /// A page of `limit` rows, or as many as are allowed.
    pub fn new(after: Option<Cursor>, limit: Option<u32>) -> Self {
        let start = Cursor { created_at: i64::MIN, id: uuid::Uuid::nil() };
        Self { after: after.unwrap_or(start), limit: limit.unwrap_or(100).clamp(1, MOST) }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}", self.created_at, self.id)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (created_at, id) = text.split_once('_').ok_or(())?;
        Ok(Self { created_at: created_at.parse().map_err(drop)?, id: id.parse().map_err(drop)? })
    }
}
