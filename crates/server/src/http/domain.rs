//! `/v1/domains`

use super::extract::{Body, By, Listed, Paging, Params, Path, Reply, created, gone};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use tintype_wire::rest::{Domain, List, NewDomain, Problem};

/// Lists domains.
#[utoipa::path(get, path = "/v1/domains", tag = "domains", params(Paging),
    responses((status = 200, body = List<Domain>), (status = "default", body = Problem)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    By(caller): By,
    Params(paging): Params<Paging>,
) -> Reply<Listed<Domain>> {
    Ok(Listed(app.domains(&caller, &paging.page()?).await?))
}

/// Creates a domain.
#[utoipa::path(post, path = "/v1/domains", tag = "domains", request_body = NewDomain,
    responses((status = 201, body = Domain), (status = "default", body = Problem)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    By(caller): By,
    Body(new): Body<NewDomain>,
) -> Reply<Response> {
    let made = app.create_domain(&caller, new).await?;
    Ok(created(&format!("/v1/domains/{}", made.id), &made))
}

/// Shows a domain.
#[utoipa::path(get, path = "/v1/domains/{id}", tag = "domains",
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = Domain), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(id): Path<String>,
) -> Reply<Json<Domain>> {
    Ok(Json(app.domain(&caller, &id).await?))
}

/// Deletes a domain.
#[utoipa::path(delete, path = "/v1/domains/{id}", tag = "domains",
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 204), (status = "default", body = Problem)))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(id): Path<String>,
) -> Reply<Response> {
    app.delete_domain(&caller, &id).await?;
    Ok(gone())
}
