//! `/v1/operations`

use super::extract::{Params, Reply, duration, id, page};
use super::vm::Waiting;
use crate::app::App;
use axum::Json;
use axum::extract::{Path, State};
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
    /// What an earlier page said is next.
    after: Option<String>,
    /// Most items on the page: 1 to 1000, 100 if not given.
    limit: Option<u32>,
}

/// Lists operations.
#[utoipa::path(get, path = "/v1/operations", tag = "operations", params(Filters),
    responses((status = 200, body = List<Operation>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(filters): Params<Filters>,
) -> Reply<Json<List<Operation>>> {
    let page = page(filters.after.as_deref(), filters.limit)?;
    Ok(Json(app.operations(filters.vm, filters.state, page).await?))
}

/// Shows an operation, at once or when it has ended.
#[utoipa::path(get, path = "/v1/operations/{id}", tag = "operations",
    params(("id" = String, Path, description = "Id"), Waiting),
    responses((status = 200, body = Operation), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    Params(waiting): Params<Waiting>,
) -> Reply<Json<Operation>> {
    let patience = duration(waiting.wait.as_deref())?;
    Ok(Json(app.operation(id(&text, Code::UnknownOperation)?, patience).await?))
}

/// Takes back an operation that has not begun.
#[utoipa::path(post, path = "/v1/operations/{id}/cancel", tag = "operations",
    params(("id" = String, Path, description = "Id")),
    responses((status = 200, body = Operation), (status = "default", body = Problem)))]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
) -> Reply<Json<Operation>> {
    Ok(Json(app.cancel_operation(id(&text, Code::UnknownOperation)?).await?))
}
