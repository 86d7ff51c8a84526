//! Values as they stand in columns.

use crate::StoreError;
use crate::sql::Row;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::value::StrDeserializer;
use serde_json::Value;
use std::str::FromStr;

/// A structure as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our types are plain data")
}

/// An enumeration as its word.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        other => unreachable!("only enumerations without data are words: {other:?}"),
    }
}

pub(crate) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, StoreError> {
    serde_json::from_str(text(row, column)?).map_err(|_| damaged(column))
}

/// What row after row has the same of, read once as long as its text stays the same.
pub(crate) struct Same<T>(Option<(String, T)>);

impl<T: DeserializeOwned + Clone> Same<T> {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn read(&mut self, row: &Row<'_>, column: &str) -> Result<T, StoreError> {
        let text = text(row, column)?;
        if let Some((_, same)) = self.0.as_ref().filter(|(last, _)| last == text) {
            return Ok(same.clone());
        }
        let value: T = from_json(row, column)?;
        self.0 = Some((text.to_owned(), value.clone()));
        Ok(value)
    }
}

pub(crate) fn maybe_json<T: DeserializeOwned>(
    row: &Row<'_>,
    column: &str,
) -> Result<Option<T>, StoreError> {
    let text = maybe_text(row, column)?;
    text.map(|text| serde_json::from_str(text).map_err(|_| damaged(column))).transpose()
}

pub(crate) fn from_word<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, StoreError> {
    let word = text(row, column)?;
    T::deserialize(StrDeserializer::<serde::de::value::Error>::new(word))
        .map_err(|_| damaged(column))
}

pub(crate) fn id<T: FromStr>(row: &Row<'_>, column: &str) -> Result<T, StoreError> {
    text(row, column)?.parse().map_err(|_| damaged(column))
}

pub(crate) fn maybe_id<T: FromStr>(row: &Row<'_>, column: &str) -> Result<Option<T>, StoreError> {
    let text = maybe_text(row, column)?;
    text.map(|text| text.parse().map_err(|_| damaged(column))).transpose()
}

/// A number that is never negative.
pub(crate) fn count(row: &Row<'_>, column: &str) -> Result<u64, StoreError> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| damaged(column))
}

/// A number as a column holds it.
pub(crate) fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A text as it stands there.
pub(crate) fn text<'a>(row: &'a Row<'_>, column: &str) -> Result<&'a str, StoreError> {
    row.get_ref(column)?.as_str().map_err(|_| damaged(column))
}

fn maybe_text<'a>(row: &'a Row<'_>, column: &str) -> Result<Option<&'a str>, StoreError> {
    row.get_ref(column)?.as_str_or_null().map_err(|_| damaged(column))
}

fn damaged(column: &str) -> StoreError {
    StoreError::Damaged(format!("column {column}"))
}
