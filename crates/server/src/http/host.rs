//! `/v1/hosts`, `/v1/hypervisors`, `/v1/pools`, `/health`

use super::extract::{Body, By, Listed, Params, Path, Reply};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use std::sync::Arc;
use tintype_model::Refusal;
use tintype_model::refusal::Code;
use tintype_wire::rest::{
    Adopted, EditHost, EditHypervisor, EditPool, Health, Host, HostCheck, Hypervisor, List, Pool,
    Problem, Repaired,
};
use utoipa::IntoParams;

/// Lists hosts.
#[utoipa::path(get, path = "/v1/hosts", tag = "hosts",
    responses((status = 200, body = List<Host>), (status = "default", body = Problem)))]
pub(super) async fn list(State(app): State<Arc<App>>, By(caller): By) -> Reply<Listed<Host>> {
    Ok(Listed(List { items: vec![app.show_host(&caller).await?], next: None }))
}

/// Shows a host.
#[utoipa::path(get, path = "/v1/hosts/{id}", tag = "hosts",
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = Host), (status = "default", body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
) -> Reply<Json<Host>> {
    let host = app.show_host(&caller).await?;
    if host.name == text || host.id.to_string() == text {
        return Ok(Json(host));
    }
    Err(Refusal::new(Code::UnknownHost).detail(text).into())
}

/// Switches snapshots on or off for a host.
#[utoipa::path(patch, path = "/v1/hosts/{id}", tag = "hosts", request_body = EditHost,
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = Host), (status = "default", body = Problem)))]
pub(super) async fn edit(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
    Body(edit): Body<EditHost>,
) -> Reply<Json<Host>> {
    Ok(Json(app.edit_host(&caller, &text, &edit).await?))
}

/// What may be looked at before it is done.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Trying {
    /// Say what would be done, and do nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Compares what a host has with what is recorded, now.
#[utoipa::path(post, path = "/v1/hosts/{id}/check", tag = "hosts",
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = HostCheck), (status = "default", body = Problem)))]
pub(super) async fn check(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
) -> Reply<Json<HostCheck>> {
    Ok(Json(app.check_host(&caller, &text).await?))
}

/// Repairs what is not as it was recorded, as far as that can be decided here; nothing is deleted.
#[utoipa::path(post, path = "/v1/hosts/{id}/repair", tag = "hosts",
    params(("id" = String, Path, description = "Name or id"), Trying),
    responses((status = 200, body = List<Repaired>), (status = "default", body = Problem)))]
pub(super) async fn repair(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
    Params(trying): Params<Trying>,
) -> Reply<Listed<Repaired>> {
    Ok(Listed(app.repair_host(&caller, &text, trying.dry_run).await?))
}

/// Takes up virtual machines that a host has and the database does not know, or knows as they were
/// before, by the manifests beside their layers.
#[utoipa::path(post, path = "/v1/hosts/{id}/adopt", tag = "hosts",
    params(("id" = String, Path, description = "Name or id"), Trying),
    responses((status = 200, body = List<Adopted>), (status = "default", body = Problem)))]
pub(super) async fn adopt(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
    Params(trying): Params<Trying>,
) -> Reply<Listed<Adopted>> {
    Ok(Listed(app.adopt(&caller, &text, trying.dry_run).await?))
}

/// Lists the kinds of hypervisors.
#[utoipa::path(get, path = "/v1/hypervisors", tag = "hosts",
    responses((status = 200, body = List<Hypervisor>), (status = "default", body = Problem)))]
pub(super) async fn hypervisors(
    State(app): State<Arc<App>>,
    By(caller): By,
) -> Reply<Listed<Hypervisor>> {
    Ok(Listed(List { items: app.hypervisors(&caller).await?, next: None }))
}

/// Switches snapshots on or off for a kind of hypervisor.
#[utoipa::path(patch, path = "/v1/hypervisors/{kind}", tag = "hosts",
    request_body = EditHypervisor,
    params(("kind" = String, Path, description = "Such as qemu")),
    responses((status = 200, body = Hypervisor), (status = "default", body = Problem)))]
pub(super) async fn edit_hypervisor(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(kind): Path<String>,
    Body(edit): Body<EditHypervisor>,
) -> Reply<Json<Hypervisor>> {
    Ok(Json(app.edit_hypervisor(&caller, &kind, &edit).await?))
}

/// Lists pools.
#[utoipa::path(get, path = "/v1/pools", tag = "pools",
    responses((status = 200, body = List<Pool>), (status = "default", body = Problem)))]
pub(super) async fn pools(State(app): State<Arc<App>>, By(caller): By) -> Reply<Listed<Pool>> {
    Ok(Listed(List { items: vec![app.show_pool(&caller).await?], next: None }))
}

/// Shows a pool.
#[utoipa::path(get, path = "/v1/pools/{id}", tag = "pools",
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = Pool), (status = "default", body = Problem)))]
pub(super) async fn pool(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
) -> Reply<Json<Pool>> {
    let pool = app.show_pool(&caller).await?;
    if pool.name == text || pool.id.to_string() == text {
        return Ok(Json(pool));
    }
    Err(Refusal::new(Code::UnknownPool).detail(text).into())
}

/// Sets when it is told how full a pool is.
#[utoipa::path(patch, path = "/v1/pools/{id}", tag = "pools", request_body = EditPool,
    params(("id" = String, Path, description = "Name or id")),
    responses((status = 200, body = Pool), (status = "default", body = Problem)))]
pub(super) async fn edit_pool(
    State(app): State<Arc<App>>,
    By(caller): By,
    Path(text): Path<String>,
    Body(edit): Body<EditPool>,
) -> Reply<Json<Pool>> {
    Ok(Json(app.edit_pool(&caller, &text, &edit).await?))
}

/// Tells whether the server is well; no token is needed.
#[utoipa::path(get, path = "/health", tag = "health", security(()),
    responses((status = 200, body = Health), (status = "default", body = Problem)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}
