//! Limits as people write and read them.

use crate::size;
use tintype_wire::rest::{Limit, Unlimited};

/// A limit that was given as an option.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number(Limit);

impl From<Number> for Limit {
    fn from(Number(limit): Number) -> Self {
        limit
    }
}

/// A number, or `unlimited`.
pub(crate) fn number(text: &str) -> Result<Number, String> {
    let number = |text: &str| text.parse().map_err(|_| "a number, or unlimited".to_owned());
    parse(text, number)
}

/// A size, or `unlimited`.
pub(crate) fn bytes(text: &str) -> Result<Number, String> {
    parse(text, size::parse)
}

fn parse(text: &str, most: impl Fn(&str) -> Result<u64, String>) -> Result<Number, String> {
    if text == "unlimited" {
        return Ok(Number(Limit::Unlimited(Unlimited::Unlimited)));
    }
    Ok(Number(Limit::Most(most(text)?)))
}

/// A limit, for people.
pub(crate) fn show(limit: Limit) -> String {
    shown(limit, |most| most.to_string())
}

/// A limit of bytes, for people.
pub(crate) fn show_bytes(limit: Limit) -> String {
    shown(limit, size::show)
}

/// A limit of milliseconds, for people.
pub(crate) fn show_ms(limit: Limit) -> String {
    shown(limit, |most| format!("{most} ms"))
}

fn shown(limit: Limit, most: impl Fn(u64) -> String) -> String {
    match limit {
        Limit::Most(n) => most(n),
        Limit::Unlimited(_) => "unlimited".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, number, show, show_bytes};

    #[test]
    fn limits_are_numbers_or_a_word() {
        let shown = |text: &str| number(text).map(|limit| show(limit.into()));
        assert_eq!(shown("3"), Ok("3".to_owned()));
        assert_eq!(shown("unlimited"), Ok("unlimited".to_owned()));
        assert!(shown("many").is_err());
        assert_eq!(bytes("2GiB").map(|limit| show_bytes(limit.into())), Ok("2 GiB".to_owned()));
    }
}
