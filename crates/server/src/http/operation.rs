//! `/v1/operations`

use super::extract::{By, Listed, Params, Path, Reply, duration, id, order, page};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use std::sync::Arc;
use tintype_model::refusal::Code;
use tintype_wire::rest::{List, Operation, Problem};
use utoipa::IntoParams;

/// Which operations to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Of this virtual machine, by name or id.
    vm: Option<String>,
    /// In this state.
    state: Option<String>,
    /// `created` (if not given) or `-created`.
    sort: Option<String>,
    /// What an earlier page said is next.
    after: Option<String>,
    /// Most items on the page: 1 to 1000, 100 if not given.
    limit: Option<u32>,
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Waiting {
    /// Answer when the operation has ended, or after this time, such as `30s`.
    wait: Option<String>,
}

/// Lists operations.
#[utoipa::path(get, path = "/v1/operations", tag = "operations", params(Filters),
    responses((status = 200, body = List<Operation>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    By(caller): By,
    Params(filters): Params<Filters>,
) -> Reply<Listed<Operation>> {
    let sort = order(filters.sort.as_deref().filter(|sort| !sort.ends_with("name")))?;
    let page = page(sort, filters.after.as_deref(), filters.limit)?;
    Ok(Listed(app.operations(&caller, filters.vm, filters.state, &page).await?))
}

/// Shows an operation, at once or when it has ended.
#[utoipa::path(get, path = "/v1/operations/{id}", tag = "operations",
    params(("id" = String, Path, description = "Id"), Waiting),
    responses((status = 200, body = Operation), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
    Params(waiting): Params<Waiting>,
) -> Reply<Json<Operation>> {
    let patience = duration(waiting.wait.as_deref())?;
    Ok(Json(app.operation(&caller, id(&text, Code::UnknownOperation)?, patience).await?))
}

/// Takes an operation back: one in line leaves it, one that has begun is undone.
#[utoipa::path(post, path = "/v1/operations/{id}/cancel", tag = "operations",
    params(("id" = String, Path, description = "Id"), Waiting),
    responses((status = 200, body = Operation), (status = "default", body = Problem)))]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
    Params(waiting): Params<Waiting>,
) -> Reply<Json<Operation>> {
    let patience = duration(waiting.wait.as_deref())?;
    let id = id(&text, Code::UnknownOperation)?;
    Ok(Json(app.cancel_operation(&caller, id, patience).await?))
}
