//! Statements: a text, the same for every database, and its values. They run where they are called.

use crate::{StoreError, Unit};
use rusqlite::types::{FromSql, Value, ValueRef};
use rusqlite::{CachedStatement, Connection};
use std::borrow::{Borrow, Cow};
use std::cell::Cell;

/// A statement with values for its `$1`, `$2` and so on.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    text: Cow<'static, str>,
    values: Vec<Value>,
}

/// A row of an answer.
pub(crate) struct Row<'a> {
    row: &'a rusqlite::Row<'a>,
    /// The names of its columns, looked up once for all rows.
    names: &'a [String],
    /// Where the column that was read last stands: the next is most often one of those after it.
    last: Cell<usize>,
}

/// What can stand in a column.
pub(crate) trait Bind {
    fn value(self) -> Value;
}

/// A statement without values yet.
pub(crate) fn sql(text: &'static str) -> Query {
    Query { text: Cow::Borrowed(text), values: Vec::new() }
}

impl Query {
    /// The value of the next of `$1`, `$2` and so on.
    pub(crate) fn bind(mut self, value: impl Bind) -> Self {
        self.values.push(value.value());
        self
    }

    /// Goes on with more text.
    pub(crate) fn push(&mut self, text: impl AsRef<str>) -> &mut Self {
        self.text.to_mut().push_str(text.as_ref());
        self
    }

    /// Goes on with a value.
    pub(crate) fn push_bind(&mut self, value: impl Bind) -> &mut Self {
        self.values.push(value.value());
        let place = format!("${}", self.values.len());
        self.push(place)
    }

    fn prepare<'a>(&self, connection: &'a Connection) -> rusqlite::Result<CachedStatement<'a>> {
        let mut statement = connection.prepare_cached(&self.text)?;
        for place in 1..=statement.parameter_count() {
            // SQLite counts places by where they stand first, not by their numbers.
            let number = statement.parameter_name(place).and_then(|name| name[1..].parse().ok());
            let value = number.and_then(|number: usize| self.values.get(number - 1));
            statement.raw_bind_parameter(place, value)?;
        }
        Ok(statement)
    }
}

impl Unit {
    /// Runs a statement; answers how many rows it changed.
    pub(crate) fn change(&mut self, query: impl Borrow<Query>) -> Result<usize, StoreError> {
        let query = query.borrow();
        Ok(query.prepare(self.connection())?.raw_execute()?)
    }

    /// Runs a statement.
    pub(crate) fn run(&mut self, query: impl Borrow<Query>) -> Result<(), StoreError> {
        self.change(query).map(drop)
    }

    /// Every row.
    pub(crate) fn all<T>(
        &mut self,
        query: impl Borrow<Query>,
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        self.each(query, |row| {
            found.push(read(row)?);
            Ok(true)
        })?;
        Ok(found)
    }

    /// The first row, if there is one.
    pub(crate) fn one<T>(
        &mut self,
        query: impl Borrow<Query>,
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut found = None;
        self.each(query, |row| {
            found = Some(read(row)?);
            Ok(false)
        })?;
        Ok(found)
    }

    /// Row after row, as long as it is told to go on.
    fn each(
        &mut self,
        query: impl Borrow<Query>,
        mut read: impl FnMut(&Row<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut statement = query.borrow().prepare(self.connection())?;
        let names: Vec<_> = statement.column_names().into_iter().map(str::to_owned).collect();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            if !read(&Row { row, names: &names, last: Cell::new(0) })? {
                break;
            }
        }
        Ok(())
    }
}

impl Row<'_> {
    /// What stands in a column.
    pub(crate) fn get<T: FromSql>(&self, column: &str) -> Result<T, StoreError> {
        Ok(self.row.get(self.place(column)?)?)
    }

    /// What stands in a column, as it is there.
    pub(crate) fn get_ref(&self, column: &str) -> Result<ValueRef<'_>, StoreError> {
        Ok(self.row.get_ref(self.place(column)?)?)
    }

    fn place(&self, column: &str) -> Result<usize, StoreError> {
        let last = self.last.get();
        let place = (last..self.names.len()).chain(0..last).find(|&at| self.names[at] == column);
        let place = place.ok_or_else(|| rusqlite::Error::InvalidColumnName(column.to_owned()))?;
        self.last.set(place);
        Ok(place)
    }
}

impl Bind for String {
    fn value(self) -> Value {
        Value::Text(self)
    }
}

impl Bind for &str {
    fn value(self) -> Value {
        Value::Text(self.to_owned())
    }
}

impl Bind for &String {
    fn value(self) -> Value {
        self.as_str().value()
    }
}

impl Bind for i64 {
    fn value(self) -> Value {
        Value::Integer(self)
    }
}

impl Bind for bool {
    fn value(self) -> Value {
        Value::Integer(i64::from(self))
    }
}

impl<T: Bind> Bind for Option<T> {
    fn value(self) -> Value {
        self.map_or(Value::Null, T::value)
    }
}
