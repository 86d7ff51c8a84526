//! Keyset pages: a page begins after the last row of the one before, whatever was added since.

use crate::codec::number;
use crate::sql::Query;
use std::str::FromStr;
use uuid::Uuid;

/// The longest page.
const MOST: u32 = 1000;

/// What rows are ordered by; ids decide among equals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// The oldest first.
    #[default]
    Oldest,
    /// The newest first.
    Newest,
    /// By name.
    Name,
    /// By name, backwards.
    NameBackwards,
}

/// Where a page begins and how long it is at most.
#[derive(Clone, Debug)]
pub struct Page {
    /// What rows are ordered by.
    pub order: Order,
    /// After this row; from the beginning without one.
    pub after: Option<Cursor>,
    /// So many rows.
    pub limit: u32,
}

/// The place of a row in the order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cursor {
    /// When the row was created, and its id.
    Time(i64, Uuid),
    /// The row's name, and its id.
    Name(String, Uuid),
}

impl Page {
    /// A page of `limit` rows, or as many as are allowed.
    pub fn new(order: Order, after: Option<Cursor>, limit: Option<u32>) -> Self {
        Self { order, after, limit: limit.unwrap_or(100).clamp(1, MOST) }
    }

    /// Whether `after` is the place of a row in this order.
    pub fn is_in_order(&self) -> bool {
        let by_name = matches!(self.order, Order::Name | Order::NameBackwards);
        self.after.as_ref().is_none_or(|after| by_name == matches!(after, Cursor::Name(..)))
    }

    /// Whether rows are in the order of time, forwards or backwards.
    pub(crate) fn is_by_time(&self) -> bool {
        matches!(self.order, Order::Oldest | Order::Newest)
    }

    /// Whether rows of one moment come before those of another, where they are in order of time.
    pub(crate) fn is_before(&self, one: i64, other: i64) -> bool {
        if self.order == Order::Newest { one > other } else { one < other }
    }

    /// The place of a row in this order.
    pub fn place(&self, created_at: i64, name: &str, id: Uuid) -> Cursor {
        match self.order {
            Order::Oldest | Order::Newest => Cursor::Time(created_at, id),
            Order::Name | Order::NameBackwards => Cursor::Name(name.to_owned(), id),
        }
    }

    /// What rows are ordered by, before their ids.
    pub(crate) fn column(&self) -> &'static str {
        match self.order {
            Order::Oldest | Order::Newest => "created_at",
            Order::Name | Order::NameBackwards => "name",
        }
    }

    /// Adds where the page begins to the conditions on the rows of `table`.
    pub(crate) fn push_start(&self, query: &mut Query, table: &str) {
        let comparison = match self.order {
            Order::Oldest | Order::Name => ">",
            Order::Newest | Order::NameBackwards => "<",
        };
        match &self.after {
            None => {}
            Some(Cursor::Time(created_at, id)) => {
                query.push(format!(" AND ({table}.created_at, {table}.id) {comparison} ("));
                query.push_bind(*created_at).push(", ").push_bind(id.to_string()).push(")");
            }
            Some(Cursor::Name(name, id)) => {
                query.push(format!(" AND ({table}.name, {table}.id) {comparison} ("));
                query.push_bind(name.clone()).push(", ").push_bind(id.to_string()).push(")");
            }
        }
    }

    /// Adds the order and the length.
    pub(crate) fn push_order(&self, query: &mut Query, table: &str) {
        self.push_order_of(query, &format!("{table}."));
    }

    /// Adds the order and the length to what several tables were put together to.
    pub(crate) fn push_bare_order(&self, query: &mut Query) {
        self.push_order_of(query, "");
    }

    fn push_order_of(&self, query: &mut Query, of: &str) {
        let column = self.column();
        let direction = match self.order {
            Order::Oldest | Order::Name => "",
            Order::Newest | Order::NameBackwards => " DESC",
        };
        query.push(format!(" ORDER BY {of}{column}{direction}, {of}id{direction} LIMIT "));
        query.push_bind(number(u64::from(self.limit)));
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Time(created_at, id) => write!(f, "t{created_at}_{id}"),
            Self::Name(name, id) => {
                write!(f, "n")?;
                name.bytes().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                write!(f, "_{id}")
            }
        }
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (place, id) = text.split_once('_').ok_or(())?;
        let id = id.parse().map_err(drop)?;
        match place.split_at_checked(1) {
            Some(("t", created_at)) => Ok(Self::Time(created_at.parse().map_err(drop)?, id)),
            Some(("n", hex)) if hex.is_ascii() && hex.len() % 2 == 0 => {
                let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).map_err(drop);
                let bytes: Vec<u8> =
                    (0..hex.len()).step_by(2).map(byte).collect::<Result<_, _>>()?;
                Ok(Self::Name(String::from_utf8(bytes).map_err(drop)?, id))
            }
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cursor;
    use uuid::Uuid;

    #[test]
    fn a_place_survives_being_written_down() {
        let id = Uuid::from_u128(7);
        for cursor in [Cursor::Time(-5, id), Cursor::Name("ä_ b%&".into(), id)] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "t", "t1", "x1_00000000-0000-0000-0000-000000000007", "n0_", "nÄ_x"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
