//! Lists: all their pages, one after the other.

use crate::context::Context;
use crate::failure::Failure;
use serde::de::DeserializeOwned;
use tintype_wire::rest::List;

/// Everything that a list has; `path` has a query already.
pub(crate) async fn all<T: DeserializeOwned>(
    context: &Context,
    path: &str,
) -> Result<List<T>, Failure> {
    let mut found = List { items: Vec::new(), next: None };
    let mut after = String::new();
    loop {
        let page: List<T> = context.client.get(&format!("{path}{after}")).await?;
        found.items.extend(page.items);
        match page.next {
            Some(next) => after = format!("&after={}", super::escape(&next)),
            None => return Ok(found),
        }
    }
}
