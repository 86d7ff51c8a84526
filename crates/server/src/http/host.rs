//! `/v1/hosts`, `/v1/pools`, `/health`

use super::extract::Reply;
use crate::app::App;
use axum::Json;
use axum::extract::{Path, State};
use std::sync::Arc;
use tintype_model::Refusal;
use tintype_model::refusal::Code;
use tintype_wire::rest::{Health, Host, List, Pool, Problem};

/// Lists hosts.
#[utoipa::path(get, path = "/v1/hosts", tag = "hosts",
    responses((status = 200, body = List<Host>), (status = "default", body = Problem)))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Reply<Json<List<Host>>> {
    Ok(Json(List { items: vec![app.show_host().await], next: None }))
}

/// Shows a host.
#[utoipa::path(get, path = "/v1/hosts/{id}", tag = "hosts",
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = Host), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
) -> Reply<Json<Host>> {
    let host = app.show_host().await;
    if host.name == text || host.id.to_string() == text {
        return Ok(Json(host));
    }
    Err(Refusal::new(Code::UnknownHost).detail(text).into())
}

/// Lists pools.
#[utoipa::path(get, path = "/v1/pools", tag = "pools",
    responses((status = 200, body = List<Pool>), (status = "default", body = Problem)))]
pub(super) async fn pools(State(app): State<Arc<App>>) -> Reply<Json<List<Pool>>> {
    Ok(Json(List { items: vec![app.show_pool().await?], next: None }))
}

/// Shows a pool.
#[utoipa::path(get, path = "/v1/pools/{id}", tag = "pools",
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = Pool), (status = "default", body = Problem)))]
pub(super) async fn pool(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
) -> Reply<Json<Pool>> {
    let pool = app.show_pool().await?;
    if pool.name == text || pool.id.to_string() == text {
        return Ok(Json(pool));
    }
    Err(Refusal::new(Code::UnknownPool).detail(text).into())
}

/// Tells whether the server is well.
#[utoipa::path(get, path = "/health", tag = "health",
    responses((status = 200, body = Health), (status = "default", body = Problem)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}
